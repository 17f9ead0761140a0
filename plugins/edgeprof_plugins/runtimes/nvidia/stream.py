"""Inferences in a CUDA stream, each awaited, queued behind the previous one, or timed in parts; and the memory in use.

Python 3.6 grammar, numpy. The timed parts are those of NVIDIA's trtexec: H2D, compute and D2H by CUDA events, and
enqueue by the host clock.
"""

import time
from typing import Any, Callable, Dict, List, Sequence, Tuple

from .api import Cuda

#: One inference: the copies in, the start of the computation, the copies out. Each only queues work in the stream.
Steps = Tuple[Sequence[Callable[[], None]], Callable[[], Any], Sequence[Callable[[], None]]]


class Stream:
    """A separate CUDA stream and its events.

    ``steps`` is called before each inference, because the buffers may have changed in the meantime. Each method repeats
    the code that queues an inference, because an additional function call would be part of the measured time.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.stream = cuda.stream()
        self._events: List[Any] = []

    def waiting(self, steps: Callable[[], Steps]) -> Callable[[], None]:
        """Return a function for one whole inference: it copies inputs in, computes, copies outputs out, and waits."""
        wait, stream = self._cuda.wait, self.stream

        def call() -> None:
            ins, enqueue, outs = steps()
            for copy in ins:
                copy()
            enqueue()
            for copy in outs:
                copy()
            wait(stream)

        return call

    def queued(self, steps: Callable[[], Steps]) -> Callable[[], None]:
        """Do as ``waiting``, but wait only for the previous inference, so that the GPU always has work queued."""
        cuda, stream = self._cuda, self.stream
        events = [self._event(), self._event()]
        state = [0]

        def call() -> None:
            ins, enqueue, outs = steps()
            for copy in ins:
                copy()
            enqueue()
            for copy in outs:
                copy()
            number = state[0]
            cuda.record(events[number & 1], stream)
            state[0] = number + 1
            if number:
                cuda.wait_event(events[(number - 1) & 1])

        return call

    def timed(self, steps: Callable[[], Steps]) -> Callable[[], Dict[str, float]]:
        """Do as ``waiting``, but the function returns the seconds of each part (see ``Session.bind_timed``)."""
        cuda, stream, clock = self._cuda, self.stream, time.monotonic
        begin, fed, computed, end = (self._event() for _ in range(4))

        def call() -> Dict[str, float]:
            ins, enqueue, outs = steps()
            start = clock()
            cuda.record(begin, stream)
            for copy in ins:
                copy()
            cuda.record(fed, stream)
            before = clock()
            enqueue()
            after = clock()
            cuda.record(computed, stream)
            for copy in outs:
                copy()
            cuda.record(end, stream)
            cuda.wait(stream)
            wall = clock() - start
            return {
                "h2d": cuda.elapsed_s(begin, fed),
                "compute": cuda.elapsed_s(fed, computed),
                "d2h": cuda.elapsed_s(computed, end),
                "enqueue": after - before,
                "wall": wall,
            }

        return call

    def wait(self) -> None:
        self._cuda.wait(self.stream)

    def handle(self) -> int:
        return self._cuda.handle(self.stream)

    def close(self) -> None:
        for event in self._events:
            self._cuda.close_event(event)
        self._events = []
        self._cuda.close_stream(self.stream)

    def _event(self) -> Any:
        self._events.append(self._cuda.event())
        return self._events[-1]


class Usage:
    """The peak of the device memory in use since this object was created; other processes affect it too."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        free, total = cuda.memory()
        self._before, self._most = total - free, 0

    def most(self) -> int:
        """Read the current use, and return the peak so far beyond the initial use, in bytes."""
        free, total = self._cuda.memory()
        self._most = max(self._most, total - free - self._before)
        return self._most
