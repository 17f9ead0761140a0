"""Read a whole file that a user has named, up to a limit: it may be a pipe, a device or an endless file."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: The largest file (bytes) that is read where the caller sets no limit.
LIMIT_BYTES = 512 << 20


def read_bytes(path: Path, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """Return the content of a file or of a pipe, such as the shell's ``<(command)``.

    A pipe without a writer is read as empty, without waiting.

    Args:
        path: The file or pipe.
        limit_bytes: The largest content that is accepted (bytes).

    Raises:
        OSError: it cannot be read, is neither a file nor a pipe, or is larger than the limit.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(limit_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        raise OSError(errno.EFBIG, f"it has more than {limit_bytes >> 20} MiB", str(path))
    return content


def read_text(path: Path, encoding: str = "utf-8", limit_bytes: int = LIMIT_BYTES) -> str:
    """Return the text of a file, as ``read_bytes`` reads it.

    Raises:
        OSError: as for ``read_bytes``.
        UnicodeDecodeError: the content is not text in this encoding.
    """
    return read_bytes(path, limit_bytes).decode(encoding)
