"""From traces and spans of work to joules per unit, gross and net, with the uncertainty of each.

The unit of replication is the window (K windows, a t-interval); what the sensor may be wrong by, all windows alike, is
added as type B: u_c² = s²/K + gain² + offset² + sync²/K + resolution²/K + filter²/K (GUM 5.1.2), U = k·u_c with
k = t(0.975, ν_eff).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy import idle as idling
from edgeprof.energy.estimate import estimate
from edgeprof.energy.figures import Measured, Statistic, figure, largest, nothing, unknown, unmeasured, withheld
from edgeprof.energy.integrate import ChannelSeries, WindowEnergy, window_energy
from edgeprof.energy.uncertainty import RECTANGULAR, Component
from edgeprof.provenance import worst
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.energy.idle import Idle
    from edgeprof.sensing.sensor import Channel
    from edgeprof.worker.span import Span

__all__ = ["Measured", "estimate", "measure", "nothing"]

#: No gross joule is printed when U/E is beyond this.
MAX_RELATIVE_U = 0.20
#: No net joule is printed when it is below so many of its own standard uncertainties.
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
    """The headline in one window: the sum of its channels, in joules."""

    joules: float
    u_sync: float
    u_resolution: float
    u_filter: float
    u_filter_gain: float


def measure(
    headline: Sequence[ChannelSeries],
    parts: Sequence[ChannelSeries],
    windows: Sequence[Span],
    idles: Sequence[Span],
    *,
    covers: str | None,
    rail: str | None,
    statistic: Statistic = "mean",
    max_rate_hz: float | None = None,
) -> Measured:
    """Joules per unit of work.

    Args:
        headline: The channels whose sum is the total; several where a board has no total rail.
        parts: Further channels, each told on its own and never added.
        windows: The measured spans; all of one unit.
        idles: The stretches without work and with the model loaded, before and after.
        covers: What the headline covers, as ``module``.
        rail: The headline's name.
        statistic: What is quoted of the windows.
        max_rate_hz: The highest rate of back-to-back units; by default that of the windows.

    Returns:
        The figures; unknown ones are None with a reason.
    """
    provenance = worst([series.channel.provenance for series in headline])
    if not headline:
        return nothing("nothing measures energy or power here")
    if not windows or any(window.count <= 0 for window in windows):
        unit = windows[0].unit if windows else "inference"
        article = "an" if unit[:1] in "aeiou" else "a"
        why = schema.Reason("no_inferences", f"a window without {article} {unit} has no joules per {unit}")
        return unmeasured(provenance, covers, rail, [why])
    reasons: list[schema.Reason] = []
    by_channel = [_windows_of(series, windows, reasons) for series in headline]
    totals = [_add(column) for column in zip(*by_channel, strict=True)]
    usable = [(window, total) for window, total in zip(windows, totals, strict=True) if total is not None]
    joules = [None if total is None else total.joules for total in totals]
    before_after = [idle for span in idles if (idle := idling.measure_idle(headline, span)) is not None]
    power = _power(headline, usable, before_after)
    if not usable:
        return Measured(unmeasured(provenance, covers, rail, ()).energy, power, joules, reasons)
    channels = [series.channel for series in headline]
    reasons += _unstated(channels)
    reasons += _beyond(usable, by_channel, channels)
    if len(usable) == 1:
        reasons.append(
            schema.Reason("one_window", "a single window: how far it repeats is unknown and not in the uncertainty")
        )
    lines = _lines(usable, by_channel, channels)
    gross = _gross(usable, lines, _turned(usable, by_channel, channels), statistic, reasons)
    net = _net(usable, lines, before_after, statistic, reasons)
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
        rails=_rails([*headline, *parts], windows),
        marginal=marginal,
    )
    return Measured(energy, power, joules, reasons)


# --- windows ----------------------------------------------------------------------------------------------------------


def _windows_of(
    series: ChannelSeries, windows: Sequence[Span], reasons: list[schema.Reason] | None = None
) -> list[WindowEnergy]:
    found = [window_energy(series.times, series.values, w.start_s, w.end_s, series.channel) for w in windows]
    if reasons is None:
        return found
    for code, (message, remedy) in _PROBLEMS.items():
        hit = [energy for energy in found if code in energy.problems]
        if hit:
            gap = max((energy.max_gap_s or 0.0) for energy in hit)
            text = message.format(rail=series.channel.name, gap=gap, n=len(hit), all=len(windows))
            reasons.append(schema.Reason(code, text, remedy))
    return found


def _add(column: Sequence[WindowEnergy]) -> _Total | None:
    """The sum over channels of one window; a missing part makes it unavailable, not smaller."""
    joules = [energy.joules for energy in column if energy.joules is not None]
    if len(joules) < len(column):
        return None
    return _Total(
        joules=math.fsum(joules),
        # Rails share their edges and their clock: what is left out is left out in all of them.
        u_sync=math.fsum(energy.u_sync for energy in column),
        u_resolution=math.hypot(*(energy.u_resolution for energy in column)),
        u_filter=math.hypot(*(energy.u_filter for energy in column)),
        u_filter_gain=math.fsum(energy.u_filter_gain for energy in column),
    )


# --- figures ----------------------------------------------------------------------------------------------------------


def _linear_by_chip(channels: Sequence[Channel], shares: Sequence[float]) -> float:
    """Errors of one chip's rails go together and add linearly; those of different chips as squares (GUM F.1.2)."""
    chips: dict[str, float] = {}
    for channel, share in zip(channels, shares, strict=True):
        chips[channel.sensor] = chips.get(channel.sensor, 0.0) + share
    return math.hypot(*chips.values())


def _lines(
    usable: Sequence[tuple[Span, _Total]], by_channel: Sequence[Sequence[WindowEnergy]], channels: Sequence[Channel]
) -> dict[str, float | None]:
    """Standard uncertainties of the mean joules per unit, by name; ``repeatability`` is left to the caller.

    ``gain`` is relative to the energy here, because gross and net have it of their own energy.
    """
    k = len(usable)
    counts = [window.count for window, _ in usable]

    def averaged(field_name: str) -> float:
        """Independent from window to window: it falls with the root of K."""
        squares = ((getattr(total, field_name) / n) ** 2 for (_, total), n in zip(usable, counts, strict=True))
        return math.sqrt(math.fsum(squares)) / k

    def whole(field_name: str) -> float:
        """Of one sign in every window: no number of windows makes it smaller."""
        return math.fsum(getattr(total, field_name) / n for (_, total), n in zip(usable, counts, strict=True)) / k

    seconds = math.fsum(window.seconds / window.count for window, _ in usable) / k
    energies = [math.fsum(e.joules for e in column if e.joules is not None) for column in by_channel]
    total = math.fsum(energies) or 1.0
    gains = [abs(e / total) * _gain(c) for e, c in zip(energies, channels, strict=True)]
    offsets = [_offset_w(c) * seconds for c in channels]
    stated = [c.calibration is not None for c in channels]
    return {
        "gain": _linear_by_chip(channels, gains) if any(stated) or any(c.gain_limit for c in channels) else None,
        "offset": math.hypot(*offsets) if any(stated) or any(c.offset_limit is not None for c in channels) else None,
        "sync": averaged("u_sync"),
        "resolution": averaged("u_resolution"),
        "filter": math.hypot(averaged("u_filter"), whole("u_filter_gain")),
    }


def _gain(channel: Channel) -> float:
    """Standard uncertainty of a channel's gain, relative, as it acts on a difference of energies."""
    made = channel.calibration
    if made is None:
        return (channel.gain_limit or 0.0) * RECTANGULAR
    return math.hypot(made.u_gain / made.gain, (made.meter_limit or 0.0) * RECTANGULAR)


def _offset_w(channel: Channel) -> float:
    """Standard uncertainty of a channel's level (W). A power's lasts as long as the window; a counter's own is gone in
    the difference, but not the one of a calibration, which is a power.
    """
    if channel.calibration is not None:
        return channel.calibration.u_level_w
    return 0.0 if channel.quantity == "energy" else (channel.offset_limit or 0.0) * RECTANGULAR


def _turned(
    usable: Sequence[tuple[Span, _Total]], by_channel: Sequence[Sequence[WindowEnergy]], channels: Sequence[Channel]
) -> float | None:
    """The gain's standard uncertainty (J per unit) of the gross energy where a channel was calibrated.

    The line of a calibration turns about its pivot, where gain and level are uncorrelated: an error of the gain acts on
    the distance from there, which is what the covariance of the two amounts to (GUM 5.2.2). None without calibrations.
    """
    if all(channel.calibration is None for channel in channels):
        return None
    k = len(usable)
    seconds = math.fsum(window.seconds / window.count for window, _ in usable) / k
    length = math.fsum(window.seconds for window, _ in usable)
    shares = []
    for column, channel in zip(by_channel, channels, strict=True):
        watts = math.fsum(e.joules for e in column if e.joules is not None) / length
        made = channel.calibration
        if made is None:
            shares.append(abs(watts) * _gain(channel) * seconds)
        else:
            meter = (made.meter_limit or 0.0) * RECTANGULAR * watts
            shares.append(math.hypot(made.u_gain * (made.raw(watts) - made.pivot_w), meter) * seconds)
    return _linear_by_chip(channels, shares)


def _gross(
    usable: Sequence[tuple[Span, _Total]],
    lines: dict[str, float | None],
    turned: float | None,
    statistic: Statistic,
    reasons: list[schema.Reason],
) -> schema.EnergyFigure:
    values = [total.joules / window.count for window, total in usable]
    mean = math.fsum(values) / len(values)
    budget = {name: u * abs(mean) if name == "gain" else u for name, u in lines.items() if u is not None}
    if turned is not None:
        budget["gain"] = turned
    found = figure(values, [Component(name, u) for name, u in budget.items()], statistic)
    if found.value > 0 and found.total.expanded <= MAX_RELATIVE_U * found.value:
        return found.figure
    source = largest(found.figure.budget)
    share = (
        f"{100 * found.total.expanded / found.value:.0f} % of it" if found.value > 0 else "more than the energy itself"
    )
    reasons.append(
        schema.Reason(
            "uncertain",
            f"the energy's uncertainty is {share}, mostly {source}: beyond {100 * MAX_RELATIVE_U:.0f} % no"
            " figure is quoted",
            "edgeprof calibrate narrows gain and offset."
            if source in {"gain", "offset"}
            else "Use more and longer windows: --windows K --window S.",
        )
    )
    return withheld(found)


def _net(
    usable: Sequence[tuple[Span, _Total]],
    lines: dict[str, float | None],
    idles: Sequence[Idle],
    statistic: Statistic,
    reasons: list[schema.Reason],
) -> schema.EnergyFigure:
    """E_net = E − P_idle·W. An additive offset of the sensor cancels; its gain acts on the net energy."""
    if not idles:
        reasons.append(
            schema.Reason(
                "no_idle", "the power without work was not measured, so the net energy is unknown", "Use --idle S."
            )
        )
        return unknown()
    baseline = idling.Baseline(idles)
    reason = baseline.drift_reason()
    if reason is not None:
        reasons.append(reason)
    values, seconds = [], []
    for window, total in usable:
        values.append((total.joules - baseline.power_at(window.middle_s) * window.seconds) / window.count)
        seconds.append(window.seconds / window.count)
    mean, length = math.fsum(values) / len(values), math.fsum(seconds) / len(seconds)
    components = [Component("idle", part.u * length, part.nu) for part in baseline.components()]
    for name, u in lines.items():
        if u is not None and name != "offset":
            components.append(Component(name, u * abs(mean) if name == "gain" else u))
    found = figure(values, components, statistic)
    source = largest(found.figure.budget)
    if found.value < MIN_NET_U * found.total.u:
        why = f"is less than {MIN_NET_U:g} of its own standard uncertainties ({source} above all), so it is not quoted"
    elif found.total.expanded > MAX_RELATIVE_U * found.value:
        share = f"{100 * found.total.expanded / found.value:.0f} % of it"
        why = f"has an uncertainty of {share}, mostly {source}: beyond {100 * MAX_RELATIVE_U:.0f} % it is not quoted"
    else:
        return found.figure
    remedy = "Use longer windows and idles: --window S --idle S."
    reasons.append(schema.Reason("net_uncertain", f"the net energy {why}", remedy))
    return withheld(found)


def _unstated(channels: Sequence[Channel]) -> list[schema.Reason]:
    silent = sorted(
        {c.sensor for c in channels if c.gain_limit is None and c.calibration is None and c.provenance != "simulated"}
    )
    if not silent:
        return []
    return [
        schema.Reason(
            "gain_unknown",
            f"{', '.join(silent)} states no limit of its gain error: it is not in the uncertainty",
            "edgeprof calibrate --against METER finds it.",
        )
    ]


def _beyond(
    usable: Sequence[tuple[Span, _Total]], by_channel: Sequence[Sequence[WindowEnergy]], channels: Sequence[Channel]
) -> list[schema.Reason]:
    """Where a calibration was used outside of the powers that it was made at."""
    length = math.fsum(window.seconds for window, _ in usable)
    reasons = []
    for column, channel in zip(by_channel, channels, strict=True):
        made = channel.calibration
        if made is None:
            continue
        raw = made.raw(math.fsum(e.joules for e in column if e.joules is not None) / length)
        margin = 0.1 * (made.high_w - made.low_w)
        if not made.low_w - margin <= raw <= made.high_w + margin:
            reasons.append(
                schema.Reason(
                    "beyond_calibration",
                    f"{channel.name} was calibrated from {made.low_w:.3g} to {made.high_w:.3g} W"
                    f" and used at {raw:.3g} W",
                    "Calibrate it again over a wider range: edgeprof calibrate --against METER",
                )
            )
    return reasons


# --- around -----------------------------------------------------------------------------------------------------------


def _rails(series: Sequence[ChannelSeries], windows: Sequence[Span]) -> dict[str, float]:
    """Joules per unit of each rail on its own; those that could not be measured in every window are left out.

    A rail that has both a counter and a power is told once, by the first of them in ``series``.
    """
    sources: dict[str, set[str]] = {}
    for one in series:
        sources.setdefault(one.channel.name, set()).add(one.channel.sensor)
    rails: dict[str, float] = {}
    for one in series:
        channel = one.channel
        name = channel.name if len(sources[channel.name]) == 1 else f"{channel.sensor}:{channel.name}"
        if name in rails or (channel.quantity == "energy" and channel.kind != "counter"):
            continue
        found = [(e.joules, w.count) for e, w in zip(_windows_of(one, windows), windows, strict=True)]
        values = [joules / count for joules, count in found if joules is not None]
        if len(values) == len(windows):
            rails[name] = math.fsum(values) / len(values)
    return rails


def _power(
    headline: Sequence[ChannelSeries], usable: Sequence[tuple[Span, _Total]], idles: Sequence[Idle]
) -> schema.Power:
    mean = None
    if usable:
        mean = math.fsum(t.joules for _, t in usable) / math.fsum(w.seconds for w, _ in usable)
    return schema.Power(
        mean=mean,
        max=_highest(headline, [window for window, _ in usable]),
        idle=math.fsum(i.power for i in idles) / len(idles) if idles else None,
        idle_before=idles[0].power if idles else None,
        idle_after=idles[-1].power if len(idles) > 1 else None,
    )


def _highest(headline: Sequence[ChannelSeries], windows: Sequence[Span]) -> float | None:
    """The highest reading of the headline's sum inside the windows (W); counters have no momentary power."""
    if any(series.channel.quantity != "power" for series in headline):
        return None
    highest = None
    for window in windows:
        total: np.ndarray[tuple[int], np.dtype[np.float64]] | None = None
        grid = None
        for series in headline:
            t, v = np.asarray(series.times, dtype=np.float64), np.asarray(series.values, dtype=np.float64)
            keep = (t >= window.start_s) & (t <= window.end_s) & ~np.isnan(v)
            t, v = t[keep], v[keep]
            if t.size == 0:
                return None
            grid = t if grid is None else grid
            on_grid = np.interp(grid, t, v)
            total = on_grid if total is None else total + on_grid
        if total is not None:
            highest = max(highest if highest is not None else -math.inf, float(total.max()))
    return highest
