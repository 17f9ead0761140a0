"""A runtime whose models have two workloads: a request, and a decode of 16 output tokens. Python 3.6 grammar.

Each call writes the running workload to the file ``mark`` beside the model, and when it is done, that none runs. A
virtual board gives each workload its own power.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from edgeprof.worker.runtime import Availability, LoadOptions, Runtime, Session
from edgeprof.worker.workload import Workload

SECONDS = {"request": 0.010, "decode": 0.004}


class TwoSession(Session):
    """A session whose target gives a factor for its times: ``two:1``, ``two:2``."""

    def __init__(self, factor: float, mark: str) -> None:
        self._factor = factor
        self._mark = os.open(mark, os.O_WRONLY | os.O_CREAT)

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        return {}

    def workloads(self) -> list[Workload]:
        return [Workload("request", "request", 1), Workload("decode", "output token", 16)]

    def bind_workload(self, name: str, feeds: dict[str, Any]) -> Callable[[], Any]:
        seconds, mark, busy = self._factor * SECONDS[name], self._mark, name[:1].encode()

        def call() -> None:
            os.pwrite(mark, busy, 0)
            time.sleep(seconds)
            os.pwrite(mark, b"-", 0)

        return call

    def close(self) -> None:
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1


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
            factor = float(file.read().partition(":")[2])
        return TwoSession(factor, os.path.join(os.path.dirname(path), "mark"))  # noqa: PTH118, PTH120 - as above
