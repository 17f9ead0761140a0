"""A runtime of a toy model of three operators, each of which sleeps. Python 3.6 grammar.

Each operator writes its name to the file ``mark`` beside the model while it runs, and a virtual board gives it its own
power. The target ``operators:1`` gives the factor by which an operator takes longer alone than in its place.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from edgeprof.worker.runtime import (
    Availability,
    IsolatedOperators,
    LoadError,
    LoadOptions,
    OperatorProfile,
    OperatorTime,
    Runtime,
    Session,
)
from edgeprof.worker.workload import Workload

SECONDS = {"matmul": 0.040, "conv": 0.020, "softmax": 0.020}
#: How often a call of an operator alone runs it.
COPIES = 2


class ToySession(Session):
    def __init__(self, factor: float, mark: str) -> None:
        self._factor = factor
        self._mark = os.open(mark, os.O_WRONLY | os.O_CREAT)

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        for name, seconds in SECONDS.items():
            self._work(name, seconds)
        return {}

    def profile_operators(self, feeds: dict[str, Any], calls: int) -> OperatorProfile:
        operators = [OperatorTime(name, name.title(), seconds) for name, seconds in SECONDS.items()]
        return OperatorProfile(operators, sum(SECONDS.values()))

    def isolate_operators(self, feeds: dict[str, Any], names: Sequence[str]) -> IsolatedOperators | None:
        if not self._factor:
            raise LoadError("this model is not cut")
        workloads = [Workload(name, "inference", COPIES) for name in names if name != "softmax"]
        return IsolatedOperators(workloads, {name: "it is too soft" for name in names if name == "softmax"})

    def bind_workload(self, name: str, feeds: dict[str, Any]) -> Callable[[], Any]:
        if name not in SECONDS:
            return self.bind(feeds)

        def call() -> None:
            for _ in range(COPIES):
                self._work(name, SECONDS[name] * self._factor)

        return call

    def _work(self, name: str, seconds: float) -> None:
        os.pwrite(self._mark, name[:1].encode(), 0)
        time.sleep(seconds)
        os.pwrite(self._mark, b"-", 0)

    def close(self) -> None:
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1


class Toy(Runtime):
    name = "toy-operators"
    formats = ("operators",)
    own_formats = {"operators": (0, b"operators:")}  # noqa: RUF012 - as the contract declares it

    def availability(self) -> Availability:
        return Availability("1", None, None)

    def devices(self) -> list[str]:
        return ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        with open(path) as file:  # noqa: PTH123 - workers may be Python 3.6
            factor = float(file.read().partition(":")[2])
        return ToySession(factor, os.path.join(os.path.dirname(path), "mark"))  # noqa: PTH118, PTH120 - as above
