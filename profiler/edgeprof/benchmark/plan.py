"""The plan of a run and its duration: presets, their overrides, and the interleaved order. All functions are pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgeprof.errors import InputError, require_range, unknown
from edgeprof.sensing.reader import DEFAULT_RATE_HZ, read_interval
from edgeprof.worker.scenario import SCENARIOS, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgeprof.sensing.sensor import Channel, PartTime

#: The time between work and an idle period: the shortest (s), in time constants of a filter, and the longest (s),
#: because a channel with a long average would need half a minute.
SETTLE_S, _SETTLE_TAUS, _LONGEST_SETTLE_S = 0.5, 5.0, 15.0
#: The relative limit of a time constant, if the channel does not state one.
_TAU_LIMIT = 0.1
#: The pause between two windows: in readings, in refreshes of a counter or of a block average, and the longest (s).
_PAUSE_READINGS, _PAUSE_TICKS, _LONGEST_PAUSE_S = 4.0, 3.0, 2.0
#: The longest wait before an idle period, in lengths of that period.
_SETTLE_IDLES = 4.0

#: Seconds per variant for loading, process start and the steady-state search; used only for the announced duration.
_OVERHEAD_S = 2.0


@dataclass(frozen=True)
class Preset:
    """A named protocol.

    Attributes:
        windows: Windows per variant.
        window_s: Shortest window, seconds.
        periods: A window lasts at least this many refresh periods of the headline sensor.
        idle_s: Idle time before and after, seconds.
        warmup_s: Shortest warm-up, seconds.
        cool_down: Whether each window waits until the start temperature is reached (within 2 °C, for at most 60 s).
        statistic: The statistic over the windows that is quoted.
    """

    windows: int
    window_s: float
    periods: int
    idle_s: float
    warmup_s: float
    cool_down: bool = False
    statistic: Literal["mean", "median"] = "mean"


PRESETS = {
    "quick": Preset(windows=3, window_s=1.0, periods=0, idle_s=1.0, warmup_s=0.3),
    "default": Preset(windows=5, window_s=5.0, periods=50, idle_s=5.0, warmup_s=1.0),
    "rigorous": Preset(windows=10, window_s=10.0, periods=100, idle_s=15.0, warmup_s=2.0, cool_down=True),
    # MLPerf Tiny, energy mode: exactly 5 windows of at least 10 s, the median is the score.
    "mlperf-tiny": Preset(windows=5, window_s=10.0, periods=100, idle_s=10.0, warmup_s=1.0, statistic="median"),
}


@dataclass(frozen=True)
class Plan:
    """A preset with its overrides and the sensor's period applied.

    Attributes:
        window_s: Length of one window, seconds.
        sample_rate_hz: How often the headline is read: the requested rate, or one that suits its filters.
        further: Rates and streams at which the main workload is measured in addition to ``rate_hz`` and ``streams``.
        settle_s: Time between work and an idle period, seconds (see the function ``settle_s``).
        pause_s: Quiet time directly before and directly after a window, seconds (see the function ``pause_s``).
    """

    preset: str
    scenario: str
    windows: int
    window_s: float
    idle_s: float
    warmup_s: float
    cool_down: bool
    statistic: Literal["mean", "median"]
    sample_rate_hz: float
    rate_hz: float | None = None
    streams: int | None = None
    batch: int = 1
    seed: int = 0
    queue: int = 0
    further: tuple[tuple[float, int], ...] = ()
    settle_s: float = SETTLE_S
    pause_s: float = 0.0

    def seconds(self, variants: int, *, interleaved: bool) -> float:
        """Estimate the seconds of the run without cool-downs and accuracy."""
        idles = 2 if interleaved else 2 * variants
        window_s = self.window_s + 2 * self.pause_s
        idle_s = self.idle_s + (self.settle_s if self.idle_s else 0.0)
        return variants * (self.windows * window_s + self.warmup_s + _OVERHEAD_S) + idles * idle_s

    def order(self, variants: int) -> Iterator[tuple[int, int]]:
        """Yield (window, variant) in ABBA order: each round runs the variants in the reverse order of the last round.

        A linear drift then affects all variants equally (measurement rules A2: a drift of 3 % biases a ratio by 1.6
        points if the variants run one after the other, and not at all in ABBA order).
        """
        for window in range(self.windows):
            members = range(variants) if window % 2 == 0 else range(variants - 1, -1, -1)
            for variant in members:
                yield window, variant


def settle_s(channels: Iterable[Channel]) -> float:
    """Return how long to wait (s) between work and an idle period, so that no sensor still shows the work.

    After five time constants an exponential filter retains only 0.7 % of the work; the largest time constant that the
    driver's settings allow is assumed.
    """
    times = [SETTLE_S]
    for channel in channels:
        tau, limit = channel.filter.tau_s or 0.0, channel.filter.tau_limit
        times.append(_SETTLE_TAUS * tau * (1 + (_TAU_LIMIT if limit is None else limit)))
        times.append(2 * (channel.update_interval_s or 0.0))
    return min(max(times), _LONGEST_SETTLE_S)


def pause_s(channels: Iterable[Channel], rate_hz: float | None = None) -> float:
    """Return how long (s) nothing runs before and after a window, so that its edges can be determined
    (``energy.edges``).

    A filtered or instantaneous channel needs some readings in the pause; a counter or a block average needs two of its
    refreshes, and so does a source that is read more often than it refreshes.
    """
    pauses = [0.0]
    for channel in channels:
        period, refresh = read_interval(channel, rate_hz), channel.update_interval_s or 0.0
        readings_s = _PAUSE_READINGS * period + refresh
        if refresh < period:
            pauses.append(readings_s)
        elif channel.kind == "counter" or channel.filter.kind == "block":
            pauses.append(_PAUSE_TICKS * refresh)
        else:
            pauses.append(max(readings_s, _PAUSE_TICKS * refresh))
    return min(max(pauses), _LONGEST_PAUSE_S)


def start_phase(window: int, windows: int, part_time: PartTime | None) -> Phase | None:
    """Return when a window may start, so that starts are spread evenly over a part-time sensor's period.

    If the inferences are synchronous with the sensor, it always sees the same phase, and no number of repetitions helps
    (Yang et al., SC24: an error of 27 %); starts in as many strata as there are windows average over all phases.

    Args:
        window: The number of the window in its variant, from 0.
        windows: The variant's number of windows.
        part_time: The sensor's part-time behaviour; with None a window may start at any time.
    """
    return None if part_time is None else Phase(window / windows * part_time.period_s, part_time.period_s)


def make_plan(
    *,
    preset: str = "default",
    scenario: str = "single-stream",
    windows: int | None = None,
    window_s: float | None = None,
    idle_s: float | None = None,
    warmup_s: float | None = None,
    sample_rate_hz: float | None = None,
    channels: Sequence[Channel] = (),
    refresh_s: float | None = None,
    part_time: PartTime | None = None,
    rate_hz: float | None = None,
    streams: int | None = None,
    batch: int = 1,
    seed: int = 0,
    queue: int = 0,
    further: Sequence[tuple[float, int]] = (),
) -> Plan:
    """Make a plan from a preset, the user's overrides and the period of the headline sensor.

    Args:
        sample_rate_hz: The requested rate; with None the channels determine it.
        channels: The headline's channels; their filters and refreshes determine the time between windows and idle
            periods.
        refresh_s: The headline sensor's refresh interval; it lengthens the preset's window, but never a requested one.
        part_time: The part of each period that the headline sensor measures; the preset's number of windows is raised
            to the number of such parts that cover a period.
        further: More loads of the main workload (rates and streams), whose windows alternate with it.

    Raises:
        InputError: The preset or scenario is unknown, a rate is missing or has no meaning, or a value is out of range.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    base = PRESETS[preset]
    needs_rate = scenario in {"server", "periodic"}
    if needs_rate and rate_hz is None:
        raise InputError(f"the scenario {scenario} needs a rate", remedy="Add --rate HZ.")
    if rate_hz is not None and not needs_rate:
        raise InputError(f"--rate has no meaning in the scenario {scenario}", remedy="Use --scenario server|periodic.")
    if streams is not None and scenario not in {"multi-stream", "periodic"}:
        raise InputError(
            f"--streams has no meaning in the scenario {scenario}", remedy="Use --scenario multi-stream or periodic."
        )
    if queue and scenario != "periodic":
        raise InputError(f"--queue has no meaning in the scenario {scenario}", remedy="Use --scenario periodic.")
    checks: tuple[tuple[str, float | None, float, float], ...] = (
        ("--windows", windows, 1, 1000),
        ("--window", window_s, 0.05, 3600.0),
        ("--idle", idle_s, 0.0, 3600.0),
        ("--warmup", warmup_s, 0.0, 3600.0),
        ("--sample-rate", sample_rate_hz, 0.1, 10_000.0),
        *(("--rate", rate, 1e-3, 1e6) for rate in (rate_hz, *(rate for rate, _ in further))),
        *(("--streams", count, 1, 1024) for count in (streams, *(count for _, count in further))),
        ("--queue", queue, 0, 1000),
        ("--batch", batch, 1, 65536),
    )
    for flag, value, low, high in checks:
        require_range(flag, value, low, high)
    settle = settle_s(channels)
    # By default an idle period is long enough for the filter; before a requested short one, the wait is limited to a
    # few times its length.
    idle_s = max(base.idle_s, settle / 2.5) if idle_s is None else idle_s
    strata = 1 if part_time is None else math.ceil(part_time.period_s / part_time.look_s - 1e-9)
    return Plan(
        preset=preset,
        scenario=scenario,
        windows=max(base.windows, strata) if windows is None else windows,
        window_s=max(base.window_s, base.periods * (refresh_s or 0.0)) if window_s is None else window_s,
        idle_s=idle_s,
        warmup_s=base.warmup_s if warmup_s is None else warmup_s,
        cool_down=base.cool_down,
        statistic=base.statistic,
        sample_rate_hz=sample_rate_hz or 1 / max((read_interval(c) for c in channels), default=1 / DEFAULT_RATE_HZ),
        rate_hz=rate_hz,
        streams=streams or (8 if scenario == "multi-stream" else None),
        batch=batch,
        seed=seed,
        queue=queue,
        further=tuple(further),
        settle_s=min(settle, max(_SETTLE_IDLES * idle_s, min(SETTLE_S, idle_s / 2))),
        pause_s=pause_s(channels, sample_rate_hz),
    )
