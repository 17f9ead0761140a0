"""The directory of this user's data.

This module is separate from the store, so that programs that only need the directory (the exporter's daemon) import
neither SQLite nor msgspec.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof import directories

if TYPE_CHECKING:
    from collections.abc import Mapping


def data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return ``EDGEPROF_DATA_DIR``, or by default the user's directory for data."""
    environ = os.environ if environ is None else environ
    given = environ.get("EDGEPROF_DATA_DIR")
    return Path(given) if given else directories.user_data(environ)


def make_private(directory: Path, name: str) -> None:
    """Create the data directory, and a file in it, with access for their owner only.

    Results hold host names, paths and the error output of workers. A directory that exists already keeps its mode,
    because its owner may share it on purpose. The file gets the mode 0600, even if it exists already.

    Raises:
        OSError: The directory or the file cannot be created.
    """
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was quicker
            directory.mkdir(mode=0o700)
    path = directory / name
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    status = path.stat()
    if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(0o600)
