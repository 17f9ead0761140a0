"""An application of three stages, each of which logs for a virtual board when it runs.

``EDGEPROF_TEST_LOG`` names the log (``logged_board.Logged``).
"""

import os
import struct
import time
from typing import Any

import edgeprof

SECONDS = {"decode": 0.003, "detect": 0.012, "draw": 0.002}
_log = os.open(os.environ["EDGEPROF_TEST_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_calls: list[str] = []


def _write(mark: bytes) -> None:
    os.write(_log, struct.pack("=dc", time.monotonic(), mark))


class Timed:
    """A stage that takes a fixed time for any input."""

    def __init__(self, name: str, mark: bytes) -> None:
        self._name, self._mark = name, mark

    def __call__(self, value: Any) -> Any:
        _write(self._mark)
        time.sleep(SECONDS[self._name])
        _write(b"-")
        return value + 1


def forgetful(value: Any) -> Any:
    """A stage that returns something else for the same input."""
    _calls.append("one more")
    return value + len(_calls)


def stages() -> list[tuple[str, Any]]:
    return [("decode", Timed("decode", b"d")), ("detect", Timed("detect", b"n")), ("draw", Timed("draw", b"w"))]


@edgeprof.pipeline(source=lambda: range(5))
def pipeline() -> list[tuple[str, Any]]:
    return stages()


@edgeprof.pipeline(source=lambda: range(5))
def tracker() -> list[tuple[str, Any]]:
    return [*stages()[:1], ("track", forgetful)]
