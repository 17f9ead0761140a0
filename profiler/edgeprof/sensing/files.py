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

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.provenance import Provenance
    from edgeprof.roots import Roots

#: Errors after which a descriptor is useless, because the device or the file behind it has gone.
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EBADF, errno.ENOENT})
#: First and longest pause before a file that went away is tried again (s).
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
#: The most bytes of a file with one number.
NUMBER_LENGTH = 64
#: After this many readings it is checked that the open file is still the one in the directory.
CHECK_EVERY = 64


class TextFile:
    """One small file, kept open.

    Args:
        path: The path of the file.
        length: The most bytes to read.
    """

    __slots__ = ("_due", "_fd", "_length", "_pause_s", "_retry_at", "path")

    def __init__(self, path: Path | str, length: int = NUMBER_LENGTH) -> None:
        self.path = os.fspath(path)
        self._length = length
        self._fd = -1
        self._due = CHECK_EVERY
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
                self._pause_s, self._due = _FIRST_PAUSE_S, CHECK_EVERY

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
        self._due = CHECK_EVERY
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
