"""Compute joules per unit, gross and net, with their uncertainties, from channels' readings and spans of work.

The unit of replication is the window: K windows give a t-interval (type A, GUM 4.2). Errors of the sensor that all
windows share are added as type B (GUM 5.1.2): gains, offsets, time constants and quantised levels, each with its cause
(``influences``). Errors that differ from window to window (edges, steps) are part of the scatter of the windows, which
is taken to be at least as large as these errors make it. The expanded uncertainty is U = k·u_c with k for 95 %
(``uncertainty.coverage_factor``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy import idle as idling
from edgeprof.energy.estimate import estimate_joules
from edgeprof.energy.figures import (
    Estimate,
    Measured,
    Statistic,
    largest_line,
    make_figure,
    nothing_measured,
    unknown_figure,
    withhold_value,
    without_figures,
)
from edgeprof.energy.influences import Share, as_squares, shared_influences
from edgeprof.energy.integrate import ChannelSeries, WindowEnergy, highest_power, window_energy
from edgeprof.energy.sag import excess_w
from edgeprof.energy.standstill import frozen_reasons
from edgeprof.energy.uncertainty import RECTANGULAR, Component
from edgeprof.provenance import provenance_of_sum
from edgeprof.reasons import Code
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from edgeprof.energy.idle import Idle
    from edgeprof.provenance import Provenance
    from edgeprof.sensing.sensor import Channel
    from edgeprof.worker.span import Span

__all__ = ["Measured", "estimate_joules", "measure_spans", "nothing_measured"]

#: A gross figure is withheld if its relative expanded uncertainty U/E is larger than this.
MAX_RELATIVE_U = 0.20
#: A net figure is withheld if it is smaller than this many of its standard uncertainties.
MIN_NET_U = 3.0

_PROBLEMS = {
    "gaps": ("the trace of {rail} has a gap of {gap:.3g} s in {n} of {all} windows", None),
    "few_samples": (
        "{rail} gave too few readings in {n} of {all} windows, which are too short for it",
        "Use longer windows: --window S.",
    ),
    "no_samples": (
        "{rail} gave no reading in {n} of {all} windows",
        "edgeprof doctor tells whether the sensor still reads.",
    ),
    "counter_reset": (
        "the energy counter {rail} fell back in {n} of {all} windows, which no wrap explains",
        "Run it again.",
    ),
    "counter_jumped": (
        "the energy counter {rail} rose in {n} of {all} windows by more than the machine can draw",
        "Run it again.",
    ),
}


@dataclass(frozen=True)
class _Total:
    """The sum of the headline's channels in one window: joules and standard uncertainties, in J."""

    joules: float
    u_sync: float
    u_resolution: float
    u_filter: float


def measure_spans(
    headline: Sequence[ChannelSeries],
    parts: Sequence[ChannelSeries],
    windows: Sequence[Span],
    idles: Sequence[Span],
    *,
    covers: str | None,
    rail: str | None,
    statistic: Statistic = "mean",
    max_rate_hz: float | None = None,
    busy: Sequence[Span] = (),
    expected_w: float = 0.0,
    intermittent: Collection[Span] = (),
) -> Measured:
    """Measure the joules per unit of work.

    Args:
        headline: The channels whose sum is the total; several where a board has no total rail.
        parts: Further channels, each reported by itself and never added.
        windows: The measured spans, all of one unit.
        idles: The stretches without work and with the model loaded, before and after the work.
        covers: What the headline covers, such as ``module``.
        rail: The name of the headline.
        statistic: Which statistic of the windows is quoted.
        max_rate_hz: The highest rate of back-to-back units, in Hz; by default that of the windows.
        busy: Everything that ran, including other variants' windows and warm-ups. The time between is quiet, and the
            edges of windows are taken from it. Empty: what ran beside the windows is unknown.
        expected_w: The least power (W) that the work adds to the total; a total that does not show it is stuck.
        intermittent: Those of ``busy`` that contain idle time, such as the windows of a camera.

    Returns:
        The figures; unknown ones are None, with a reason.
    """
    provenance = provenance_of_sum([series.channel.provenance for series in headline])
    if not headline:
        return nothing_measured("nothing measures energy or power here")
    if not windows or any(window.count <= 0 for window in windows):
        unit = windows[0].unit if windows else "inference"
        article = "an" if unit[:1] in "aeiou" else "a"
        why = schema.Reason(Code.NO_INFERENCES, f"a window without {article} {unit} has no joules per {unit}")
        return without_figures(provenance, covers, rail, [why])
    frozen = frozen_reasons(headline, busy, windows, idles, expected_w, intermittent=intermittent)
    if frozen:
        return without_figures(provenance, covers, rail, frozen)
    reasons: list[schema.Reason] = []
    quiet = [_quiet_beside(window, busy) for window in windows]
    by_channel = [_windows_of(series, windows, reasons, quiet) for series in headline]
    totals = [_sum_channels(column) for column in zip(*by_channel, strict=True)]
    usable = [(window, total) for window, total in zip(windows, totals, strict=True) if total is not None]
    joules = [None if total is None else total.joules for total in totals]
    before_after = [idle for span in idles if (idle := idling.measure_idle(headline, span)) is not None]
    power = _headline_power(headline, usable, before_after)
    if not usable:
        return Measured(without_figures(provenance, covers, rail, ()).energy, power, joules, reasons)
    channels = [series.channel for series in headline]
    reasons += [*_unstated_limits(channels), *_estimated_parts(channels, provenance)]
    columns = [[e for e, total in zip(column, totals, strict=True) if total is not None] for column in by_channel]
    reasons += _beyond_calibration(usable, columns, channels)
    if len(usable) == 1:
        reasons.append(
            schema.Reason(Code.ONE_WINDOW, "a single window: how far it repeats is unknown and not in the uncertainty")
        )
    gross = _gross_figure(usable, _channel_shares(usable, columns, channels), statistic, reasons)
    reasons += _correlation_reasons(gross)
    net = unknown_figure()
    if before_after:
        baseline = idling.Baseline(before_after)
        net = _net_figure(
            usable, _channel_shares(usable, columns, channels, baseline.parts()), baseline, statistic, reasons
        )
    else:
        reasons.append(
            schema.Reason(
                Code.NO_IDLE, "the power without work was not measured, so the net energy is unknown", "Use --idle S."
            )
        )
    marginal = None
    if net.value is not None and power.idle is not None:
        rate = max_rate_hz or sum(w.count for w in windows) / sum(w.seconds for w in windows)
        marginal = schema.Marginal(e_net_j=net.value, p_idle_w=power.idle, max_rate_hz=rate)
    energy = schema.Energy(
        provenance=provenance,
        rail=rail,
        covers=covers,
        gross=gross,
        net=net,
        rails=_rail_energies([*headline, *parts], windows, quiet),
        marginal=marginal,
    )
    return Measured(energy, power, joules, reasons)


# --- windows ----------------------------------------------------------------------------------------------------------


def _quiet_beside(window: Span, busy: Sequence[Span]) -> tuple[float, float]:
    """For how long (s) nothing runs before a window and after it; 0 where that is unknown."""
    if not busy:
        return 0.0, 0.0
    before = [span.end_s for span in busy if span.end_s <= window.start_s]
    after = [span.start_s for span in busy if span.start_s >= window.end_s]
    return window.start_s - max(before, default=-math.inf), min(after, default=math.inf) - window.end_s


def _windows_of(
    series: ChannelSeries,
    windows: Sequence[Span],
    reasons: list[schema.Reason] | None = None,
    quiet: Sequence[tuple[float, float]] = (),
) -> list[WindowEnergy]:
    """The energy of each window from one channel; problems are added to ``reasons``, one for each kind."""
    energies = [
        window_energy(series.times, series.values, window.start_s, window.end_s, series.channel, quiet=beside)
        for window, beside in zip(windows, quiet or [(0.0, 0.0)] * len(windows), strict=True)
    ]
    energies = [_without_sag(series, window, energy) for window, energy in zip(windows, energies, strict=True)]
    if reasons is None:
        return energies
    for code, (message, remedy) in _PROBLEMS.items():
        hit = [energy for energy in energies if code in energy.problems]
        if hit:
            gap = max((energy.max_gap_s or 0.0) for energy in hit)
            text = message.format(rail=series.channel.name, gap=gap, n=len(hit), all=len(windows))
            reasons.append(schema.Reason(code, text, remedy))
    return energies


def _without_sag(series: ChannelSeries, window: Span, energy: WindowEnergy) -> WindowEnergy:
    """Subtract from a window's energy what a sagging voltage adds to it behind a filter (``energy.sag``)."""
    shape = series.channel.filter
    if series.sag is None or energy.joules is None or shape.kind != "exponential" or not shape.tau_s:
        return energy
    t, v = np.asarray(series.times, dtype=np.float64), np.asarray(series.values, dtype=np.float64)
    part = (t >= window.start_s) & (t <= window.end_s) & ~np.isnan(v)
    excess = excess_w(t[part], v[part], shape.tau_s, series.channel.resolution or 0.0, series.sag)
    joules = excess * window.seconds
    return replace(energy, joules=energy.joules - joules, sag_j=joules)


def _sum_channels(column: Sequence[WindowEnergy]) -> _Total | None:
    """The sum over the channels of one window; None if a part is missing: the sum would be too small."""
    joules = [energy.joules for energy in column if energy.joules is not None]
    if len(joules) < len(column):
        return None
    return _Total(
        joules=math.fsum(joules),
        # Rails share their edges and their clock, so these errors have the same sign in all of them and add linearly.
        u_sync=math.fsum(energy.u_sync for energy in column),
        u_resolution=math.hypot(*(energy.u_resolution for energy in column)),
        u_filter=math.hypot(*(energy.u_filter for energy in column)),
    )


# --- figures ----------------------------------------------------------------------------------------------------------


def _random_components(usable: Sequence[tuple[Span, _Total]]) -> list[Component]:
    """Standard uncertainties of the mean (J per unit) from errors that differ by window: they fall with √K."""
    lines = {"sync": "u_sync", "resolution": "u_resolution", "filter": "u_filter"}
    return [
        Component(
            line,
            as_squares([getattr(total, name) / window.count for window, total in usable]) / len(usable),
            random=True,
        )
        for line, name in lines.items()
    ]


def _edge_components(usable: Sequence[tuple[Span, _Total]]) -> list[Component]:
    """The shared error of spans whose ends were reported by another device (J per unit).

    A report that is late by up to ``edge_s`` shifts the whole span: it loses work at its beginning and gains idle time
    at its end. The power of the work is an upper limit for the difference of the two.
    """
    limits = [span.edge_s * total.joules / span.seconds / span.count for span, total in usable if span.edge_s > 0]
    if not limits:
        return []
    return [Component("sync", RECTANGULAR * math.fsum(limits) / len(usable), rectangular=True)]


def _channel_shares(
    usable: Sequence[tuple[Span, _Total]],
    columns: Sequence[Sequence[WindowEnergy]],
    channels: Sequence[Channel],
    idle: Sequence[tuple[float, float, float]] = (),
) -> list[Share]:
    """The contribution of each channel to the gross energy or, with its ``Idle.parts``, to the net energy."""
    k = len(usable)
    counts = [window.count for window, _ in usable]
    seconds = math.fsum(window.seconds / window.count for window, _ in usable) / k
    length = math.fsum(window.seconds for window, _ in usable)

    def mean(values: Iterable[float]) -> float:
        return math.fsum(value / count for value, count in zip(values, counts, strict=True)) / k

    shares = []
    for number, (column, channel) in enumerate(zip(columns, channels, strict=True)):
        watts, u_level, slope = idle[number] if idle else (0.0, 0.0, 0.0)
        joules = [energy.joules or 0.0 for energy in column]
        shares.append(
            Share(
                channel,
                joules=mean(joules) - watts * seconds,
                seconds=0.0 if idle else seconds,
                watts=math.fsum(joules) / length,
                u_level=math.hypot(mean(energy.u_level for energy in column), u_level * seconds),
                tau_slope_w=mean(energy.tau_slope_w for energy in column) - slope * seconds,
                sag_j=mean(energy.sag_j for energy in column),
            )
        )
    return shares


def _gross_figure(
    usable: Sequence[tuple[Span, _Total]],
    shares: Sequence[Share],
    statistic: Statistic,
    reasons: list[schema.Reason],
) -> schema.EnergyFigure:
    """The gross energy per unit, withheld with a reason if it is too uncertain."""
    values = [total.joules / window.count for window, total in usable]
    quoted = _combine_windows(values, [], usable, shares, statistic)
    if quoted.value > 0 and quoted.total.expanded <= MAX_RELATIVE_U * quoted.value:
        return quoted.figure
    source = largest_line(quoted.figure.budget)
    share = (
        f"{100 * quoted.total.expanded / quoted.value:.0f} % of it"
        if quoted.value > 0
        else "more than the energy itself"
    )
    reasons.append(
        schema.Reason(
            Code.UNCERTAIN,
            f"the energy's uncertainty is {share}, mostly {source}: beyond {100 * MAX_RELATIVE_U:.0f} % no"
            " figure is quoted",
            "edgeprof calibrate narrows gain and offset."
            if source in {"gain", "offset"}
            else "Use more and longer windows: --windows K --window S.",
        )
    )
    return withhold_value(quoted)


def _combine_windows(
    values: Sequence[float],
    components: Sequence[Component],
    usable: Sequence[tuple[Span, _Total]],
    shares: Sequence[Share],
    statistic: Statistic,
) -> Estimate:
    """The mean or median of the windows, with all lines of its budget."""
    shared = shared_influences(shares)
    parts = [
        *components,
        *_random_components(usable),
        *_edge_components(usable),
        *(influence.component() for influence in shared),
    ]
    return make_figure(values, parts, statistic, {influence.name: influence.u for influence in shared})


def _net_figure(
    usable: Sequence[tuple[Span, _Total]],
    shares: Sequence[Share],
    baseline: idling.Baseline,
    statistic: Statistic,
    reasons: list[schema.Reason],
) -> schema.EnergyFigure:
    """The net energy per unit, E − P_idle·W for a window of W seconds, withheld with a reason if it is too uncertain.

    An additive offset of the sensor cancels in it; the sensor's gain acts on the net energy.
    """
    reason = baseline.drift_reason()
    if reason is not None:
        reasons.append(reason)
    values, seconds = [], []
    for window, total in usable:
        values.append((total.joules - baseline.power_at(window.middle_s) * window.seconds) / window.count)
        seconds.append(window.seconds / window.count)
    length = math.fsum(seconds) / len(seconds)
    components = [Component("idle", part.u * length, part.nu) for part in baseline.components()]
    quoted = _combine_windows(values, components, usable, shares, statistic)
    source = largest_line(quoted.figure.budget)
    if quoted.value < MIN_NET_U * quoted.total.u:
        why = f"is less than {MIN_NET_U:g} of its own standard uncertainties ({source} above all), so it is not quoted"
    elif quoted.total.expanded > MAX_RELATIVE_U * quoted.value:
        share = f"{100 * quoted.total.expanded / quoted.value:.0f} % of it"
        why = f"has an uncertainty of {share}, mostly {source}: beyond {100 * MAX_RELATIVE_U:.0f} % it is not quoted"
    else:
        return quoted.figure
    remedy = "Use longer windows and idles: --window S --idle S."
    reasons.append(schema.Reason(Code.NET_UNCERTAIN, f"the net energy {why}", remedy))
    return withhold_value(quoted)


def _unstated_limits(channels: Sequence[Channel]) -> list[schema.Reason]:
    """The reason that sources state no limit of their gain error, so that it is missing from the uncertainty."""
    silent = sorted(
        {c.sensor for c in channels if c.gain_limit is None and c.calibration is None and c.provenance != "simulated"}
    )
    if not silent:
        return []
    return [
        schema.Reason(
            Code.GAIN_UNKNOWN,
            f"{', '.join(silent)} states no limit of its gain error: it is not in the uncertainty",
            "edgeprof calibrate --against METER finds it.",
        )
    ]


def _correlation_reasons(gross: schema.EnergyFigure) -> list[schema.Reason]:
    """The reason that consecutive windows are correlated.

    Independent windows exceed the limit once in forty times: their lag-one correlation has the mean −1/K and the
    standard deviation 1/√K (Bartlett 1946).
    """
    correlation, count = gross.autocorrelation, len(gross.windows)
    if correlation is None or correlation <= -1 / count + 1.96 / math.sqrt(count):
        return []
    text = (
        f"each window is like the one before (correlation {correlation:.2f}): the interval takes them to be independent"
    )
    return [schema.Reason(Code.CORRELATED_WINDOWS, text, "Let the device settle first, or use longer windows.")]


def _estimated_parts(channels: Sequence[Channel], provenance: Provenance) -> list[schema.Reason]:
    """The reason that parts of a measured sum are estimates."""
    names = [c.name for c in channels if c.provenance == "estimated"]
    if not names or provenance == "estimated":
        return []
    verb = "is an estimate" if len(names) == 1 else "are estimates"
    text = f"{' + '.join(names)} {verb} within the total: how far off is in the uncertainty"
    return [schema.Reason(Code.ESTIMATED_PART, text)]


def _beyond_calibration(
    usable: Sequence[tuple[Span, _Total]], by_channel: Sequence[Sequence[WindowEnergy]], channels: Sequence[Channel]
) -> list[schema.Reason]:
    """The reason that a calibration was used outside the range of powers in which it was made."""
    length = math.fsum(window.seconds for window, _ in usable)
    reasons = []
    for column, channel in zip(by_channel, channels, strict=True):
        calibration = channel.calibration
        if calibration is None:
            continue
        raw = calibration.raw(math.fsum(e.joules for e in column if e.joules is not None) / length)
        margin = 0.1 * (calibration.high_w - calibration.low_w)
        if not calibration.low_w - margin <= raw <= calibration.high_w + margin:
            reasons.append(
                schema.Reason(
                    Code.BEYOND_CALIBRATION,
                    f"{channel.name} was calibrated from {calibration.low_w:.3g} to {calibration.high_w:.3g} W"
                    f" and used at {raw:.3g} W",
                    "Calibrate it again over a wider range: edgeprof calibrate --against METER",
                )
            )
    return reasons


# --- around -----------------------------------------------------------------------------------------------------------


def _rail_energies(
    series: Sequence[ChannelSeries], windows: Sequence[Span], quiet: Sequence[tuple[float, float]]
) -> dict[str, float]:
    """Joules per unit of each rail by itself; a rail that could not be measured in every window is left out.

    A rail that has both a counter and a power is reported once, by the one that comes first in ``series``.
    """
    sources: dict[str, set[str]] = {}
    for rail in series:
        sources.setdefault(rail.channel.name, set()).add(rail.channel.sensor)
    rails: dict[str, float] = {}
    for rail in series:
        channel = rail.channel
        name = channel.name if len(sources[channel.name]) == 1 else f"{channel.sensor}:{channel.name}"
        if name in rails or (channel.quantity == "energy" and channel.kind != "counter"):
            continue
        counted = [(e.joules, w.count) for e, w in zip(_windows_of(rail, windows, quiet=quiet), windows, strict=True)]
        values = [joules / count for joules, count in counted if joules is not None]
        if len(values) == len(windows):
            rails[name] = math.fsum(values) / len(values)
    return rails


def _headline_power(
    headline: Sequence[ChannelSeries], usable: Sequence[tuple[Span, _Total]], idles: Sequence[Idle]
) -> schema.Power:
    mean = None
    if usable:
        mean = math.fsum(t.joules for _, t in usable) / math.fsum(w.seconds for w, _ in usable)
    return schema.Power(
        mean=mean,
        max=highest_power(headline, [window for window, _ in usable]),
        idle=math.fsum(i.power for i in idles) / len(idles) if idles else None,
        idle_before=idles[0].power if idles else None,
        idle_after=idles[-1].power if len(idles) > 1 else None,
        max_over_s=max((s.channel.filter.tau_s or s.channel.filter.length_s or 0.0 for s in headline), default=0.0)
        or None,
    )
