"""Errors that a user can cause: one sentence, a remedy and an exit code. Only the command line prints them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


#: Control characters except tab and line feed, and characters that change the direction of a text.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Replace characters that a terminal would obey; a file name or another program's output may contain any.

    >>> printable("a\x1b]0;title\x07.onnx")
    'a?]0;title?.onnx'
    """
    return _CONTROL.sub("?", text)


def about(subject: str, message: str) -> str:
    """Put a subject, such as a model, before a message that does not begin with it or with its path.

    >>> about("m.onnx", "the file is damaged")
    'm.onnx: the file is damaged'
    >>> about("m.onnx", "zoo/m.onnx needs an operator")
    'zoo/m.onnx needs an operator'
    """
    first = message.partition(" ")[0].rstrip(":")
    return message if subject in {first, first.rpartition("/")[2]} else f"{subject}: {message}"


def without_subject(subject: str, message: str) -> str:
    """Remove a subject from the beginning of a message that is shown beside it.

    >>> without_subject("m.onnx", "m.onnx: the file is damaged")
    'the file is damaged'
    """
    # No pattern: a report of 10,000 variants would compile as many of them.
    for beginning in (f"{subject}: ", f"{subject} "):
        if message.startswith(beginning):
            return message[len(beginning) :]
    return message


def _mended_remedy(remedy: str) -> str:
    """Replace ``pip install`` in a remedy by the command that works in this environment."""
    if "pip install" not in remedy:
        return remedy
    from edgeprof.installation import mended_here  # noqa: PLC0415 - every verb imports this file, few ever need this

    return mended_here(remedy)


class EdgeprofError(Exception):
    """An error that the user can correct.

    Args:
        message: One sentence on what is wrong, with the name of the file or flag.
        remedy: What to do about it; it is shown on a separate line.
    """

    exit_code = 2

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        message = printable(message)
        super().__init__(message)
        self.message = message
        self.remedy = None if remedy is None else printable(_mended_remedy(remedy))


class InputError(EdgeprofError):
    """A file, flag or value that cannot be used."""


class StorageError(InputError):
    """Files cannot be written to their folder, and neither can any further ones."""


class UnavailableError(EdgeprofError):
    """A sensor, runtime or library is missing; the remedy says how to get it."""


class BusyError(EdgeprofError):
    """Another measurement is running on this device."""

    exit_code = 75


class WrongDeviceError(EdgeprofError):
    """The device, or its power mode, is not the one that the inventory describes."""

    exit_code = 78


class VariantError(EdgeprofError):
    """One variant could not be measured; the others continue.

    Args:
        message: One sentence.
        remedy: What to do about it.
        code: The machine-readable reason in the result file, as ``crashed`` or ``timeout``.
        last_words: The worker's output to stdout and stderr before it died.
    """

    exit_code = 3

    def __init__(self, message: str, *, remedy: str | None = None, code: str = "failed", last_words: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.last_words = last_words

    @classmethod
    def of(cls, error: EdgeprofError) -> VariantError:
        """Convert an error of one of several variants; the code is ``unavailable`` or ``bad_input``."""
        if isinstance(error, VariantError):
            return error
        code = "unavailable" if isinstance(error, UnavailableError) else "bad_input"
        return cls(error.message, remedy=error.remedy, code=code)


class GateError(EdgeprofError):
    """A gate or ``--strict`` failed."""

    exit_code = 1


def require_range(flag: str, value: float | None, low: float, high: float) -> None:
    """Check that ``value`` is None or from ``low`` to ``high``.

    Raises:
        InputError: the value is out of range, or NaN.
    """
    if value is not None and not low <= value <= high:
        raise InputError(f"{flag} {value:g} is out of range", remedy=f"Use a value from {low:g} to {high:g}.")


def unknown(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """Make the error for a name that does not exist, with the most similar name that does.

    >>> unknown("runtime", "onnx", ["onnxruntime", "litert"]).remedy
    'Did you mean onnxruntime? Known: litert, onnxruntime.'
    """
    import difflib  # noqa: PLC0415 - every verb imports this file, few ever need this

    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]}? " if near else ""
    remedy += f"Known: {', '.join(names)}." if names else f"There is no {kind} here."
    return InputError(f"no {kind} is named {name!r}", remedy=remedy)
