"""Assertions that ``python -O`` keeps, with sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def require(condition: object, sentence: str) -> None:
    """AssertionError with the sentence unless the condition holds."""
    if not condition:
        raise AssertionError(sentence)


def require_error(kind: type[Exception], what: str, call: Callable[[], Any]) -> Exception:
    """That ``call`` raises ``kind`` with a message; ``what`` names what was tried, as ``a truncated file``."""
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
