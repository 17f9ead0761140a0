"""Inferences that applications report: counts, durations and joules by model, variant and runtime."""

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
#: Largest count whose steps of one the floating-point number of a scrape can show.
_MOST_COUNT = 1 << 53
#: Shortest interval at which energy is attributed (s).
_SETTLE_PAUSE_S = 0.5

LabelSet = tuple[str, str, str]


class Tally:
    """The counters of one model × variant × runtime.

    Attributes:
        count: Number of inferences.
        without: Number of inferences whose energy is not known.
        settled: Number of inferences whose energy is in ``joules``, since this daemon started.
        joules: Energy of the other inferences, as a counter that never falls.
        seconds: Duration of all inferences together.
        buckets: Histogram of the durations.
    """

    __slots__ = ("_joules", "buckets", "count", "joules", "seconds", "settled", "without")

    def __init__(self) -> None:
        self.count = 0
        self.without = 0
        self.settled = 0
        self.joules = 0.0
        self._joules = 0.0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def observe(self, seconds: float, count: int) -> None:
        self.count += count
        self.seconds += seconds * count
        self.buckets[bisect_left(BUCKETS, seconds)] += count

    def add_joules(self, joules: float) -> None:
        """Add a window's energy, which noise may make negative if it is small compared with the sensor's resolution."""
        self._joules += joules
        self.joules = max(self.joules, self._joules)

    def state(self) -> list[Any]:
        return [self.count, self.without, self.joules, self.seconds, self.buckets]

    @classmethod
    def restored(cls, state: list[Any]) -> Tally:
        """Restore a tally from ``state``.

        Raises:
            ValueError, TypeError: the state is not valid.
        """
        tally = cls()
        count, without, joules, seconds, buckets = state
        tally.count, tally.without = int(count), int(without)
        tally.joules, tally.seconds = float(joules), float(seconds)
        numbers = [tally.count, tally.without, *map(int, buckets)]
        if len(buckets) != len(BUCKETS) + 1 or min(numbers) < 0 or sum(numbers[2:]) != tally.count:
            raise ValueError("not the counts of inferences")
        if not (0 <= tally.joules <= MOST_JOULES and 0 <= tally.seconds < math.inf and max(numbers) <= _MOST_COUNT):
            raise ValueError(f"a state with {tally.joules:g} J for {tally.count} inferences is not possible")
        tally._joules = tally.joules
        tally.buckets = numbers[2:]
        return tally


class Inferences:
    """Counts the reported inferences and attributes energy to them. The methods are thread-safe.

    Messages can be taken while energy is being attributed.

    Args:
        history: The device's energy over time.
        most_series: Most label sets; further ones become ``other``.
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
        """Attribute joules to the inferences whose energy is known by now.

        Args:
            now: The present (monotonic s).
            engine_lock: Lock that is held while the device's energy is copied, but not while it is attributed.
            all_of_them: Whether to settle all inferences, at the end of the daemon.
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
                        tally.settled += share.span.count
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

    def counts(self, now: float, engine_lock: threading.Lock) -> list[dict[str, Any]]:
        """What is counted of each model, as JSON; ``energy_j`` is that of ``with_energy`` inferences."""
        self.settle(now, engine_lock)
        with self.lock:
            return [
                {
                    "model": model,
                    "variant": variant,
                    "runtime": runtime,
                    "inferences": tally.count,
                    "with_energy": tally.settled,
                    "energy_j": tally.joules,
                }
                for (model, variant, runtime), tally in self.tallies.items()
            ]

    def state(self) -> list[Any]:
        """The state from which a later daemon resumes."""
        with self.lock:
            return [[*key, tally.state()] for key, tally in self.tallies.items()]

    def resume(self, state: list[Any]) -> None:
        """Resume from an earlier daemon's state; must be called before the first message.

        Raises:
            ValueError, TypeError: the state is not valid.
        """
        for *labels, counts in state[: self.most_series + 1]:
            model, variant, runtime = map(str, labels)
            if not (is_label(model) and is_label(variant) and is_label(runtime)):
                raise ValueError("not labels")
            self.tallies[model, variant, runtime] = Tally.restored(counts)
