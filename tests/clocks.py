"""A clock that a test turns by hand."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def turn_clock(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., Any]) -> None:
    """Replace functions of ``time``, such as ``monotonic`` and ``sleep``, for the calling thread alone.

    Other threads of this process go on in real time: a virtual board of a session's fixture that saw the turned clock
    would sleep for hours, and the end of the session would wait for it.
    """
    mine = threading.get_ident()
    for name, turned in functions.items():
        real = getattr(time, name)

        def choose(*given: Any, real: Callable[..., Any] = real, turned: Callable[..., Any] = turned) -> Any:
            return (turned if threading.get_ident() == mine else real)(*given)

        monkeypatch.setattr(time, name, choose)
