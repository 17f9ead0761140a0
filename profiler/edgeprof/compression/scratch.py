"""Folders for what is not finished: removed at the end, and by the next run where one was killed."""

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
    """A folder of this process alone. Those of the same name that killed runs left in the same place are removed first.

    Args:
        purpose: A part of its name.
        inside: Where it lies, hidden, so that what is finished is put in its place by a rename; None: where the system
            has temporary files.

    Raises:
        OSError: it cannot be made.
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
    """A new folder and the descriptor that holds its lock; none where the file system has no locks."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        lock = None
        try:
            lock = _opened(folder)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.stat()
        except (FileNotFoundError, BlockingIOError):  # another run took it for one that was left
            if lock is not None:
                os.close(lock)
        except OSError:
            if lock is not None:
                os.close(lock)
            return folder, None
        else:
            return folder, lock


def _remove_if_left(folder: Path) -> None:
    """Remove a folder of this user's whose lock nobody holds: the kernel lets go of it when a process ends."""
    with contextlib.suppress(OSError):
        lock = _opened(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
