"""Counters over restarts: a small file, replaced whole or not at all, and the rule when it may be believed.

Prometheus takes a counter that falls for one that began again at zero, and adds all of it. So counters may go on only
from a state that is no older than the last scrape:

- A daemon that ends in order writes its state after its last answer and marks it ``clean``. It is resumed, once.
- A daemon that is killed leaves a copy in the runtime directory (memory, not flash), written before each scrape is
  answered and every few seconds. It is resumed in the same boot.
- After a power cut there is neither, and counters begin at zero, which every client of Prometheus knows to read.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import struct
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeprof.errors import InputError
from edgeprof_exporters.logs import event

_SCHEMA = "edgeprof.exporter-state/1"
#: What resuming from a state of the right form with wrong values raises.
NOT_OURS = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
#: A larger file is none of ours (bytes).
_MOST = 4 << 20
#: Each of the two places of the runtime copy (bytes), and what stands before its text: number, length, CRC-32.
_PLACE = 1 << 20
_HEAD = struct.Struct("<QII")


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
        self.copy = Copy(copy) if path is not None and copy is not None else None
        self._lock = threading.Lock()
        self._boot = boot_id()
        self._failed = False

    def load(self) -> tuple[dict[str, Any] | None, bool]:
        """The state to go on from, None for none, and whether it is of this boot.

        A clean state is marked as taken, so that it is not resumed twice: after a crash it would be too old.
        """
        copy = self.copy.load() if self.copy is not None else None
        saved = _read(self.path)
        if copy is not None and copy["boot"] == self._boot and self._boot:
            newest = max((s for s in (copy, saved) if s is not None and s["boot"] == self._boot), key=_saved_time)
            self._take()
            return newest["state"], True
        if saved is None:
            return None, False
        same = saved["boot"] == self._boot and bool(self._boot)
        if saved["clean"] is not True:
            event(logging.WARNING, "the last daemon did not end in order; counters begin at zero", file=str(self.path))
            return None, False
        self._take()
        return saved["state"], same

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
            self.save_runtime(state)  # from which a restart in this boot goes on all the same
        else:
            if self._failed:
                event(logging.INFO, "the state is kept again", file=str(self.path))
            self._failed = False
            if clean and self.copy is not None:
                self.copy.forget()

    def save_runtime(self, state: dict[str, Any]) -> None:
        """Write the copy in the runtime directory; where that cannot be, a crash begins at zero."""
        if self.copy is not None:
            with self._lock:
                self.copy.save(self._encode_state(state, clean=False))

    def _take(self) -> None:
        """The lasting state is in use from now on: no longer clean."""
        saved = _read(self.path)
        if saved is not None and saved["clean"] and self.path is not None:
            try:
                self._write(self.path, saved["state"], clean=False, durable=True)
            except OSError:
                with suppress(OSError):
                    self.path.unlink()

    def _encode_state(self, state: dict[str, Any], *, clean: bool) -> bytes:
        content = {"schema": _SCHEMA, "boot": self._boot, "clean": clean, "monotonic": time.monotonic(), "state": state}
        return json.dumps(content, separators=(",", ":")).encode()

    def _write(self, path: Path, state: dict[str, Any], *, clean: bool, durable: bool) -> None:
        data = self._encode_state(state, clean=clean)
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


def state_file(setting: str, runtime: Path | None) -> StateFile:
    """The state where a setting wants it.

    Args:
        setting: A path; empty: none; ``auto``: in systemd's state directory, if there is one.
        runtime: The runtime directory.

    Raises:
        InputError: it cannot be a file there; better known now than at the restart that needs it.
    """
    path = Path(setting) if setting else None
    if setting == "auto":
        directory = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        path = Path(directory) / "state.json" if directory else None
    if path is not None and not os.path.isdir(path.parent):  # noqa: PTH112 - Path raises where it may not look
        raise InputError(
            f"the state file {path} cannot be kept: {path.parent} is no directory",
            remedy="Make it, or choose another file with --state.file.",
        )
    if path is not None and os.path.lexists(path) and not os.path.isfile(path):  # noqa: PTH113 - see above
        raise InputError(
            f"the state file {path} is no regular file", remedy="Choose another with --state.file; none: empty."
        )
    if path is None or runtime is None:
        return StateFile(path, None)
    # Two daemons may share the directory: each has a copy of its own, by the file that it is a copy of.
    return StateFile(path, runtime / f"state-{zlib.crc32(os.fsencode(path.absolute())):08x}.copy")


class Copy:
    """Two places in one open file, written in turns: one system call for each scrape, and always one of them whole.

    What the kernel took survives the process, if not the machine.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._number = 0

    def load(self) -> dict[str, Any] | None:
        """The newer of the two that is whole."""
        copies: list[tuple[int, bytes]] = []
        with suppress(OSError):
            # A FIFO in its place would keep the daemon waiting for somebody who writes.
            data = self._path.read_bytes() if self._path.is_file() else b""
            for start in (0, _PLACE):
                place = data[start : start + _PLACE]
                if len(place) >= _HEAD.size:
                    number, length, check = _HEAD.unpack_from(place)
                    text = place[_HEAD.size : _HEAD.size + length]
                    if len(text) == length and zlib.crc32(text) == check and length:
                        copies.append((number, text))
        return _content(max(copies)[1], self._path) if copies else None

    def save(self, text: bytes) -> None:
        """Write it over the older of the two; what cannot be written leaves no old copy that could be believed."""
        self._number += 1
        try:
            if _HEAD.size + len(text) > _PLACE:
                raise OSError(errno.EFBIG, "too large")  # noqa: TRY301 - it ends as every other failure does
            if self._fd < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                self._fd = os.open(self._path, flags, 0o600)
            record = _HEAD.pack(self._number, len(text), zlib.crc32(text)) + text
            if os.pwrite(self._fd, record, (self._number % 2) * _PLACE) != len(record):
                raise OSError(errno.ENOSPC, "no space")  # noqa: TRY301 - see above
        except OSError:
            self.forget()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and leave it as it is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def forget(self) -> None:
        """Remove it."""
        self.close()
        with suppress(OSError):
            self._path.unlink()


def _saved_time(content: dict[str, Any]) -> float:
    return float(content["monotonic"])


def _read(path: Path | None) -> dict[str, Any] | None:
    """The file's content, None where it is not there or not whole."""
    if path is None:
        return None
    try:
        text = path.read_bytes() if path.stat().st_size <= _MOST else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        event(logging.WARNING, "the state cannot be read; counters begin at zero", file=str(path), error=str(error))
        return None
    return _content(text, path)


def _content(text: bytes, path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
        good = content["schema"] == _SCHEMA and isinstance(content["state"], dict)
        good = good and isinstance(content["boot"], str) and isinstance(content["clean"], bool)
        good = good and isinstance(content["monotonic"], float)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        good, content = False, {"why": error}
    if not good:
        why = str(content.get("why", "it has another form"))
        event(logging.WARNING, "the state cannot be read; counters begin at zero", file=str(path), error=why)
        return None
    return dict(content)
