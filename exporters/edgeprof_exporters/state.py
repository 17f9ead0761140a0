"""Counters that survive restarts: a small file, and the rule that says when its content can be trusted.

Prometheus assumes that a counter that falls has restarted at zero, and adds its whole value. Therefore counters may
resume only from a state that is no older than the last scrape:

- A daemon that ends in order writes its state after its last answer and marks it ``clean``. It is resumed once.
- A daemon that is killed leaves a copy in the runtime directory (memory, not flash), which is written before each
  scrape is answered and every few seconds. It is resumed in the same boot.
- After a power cut there is neither, and counters begin at zero, which every client of Prometheus handles.
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
#: Exceptions of resuming from a state with the right form but wrong values.
NOT_OURS = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
#: Largest state file (bytes); a larger one was not written by edgeprof.
_MOST = 4 << 20
#: Size of each of the two places of the runtime copy (bytes), and the head before its text: number, length, CRC-32.
_PLACE = 1 << 20
_HEAD = struct.Struct("<QII")


def boot_id() -> str:
    """The id of this boot; empty if the kernel does not provide it."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
        return file.read().strip()
    return ""


class StateFile:
    """The state on disk.

    Args:
        path: Path of the permanent file; None: nothing is kept over a reboot.
        copy: Path of the runtime copy; None if there is no runtime directory.
    """

    def __init__(self, path: Path | None, copy: Path | None) -> None:
        self.path = path
        self.copy = Copy(copy) if path is not None and copy is not None else None
        self._lock = threading.Lock()
        self._boot = boot_id()
        self._failed = False

    def load(self) -> tuple[dict[str, Any] | None, bool]:
        """Load the state to resume from (None if there is none), and whether it is of this boot.

        A clean state is marked as used, so that it is not resumed twice: after a crash it would be too old.
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
        """Write the permanent file durably; if the disk is full or gone, that is logged once and nothing else fails."""
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
            self.save_runtime(state)  # so that a restart in this boot can resume nevertheless
        else:
            if self._failed:
                event(logging.INFO, "the state is kept again", file=str(self.path))
            self._failed = False
            if clean and self.copy is not None:
                self.copy.forget()

    def save_runtime(self, state: dict[str, Any]) -> None:
        """Write the copy in the runtime directory; if that fails, counters begin at zero after a crash."""
        if self.copy is not None:
            with self._lock:
                self.copy.save(self._encode_state(state, clean=False))

    def _take(self) -> None:
        """Mark the permanent state as used, so that it is no longer clean."""
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
    """Make the state file for a setting.

    Args:
        setting: A path; empty: none; ``auto``: in systemd's state directory, if there is one.
        runtime: The runtime directory.

    Raises:
        InputError: the path cannot be a file; it is checked now, before a restart needs it.
    """
    path = Path(setting) if setting else None
    if setting == "auto":
        directory = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        path = Path(directory) / "state.json" if directory else None
    if path is not None and not os.path.isdir(path.parent):  # noqa: PTH112 - Path raises where it may not look
        raise InputError(
            f"the state file {path} cannot be written: {path.parent} is not a directory",
            remedy="Create it, or choose another file with --state.file.",
        )
    if path is not None and os.path.lexists(path) and not os.path.isfile(path):  # noqa: PTH113 - see above
        raise InputError(
            f"the state file {path} is not a regular file",
            remedy="Choose another file with --state.file, or an empty name for none.",
        )
    if path is None or runtime is None:
        return StateFile(path, None)
    # Two daemons may share the directory, so the name of a copy depends on the file that it is a copy of.
    return StateFile(path, runtime / f"state-{zlib.crc32(os.fsencode(path.absolute())):08x}.copy")


class Copy:
    """Two places in one open file, written in turns: one system call per scrape, and one place is always complete.

    What the kernel has accepted survives the process, though not the machine.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._number = 0

    def load(self) -> dict[str, Any] | None:
        """Load the newer of the complete places; None if there is none."""
        copies: list[tuple[int, bytes]] = []
        with suppress(OSError):
            # Only a regular file: at a FIFO the daemon would wait until somebody writes to it.
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
        """Write over the older of the two places; if that fails, remove the copy, which would be too old."""
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
        """Close the file, and leave its content unchanged."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def forget(self) -> None:
        """Close and remove the file."""
        self.close()
        with suppress(OSError):
            self._path.unlink()


def _saved_time(content: dict[str, Any]) -> float:
    return float(content["monotonic"])


def _read(path: Path | None) -> dict[str, Any] | None:
    """Read the content of a file; None if it does not exist or is not complete."""
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
