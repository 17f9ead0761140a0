"""Prepare the spans of one key for integration: merge overlapping ones, and join those that are too short. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.results.schema import Reason
from edgeprof.worker.span import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.worker.span import Span

#: A span with fewer readings than this is too short to be measured by itself.
LEAST_READINGS = 8
#: Spans are joined only if they fill at least this share of the stretch: the energy between spans belongs to no span.
LEAST_FILL = 0.99
#: The number of stretches that are made from enough spans, so that their scatter can be seen.
STRETCHES = 10


def merge_overlaps(spans: Sequence[tuple[Span, float | None]]) -> tuple[list[Span], list[float | None]]:
    """Merge overlapping spans into one, because the device draws its power only once.

    Args:
        spans: Spans of one key in order of their start, and the CPU seconds of each.

    Returns:
        The spans, and the CPU seconds of each; None for a merged span.
    """
    result: list[Span] = []
    cpu_seconds: list[float | None] = []
    for span, cpu_s in spans:
        if result and span.start_s < result[-1].end_s:
            last = result[-1]
            end_s = max(last.end_s, span.end_s)
            result[-1] = last._replace(end_s=end_s, count=last.count + span.count)
            cpu_seconds[-1] = None
        else:
            result.append(span)
            cpu_seconds.append(cpu_s)
    return result, cpu_seconds


def overlap_reason(spans: Sequence[Span], others: Sequence[Span]) -> Reason | None:
    """The reason ``concurrent`` if other work ran at the same time; otherwise None.

    Args:
        spans: Spans without overlaps, in order of time.
        others: Spans of other keys.
    """
    beside, _ = merge_overlaps([(other, None) for other in sorted(others, key=lambda span: span.start_s)])
    shared_s, position = 0.0, 0
    for span in spans:
        while position < len(beside) and beside[position].end_s <= span.start_s:
            position += 1
        index = position
        while index < len(beside) and beside[index].start_s < span.end_s:
            shared_s += min(span.end_s, beside[index].end_s) - max(span.start_s, beside[index].start_s)
            index += 1
    seconds = sum(span.seconds for span in spans)
    if shared_s <= 0.001 * seconds:
        return None
    names = ", ".join(dict.fromkeys(" ".join(other.key) for other in others))
    share = f"{100 * shared_s / seconds:.0f} %"
    return Reason("concurrent", f"{names} ran beside it for {share} of its time: those joules are in these too")


def join_short_spans(spans: list[Span], least_s: float) -> tuple[list[Span], Reason | None]:
    """Join spans that are too short for the sensor into stretches, if they fill these stretches.

    Only blocks of a user's code are joined, because windows and commands are repetitions whose scatter is needed.

    Args:
        spans: Spans of one key, without overlaps, in order of time.
        least_s: The shortest span (s) that the sensor can measure.

    Returns:
        The stretches and the reason ``joined``; or the spans as they are and None.
    """
    if len(spans) < 2 or spans[0].kind != BLOCK or min(span.seconds for span in spans) >= least_s:
        return spans, None
    total_s = sum(span.seconds for span in spans)
    target_s = max(least_s, total_s / STRETCHES)
    stretches: list[list[Span]] = [[]]
    for span in spans:
        stretch = stretches[-1]
        if stretch and (
            stretch[-1].end_s - stretch[0].start_s >= target_s or span.start_s - stretch[-1].end_s > least_s
        ):
            stretches.append(stretch := [])
        stretch.append(span)
    whole = [_merge_stretch(stretch) for stretch in stretches]
    # The last stretch may be a remainder.
    if len(whole) > 1 and whole[-1].seconds < least_s:
        whole = whole[:-1]
        stretches = stretches[:-1]
    filled = sum(span.seconds for stretch in stretches for span in stretch) / sum(span.seconds for span in whole)
    if filled < LEAST_FILL or min(span.seconds for span in whole) < least_s:
        return spans, None
    between = f"{100 * (1 - filled):.2g} %"
    text = f"{len(spans)} spans, too short for the sensor, were joined to {len(whole)}: {between} of them lies between"
    return whole, Reason("joined", text)


def _merge_stretch(stretch: Sequence[Span]) -> Span:
    return stretch[0]._replace(end_s=stretch[-1].end_s, count=sum(span.count for span in stretch))
