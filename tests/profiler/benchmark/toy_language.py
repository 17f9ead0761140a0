"""A runtime of a toy language model: it sleeps for each token, and a virtual board gives each phase its own power.

Each call writes the running phase to the file ``mark`` beside the model, and when it is done, that no phase runs. The
target ``toy:0.002:0.01:1`` gives the seconds of a prompt token, the seconds of an output token, and a factor for the
decode within a request (with a factor above 1, a request costs more than its phases).
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeprof.worker.language import TokenClock, read_lengths
from edgeprof.worker.runtime import Availability, LoadOptions, Runtime, Session
from edgeprof.worker.workload import Workload

if TYPE_CHECKING:
    from array import array


class ToySession(Session):
    def __init__(self, seconds: list[float], mark: str, options: LoadOptions) -> None:
        self._prompt_s, self._output_s, self._slower = seconds
        self._lengths = read_lengths(options)
        self._clock = TokenClock()
        self._mark = os.open(mark, os.O_WRONLY | os.O_CREAT)

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
        os.pwrite(self._mark, b"d", 0)
        for _ in range(self._lengths.decodes):
            time.sleep(self._output_s * self._slower)
            self._clock.token()
        os.pwrite(self._mark, b"-", 0)
        self._clock.end()

    def _prefill(self) -> None:
        os.pwrite(self._mark, b"p", 0)
        time.sleep(self._prompt_s * self._lengths.prompt)
        os.pwrite(self._mark, b"-", 0)

    def _decode(self) -> None:
        os.pwrite(self._mark, b"d", 0)
        for _ in range(self._lengths.decodes):
            time.sleep(self._output_s)
        os.pwrite(self._mark, b"-", 0)

    def close(self) -> None:
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1


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
        with open(path) as file:  # noqa: PTH123 - workers may be Python 3.6
            seconds = [float(part) for part in file.read().split(":")[1:]]
        return ToySession(seconds, os.path.join(os.path.dirname(path), "mark"), options)  # noqa: PTH118, PTH120 - as above
