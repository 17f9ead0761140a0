"""A runtime whose models have two workloads: a request, and a decode of 16 output tokens (in virtual time)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeprof.worker.runtime import Availability, LoadOptions, Runtime, Session
from edgeprof.worker.workload import Workload
from tests.profiler.benchmark.virtual_device import work

SECONDS = {"request": 0.010, "decode": 0.004}
#: Watts of the module while a workload runs, and without work.
POWER = {"request": 8.0, "decode": 5.0, "idle": 2.0}


class TwoSession(Session):
    """A session whose target gives a factor for its times: ``two:1``, ``two:2``."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        return {}

    def workloads(self) -> list[Workload]:
        return [Workload("request", "request", 1), Workload("decode", "output token", 16)]

    def bind_workload(self, name: str, feeds: dict[str, Any]) -> Callable[[], Any]:
        return lambda: work(self._factor * SECONDS[name], POWER[name])

    def close(self) -> None:
        """It holds nothing."""


class Two(Runtime):
    name = "two"
    formats = ("two",)
    own_formats = {"two": (0, b"two:")}  # noqa: RUF012 - as the contract declares it

    def availability(self) -> Availability:
        return Availability("1", None, None)

    def devices(self) -> list[str]:
        return ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        return TwoSession(float(Path(path).read_text().partition(":")[2]))
