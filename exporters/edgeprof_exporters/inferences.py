"""What applications reported: inferences, durations and joules by model, variant and runtime, and never too many."""

from __future__ import annotations

import logging
import math
import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from edgeprof.energy.online.attribution import MOST_WAITING, Attributor
from edgeprof.energy.online.running_sum import MOST_JOULES
from edgeprof.worker.span import CALL, Span
from edgeprof_exporters.logs import event
from edgeprof_exporters.messages import is_label

if TYPE_CHECKING:
    from edgeprof.energy.online.running_sum import History
    from edgeprof_exporters.messages import Message

#: Upper edges of the duration histogram (s): 0.5 ms (a keyword spotter) to 30 s (a language model's answer).
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
#: Label sets beyond this many are counted under ``other``: 50 make about 1,000 series.
MOST_SERIES = 50
OTHER = ("other", "other", "other")
#: Beyond this a counter's steps of one are lost in the floating-point number that a scrape shows.
_MOST_COUNT = 1 << 53
#: Energy is shared out no more often than this (s).
_SETTLE_PAUSE_S = 0.5

LabelSet = tuple[str, str, str]


class Tally:
    """The counters of one model × variant × runtime.

    Attributes:
        count: Inferences.
        without: Those of them whose energy is not known.
        joules: Of the others, as a monotone counter shows them.
        seconds: How long all of them took together.
        buckets: The histogram of their durations.
    """

    __slots__ = ("_joules", "buckets", "count", "joules", "seconds", "without")

    def __init__(self) -> None:
        self.count = 0
        self.without = 0
        self.joules = 0.0
        self._joules = 0.0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def observe(self, seconds: float, count: int) -> None:
        self.count += count
        self.seconds += seconds * count
        self.buckets[bisect_left(BUCKETS, seconds)] += count

    def add_joules(self, joules: float) -> None:
        """Add a window's energy; below zero by noise now and then, where it is small beside the sensor's steps."""
        self._joules += joules
        self.joules = max(self.joules, self._joules)

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
        if not (0 <= tally.joules <= MOST_JOULES and 0 <= tally.seconds < math.inf and max(numbers) <= _MOST_COUNT):
            raise ValueError(f"{tally.joules:g} J of {tally.count} inferences in a state cannot be")
        tally._joules = tally.joules
        tally.buckets = numbers[2:]
        return tally


class Inferences:
    """Takes messages in, gives counters out. Thread-safe; energy is shared out while messages go on coming in.

    Args:
        history: The device's energy.
        most_series: Label sets beyond this many become ``other``.
    """

    def __init__(self, history: History, most_series: int = MOST_SERIES) -> None:
        self.lock = threading.Lock()
        self.most_series = most_series
        self.messages = {"accepted": 0, "malformed": 0, "other": 0}
        #: Label set → its counters.
        self.tallies: dict[LabelSet, Tally] = {}
        self._history = history
        self._settling = threading.Lock()  # holds the attributor
        self._attributor = Attributor()
        self._arrived: list[Span] = []
        self._waiting = 0  # in the attributor
        self._settled_at = -math.inf

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
            if len(self._arrived) + self._waiting < MOST_WAITING:
                self._arrived.append(Span(CALL, message.start, message.end, message.inferences, key=key))
            else:
                tally.without += message.inferences

    def settle(self, now: float, engine_lock: threading.Lock, *, all_of_them: bool = False) -> None:
        """Give joules to what can have them now.

        Args:
            now: Monotonic s.
            engine_lock: Held while the device's energy is copied, and not while it is shared out.
            all_of_them: At the end: settle what there is.
        """
        too_short = 0
        with self._settling:
            if now - self._settled_at < _SETTLE_PAUSE_S and not all_of_them:
                return  # however often it is scraped
            self._settled_at = now
            with self.lock:
                arrived, self._arrived = self._arrived, []
                self._waiting += len(arrived)
            self._attributor.extend(arrived)
            with engine_lock:
                curve = self._history.copy_since(self._attributor.earliest)
            settled = self._attributor.settle(curve, now, all_of_them=all_of_them)
            with self.lock:
                self._waiting -= len(settled)
                for share in settled:
                    model, variant, runtime = share.span.key
                    tally = self.tallies[model, variant, runtime]
                    if share.is_whole:
                        tally.add_joules(share.joules)
                    else:
                        tally.without += share.span.count
                        too_short += share.guessed_s > 0
        if too_short:
            event(
                logging.WARNING,
                "inferences are too short for the sampling rate, and have no joules",
                inferences=too_short,
                remedy="raise sampling.rate_hz",
            )

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
