"""The topology: the board, the place of each channel on it, and the headline, from which joules are quoted.

``arrange`` builds it once, after everything else is known: the channels as their sources declare them, the board's
table, the measured characteristics of each channel on this device, and the first readings. A rail inside another rail
is never added to it; a total with a missing part is unavailable, not smaller.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.sensing.board.evidence import judge_channels
from edgeprof.sensing.board.files import Board, Rail, Total
from edgeprof.sensing.board.headline import Headline, find_headline, is_additive, is_power
from edgeprof.sensing.board.identity import identify_board
from edgeprof.sensing.board.placement import Origin, find_rails
from edgeprof.sensing.characteristic import annotate_channels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgeprof.sensing.board.evidence import Looks
    from edgeprof.sensing.characteristic import Characteristic
    from edgeprof.sensing.sensor import Channel, Quantity, Role

    Key = tuple[str, str, Quantity]

__all__ = ["Board", "Headline", "Rail", "Topology", "Total", "arrange", "identify_board"]

_RAIL_QUANTITIES = ("power", "energy", "voltage", "current")
#: The container of a reading of which it is not known what contains it or what it contains.
UNKNOWN_PARENT = "unknown"


class Topology(NamedTuple):
    """The board, all channels with their place on it, and the headline."""

    board: Board
    channels: tuple[Channel, ...]
    headline: Headline

    def by_key(self) -> dict[Key, Channel]:
        """Key → annotated channel, as the sampler takes it."""
        return {channel.key: channel for channel in self.channels}

    @property
    def parts(self) -> tuple[Channel, ...]:
        """Power and energy channels that are not in the headline and can be read."""
        chosen = {channel.key for channel in self.headline.channels}
        return tuple(c for c in self.channels if is_power(c) and c.available and c.key not in chosen)

    @property
    def containers(self) -> dict[Key, str | None]:
        """For each readable power and energy channel, what contains it; None for channels that may be added up.

        A channel that is the total by itself is left out. A reading of which it is not known what contains it, or what
        it contains, is in ``unknown``; it may be added up only if there is no other.
        """
        chosen = self.headline.channels
        whole = {c.key for c in chosen if c.role == "total"}
        readable = [c for c in self.channels if is_power(c) and c.available and c.key not in whole]
        names = {c.name for c in readable}
        # A machine is divided in one way only: into processors and cards, or else into the outputs of its supply.
        beside = {c.key for c in readable if c.parent is None and (c in chosen or self._stands_beside(c))}
        result: dict[Key, str | None] = {}
        uncertain: list[Channel] = []
        for channel in readable:
            if channel.parent in names:
                result[channel.key] = channel.parent
            elif channel.parent is not None:
                result[channel.key] = None if self.board.is_known or not beside else channel.parent
            elif channel.key in beside:
                result[channel.key] = None
            else:
                uncertain.append(channel)
        lone = not result and not whole and _is_one_thing(uncertain)
        return result | {c.key: None if lone else UNKNOWN_PARENT for c in uncertain}

    def _stands_beside(self, channel: Channel) -> bool:
        """Whether the board's table or the source says that a channel without a parent is separate from the others."""
        if channel.role == "total" or channel.scope in {"wall", "board"}:
            return False
        declared = channel.additive if channel.additive is not None else channel.role == "part"
        return is_additive(channel) or declared


def _is_one_thing(channels: Sequence[Channel]) -> bool:
    """Whether there is only one reading, or only readings that add up to the machine (batteries)."""
    return len({c.name for c in channels}) <= 1 or all(c.additive for c in channels)


def arrange(
    board: Board,
    channels: Sequence[Channel],
    rail: str | None = None,
    *,
    looks: Looks | None = None,
    characteristics: Mapping[Key, Characteristic] | None = None,
) -> Topology:
    """Place every channel, judge it by its first readings, and find the headline.

    Args:
        board: From ``identify_board``.
        channels: All discovered channels, including unreadable ones, with calibrations applied.
        rail: ``--rail``: a rail or a named total to be the headline instead of the board's own.
        looks: The first readings of each channel; without them no channel is judged.
        characteristics: The measured characteristics of channels on this device.

    Raises:
        InputError: no rail or total has that name.
        UnavailableError: the rail or total of that name cannot be read.
    """
    homes = _rails_of_channels(board, channels)
    known = annotate_channels(_place_all(board, channels, homes), characteristics or {})
    judged = judge_channels([known[c.key] for c in channels], looks or {})
    members = {
        home.name: [c for c in judged if homes.get(c.key) == home and is_power(c)]
        for home in _distinct_rails(homes.values())
    }
    return Topology(board, tuple(judged), find_headline(board, judged, members, rail))


def place_channels(board: Board, channels: Sequence[Channel]) -> list[Channel]:
    """The channels with their place on the board and nothing else: scope, role, parent and limits."""
    return _place_all(board, channels, _rails_of_channels(board, channels))


def _rails_of_channels(board: Board, channels: Sequence[Channel]) -> dict[Key, Rail]:
    homes: dict[Key, Rail] = {}
    for quantity in _RAIL_QUANTITIES:
        homes |= find_rails(board, {c.key: Origin(c.name, c.chip, c.input) for c in channels if c.quantity == quantity})
    return homes


def _place_all(board: Board, channels: Sequence[Channel], homes: Mapping[Key, Rail]) -> list[Channel]:
    # A rail has the name of the board's label, which may differ from the name in the table.
    called = {home.name: c.name for c in channels if (home := homes.get(c.key)) is not None}
    totals = {name for total in board.totals for name in total.rails if len(total.rails) == 1}
    return [_place_channel(c, homes.get(c.key), board, called, totals) for c in channels]


def _distinct_rails(rails: Iterable[Rail]) -> Iterable[Rail]:
    return {rail.name: rail for rail in rails}.values()


def _place_channel(
    channel: Channel, rail: Rail | None, board: Board, called: dict[str, str], totals: set[str]
) -> Channel:
    if rail is None:
        return channel
    parent = None if rail.inside is None else called.get(rail.inside, rail.inside)
    plausible, limit = channel.plausible, channel.limit_w
    if board.limit_w is not None:
        limit = board.limit_w if limit is None else min(limit, board.limit_w)
        if channel.quantity == "power":
            plausible = max(plausible[0], -board.limit_w), min(plausible[1], board.limit_w)
    role: Role = "total" if rail.name in totals else "part"
    return replace(
        channel,
        scope=rail.scope,
        role=role if is_power(channel) else None,
        parent=parent,
        plausible=plausible,
        limit_w=limit,
    )
