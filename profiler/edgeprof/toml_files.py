"""Read TOML files that other people write, within limits, and with one sentence for each error."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from edgeprof import whole_files
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

#: Largest file that is read (bytes); files that people write have some kilobytes.
LIMIT_BYTES = 4 << 20
#: Parts of a dotted key. Python's parser keeps every beginning of a key, which takes the square of its parts.
_MOST_PARTS = 32
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}[ \t]*\.[ \t]*){{{_MOST_PARTS},}}")


def exists(path: Path) -> bool:
    """Whether a file or folder exists; False also for an impossible name (too long, or with a zero byte)."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_text(path: Path, what: str = "", remedy: str | None = None) -> str:
    """Read the text of a file.

    Args:
        path: The file.
        what: Description of the file for messages, as ``the board file``.
        remedy: Remedy for a file that cannot be read; None: it follows from the error.

    Raises:
        InputError: the file cannot be read, is too large, or is not UTF-8.
    """
    called = f"{what} {path}".strip()
    try:
        content = whole_files.read_bytes(path, LIMIT_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {called}: {reason}", remedy=remedy or _remedy(path, error)) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {called}: it is not UTF-8 ({error})") from None


def _remedy(path: Path, error: Exception) -> str:
    """The remedy for a file that cannot be opened."""
    if isinstance(error, PermissionError):
        return "Run this as a user who may read it."
    if isinstance(error, IsADirectoryError):
        return "It is a folder: name a file in it."
    import difflib  # noqa: PLC0415 - few files are missing

    try:
        names = [other.name for other in path.parent.glob("*.toml")]
    except (OSError, ValueError):
        names = []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.with_name(near[0])}?" if near else "Check its name and its folder."


def parse(text: str, path: Path, remedy: str | None = None) -> dict[str, Any]:
    """Parse the text of a TOML file.

    Args:
        text: The text.
        path: Path of the file, for messages.
        remedy: Remedy for a file that is not TOML.

    Raises:
        InputError: the text is not TOML, or is nested too deeply.
    """
    if sys.version_info >= (3, 11):  # imported here: most commands read no TOML file
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    if _LONG_KEY.search(text):
        raise InputError(f"{path} has a key of more than {_MOST_PARTS} parts", remedy=remedy)
    try:
        content = tomllib.loads(text)
        if _has_long_integer(content):
            raise ValueError("it contains an integer of more than 64 bits")  # noqa: TRY301 - handled like parse errors
    except RecursionError:
        raise InputError(f"{path} is nested too deeply", remedy=remedy) from None
    except ValueError as error:  # includes TOMLDecodeError, and errors of numbers with thousands of digits
        raise InputError(f"{path} is not TOML: {str(error)[:300]}", remedy=remedy) from None
    return content


def _has_long_integer(content: dict[str, Any]) -> bool:
    """Whether an integer is beyond TOML's range; Python's parser accepts it, but arithmetic with it could overflow."""
    waiting: list[Any] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            return True
    return False


def read(path: Path, remedy: str | None = None) -> dict[str, Any]:
    """Read and parse a TOML file.

    Args:
        path: The file.
        remedy: Remedy for a file that cannot be read or is not TOML.

    Raises:
        InputError: see ``read_text`` and ``parse``.
    """
    return parse(read_text(path, remedy=remedy), path, remedy)
