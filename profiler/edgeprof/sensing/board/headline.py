"""Find the headline, from which joules are quoted: a known board's total, an outer meter, or the sum of a machine's
parts.

Only ``scope``, ``role``, ``parent`` and ``additive`` of a channel decide, never the name of the source that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeprof.errors import UnavailableError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgeprof.sensing.board.files import Board, Total
    from edgeprof.sensing.sensor import Channel

#: The scopes that are added up for a machine without a block of its own, in this order; none contains another.
_SUMMED = ("package", "soc", "memory", "gpu", "accelerator")
#: For these scopes only one source is used, because a second source reads the same sockets again.
_ONE_SOURCE = ("package", "soc", "memory")
#: The scopes of meters that measure a whole machine, the outermost first.
_OUTER = ("wall", "board", "module")
_CARDS = {"gpu": "graphics card", "accelerator": "accelerator"}
_WORDS = {"soc": "package"}
#: The scopes of readings that may contain the total, be inside it, or be separate from it.
_UNSURE = {"wall", "board", "unknown"}
_REST = "the mainboard, disks, fans and the power supply's losses"


@dataclass(frozen=True)
class Headline:
    """The channels from which the joules are quoted.

    Attributes:
        channels: The annotated channels to add up; empty if there is no total.
        covers: ``module``, ``board``, ``package`` …; None without channels.
        reason: Why there is no total.
        remedy: What the user can do about that.
        excludes: What the total does not contain, in words.
        note: A further remark for readers of the joules.
    """

    channels: tuple[Channel, ...] = ()
    covers: str | None = None
    reason: str | None = None
    remedy: str | None = None
    excludes: str | None = None
    note: str | None = None

    @property
    def rail(self) -> str | None:
        """The channels' names as one, ``VDD_GPU_SOC + VDD_CPU_CV``; None without any."""
        return " + ".join(channel.name for channel in self.channels) or None


def is_power(channel: Channel) -> bool:
    """Whether joules can be computed from a channel."""
    return channel.tells_joules


def is_additive(channel: Channel) -> bool:
    """Whether a channel may be added to the machine's other additive channels.

    If the source does not say, a part of the scope package, soc, memory, gpu or accelerator is additive.
    """
    if channel.parent is not None:
        return False
    if channel.additive is not None:
        return channel.additive
    return channel.role == "part" and channel.scope in _SUMMED


def best_of(channels: Iterable[Channel]) -> Channel | None:
    """The best of several channels for the same thing: available ones first, then counters before sampled power."""
    return min(channels, key=lambda c: (not c.available, c.quantity != "energy"), default=None)


def find_headline(
    board: Board, channels: Sequence[Channel], members: Mapping[str, Sequence[Channel]], rail: str | None
) -> Headline:
    """The headline of these channels.

    Args:
        board: The board.
        channels: All channels, judged (``evidence.judge_channels``).
        members: The board's rails → the channels of power or energy that read that rail.
        rail: The name of ``--rail``, if it was given.

    Raises:
        InputError: no rail or total has that name.
        UnavailableError: the rail or total of that name cannot be read.
    """
    headline = _chosen_headline(board, channels, members, rail) if rail else _default_headline(board, channels, members)
    return _as_calibrated(_with_the_rest(headline, channels))


def _as_calibrated(headline: Headline) -> Headline:
    """Change what a headline covers if it was calibrated against a meter that covers more."""
    seen = {c.calibration.covers if c.calibration else None for c in headline.channels}
    if len(seen) != 1 or (covers := seen.pop()) is None:
        return headline
    note = f"calibrated to what the {covers} draws"
    return replace(headline, covers=covers, excludes=None, note=_join_texts("; ", headline.note, note))


def _with_the_rest(headline: Headline, channels: Sequence[Channel]) -> Headline:
    """Add the cards and other meters that are not in the headline to what it excludes."""
    if not headline.channels or headline.covers == "wall":
        return headline
    inside = {c.key for c in headline.channels}
    places = {c.chip for c in headline.channels if c.chip}
    others = [c for c in channels if is_power(c) and c.key not in inside and c.parent is None]
    cards = [c for c in others if c.scope in _CARDS and (not c.chip or c.chip not in places)]
    named = {(c.sensor, c.name) for c in headline.channels}
    words = [f"the {_CARDS[c.scope]} {_channel_name(c)}" for c in _one_each(cards) if (c.sensor, c.name) not in named]
    around = [c for c in others if c.available and c.scope in _UNSURE and c.role != "part"]
    names = list(dict.fromkeys(c.name for c in around))
    shown = (
        f"{' and '.join(names[:2])}{' and others' if len(names) > 2 else ''} {'show' if len(names) > 1 else 'shows'}"
    )
    whole = headline.covers == "board" and headline.channels[0].role == "total"
    outside = _join_texts(", ", headline.excludes, None if whole else _join_texts(", ", *words))
    if words and whole:
        outside = _join_texts("; ", outside, f"{' and '.join(words)} may be outside")
    return replace(
        headline, excludes=_join_texts(", nor what " if outside else "what ", outside, shown if names else None)
    )


def _channel_name(channel: Channel) -> str:
    return channel.name if channel.available else f"{channel.name} ({channel.reason})"


def _join_texts(separator: str, *parts: str | None) -> str | None:
    return separator.join(part for part in parts if part) or None


def _default_headline(board: Board, channels: Sequence[Channel], members: Mapping[str, Sequence[Channel]]) -> Headline:
    first: Headline | None = None
    for total in board.totals:
        headline = _sum_of_total(total, members, board)
        if headline.channels:
            return headline if first is None else replace(headline, note=f"not the usual total: {first.reason}")
        first = first or headline
    if first is not None:
        outer = _outer_meter(channels)
        return first if outer is None else replace(outer, note=f"not the usual total: {first.reason}")
    return _generic_headline(channels) or _without_total(board, channels)


def _without_total(board: Board, channels: Sequence[Channel]) -> Headline:
    readable = [c for c in channels if is_power(c) and c.available]
    choice = "Choose one with --rail NAME, or describe the board in boards.d/NAME.toml (docs/boards.md)."
    if readable and board.no_sensor:
        names = " and ".join(dict.fromkeys(c.name for c in readable))
        reason = f"{board.name} has no power monitor of its own; {names} is there, and what it feeds is not known"
        remedy = f"If it measures the board's input: --rail {readable[0].name}."
        return Headline(reason=reason, remedy=remedy)
    if readable and all(c.additive and c.scope == "board" for c in readable):
        names = " and ".join(dict.fromkeys(c.name for c in readable))
        reason = f"only {names} {'tell' if len(readable) > 1 else 'tells'} what the machine draws, while it discharges"
        return Headline(reason=reason, remedy=f"For minutes, not for short windows: --rail {readable[0].name}.")
    if readable:
        reason = f"{board.name} is not a known board, so it is not known which rail holds the others"
        return Headline(reason=reason, remedy=choice)
    refused = next((c for c in channels if is_power(c) and c.reason and c.scope not in _CARDS), None)
    estimate = "edgeprof bench --estimate-power WATTS gives an estimate, marked as one; an external meter measures."
    if refused is not None and not board.no_sensor:
        return Headline(reason=f"{refused.name}: {refused.reason}", remedy=refused.remedy or estimate)
    return Headline(reason=board.no_sensor or "no power sensor was found", remedy=estimate)


def _sum_of_total(total: Total, members: Mapping[str, Sequence[Channel]], board: Board) -> Headline:
    chosen = []
    for name in total.rails:
        best = best_of(members.get(name, ()))
        if best is None or not best.available:
            why = "no channel of that name was found at its place" if best is None else best.reason
            remedy = (
                "Is the driver of its monitor loaded? See ls /sys/class/hwmon/*/name." if best is None else best.remedy
            )
            whole = f"; without it there is no total of {' + '.join(total.rails)}" if len(total.rails) > 1 else ""
            state = "is refused" if (why or "").startswith("it ") else "cannot be read"
            return Headline(reason=f"{name} of {board.name} {state}: {why}{whole}", remedy=remedy)
        chosen.append(best)
    return Headline(tuple(chosen), total.covers, excludes=total.excludes, note=board.note)


def _generic_headline(channels: Sequence[Channel]) -> Headline | None:
    """The headline of a machine without a block of its own: an outer meter, the platform, or the sum of its parts."""
    outer = _outer_meter(channels)
    if outer is not None:
        return outer
    summed = {scope: _side_by_side(channels, scope) for scope in _SUMMED}
    processors = [*summed["package"], *summed["soc"]]
    cards = [*summed["gpu"], *summed["accelerator"]]
    parts = [*processors, *summed["memory"], *cards]
    missing = next((c for c in parts if not c.available), None)
    words = list(dict.fromkeys(_WORDS.get(scope, scope) for scope in _SUMMED if summed[scope]))
    if processors and missing is None:
        return Headline(tuple(parts), " + ".join(words), excludes=_REST if summed["memory"] else f"memory, {_REST}")
    if cards and all(c.available for c in cards):
        why = f": {missing.name} {missing.reason}" if missing else ""
        covers = " + ".join(scope for scope in ("gpu", "accelerator") if summed[scope])
        note = f"the processor is not in it{why}"
        return Headline(tuple(cards), covers, excludes=f"the processor, memory, {_REST}", note=note)
    if missing is not None:
        what = f"without it there is no total of {' + '.join(c.name for c in parts)}"
        alone = len(parts) == 1 or missing.scope in _CARDS
        reason = f"{missing.name} cannot be read: {missing.reason}" + ("" if alone else f"; {what}")
        return Headline(reason=reason, remedy=missing.remedy)
    return None


def _side_by_side(channels: Sequence[Channel], scope: str) -> list[Channel]:
    """The channels of a scope that may be added up: one for each thing, and sockets from one source only."""
    there = _one_each(c for c in channels if is_power(c) and c.scope == scope and is_additive(c))
    if scope not in _ONE_SOURCE:
        return there
    sources: dict[str, list[Channel]] = {}
    for channel in there:
        sources.setdefault(channel.sensor, []).append(channel)
    return min(
        sources.values(),
        key=lambda of: (not all(c.available for c in of), any(c.kind != "counter" for c in of), -len(of)),
        default=[],
    )


def without_doubles(channels: Sequence[Channel]) -> list[Channel]:
    """Mark channels that read the same thing a second time, by another source, as not additive."""
    best = {id(c) for scope in _SUMMED for c in _side_by_side(channels, scope)}
    chosen = [c for c in channels if id(c) in best]
    names = {(c.sensor, c.name) for c in chosen}
    result = []
    for channel in channels:
        if id(channel) in best or (channel.sensor, channel.name) in names or not is_additive(channel):
            result.append(channel)
            continue
        alike = [c for c in chosen if c.scope == channel.scope and is_power(channel)]
        twin = next((c for c in alike if _is_same(c, channel)), None)
        if twin is not None:
            result.append(replace(channel, additive=False, parent=twin.name))
        elif channel.scope in _ONE_SOURCE and any(c.sensor != channel.sensor for c in alike):
            result.append(replace(channel, additive=False))
        else:
            result.append(channel)
    return result


def _outer_meter(channels: Sequence[Channel]) -> Headline | None:
    """The headline of a meter at the wall or the board's input, or of a platform's counters (added up over sockets)."""
    powers = [c for c in channels if is_power(c) and c.parent is None and c.role == "total"]
    for scope in _OUTER:
        outer = best_of(c for c in powers if c.scope == scope)
        if outer is None or not outer.available:
            continue
        whole = _one_each(c for c in powers if c.scope == scope and c.sensor == outer.sensor and c.available)
        if len(whole) > 1 and not outer.additive:
            continue  # it is unknown whether they are two supplies or one behind the other
        beside = [c for c in powers if c.scope == scope and c.sensor == outer.sensor and c.available and c.additive]
        excludes = None if scope == "wall" else "the power supply's own losses"
        return Headline(
            tuple(beside) if outer.additive else (outer,), scope, excludes=excludes, note=outer.note or None
        )
    return None


def _one_each(channels: Iterable[Channel]) -> list[Channel]:
    """Keep one channel for each thing: same source and name, or same place and scope, mean the same thing."""
    named: dict[tuple[str, str], list[Channel]] = {}
    for channel in channels:
        named.setdefault((channel.sensor, channel.name), []).append(channel)
    things = [best for group in named.values() if (best := best_of(group)) is not None]
    return [thing for thing in things if best_of(other for other in things if _is_same(other, thing)) is thing]


def _is_same(first: Channel, second: Channel) -> bool:
    """Whether two channels read the same thing: the same input of the same chip, with the same scope."""
    at_one_place = bool(first.chip) and (first.chip, first.input, first.scope) == (
        second.chip,
        second.input,
        second.scope,
    )
    return first is second or at_one_place


def _chosen_headline(
    board: Board, channels: Sequence[Channel], members: Mapping[str, Sequence[Channel]], rail: str
) -> Headline:
    named = next((total for total in board.totals if total.name == rail), None)
    if named is not None:
        headline = _sum_of_total(named, members, board)
        if not headline.channels:
            raise UnavailableError(headline.reason or f"{rail} cannot be read", remedy=headline.remedy)
        return headline
    power = [c for c in channels if is_power(c)]
    best = best_of(members.get(rail, ())) or best_of(c for c in power if c.name == rail)
    if best is None:
        names = {c.name for c in power if c.available} | {total.name for total in board.totals if total.name}
        raise unknown("rail", rail, names)
    if not best.available:
        raise UnavailableError(f"the rail {rail} cannot be read: {best.reason}", remedy=best.remedy)
    table_name = next((name for name, group in members.items() if best in group), None)
    usual = next((total for total in board.totals if total.rails == (table_name,)), None)
    return Headline(
        (best,),
        usual.covers if usual else best.scope,
        excludes=usual.excludes if usual else f"everything that {best.name} does not feed",
        note=best.note or None,
    )
