"""Stages that applications mark (``edgeprof.stage``): counts, and joules by regression, in series of their own.

The rule. The readings of the device are explained by when each stage ran, over the last ``WINDOW_S``, as
``edgeprof.record`` does it (``edgeprof.energy.online.stage_regression``). A stage gets what it draws beyond the
baseline, and its part of the baseline: of the stages that run at one moment in several threads or processes, each an
equal part. What cannot be told apart by then waits for a later window, and counts as without energy after
``PATIENCE_S``. The joules of inferences are another view of the same energy, and no part of these.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from edgeprof.energy.online.running_sum import MOST_JOULES
from edgeprof.energy.online.stage_regression import fit_stages, shape_of
from edgeprof.energy.online.stage_timeline import Ran, Timeline
from edgeprof.stage_rings import StageRings
from edgeprof_exporters.logs import event
from edgeprof_exporters.messages import is_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from edgeprof.sensing.sensor import Channel
    from edgeprof.stage_rings import StageSpan
    from edgeprof.staging import Key

#: A fit is over so much (s), and there is one so often (s).
WINDOW_S, PERIOD_S = 90.0, 30.0
#: The newest time (s) is left for stages that have not ended, and for readings that come late.
SETTLE_S = 3.0
#: Joules that cannot be told wait so long (s).
PATIENCE_S = 600.0
#: The standard error of a stage's power is at most this part of it.
MOST_RELATIVE_U = 0.20
#: Stages beyond this many are counted under ``other``.
MOST_SERIES = 50
OTHER: Key = ("other", "other", "other", "other")
#: Readings and stages that are kept for a fit.
_MOST_READINGS, _MOST_SPANS = 20_000, 50_000
_MOST_COUNT = 1 << 53


class StageTally:
    """The counters of one stage.

    Attributes:
        count: Calls.
        seconds: How long they took together.
        joules: Of those whose joules are known.
        without: Calls whose joules are not known.
        own_s: Seconds of its own that wait for joules.
        shared_s: The same, shared with what ran beside it.
        waiting: Calls that wait for joules.
        since_s: Since when they wait (monotonic s).
    """

    __slots__ = ("count", "joules", "own_s", "seconds", "shared_s", "since_s", "waiting", "without")

    def __init__(self, now: float) -> None:
        self.count = self.without = self.waiting = 0
        self.seconds = self.joules = self.own_s = self.shared_s = 0.0
        self.since_s = now

    @property
    def known(self) -> int:
        """Calls whose joules are known."""
        return self.count - self.without - self.waiting

    def settle(self, joules: float, now: float, unsettled: int) -> None:
        """Give what waits its joules, but for the newest calls, whose time is not accounted for yet."""
        self.joules += max(0.0, joules)
        self.own_s = self.shared_s = 0.0
        self.waiting, self.since_s = min(self.waiting, unsettled), now

    def give_up(self, now: float, unsettled: int) -> None:
        """Count what waits as without energy, but for the newest calls."""
        left = min(self.waiting, unsettled)
        self.without += self.waiting - left
        self.own_s = self.shared_s = 0.0
        self.waiting, self.since_s = left, now


class Stages:
    """Spans and readings in, counters out. Thread-safe.

    Args:
        folder: Where applications make their rings; None: there are no stages.
        most_series: Stages beyond this many become ``other``.
    """

    def __init__(self, folder: Path | None, most_series: int = MOST_SERIES) -> None:
        self.lock = threading.Lock()
        self.most_series = most_series
        self.tallies: dict[Key, StageTally] = {}
        self._rings = None if folder is None else StageRings(folder)
        self._spans: deque[StageSpan] = deque(maxlen=_MOST_SPANS)
        self._readings: dict[Channel, deque[tuple[float, float]]] = {}
        self._shared = Timeline()
        self._settled_s = -math.inf
        self._fitted_s = -math.inf
        #: Whether readings are wanted: not before a first stage, which many devices never have.
        self.is_active = False

    def watch(self, folder: Path | None) -> None:
        """Read the rings of a folder from now on."""
        self._rings = None if folder is None else StageRings(folder)

    def hear(self, channel: Channel, time_s: float, value: float) -> None:
        """Take a reading of a channel of the headline; called by the thread that read it."""
        if not self.is_active:
            return
        rows = self._readings.get(channel)
        if rows is None:
            rows = self._readings[channel] = deque(maxlen=_MOST_READINGS)
        rows.append((time_s, value))

    def poll(self, now: float, headline: Sequence[Channel]) -> None:
        """Read the rings, and fit when it is time.

        Args:
            now: Monotonic s.
            headline: The channels whose sum is the device's power.
        """
        if self._rings is None:
            return
        spans = self._rings.poll()
        self._rings.drop_dead()
        self.take(spans, now)
        if self.is_active and now - self._fitted_s >= PERIOD_S:
            self.fit(now, headline)

    def take(self, spans: Iterable[StageSpan], now: float) -> None:
        """Count stages that have ended."""
        with self.lock:
            for span in spans:
                if not self.is_active:
                    self.is_active, self._fitted_s, self._settled_s = True, now, now - SETTLE_S
                    self._shared.advance(self._settled_s)
                key = self._known(span.key, now)
                span = span._replace(key=key)  # noqa: PLW2901 - it goes by the name of its series from here on
                tally = self.tallies[key]
                tally.count += 1
                tally.waiting += 1
                tally.seconds += span.end_s - span.start_s
                self._spans.append(span)
                self._shared.add([Ran(key, span.start_s, span.end_s, span.thread)])

    def fit(self, now: float, headline: Sequence[Channel]) -> None:
        """Give joules to what can have them."""
        self._fitted_s = now
        until_s = now - SETTLE_S
        with self.lock:
            while self._spans and self._spans[0].end_s < now - WINDOW_S:
                self._spans.popleft()
            timeline = Timeline()
            timeline.add(Ran(span.key, span.start_s, span.end_s, span.thread) for span in self._spans)
            self._account(until_s)
        timeline.advance(until_s)
        powers, baseline_w = self._powers(timeline, headline, now - WINDOW_S, until_s)
        with self.lock:
            unsettled = Counter(span.key for span in self._spans if span.end_s > until_s)
            for key, tally in self.tallies.items():
                watts = powers.get(key)
                if watts is not None and baseline_w is not None:
                    tally.settle(watts * tally.own_s + baseline_w * tally.shared_s, now, unsettled[key])
                elif tally.waiting and now - tally.since_s > PATIENCE_S:
                    tally.give_up(now, unsettled[key])
            if not self._spans:
                self.is_active = False
                self._readings.clear()

    def _account(self, until_s: float) -> None:
        """Add the seconds since the last fit to what waits."""
        own_seconds, shared = dict(self._shared.own_s), dict(self._shared.shared_s)
        self._shared.advance(until_s)
        self._shared.forget(until_s - 1.0)
        for key, tally in self.tallies.items():
            tally.own_s += self._shared.own_s.get(key, 0.0) - own_seconds.get(key, 0.0)
            tally.shared_s += self._shared.shared_s.get(key, 0.0) - shared.get(key, 0.0)

    def _powers(
        self, timeline: Timeline, headline: Sequence[Channel], from_s: float, until_s: float
    ) -> tuple[Mapping[Key, float], float | None]:
        """Watts of each stage that can be told, beyond the baseline, and the baseline."""
        powers: dict[Any, list[float]] = {}
        squares: dict[Any, float] = {}
        together: set[Any] = set()
        baseline_w = 0.0
        for channel in headline:
            readings = [row for row in list(self._readings.get(channel, ())) if from_s <= row[0] <= until_s]
            fit = fit_stages(readings, timeline, shape_of(channel))
            if fit is None:
                return {}, None
            baseline_w += fit.baseline_w
            for key, power in fit.powers.items():
                powers.setdefault(key, []).append(power.watts)
                squares[key] = squares.get(key, 0.0) + power.u_w**2
                together |= {key} if power.is_collinear else set()
        sums = {key: math.fsum(watts) for key, watts in powers.items() if key not in together}
        reported = {key: watts for key, watts in sums.items() if 0 < math.sqrt(squares[key]) <= MOST_RELATIVE_U * watts}
        return reported, baseline_w if headline else None

    def _known(self, key: Key, now: float) -> Key:
        """The key, or ``other`` for one that is too many."""
        if key not in self.tallies and len(self.tallies) - (OTHER in self.tallies) >= self.most_series:
            key = OTHER
        if key not in self.tallies:
            self.tallies[key] = StageTally(now)
        return key

    def state(self) -> list[Any]:
        """What a later daemon resumes from."""
        with self.lock:
            return [
                [*key, tally.count, tally.without + tally.waiting, tally.joules, tally.seconds]
                for key, tally in self.tallies.items()
            ]

    def resume(self, state: list[Any]) -> None:
        """Before the first stage: go on from an earlier daemon's state.

        Raises:
            ValueError, TypeError: it is none.
        """
        now = time.monotonic()
        for stage, model, variant, runtime, count, without, joules, seconds in state[: self.most_series + 1]:
            key = (str(stage), str(model), str(variant), str(runtime))
            tally = StageTally(now)
            tally.count, tally.without = int(count), int(without)
            tally.joules, tally.seconds = float(joules), float(seconds)
            numbers = (tally.count, tally.without, tally.joules, tally.seconds)
            if not all(map(is_label, key)) or not all(0 <= number < math.inf for number in numbers):
                raise ValueError("not the counts of stages")
            if tally.joules > MOST_JOULES or max(tally.count, tally.without) > _MOST_COUNT:
                raise ValueError("counts of stages that cannot be")
            self.tallies[key] = tally

    def close(self) -> None:
        if self._rings is not None:
            self._rings.close()


def stage_folder(track: Path | None, group: int | None) -> Path | None:
    """The folder beside the track socket in which applications of its group may make rings; None where it cannot be."""
    if track is None:
        return None
    folder = track.parent / "stages"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if group is not None and folder.stat().st_gid != group:
            os.chown(folder, -1, group)
        folder.chmod(0o2770)  # rings belong to the group, so that the daemon may read them
    except OSError as error:
        event(logging.WARNING, "stages of applications are not received", folder=str(folder), reason=str(error))
        return None
    return folder
