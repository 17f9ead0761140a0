"""A clock that advances when a thread waits for it, and sensors that follow a script."""

from __future__ import annotations

import math
import threading

from edgeprof.sensing.sensor import Channel, Sensor


class FakeClock:
    """A clock that advances only in ``wait`` and ``advance``; at ``seconds`` it stops, and ``finished`` is set.

    It is for one lane only, because two threads that advance one clock would see each other's time.
    """

    def __init__(self, seconds, start=1000.0):
        self.time, self.end = start, start + seconds
        self.finished = threading.Event()

    def now(self):
        return self.time

    def advance(self, seconds):
        self.time += seconds

    def wait(self, deadline, stop):
        if deadline > self.end or self.time > self.end:
            self.time = max(self.time, self.end)
            self.finished.set()
            assert stop.wait(60)
            return
        self.time = max(self.time, deadline)

    def run(self, sampler):
        """Start the sampler, let the clock run to its end, and stop the sampler."""
        sampler.start()
        assert self.finished.wait(60)
        sampler.stop()
        return sampler


class Scripted(Sensor):
    """A sensor whose n-th row is ``script(n)``; an exception of the script is raised."""

    def __init__(self, script, channels=None, name="fake", slow=False, clock=None, takes=0.0):
        self.name, self.slow = name, slow
        self._channels = channels or [power(name=name)]
        self._script, self._clock, self._takes = script, clock, takes
        self.reads, self.opened, self.closed, self.threads = 0, 0, 0, set()

    @property
    def channels(self):
        return self._channels

    def open(self):
        self.opened += 1
        self.threads.add(threading.get_ident())

    def read(self, values, times):
        number, self.reads = self.reads, self.reads + 1
        self.threads.add(threading.get_ident())
        if self._clock:
            self._clock.advance(self._takes(number) if callable(self._takes) else self._takes)
        for index, value in enumerate(self._script(number)):
            values[index] = value

    def close(self):
        self.closed += 1


def power(channel="rail", name="fake", **changes):
    return Channel(sensor=name, name=channel, quantity=changes.pop("quantity", "power"), **changes)


def finite(values):
    return [value for value in values if not math.isnan(value)]
