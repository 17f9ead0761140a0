"""What applications reported: inferences, durations and joules by model, variant and runtime, and never too many."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from edgeprof.energy.online.attribution import Attributor
from edgeprof.worker.span import CALL, Span
from edgeprof_exporters.messages import is_label

if TYPE_CHECKING:
    from edgeprof.energy.online.running_sum import History
    from edgeprof_exporters.messages import Message

#: Upper edges of the duration histogram (s): 0.5 ms (a keyword spotter) to 30 s (a language model's answer).
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
#: Label sets beyond this many are counted under ``other``: 50 make about 1,000 series.
MOST_SERIES = 50
OTHER = ("other", "other", "other")

LabelSet = tuple[str, str, str]


class Tally:
    """The counters of one model × variant × runtime."""

    __slots__ = ("buckets", "count", "joules", "seconds", "without")

    def __init__(self) -> None:
        self.count = 0
        self.without = 0
        self.joules = 0.0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def observe(self, seconds: float, count: int) -> None:
        self.count += count
        self.seconds += seconds * count
        self.buckets[bisect_left(BUCKETS, seconds)] += count

    def state(self) -> list[Any]:
        return [self.count, self.without, self.joules, self.seconds, self.buckets]

    @classmethod
    def restored(cls, state: list[Any]) -> Tally:
        """From ``state``.

        Raises:
            ValueError, TypeError: it is none.
        """
        tally = cls()
        count, without, joules, seconds, buckets = state
        tally.count, tally.without = int(count), int(without)
        tally.joules, tally.seconds = float(joules), float(seconds)
        numbers = [tally.count, tally.without, *map(int, buckets)]
        if len(buckets) != len(BUCKETS) + 1 or min(numbers) < 0 or sum(numbers[2:]) != tally.count:
            raise ValueError("not the counts of inferences")
        if not (math.isfinite(tally.joules) and math.isfinite(tally.seconds)) or min(tally.joules, tally.seconds) < 0:
            raise ValueError("not joules or seconds")
        tally.buckets = numbers[2:]
        return tally


class Inferences:
    """Takes messages in, gives counters out. Thread-safe.

    Args:
        history: The device's cumulative energy; None where nothing measures it.
        most_series: Label sets beyond this many become ``other``.
    """

    def __init__(self, history: History, most_series: int = MOST_SERIES) -> None:
        self.lock = threading.Lock()
        self.most_series = most_series
        self.messages = {"accepted": 0, "malformed": 0, "other": 0}
        #: Label set → its counters.
        self.tallies: dict[LabelSet, Tally] = {}
        self._attributor = Attributor(history)

    def take(self, message: Message | None) -> None:
        """Count one datagram."""
        with self.lock:
            if message is None:
                self.messages["malformed"] += 1
                return
            key = (message.model, message.variant, message.runtime)
            tally = self.tallies.get(key)
            if tally is None:
                known = len(self.tallies) - (OTHER in self.tallies)
                if known >= self.most_series:
                    key = OTHER
                tally = self.tallies.setdefault(key, Tally())
            self.messages["other" if key is OTHER else "accepted"] += 1
            tally.observe(message.end - message.start, message.inferences)
            if not self._attributor.add(Span(CALL, message.start, message.end, message.inferences, key=key)):
                tally.without += message.inferences

    def settle(self, now: float, engine_lock: threading.Lock, *, all_of_them: bool = False) -> None:
        """Give joules to what can have them now (``now``: monotonic s); ``engine_lock`` holds the history still."""
        with self.lock, engine_lock:
            for share in self._attributor.settle(now, all_of_them=all_of_them):
                model, variant, runtime = share.span.key
                tally = self.tallies[model, variant, runtime]
                tally.joules += max(0.0, share.joules)
                if not share.is_whole:
                    tally.without += share.span.count

    def state(self) -> list[Any]:
        """What a later daemon resumes from."""
        with self.lock:
            return [[*key, tally.state()] for key, tally in self.tallies.items()]

    def resume(self, state: list[Any]) -> None:
        """Before the first message: go on from an earlier daemon's state.

        Raises:
            ValueError, TypeError: it is none.
        """
        for *labels, counts in state[: self.most_series + 1]:
            model, variant, runtime = map(str, labels)
            if not (is_label(model) and is_label(variant) and is_label(runtime)):
                raise ValueError("not labels")
            self.tallies[model, variant, runtime] = Tally.restored(counts)
