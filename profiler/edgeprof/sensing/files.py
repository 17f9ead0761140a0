"""Read the small text files of sysfs and procfs: they are opened once and read with ``pread``, which never raises here.

A sysfs file gives a fresh value at every ``pread`` from offset 0 of an open descriptor, which saves opening it for each
reading. A device that was removed answers ENODEV from then on. A file that was replaced (a simulated tree, a reloaded
driver) is opened again, with growing pauses, so that a source that stays away costs almost nothing.
"""

from __future__ import annotations

import errno
import math
import os
import time
from typing import TYPE_CHECKING

from edgeprof.sensing.sensor import Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence
    from pathlib import Path

    from edgeprof.provenance import Provenance
    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Channel

#: Errors after which a descriptor is useless, because the device or the file behind it has gone.
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EBADF, errno.ENOENT})
#: First and longest pause before a file that went away is tried again (s).
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
#: A row that took less than this (s) is read without a time-stamp for each of its values.
_QUICK_S = 2e-4
#: The most bytes of a file with one number.
_LENGTH = 64
#: After this many readings it is checked that the open file is still the one in the directory.
_CHECK_EVERY = 64


class TextFile:
    """One small file, kept open.

    Args:
        path: The path of the file.
        length: The most bytes to read.
    """

    __slots__ = ("_due", "_fd", "_length", "_pause_s", "_retry_at", "path")

    def __init__(self, path: Path | str, length: int = _LENGTH) -> None:
        self.path = os.fspath(path)
        self._length = length
        self._fd = -1
        self._due = _CHECK_EVERY
        self._pause_s = _FIRST_PAUSE_S
        self._retry_at = 0.0

    def open(self) -> None:
        """Open the file now; a failure shows in the readings that follow."""
        if self._fd < 0:
            try:
                self._fd = os.open(self.path, os.O_RDONLY)
            except OSError:
                self._postpone()
            else:
                self._pause_s, self._due = _FIRST_PAUSE_S, _CHECK_EVERY

    def read(self) -> bytes | None:
        """The content; None if it cannot be read now."""
        if self._fd < 0 and not self._reopen():
            return None
        self._due -= 1
        if self._due <= 0 and not self._still_there():
            return None
        try:
            return os.pread(self._fd, self._length, 0)
        except OSError as error:
            if error.errno in _GONE:
                self.close()
                self._postpone()
            return None

    @property
    def descriptor(self) -> int:
        """The open descriptor, checked to be that of the file in the directory; negative if there is none."""
        return self._fd if self._fd >= 0 and self._still_there() else -1

    def close(self) -> None:
        """Close the descriptor; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _reopen(self) -> bool:
        if time.monotonic() < self._retry_at:
            return False
        self.open()
        return self._fd >= 0

    def _postpone(self) -> None:
        self._retry_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _still_there(self) -> bool:
        # A file on an ordinary file system stays readable after it was deleted, with the last value for ever.
        self._due = _CHECK_EVERY
        try:
            if os.fstat(self._fd).st_nlink > 0:
                return True
        except OSError:
            pass
        self.close()
        return self._reopen()


class NumberFile(TextFile):
    """A file with one number.

    Args:
        path: The path of the file.
        scale: The factor to the SI unit, such as 1e-3 for mV.
    """

    __slots__ = ("scale",)

    def __init__(self, path: Path | str, scale: float = 1.0) -> None:
        super().__init__(path)
        self.scale = scale

    def number(self) -> float:
        """The value in the SI unit; NaN if it cannot be read or is no number."""
        if self._fd >= 0 and self._due > 1:
            # The usual case without a further call, because this runs some hundred times a second with cold caches.
            self._due -= 1
            try:
                return int(os.pread(self._fd, self._length, 0)) * self.scale
            except (OSError, ValueError):
                pass  # the careful way below handles the error
        text = self.read()
        if text is None:
            return math.nan
        try:
            return int(text) * self.scale
        except ValueError:
            return _parse_decimal(text) * self.scale


def _parse_decimal(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


class FileSensor(Sensor):
    """A sensor whose every channel is one file with one number.

    Args:
        name: The name of the source.
        channels: The channels in the order of the row.
        files: One file for each channel.
        unavailable: Channels that exist but cannot be read.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[Channel],
        files: Sequence[NumberFile],
        unavailable: Sequence[Channel] = (),
    ) -> None:
        self.name = name
        self._channels = tuple(channels)
        self._files = tuple(files)
        self._unavailable = tuple(unavailable)
        self._is_quick = False
        self._readers: list[tuple[int, Callable[[], float]]] = [(i, f.number) for i, f in enumerate(self._files)]
        # Descriptors and scales, valid for ``_plain_rows`` more rows, with which a row is read without a call per file.
        self._plain: list[tuple[int, int, float]] = []
        self._plain_rows = self._careful_rows = 0

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    @property
    def unavailable(self) -> Sequence[Channel]:
        return self._unavailable

    def open(self) -> None:
        for file in self._files:
            file.open()

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        clock = time.monotonic
        begin = before = clock()
        if self._is_quick:
            # All values have the time of the row, which the sampler writes.
            if self._careful_rows > 0 or not self._read_plain(values):
                self._careful_rows -= 1
                for index, number in self._readers:
                    values[index] = number()
            self._is_quick = clock() - begin < _QUICK_S
            return
        for index, number in self._readers:
            values[index] = number()
            after = clock()  # one time-stamp per file: the end of one read is the start of the next
            times[index] = 0.5 * (before + after)
            before = after
        self._is_quick = before - begin < _QUICK_S

    def _read_plain(self, values: MutableSequence[float]) -> bool:
        """Read a row by its descriptors, and return whether that succeeded; otherwise rows are read carefully for a
        while.
        """
        if self._plain_rows <= 0:
            self._plain = [(i, file.descriptor, file.scale) for i, file in enumerate(self._files)]
            self._plain_rows = _CHECK_EVERY
        self._plain_rows -= 1
        pread = os.pread
        try:
            for index, descriptor, scale in self._plain:
                values[index] = int(pread(descriptor, _LENGTH, 0)) * scale
        except (OSError, ValueError):
            self._plain_rows, self._careful_rows = 0, _CHECK_EVERY
            return False
        return True

    def close(self) -> None:
        self._plain_rows = 0
        for file in self._files:
            file.close()


def text_of(path: Path) -> str | None:
    """A file's text without trailing blanks and NULs (device tree strings end with one); None if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace").rstrip("\0\n\t ").replace("\0", "\n")
    except OSError:
        return None


def number_of(path: Path, scale: float = 1.0) -> float | None:
    """A file's number in the SI unit; None if it cannot be read or is no number."""
    file = NumberFile(path, scale)
    try:
        value = file.number()
    finally:
        file.close()
    return None if math.isnan(value) else value


def listing(directory: Path) -> list[Path]:
    """The entries of a directory in numeric order (hwmon2 before hwmon10); empty if it cannot be listed."""
    try:
        return sorted(directory.iterdir(), key=lambda path: (len(path.name), path.name))
    except OSError:
        return []


def trouble(path: Path) -> tuple[str, str | None] | None:
    """Why a file cannot be read, and a remedy; None if it can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            text = os.pread(descriptor, 64, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        return _explain_error(path, error)
    if math.isnan(_parse_decimal(text.split()[0] if text.split() else b"")):
        return f"{path.name} holds no number: {text[:20]!r}", None
    return None


def _explain_error(path: Path, error: OSError) -> tuple[str, str | None]:
    code = error.errno
    if code in {errno.EACCES, errno.EPERM}:
        return f"{path} is not readable by this user", f"sudo chmod a+r {path}"
    if code == errno.ENODATA:
        return "disabled by the board", None
    if code in {errno.EAGAIN, errno.EINVAL}:
        return "powered off just now", None
    if code == errno.ENOENT:
        return f"{path.name} is missing", None
    return f"reading {path.name} fails: {error.strerror}", None


def provenance(roots: Roots, live: Provenance = "measured") -> Provenance:
    """The provenance of readings below these roots: those of a virtual board are always simulated."""
    return "simulated" if roots.is_simulated else live
