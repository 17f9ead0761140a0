"""Results as files: each is written whole or not at all, and read back from a path or from the store."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.errors import EdgeprofError, InputError
from edgeprof.results import document
from edgeprof.results.schema import model_name
from edgeprof.results.store import Store
from edgeprof.worker.replace import replace_file

if TYPE_CHECKING:
    import io
    from collections.abc import Sequence

    from edgeprof.results.schema import Result

#: How many of a model's latest results are searched for repeats.
_MOST_REPEATS = 40


def write(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Replace the content of ``path`` in one step: a reader sees the old content or the new, never a part.

    Args:
        path: The file; a pipe or a device is written, not replaced.
        content: Its new content; text is written as UTF-8.
        mode: Its permissions; None: those of the old file, or those that the umask leaves.

    Raises:
        InputError: The file cannot be written; its old content is unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(data)  # a pipe or /dev/stdout is written, not replaced
            return
        # A link stays a link: what it points to is replaced.
        target = Path(os.path.realpath(path))
        replace_file(target, data, mode=mode)
    except OSError as error:
        raise cannot_write(path, error) from None


def append(path: Path, text: str) -> None:
    """Add ``text``, whole lines, to a file that collects runs (.jsonl); a line that a crash cut off is ended first.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        with path.open("ab+", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            size = stream.seek(0, os.SEEK_END)
            if size:
                stream.seek(size - 1)
                if stream.read(1) != b"\n":
                    text = "\n" + text
            try:
                _write_all(stream, text.encode())
            except OSError:
                with contextlib.suppress(OSError):
                    stream.truncate(size)  # half a line would make the whole file unreadable
                raise
    except OSError as error:
        raise cannot_write(path, error) from None


def _write_all(stream: io.FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) or 0 :]
    try:
        os.fsync(stream.fileno())
    except OSError as error:
        if error.errno != errno.EINVAL:  # a device has nothing to sync
            raise


def check_writable(path: Path) -> None:
    """Check that ``path`` can be written, so that an error comes before the measurement and not after it.

    Raises:
        InputError: The path is a directory, or its parent directory is missing or not writable.
    """
    if path.is_dir():
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    if not path.parent.is_dir():
        raise cannot_write(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    place = path if path.exists() and not path.is_file() else path.parent
    if not os.access(place, os.W_OK):
        code = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise cannot_write(path, OSError(code, os.strerror(code)))


def read(reference: str, store: Store | None = None) -> list[Result]:
    """Read the results that a command-line argument names: a .json or .jsonl file, or a stored result's id.

    A file takes precedence over an id of the same name. A path that does not exist is looked up in the store only if it
    can be an id, that is, if it has neither a slash nor a suffix.

    Raises:
        InputError: There is no such file or id, or the file is not a result.
    """
    path = Path(reference)
    if path.is_dir():
        raise InputError(f"{reference} is a directory, not a result", remedy="Give the files in it one by one.")
    if path.exists():
        return _read_lines(path) if path.suffix == ".jsonl" else [document.load(path)]
    if path.suffix or os.sep in reference:
        raise InputError(
            f"there is no file {reference}", remedy="Give a result file, or an id that edgeprof history lists."
        )
    return [(store or Store()).find(reference)]


def read_one(reference: str, store: Store | None = None) -> Result:
    """Read one result, as ``read`` does; from a .jsonl file, which grows at its end, read the last one.

    Raises:
        InputError: See ``read``.
    """
    return read(reference, store)[-1]


def repeats(results: Sequence[Result], store: Store | None = None) -> list[Result]:
    """Return the latest stored results that share a model with ``results``; empty if the store cannot be read."""
    store = store or Store()
    models = {model_name(variant.model) for result in results for variant in result.variants}
    try:
        ids = {entry.id for model in models for entry in store.history(limit=_MOST_REPEATS, model=model)}
        return [store.find(result_id) for result_id in sorted(ids)]
    except EdgeprofError:
        return []


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return the error for a file that cannot be written."""
    remedy = {
        errno.ENOENT: f"Make its directory first: mkdir -p {path.parent}",
        errno.ENOSPC: "Free some space, or name a file on another disk.",
        errno.EISDIR: f"Name a file in it: -o {path / 'result.json'}",
    }.get(error.errno or 0, "Name a file that you can write.")
    return InputError(f"cannot write {path}: {error.strerror or error}", remedy=remedy)


def _read_lines(path: Path) -> list[Result]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    results = [
        document.from_json(line, source=f"{path} line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not results:
        raise InputError(f"{path} holds no result", remedy="Add one: edgeprof bench MODEL -o FILE.jsonl")
    return results
