"""Joules of stages compared with the truth: the ratio of estimate to truth, and coverage, by method and by sensor.

A simulated pipeline of four stages with known powers runs at 15 frames/s for a minute and a half; the number of faces
per frame varies or is constant. The sensors are those of ``truth_sensors``, with errors drawn within the limits of
their data sheets. The regression method uses the times of the stages and the readings. The repetition method uses
alternating windows of plain frames and of frames in which one stage is called three more times. The time-share method
divides the energy of a frame in proportion to the times of its stages.

    python benchmarks/stages.py [--smoke] [--runs N] [--json FILE]
"""

from __future__ import annotations

import statistics
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from paired import parser, table, write
from truth_plant import Plant, read_times
from truth_sensors import Block, Counter, Ina3221

from edgeprof.benchmark.plan import pause_s, settle_s
from edgeprof.energy import filters
from edgeprof.energy.integrate import ChannelSeries
from edgeprof.energy.quote import measure_spans
from edgeprof.energy.recording import Recording
from edgeprof.energy.stage_figures import report_stages
from edgeprof.energy.stages import marginal_energy
from edgeprof.sensing.trace import Series, deduplicate
from edgeprof.stage_rings import StageSpan
from edgeprof.worker.span import WINDOW, Span, idle_span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Seconds and watts of each stage (as in a detector with one embedding per face), the idle power, and the frame rate.
STAGES = {"decode": (0.003, 5.0), "detect": (0.020, 8.0), "embed": (0.017, 6.5), "draw": (0.002, 4.6)}
IDLE_W, RATE_HZ = 4.0, 15.0
REPEATS, WINDOWS = 3, 5
SENSORS: dict[str, Callable[[], Any]] = {
    "INA3221, τ 0.43 s": Ina3221,
    "INA238, 50 ms": Block,
    "block of 1 s": lambda: Block(refresh=1.0),
    "RAPL, 1 ms": Counter,
    "counter of 100 ms": lambda: Counter(refresh=0.1, step=1e-3),
}


class Sampled:
    """A sampler of one channel that already has its readings."""

    def __init__(self, channel: Any, times: Any, values: Any) -> None:
        self.channels = [channel]
        self._read = Series(times.tolist(), values.tolist())
        self._kept = deduplicate(self._read, channel, 0.01)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @property
    def trace(self) -> Sampled:
        return self

    def series(self, _key: Any) -> Series:
        return self._kept

    def readings(self, _key: Any) -> Series:
        return self._read


class Made:
    """Builds a power curve frame by frame, and records its stages and windows."""

    def __init__(self, rng: Any) -> None:
        self.plant, self.spans, self._rng = Plant(), [], rng

    def idle(self, seconds: float) -> Span:
        start = self.plant.now
        self.plant.add(seconds, IDLE_W)
        return idle_span(start, self.plant.now)

    def frame(self, faces: int, repeated: str | None = None) -> None:
        """Add the stages of a frame, with ``repeated`` called more often, without the pause before the next frame."""
        for name, (length, watts) in STAGES.items():
            calls = (faces if name == "embed" else 1) * (1 + REPEATS * (name == repeated))
            for _ in range(calls):
                start = self.plant.now
                self.plant.add(length * (1 + 0.05 * self._rng.standard_normal()), watts)
                self.spans.append(StageSpan((name, "", "", ""), start, self.plant.now, (1, 1)))

    def live(self, seconds: float, *, vary: bool) -> None:
        """Add frames at the frame rate."""
        end = self.plant.now + seconds
        while self.plant.now < end:
            due = self.plant.now + 1 / RATE_HZ
            self.frame(int(self._rng.integers(0, 3)) if vary else 1)
            self.idle(max(0.0, due - self.plant.now))

    def window(self, seconds: float, faces: Sequence[int], repeated: str | None) -> Span:
        """Add whole loops of a clip without pauses, and return their window."""
        start, frames = self.plant.now, 0
        while self.plant.now - start < seconds:
            for count in faces:
                self.frame(count, repeated)
                frames += 1
        return Span(WINDOW, start, self.plant.now, frames, "frame", (repeated or "frame",))


def readings(sensor: Any, power: Any, rng: Any) -> Sampled:
    """Return what a sampler at 100 Hz reads from a sensor, with the sampler's own timing errors."""
    sensor.draw(rng)
    times, values = sensor.series(power, read_times(rng, power.end, 0.01), rng)
    return Sampled(sensor.channel, times, values)


def by_regression(sensor: Any, rng: Any, *, vary: bool, seconds: float) -> dict[str, Quoted]:
    """Return stage → the ratio of its net joules to the truth."""
    made = Made(rng)
    made.idle(3.0)
    made.live(seconds, vary=vary)
    sampled = readings(sensor, made.plant.frozen(), rng)
    headline = SimpleNamespace(channels=sampled.channels, covers="module", rail="it", reason=None)
    recording = Recording(SimpleNamespace(headline=headline, channels=sampled.channels), sampled)  # type: ignore[arg-type]
    stages = report_stages(recording, made.spans).stages
    return {
        stage.name: over_truth(stage.name, stage.energy_j_per_call and stage.energy_j_per_call.net) for stage in stages
    }


def by_repetition(sensor: Any, rng: Any, *, window_s: float) -> dict[str, Quoted]:
    """Return the same from alternating windows of plain frames and of frames with one stage repeated."""
    made = Made(rng)
    members: list[str | None] = [None, *STAGES]
    windows: dict[str | None, list[Span]] = {member: [] for member in members}
    faces = [1, 0, 2, 1, 1]
    before = made.idle(max(5.0, settle_s([sensor.channel])))
    for turn in range(WINDOWS):
        for member in members if turn % 2 == 0 else reversed(members):
            windows[member].append(made.window(window_s, faces, member))
            made.idle(pause_s([sensor.channel]))
    made.idle(settle_s([sensor.channel]))
    after = made.idle(5.0)
    sampled = readings(sensor, made.plant.frozen(), rng)
    busy = [span for spans in windows.values() for span in spans]
    kept = sampled.series(None)
    series = [ChannelSeries(sensor.channel, np.asarray(kept.times), np.asarray(kept.values))]
    series, _, _ = filters.fit_filters(series, filters.rests(busy, made.plant.now, 0.3))
    measured = {
        member: measure_spans(series, [], spans, [before, after], covers="module", rail="it", busy=busy).energy.net
        for member, spans in windows.items()
    }
    return {
        name: over_truth(name, marginal_energy(measured[None], measured[name], REPEATS * calls_per_frame(name, faces)))
        for name in STAGES
    }


def calls_per_frame(name: str, faces: Sequence[int]) -> float:
    return statistics.fmean(faces) if name == "embed" else 1.0


class Quoted(NamedTuple):
    """A figure and the half-width of its 95 % interval, both divided by the truth; None if it was withheld."""

    ratio: float | None
    half_width: float | None


def over_truth(name: str, figure: Any) -> Quoted:
    length, watts = STAGES[name]
    truth = length * (watts - IDLE_W)
    if figure is None or figure.value is None:
        return Quoted(None, None)
    return Quoted(figure.value / truth, figure.expanded_uncertainty / truth)


def cell(quoted: Sequence[Quoted]) -> str:
    """Return ``1.00 ± 0.02, 95 % of 20``: mean and spread of estimate/truth, and the coverage of the truth."""
    known = [(one.ratio, one.half_width) for one in quoted if one.ratio is not None and one.half_width is not None]
    if not known:
        return f"refused ({len(quoted)} of {len(quoted)})"
    ratios = [ratio for ratio, _ in known]
    spread = statistics.stdev(ratios) if len(ratios) > 1 else 0.0
    covered = sum(abs(ratio - 1) <= half for ratio, half in known)
    refused = f", {len(quoted) - len(known)} refused" if len(known) < len(quoted) else ""
    return f"{statistics.fmean(ratios):.2f} ± {spread:.2f} ({covered}/{len(known)}{refused})"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--runs", type=int, default=12)
    given = arguments.parse_args()
    names = list(SENSORS)[:1] if given.smoke else list(SENSORS)
    runs, seconds, window_s = (1, 30.0, 1.0) if given.smoke else (given.runs, 90.0, 10.0)
    rows, content = [], []
    for name in names:
        for how in ("varies", "constant", "repeat"):
            if given.smoke and how == "constant":
                continue
            results: list[dict[str, Quoted]] = []
            for run in range(runs):
                rng = np.random.default_rng([run, names.index(name), len(how)])
                sensor = SENSORS[name]()
                if how == "repeat":
                    results.append(by_repetition(sensor, rng, window_s=window_s))
                else:
                    results.append(by_regression(sensor, rng, vary=how == "varies", seconds=seconds))
            content.append({"sensor": name, "how": how, "results": results})
            method = "repeat" if how == "repeat" else "regression"
            of = {"varies": "varies", "constant": "constant", "repeat": "any"}[how]
            missing = Quoted(None, None)
            cells = [cell([result.get(stage, missing) for result in results]) for stage in STAGES]
            rows.append([name, of, method, *cells])
            print(rows[-1], file=sys.stderr)
    print(table(["sensor", "input", "method", *STAGES], rows))
    write(given.json, {"runs": runs, "rows": content})


if __name__ == "__main__":
    main()
