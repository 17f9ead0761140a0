"""Stages that applications mark (``edgeprof.stage``): counts, and joules by regression, in their own series.

The rule: the readings of the device over the last ``WINDOW_S`` are regressed on the times at which each stage ran, as
in ``edgeprof.record`` (``edgeprof.energy.online.stage_regression``). A stage receives the power that it draws above the
baseline, and a share of the baseline; stages that run at the same moment in several threads or processes receive equal
shares. A stage that cannot be separated from others waits for a later window, and counts as without energy after
``PATIENCE_S``. The joules of inferences are another view of the same energy, and are not to be added to these.
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

#: Length of the data of a fit (s), and interval between two fits (s).
WINDOW_S, PERIOD_S = 90.0, 30.0
#: Newest time that a fit leaves out (s), since stages may not have ended and readings may come late.
SETTLE_S = 3.0
#: Longest time for which calls wait for their joules (s).
PATIENCE_S = 600.0
#: Largest relative standard error of a stage's power that is accepted.
MOST_RELATIVE_U = 0.20
#: Stages beyond this many are counted under ``other``.
MOST_SERIES = 50
OTHER: Key = ("other", "other", "other", "other")
#: Most readings of a channel and most spans that are kept for a fit.
_MOST_READINGS, _MOST_SPANS = 20_000, 50_000
_MOST_COUNT = 1 << 53


class StageTally:
    """The counters of one stage.

    Attributes:
        count: Number of calls.
        seconds: Duration of all calls together.
        joules: Energy of the calls whose energy is known.
        without: Number of calls whose energy is not known.
        own_s: Seconds of the stage's own time that wait for joules.
        shared_s: The same seconds, divided among the stages that ran at the same time.
        waiting: Number of calls that wait for joules.
        since_s: Time since when they wait (monotonic s).
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
    """Makes counters from spans and readings. The methods are thread-safe.

    Args:
        folder: Folder in which applications create their rings; None: there are no stages.
        most_series: Most stages; further ones become ``other``.
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
        #: Whether readings are kept: not before the first stage, since many devices never have one.
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
        """Read the rings, and fit if a fit is due.

        Args:
            now: The present (monotonic s).
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
                span = span._replace(key=key)  # noqa: PLW2901 - from here on it has the name of its series
                tally = self.tallies[key]
                tally.count += 1
                tally.waiting += 1
                tally.seconds += span.end_s - span.start_s
                self._spans.append(span)
                self._shared.add([Ran(key, span.start_s, span.end_s, span.thread)])

    def fit(self, now: float, headline: Sequence[Channel]) -> None:
        """Fit the readings, and give joules to the stages whose power the fit determines."""
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
        """Add the seconds since the last fit to the waiting seconds of each stage."""
        own_seconds, shared = dict(self._shared.own_s), dict(self._shared.shared_s)
        self._shared.advance(until_s)
        self._shared.forget(until_s - 1.0)
        for key, tally in self.tallies.items():
            tally.own_s += self._shared.own_s.get(key, 0.0) - own_seconds.get(key, 0.0)
            tally.shared_s += self._shared.shared_s.get(key, 0.0) - shared.get(key, 0.0)

    def _powers(
        self, timeline: Timeline, headline: Sequence[Channel], from_s: float, until_s: float
    ) -> tuple[Mapping[Key, float], float | None]:
        """The power above the baseline of each stage that the fit determines (W), and the baseline (W)."""
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
        """The key, or ``other`` if there are too many; the key has a tally afterwards."""
        if key not in self.tallies and len(self.tallies) - (OTHER in self.tallies) >= self.most_series:
            key = OTHER
        if key not in self.tallies:
            self.tallies[key] = StageTally(now)
        return key

    def state(self) -> list[Any]:
        """The state from which a later daemon resumes."""
        with self.lock:
            return [
                [*key, tally.count, tally.without + tally.waiting, tally.joules, tally.seconds]
                for key, tally in self.tallies.items()
            ]

    def resume(self, state: list[Any]) -> None:
        """Resume from an earlier daemon's state; must be called before the first stage.

        Raises:
            ValueError, TypeError: the state is not valid.
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
                raise ValueError("impossible counts of stages")
            self.tallies[key] = tally

    def close(self) -> None:
        if self._rings is not None:
            self._rings.close()


def stage_folder(track: Path | None, group: int | None) -> Path | None:
    """Create the folder beside the track socket in which applications of its group may create rings; None if it fails.

    Args:
        track: Path of the track socket; None: there is none, and no folder either.
        group: Number of the group; None: the process's own.
    """
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
