"""Replace a file in one step: whoever reads it sees the old content or the new one, never half of either.

Python 3.6 grammar and the standard library, so that workers and the daemon use it too.
"""

import contextlib
import os
import threading
from typing import IO, Any, Callable, Optional, Union


def replace_file(
    path: Union[str, "os.PathLike[str]"],
    content: Union[bytes, Callable[[IO[bytes]], Any]],
    mode: Optional[int] = None,
    durable: bool = True,
) -> None:
    """Write ``content`` beside ``path``, then rename it there.

    Args:
        path: The file; its folder exists. A link is replaced, not what it points to.
        content: The bytes, or a function that writes them into a binary file.
        mode: The permissions of the new file; None keeps those of the old file, or 0666 less the umask for a new one.
        durable: Whether the content and the name must survive a loss of power: a full disk may be found only then.

    Raises:
        OSError: the file cannot be written. The old content is untouched, and no temporary file is left behind.
    """
    path = os.fspath(path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, ".{}.{}-{}.part".format(name, os.getpid(), threading.get_ident()))
    descriptor = _create_part(temporary, 0o600 if mode is not None else 0o666)
    try:
        with open(descriptor, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            if mode is None:
                with contextlib.suppress(OSError):
                    os.fchmod(file.fileno(), os.stat(path).st_mode & 0o7777)
            else:
                os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        _sync_directory(folder or ".")


def _create_part(temporary: str, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(temporary, flags, mode)
    except FileExistsError:  # left by a process that was killed and had the same number as this one
        os.unlink(temporary)
        return os.open(temporary, flags, mode)


def _sync_directory(folder: str) -> None:
    """Flush a directory, so that a rename in it survives a loss of power; some file systems do not offer that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
