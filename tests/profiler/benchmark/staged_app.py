"""An application of three stages on the device of the running test (``virtual_device``)."""

from typing import Any

import edgeprof
from tests.profiler.benchmark.virtual_device import work

SECONDS = {"decode": 0.003, "detect": 0.012, "draw": 0.002}
#: Watts of the module while a stage runs, and without work.
POWER = {"decode": 6.0, "detect": 11.0, "draw": 4.0, "idle": 2.0}
_calls: list[str] = []


class Timed:
    """A stage that takes a fixed time for any input."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, value: Any) -> Any:
        work(SECONDS[self._name], POWER[self._name])
        return value + 1


def forgetful(value: Any) -> Any:
    """A stage that returns something else for the same input."""
    work(0.001, 3.0)
    _calls.append("one more")
    return value + len(_calls)


def stages() -> list[tuple[str, Any]]:
    return [(name, Timed(name)) for name in SECONDS]


@edgeprof.pipeline(source=lambda: range(5))
def pipeline() -> list[tuple[str, Any]]:
    return stages()


@edgeprof.pipeline(source=lambda: range(5))
def tracker() -> list[tuple[str, Any]]:
    return [*stages()[:1], ("track", forgetful)]
