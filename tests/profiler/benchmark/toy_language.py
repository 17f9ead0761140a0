"""A runtime of a toy language model, in virtual time.

The target ``toy:0.002:0.01:1`` gives the seconds of a prompt token, those of an output token, and a factor for the
decode within a request (with a factor above 1, a request costs more than its phases).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.worker.language import TokenClock, read_lengths
from edgeprof.worker.runtime import Availability, LoadOptions, Runtime, Session
from edgeprof.worker.workload import Workload
from tests.profiler.benchmark.virtual_device import work

if TYPE_CHECKING:
    from array import array


#: Watts of the module while a prompt is read, while tokens are generated, and without work.
POWER = {"prefill": 9.0, "decode": 5.0, "idle": 2.0}


class ToySession(Session):
    def __init__(self, seconds: list[float], options: LoadOptions) -> None:
        self._prompt_s, self._output_s, self._slower = seconds
        self._lengths = read_lengths(options)
        self._clock = TokenClock()

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        self._request()
        return {}

    def workloads(self) -> list[Workload]:
        return self._lengths.workloads()

    def bind_workload(self, name: str, feeds: dict[str, Any]) -> Callable[[], Any]:
        return {"request": self._request, "prefill": self._prefill, "decode": self._decode}[name]

    def language(self) -> dict[str, Any]:
        asked = self._lengths
        return {
            "prompt_tokens": asked.prompt,
            "generated_tokens": asked.generate,
            "depth": asked.depth,
            "context": asked.context,
            "kv_type": None,
            "method": "phase-windows",
        }

    def take_token_times(self) -> "tuple[array[int], array[float]]":
        return self._clock.take()

    def _request(self) -> None:
        self._clock.start()
        self._prefill()
        self._clock.token()
        for _ in range(self._lengths.decodes):
            work(self._output_s * self._slower, POWER["decode"])
            self._clock.token()
        self._clock.end()

    def _prefill(self) -> None:
        work(self._prompt_s * self._lengths.prompt, POWER["prefill"])

    def _decode(self) -> None:
        for _ in range(self._lengths.decodes):
            work(self._output_s, POWER["decode"])

    def close(self) -> None:
        """It holds nothing."""


class Toy(Runtime):
    name = "toy"
    formats = ("toy",)
    own_formats = {"toy": (0, b"toy:")}  # noqa: RUF012 - as the contract declares it
    is_for_language = True
    concurrent = False

    def availability(self) -> Availability:
        return Availability("1", None, None)

    def devices(self) -> list[str]:
        return ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        return ToySession([float(part) for part in Path(path).read_text().split(":")[1:]], options)
