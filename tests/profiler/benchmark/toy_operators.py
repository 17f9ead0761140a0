"""A runtime of a toy model of three operators, in virtual time.

The target ``operators:1`` gives the factor by which an operator takes longer alone than in its place.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
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
from tests.profiler.benchmark.virtual_device import work

SECONDS = {"matmul": 0.040, "conv": 0.020, "softmax": 0.020}
#: Watts of the module while an operator runs.
POWER = {"matmul": 8.0, "conv": 5.0, "softmax": 3.0}
#: How often a call of an operator alone runs it.
COPIES = 2


class ToySession(Session):
    def __init__(self, factor: float) -> None:
        self._factor = factor

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        for name, seconds in SECONDS.items():
            work(seconds, POWER[name])
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
                work(SECONDS[name] * self._factor, POWER[name])

        return call

    def close(self) -> None:
        """It holds nothing."""


class Toy(Runtime):
    name = "toy-operators"
    formats = ("operators",)
    own_formats = {"operators": (0, b"operators:")}  # noqa: RUF012 - as the contract declares it

    def availability(self) -> Availability:
        return Availability("1", None, None)

    def devices(self) -> list[str]:
        return ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        return ToySession(float(Path(path).read_text().partition(":")[2]))
