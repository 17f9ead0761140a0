"""A runtime whose models have two workloads: a request, and a decode of 16 output tokens. Python 3.6 grammar."""

import time
from collections.abc import Callable
from typing import Any

from edgeprof.worker.runtime import Availability, LoadOptions, Runtime, Session
from edgeprof.worker.workload import Workload


class TwoSession(Session):
    """The target is a factor of time: ``two:1``, ``two:2``."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        return {}

    def workloads(self) -> list[Workload]:
        return [Workload("request", "request", 1), Workload("decode", "output token", 16)]

    def bind_workload(self, name: str, feeds: dict[str, Any]) -> Callable[[], Any]:
        seconds = self._factor * {"request": 0.010, "decode": 0.004}[name]
        return lambda: time.sleep(seconds)


class Two(Runtime):
    name = "two"
    formats = ("two",)
    own_formats = {"two": (0, b"two:")}  # noqa: RUF012 - as the contract declares it

    def availability(self) -> Availability:
        return Availability("1", None, None)

    def devices(self) -> list[str]:
        return ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        with open(path) as file:  # noqa: PTH123 - workers may be Python 3.6
            return TwoSession(float(file.read().partition(":")[2]))
