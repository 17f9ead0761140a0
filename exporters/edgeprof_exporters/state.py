"""Counters over restarts: a small file, replaced whole or not at all, and the rule when it may be believed.

Prometheus takes a counter that falls for one that began again at zero, and adds all of it. So counters may go on only
from a state that is no older than the last scrape:

- A daemon that ends in order writes its state after its last answer and marks it ``clean``. It is resumed, once.
- A daemon that is killed leaves a copy in the runtime directory (memory, not flash), written before each scrape is
  answered and every few seconds. It is resumed in the same boot.
- After a power cut there is neither, and counters begin at zero, which every client of Prometheus knows to read.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgeprof_exporters.logs import event

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = "edgeprof.exporter-state/1"
#: A larger file is none of ours (bytes).
_MOST = 4 << 20


def boot_id() -> str:
    """Of this boot; empty where the kernel does not say."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
        return file.read().strip()
    return ""


class StateFile:
    """The state on disk.

    Args:
        path: The lasting file; None keeps nothing over a reboot.
        copy: The runtime copy; None where there is no runtime directory.
    """

    def __init__(self, path: Path | None, copy: Path | None) -> None:
        self.path = path
        self.copy = copy if path is not None else None
        self._lock = threading.Lock()
        self._boot = boot_id()
        self._failed = False

    def load(self) -> tuple[dict[str, Any] | None, bool]:
        """The state to go on from, None for none, and whether it is of this boot.

        A clean state is marked as taken, so that it is not resumed twice: after a crash it would be too old.
        """
        copy, kept = _read(self.copy), _read(self.path)
        if copy is not None and copy["boot"] == self._boot and self._boot:
            newest = max((s for s in (copy, kept) if s is not None and s["boot"] == self._boot), key=_saved)
            self._take()
            return newest["state"], True
        if kept is None:
            return None, False
        same = kept["boot"] == self._boot and bool(self._boot)
        if kept["clean"] is not True:
            event(logging.WARNING, "the last daemon did not end in order; counters begin at zero", file=str(self.path))
            return None, False
        self._take()
        return kept["state"], same

    def save(self, state: dict[str, Any], *, clean: bool) -> None:
        """Write the lasting file, durably; a disk that is full or gone is logged, once, and costs nothing else."""
        if self.path is None:
            return
        try:
            self._write(self.path, state, clean=clean, durable=True)
        except OSError as error:
            if not self._failed:
                event(
                    logging.ERROR, "the state cannot be kept", file=str(self.path), error=error.strerror or str(error)
                )
            self._failed = True
        else:
            self._failed = False
        if clean and self.copy is not None:
            with suppress(OSError):
                self.copy.unlink()

    def save_runtime(self, state: dict[str, Any]) -> None:
        """Write the copy in the runtime directory; where that cannot be, a crash begins at zero."""
        if self.copy is None:
            return
        try:
            self._write(self.copy, state, clean=False, durable=False)
        except OSError:
            with suppress(OSError):  # an old copy must not be believed
                self.copy.unlink()

    def _take(self) -> None:
        """The lasting state is in use from now on: no longer clean."""
        kept = _read(self.path)
        if kept is not None and kept["clean"] and self.path is not None:
            try:
                self._write(self.path, kept["state"], clean=False, durable=True)
            except OSError:
                with suppress(OSError):
                    self.path.unlink()

    def _write(self, path: Path, state: dict[str, Any], *, clean: bool, durable: bool) -> None:
        content = {"schema": _SCHEMA, "boot": self._boot, "clean": clean, "monotonic": time.monotonic(), "state": state}
        data = json.dumps(content, separators=(",", ":")).encode()
        temporary = f"{path}.new"
        with self._lock:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(descriptor, view) :]
                    if durable:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.replace(temporary, path)  # noqa: PTH105
            except OSError:
                with suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108
                raise
            if durable:
                with suppress(OSError):
                    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        os.fsync(directory)
                    finally:
                        os.close(directory)


def _saved(content: dict[str, Any]) -> float:
    return float(content["monotonic"])


def _read(path: Path | None) -> dict[str, Any] | None:
    """The file's content, None where it is not there or not whole."""
    if path is None:
        return None
    try:
        text = path.read_bytes() if path.stat().st_size <= _MOST else b""
        content = json.loads(text)
        good = content["schema"] == _SCHEMA and isinstance(content["state"], dict)
        good = good and isinstance(content["boot"], str) and isinstance(content["clean"], bool)
        good = good and isinstance(content["monotonic"], float)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        good, content = False, {"why": error}
    if not good:
        why = str(content.get("why", "it has another form"))
        event(logging.WARNING, "the state cannot be read; counters begin at zero", file=str(path), error=why)
        return None
    return dict(content)
