"""The joules of windows are those that flowed in them, whatever runs between windows, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeprof.worker.runtime import Availability, LoadOptions, Runtime, Session
from tests.profiler.benchmark import virtual_device
from tests.profiler.watching import Watcher

pytestmark = pytest.mark.slow
IDLE = 2.0


class Working(Session):
    """A session whose calls all take the same time at the same power."""

    def __init__(self, seconds: float, watts: float) -> None:
        self._seconds, self._watts = seconds, watts

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        virtual_device.work(self._seconds, self._watts)
        return {}

    def close(self) -> None:
        """It holds nothing."""


class Steady(Runtime):
    """The target ``steady:0.01:8.0`` gives the seconds and the watts of a call."""

    name = "steady"
    formats = ("steady",)
    own_formats = {"steady": (0, b"steady:")}  # noqa: RUF012 - as the contract declares it

    def availability(self) -> Availability:
        return Availability("1", None, None)

    def devices(self) -> list[str]:
        return ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        seconds, watts = Path(path).read_text().split(":")[1:]
        return Working(float(seconds), float(watts))


CAMERA = {"scenario": "periodic", "rate_hz": 20.0}
SLOW_CAMERA = {"scenario": "periodic", "rate_hz": 1.05}


@pytest.mark.parametrize(
    ("seconds", "load"),
    [
        (0.001, {}),
        (0.012, {}),
        (0.14, {}),
        (0.7, {}),
        (0.94, {}),
        (1.3, {}),
        (0.001, CAMERA),
        (0.03, CAMERA),
        (0.14, SLOW_CAMERA),
        (0.7, SLOW_CAMERA),
    ],
)
def test_each_window_has_the_joules_that_flowed_in_it(seconds: float, load: dict[str, Any], tmp_path: Path) -> None:
    watts = 9.0
    models = {"model": f"steady:{seconds}:{watts}"}
    result = virtual_device.measure(
        Steady, models, IDLE, tmp_path, Watcher(), windows=3, window_s=1.5, idle_s=1.0, warmup_s=0.1, **load
    )
    (variant,) = result.variants
    truths = []
    for window in variant.windows:
        working_s = seconds * window.inferences
        joules = watts * working_s + IDLE * (window.end_s - window.start_s - working_s)
        assert window.energy_j == pytest.approx(joules, rel=1e-3)
        truths.append(joules / window.inferences)
    gross = variant.energy_j_per_inference.gross
    assert gross.value == pytest.approx(sum(truths) / len(truths), rel=1e-3)
