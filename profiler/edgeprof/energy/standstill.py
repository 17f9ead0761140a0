"""Find channels that are stuck: compare their readings with the changes of load in a benchmark."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.energy.online.frozen import LEAST_STEPS, Change, expected_answer, find_unanswered, least_standstill_s
from edgeprof.results import schema

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from edgeprof.energy.integrate import ChannelSeries
    from edgeprof.sensing.sensor import Channel
    from edgeprof.worker.span import Span

#: The least power (W) of one busy core on the smallest board; and the scopes of channels that do not contain it.
_LEAST_CORE_W = 0.3
_WITHOUT_CORES = frozenset({"gpu", "accelerator", "memory", "unknown"})
_REMEDY = "Reload the sensor's driver or restart the device; edgeprof sensors shows whether it moves."


def least_work_w(channels: Sequence[Channel], cpu_seconds: Sequence[float | None], seconds: float) -> float:
    """The least power (W) that work adds to the sum of some channels, from the CPU time that it used.

    Returns:
        Watts; 0 if the sum contains no core, or if no CPU time is known.
    """
    if seconds <= 0 or any(channel.scope in _WITHOUT_CORES for channel in channels):
        return 0.0
    return _LEAST_CORE_W * sum(cpu_s or 0.0 for cpu_s in cpu_seconds) / seconds


def frozen_reasons(
    headline: Sequence[ChannelSeries],
    busy: Sequence[Span],
    windows: Sequence[Span],
    idles: Sequence[Span],
    expected_w: float,
    *,
    intermittent: Collection[Span] = (),
) -> list[schema.Reason]:
    """A reason ``frozen_sensor`` for each channel that stood still while the load changed.

    Args:
        headline: The channels whose sum is the total.
        busy: Everything that ran; empty if that is unknown.
        windows: The measured windows.
        idles: The stretches without work.
        expected_w: The least power (W) that the work adds to the total; 0 if unknown.
        intermittent: Those of ``busy`` that contain idle time, such as the windows of a camera.
    """
    reasons = []
    for series in headline:
        least_w = expected_w if len(headline) == 1 else 0.0
        stood = _find_standstill(series, busy, windows, idles, least_w, intermittent=intermittent)
        if stood is not None:
            name = series.channel.name
            reasons.append(
                schema.Reason(
                    "frozen_sensor",
                    f"{name} repeated one value for {stood[1] - stood[0]:.3g} s while the load changed: it does not"
                    " answer the load, and no figure is made of it",
                    _REMEDY,
                )
            )
    return reasons or _frozen_total(headline, windows, idles, expected_w)


def load_changes(
    busy: Sequence[Span], idles: Sequence[Span], shortest_s: float, intermittent: Collection[Span] = ()
) -> list[Change]:
    """The changes of load that must show, and until when.

    Args:
        busy: Everything that ran.
        idles: The stretches without work.
        shortest_s: The shortest time that the readings show: a shorter pause separates nothing, and shorter work and
            work at whose end nothing is known of the following time change nothing.
        intermittent: Those of ``busy`` that contain idle time. When their work begins and ends is unknown, so it only
            has to show until their end.
    """
    stretches: list[list[Span]] = []
    end_s = -math.inf
    for span in sorted(busy, key=lambda span: span.start_s):
        if span.start_s - end_s < shortest_s:
            stretches[-1].append(span)
        else:
            stretches.append([span])
        end_s = max(end_s, span.end_s)
    last_s = max([span.end_s for span in (*busy, *idles)], default=0.0)
    changes = []
    for spans in stretches:
        start_s, last = spans[0].start_s, max(spans, key=lambda span: span.end_s)
        if last.end_s - start_s < shortest_s:
            continue
        changes.append(Change(start_s, last.end_s if spans[0] in intermittent else start_s + shortest_s))
        if last not in intermittent and last.end_s + shortest_s <= last_s:
            changes.append(Change(last.end_s, last.end_s + shortest_s))
    return changes


def _find_standstill(
    series: ChannelSeries,
    busy: Sequence[Span],
    windows: Sequence[Span],
    idles: Sequence[Span],
    expected_w: float,
    *,
    intermittent: Collection[Span],
) -> tuple[float, float] | None:
    channel = series.channel
    times, values = np.asarray(series.times, dtype=np.float64), np.asarray(series.values, dtype=np.float64)
    tau, refresh = channel.filter.tau_s, channel.update_interval_s
    if channel.kind == "counter":
        # A counter of energy must rise all the time, whatever runs.
        always = [Change(window.start_s, window.start_s) for window in windows]
        return find_unanswered(times.tolist(), values.tolist(), always, least_standstill_s(None, refresh))
    watts = max(_level_change(times, values, windows, idles), expected_w)
    answer = expected_answer(Change(0.0, math.inf), watts, channel.resolution or 0.0, tau, refresh)
    if answer is None or not busy:  # if it is unknown what else ran, it is also unknown when the load changed
        return None
    changes = load_changes(busy, idles, answer.until_s, intermittent)
    expected = [change._replace(moving_s=answer.moving_s) for change in changes]
    return find_unanswered(times.tolist(), values.tolist(), expected, least_standstill_s(tau, refresh))


def _level_change(
    times: np.ndarray[tuple[int], np.dtype[np.float64]],
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    windows: Sequence[Span],
    idles: Sequence[Span],
) -> float:
    """The difference (W) between the readings at work and at idle, from the medians over the ends of the spans."""

    def levels(spans: Sequence[Span]) -> list[float]:
        ends = [values[(times >= span.middle_s) & (times <= span.end_s)] for span in spans]
        return [float(np.nanmedian(end)) for end in ends if end.size and not np.isnan(end).all()]

    working, resting = levels(windows), levels(idles)
    if not working or not resting:
        return 0.0
    working_w = float(np.median(working))
    return max(abs(working_w - resting_w) for resting_w in resting)


def _frozen_total(
    headline: Sequence[ChannelSeries], windows: Sequence[Span], idles: Sequence[Span], expected_w: float
) -> list[schema.Reason]:
    """The reason that no channel of a sum has changed at all, from the first idle to the last window."""
    steps = [series.channel.resolution or 0.0 for series in headline if series.channel.quantity == "power"]
    if len(headline) < 2 or len(steps) < len(headline) or expected_w < LEAST_STEPS * max(steps):
        return []
    for series in headline:
        times, values = np.asarray(series.times), np.asarray(series.values, dtype=np.float64)
        spans = [*windows, *idles]
        inside = values[(times >= min(s.start_s for s in spans)) & (times <= max(s.end_s for s in spans))]
        if inside.size < 2 or np.unique(inside[~np.isnan(inside)]).size > 1:
            return []
    names = ", ".join(series.channel.name for series in headline)
    message = f"{names} repeated one value each throughout, idle and at work: they do not answer the load"
    return [schema.Reason("frozen_sensor", message, _REMEDY)]
