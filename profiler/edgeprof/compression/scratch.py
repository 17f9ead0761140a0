"""Temporary folders for unfinished files. They are removed at the end, or by the next run if this one is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def scratch(purpose: str, inside: Path | None = None) -> Iterator[Path]:
    """Create a folder for this process only, after removing folders of the same purpose that killed runs left behind.

    Args:
        purpose: A part of the folder's name.
        inside: The parent folder, in which the new folder is hidden, so that a rename moves a finished file to its
            place; by default the system's folder for temporary files.

    Raises:
        OSError: The folder cannot be created.
    """
    place = Path(tempfile.gettempdir()) if inside is None else inside
    prefix = f"{'' if inside is None else '.'}edgeprof-{purpose}-"
    for old in place.glob(f"{prefix}*"):
        _remove_if_left(old)
    folder, lock = _make_folder(place, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _make_folder(place: Path, prefix: str) -> tuple[Path, int | None]:
    """Create a folder; return it and the descriptor that holds its lock (None on a file system without locks)."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        lock = None
        try:
            lock = _open_lock(folder)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.stat()
        except (FileNotFoundError, BlockingIOError):  # another run mistook it for one left behind
            if lock is not None:
                os.close(lock)
        except OSError:
            if lock is not None:
                os.close(lock)
            return folder, None
        else:
            return folder, lock


def _remove_if_left(folder: Path) -> None:
    """Remove a folder of this user if no process holds its lock; the kernel releases a lock when its process ends."""
    with contextlib.suppress(OSError):
        lock = _open_lock(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _open_lock(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
