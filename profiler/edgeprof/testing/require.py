"""Assertions with messages, which ``python -O`` does not remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def require(condition: object, sentence: str) -> None:
    """Raise AssertionError with the sentence unless the condition holds."""
    if not condition:
        raise AssertionError(sentence)


def require_error(kind: type[Exception], what: str, call: Callable[[], Any]) -> Exception:
    """Check that ``call`` raises ``kind`` with a message of one line, and return the error.

    Args:
        kind: The expected class of the error.
        what: Description of the input, as ``a truncated file``.
        call: The call.
    """
    try:
        call()
    except kind as error:
        require(str(error).strip(), f"{what} raises {kind.__name__} without a message")
        require("\n" not in str(error), f"{what}: the message has several lines, it must be one sentence: {error}")
        return error
    except Exception as error:
        raise AssertionError(
            f"{what} raises {type(error).__name__} ({error}) where {kind.__name__} is expected"
        ) from error
    raise AssertionError(f"{what} is accepted where {kind.__name__} is expected")
