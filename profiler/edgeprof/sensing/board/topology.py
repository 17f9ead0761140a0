"""Which board this is, what its rails mean, and which of them make the total that a joule is quoted from.

Boards are told by what the device tree says they are and by the rails that are there, never by a version of L4T. A
rail inside another is never added to it; a total with a part missing is unavailable, not smaller.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeprof.errors import UnavailableError, unknown
from edgeprof.sensing.board.files import Board, Rail, Total, load_boards
from edgeprof.sensing.files import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Channel, Quantity, Role

    Key = tuple[str, str, Quantity]

__all__ = ["Board", "Headline", "Rail", "Topology", "Total", "arrange", "identify", "rail_at", "rail_labelled"]

_RAIL_QUANTITIES = ("power", "energy", "voltage", "current")


@dataclass(frozen=True)
class Headline:
    """What the joules are quoted from.

    Attributes:
        channels: What is added up, annotated; empty where there is no total.
        covers: ``module``, ``board``, ``package`` …; None without channels.
        reason: Why there is no total.
        remedy: What to do about that.
        excludes: What the total leaves out, in words.
        note: What else a reader must know of it.
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


@dataclass(frozen=True)
class Topology:
    """The board, all channels with their place on it, and the headline."""

    board: Board
    channels: tuple[Channel, ...]
    headline: Headline

    def by_key(self) -> dict[Key, Channel]:
        """For the sampler: key → annotated channel."""
        return {channel.key: channel for channel in self.channels}

    @property
    def parts(self) -> tuple[Channel, ...]:
        """Power and energy channels that are not in the headline and can be read."""
        chosen = {channel.key for channel in self.headline.channels}
        return tuple(c for c in self.channels if _is_power(c) and c.available and c.key not in chosen)


def identify(roots: Roots, boards: Sequence[Board] | None = None) -> Board:
    """The board that these roots belong to; one of id ``unknown`` with the machine's own name where none matches.

    Raises:
        InputError: a user's board file does not follow the form.
    """
    boards = load_boards() if boards is None else boards
    tree = roots.sysfs / "firmware/devicetree/base"
    compatible = (text_of(tree / "compatible") or "").split("\n")
    model = text_of(tree / "model") or _pc_model(roots)
    for entry in filter(None, compatible):
        for board in boards:
            if any(fnmatch.fnmatchcase(entry, pattern) for pattern in board.match):
                return replace(board, model=model)
    for board in boards:
        if any(fnmatch.fnmatchcase(model, pattern) for pattern in board.model_match):
            return replace(board, model=model)
    return Board(id="unknown", name=model, model=model)


def rail_labelled(board: Board, label: str) -> Rail | None:
    """The board's rail of that label, None where it has none."""
    return next((rail for rail in board.rails.values() if label == rail.name or label in rail.labels), None)


def rail_at(board: Board, address: int, channel: int) -> Rail | None:
    """The board's rail at that I2C address and channel (from 1): for chips whose driver gives no labels."""
    return next((rail for rail in board.rails.values() if rail.at == f"{address:02x}.{channel}"), None)


def arrange(board: Board, channels: Sequence[Channel], rail: str | None = None) -> Topology:
    """Give every channel its place and find the headline.

    Args:
        board: From ``identify``.
        channels: All that were found, those that cannot be read too.
        rail: ``--rail``: a rail or a named total that is to be the headline instead of the board's own.

    Raises:
        InputError: no rail or total has that name.
        UnavailableError: there is one, and it cannot be read.
    """
    homes: dict[Key, Rail | None] = {
        c.key: rail_labelled(board, c.name) for c in channels if c.quantity in _RAIL_QUANTITIES
    }
    # A rail is called what the board's label says, which may be another name than the table's.
    called = {home.name: c.name for c in channels if (home := homes.get(c.key)) is not None}
    totals = {name for total in board.totals for name in total.rails if len(total.rails) == 1}
    placed = tuple(_place(c, homes.get(c.key), board, called, totals) for c in channels)
    members = {home.name: [c for c in placed if homes.get(c.key) is home and _is_power(c)] for home in _distinct(homes)}
    headline = _choose(board, placed, members, rail) if rail else _default(board, placed, members)
    return Topology(board, placed, _as_calibrated(headline))


def _as_calibrated(headline: Headline) -> Headline:
    """A total that was calibrated against a meter further out speaks of what that meter saw."""
    seen = {c.calibration.covers if c.calibration else None for c in headline.channels}
    if len(seen) != 1 or (covers := seen.pop()) is None:
        return headline
    note = f"calibrated to what the {covers} draws"
    return replace(
        headline, covers=covers, excludes=None, note="; ".join(part for part in (headline.note, note) if part)
    )


def _distinct(homes: dict[Key, Rail | None]) -> Iterable[Rail]:
    return {rail.name: rail for rail in homes.values() if rail is not None}.values()


def _place(channel: Channel, rail: Rail | None, board: Board, called: dict[str, str], totals: set[str]) -> Channel:
    if rail is None:
        return replace(channel, role=channel.role or "part") if _is_power(channel) else channel
    parent = None if rail.inside is None else called.get(rail.inside, rail.inside)
    plausible = channel.plausible
    if channel.quantity == "power" and board.limit_w is not None:
        plausible = max(plausible[0], -board.limit_w), min(plausible[1], board.limit_w)
    role: Role = "total" if rail.name in totals else "part"
    return replace(
        channel, scope=rail.scope, role=role if _is_power(channel) else None, parent=parent, plausible=plausible
    )  # fmt: skip


def _is_power(channel: Channel) -> bool:
    return channel.quantity == "power" or (channel.quantity == "energy" and channel.kind == "counter")


def _best(channels: Iterable[Channel]) -> Channel | None:
    """Of several readings of the same rail: one that can be read, a counter before sampled power."""
    return min(channels, key=lambda c: (not c.available, c.quantity != "energy"), default=None)


def _default(board: Board, placed: Sequence[Channel], members: dict[str, list[Channel]]) -> Headline:
    first: Headline | None = None
    for total in board.totals:
        headline = _sum(total, members, board)
        if headline.channels:
            return headline if first is None else replace(headline, note=f"not the usual total: {first.reason}")
        first = first or headline
    if first is not None:
        outer = _outer(placed)
        return first if outer is None else replace(outer, note=f"not the usual total: {first.reason}")
    generic = _generic(placed)
    if generic is not None:
        return generic
    estimate = "edgeprof bench --estimate-power WATTS gives an estimate, marked as one; an external meter measures."
    if any(_is_power(c) for c in placed):
        return Headline(
            reason=f"{board.name} is not a known board, so it is not known which rail holds the others",
            remedy="Choose one with --rail NAME, or describe the board in boards.d/NAME.toml (docs/boards.md).",
        )
    return Headline(reason=board.no_sensor or "no power sensor was found", remedy=estimate)


def _sum(total: Total, members: dict[str, list[Channel]], board: Board) -> Headline:
    chosen = []
    for name in total.rails:
        best = _best(members.get(name, ()))
        if best is None or not best.available:
            why = "no channel of that name was found" if best is None else best.reason
            remedy = "edgeprof doctor says what is missing." if best is None else best.remedy
            whole = f"; without it there is no total of {' + '.join(total.rails)}" if len(total.rails) > 1 else ""
            return Headline(reason=f"{name} of {board.name} cannot be read: {why}{whole}", remedy=remedy)
        chosen.append(best)
    return Headline(tuple(chosen), total.covers, excludes=total.excludes, note=board.note)


def _generic(placed: Sequence[Channel]) -> Headline | None:
    """The total of a machine without a block of its own: an outer meter, the platform, or its packages and GPUs."""
    outer = _outer(placed)
    if outer is not None:
        return outer
    powers = [c for c in placed if _is_power(c) and c.parent is None]
    gpus = _one_each(c for c in powers if c.sensor == "nvml" and c.scope == "gpu")
    packages = _one_each(c for c in powers if c.scope == "package" and c.sensor == "rapl")
    memories = _one_each(c for c in powers if c.scope == "memory" and c.sensor == "rapl")
    parts = [*packages, *memories, *gpus]
    missing = next((c for c in parts if not c.available), None)
    words = [word for word, some in (("package", packages), ("memory", memories), ("gpu", gpus)) if some]
    rest = "the mainboard, disks, fans and the power supply's losses"
    if packages and missing is None:
        return Headline(tuple(parts), " + ".join(words), excludes=rest if memories else f"memory, {rest}")
    if gpus and all(c.available for c in gpus):
        why = f": {missing.name} {missing.reason}" if missing else ""
        note = f"the processor is not in it{why}"
        return Headline(tuple(gpus), "gpu", excludes=f"the processor, memory, {rest}", note=note)
    if missing is not None:
        what = f"without it there is no total of {' + '.join(c.name for c in parts)}"
        return Headline(reason=f"{missing.name} cannot be read: {missing.reason}; {what}", remedy=missing.remedy)
    return None


def _outer(placed: Sequence[Channel]) -> Headline | None:
    """A meter at the wall or at the board's input, or a platform's own counter."""
    powers = [c for c in placed if _is_power(c) and c.parent is None]
    for scope in ("wall", "board", "module"):
        outer = _best(c for c in powers if c.scope == scope and c.role == "total")
        if outer is not None and outer.available:
            excludes = None if scope == "wall" else "the power supply's own losses"
            if outer.sensor == "rapl":
                excludes = f"{excludes}; a discrete GPU may be outside"
            return Headline((outer,), scope, excludes=excludes, note=outer.note or None)
    return None


def _one_each(channels: Iterable[Channel]) -> list[Channel]:
    by_name: dict[str, list[Channel]] = {}
    for channel in channels:
        by_name.setdefault(channel.name, []).append(channel)
    return [best for group in by_name.values() if (best := _best(group)) is not None]


def _choose(board: Board, placed: Sequence[Channel], members: dict[str, list[Channel]], rail: str) -> Headline:
    named = next((total for total in board.totals if total.name == rail), None)
    if named is not None:
        headline = _sum(named, members, board)
        if not headline.channels:
            raise UnavailableError(headline.reason or f"{rail} cannot be read", remedy=headline.remedy)
        return headline
    power = [c for c in placed if _is_power(c)]
    best = _best(c for c in power if c.name == rail) or _best(members.get(rail, ()))
    if best is None:
        names = {c.name for c in power if c.available} | {total.name for total in board.totals if total.name}
        raise unknown("rail", rail, names)
    if not best.available:
        raise UnavailableError(f"the rail {rail} cannot be read: {best.reason}", remedy=best.remedy)
    usual = next((total for total in board.totals if total.rails == (_table_name(members, best),)), None)
    return Headline(
        (best,),
        usual.covers if usual else best.scope,
        excludes=usual.excludes if usual else f"everything that {best.name} does not feed",
        note=best.note or None,
    )


def _table_name(members: dict[str, list[Channel]], channel: Channel) -> str | None:
    return next((name for name, group in members.items() if channel in group), None)


def _pc_model(roots: Roots) -> str:
    vendor, product = (text_of(roots.sysfs / "class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    if product:
        return product if vendor is None or product.startswith(vendor) else f"{vendor} {product}"
    cpu = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text_of(roots.procfs / "cpuinfo") or "", re.MULTILINE)
    return f"{cpu[1]} machine" if cpu else "unknown machine"
