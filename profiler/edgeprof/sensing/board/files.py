"""Boards and their rails, made from the blocks of board files.

The form is described at the top of ``boards.toml``. A block that does not follow it is refused with an error that gives
its file, the line and the allowed keys, because a typing error that misplaces a rail would make all joules wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.errors import unknown
from edgeprof.sensing.board.blocks import load_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.sensing.board.blocks import Block

#: The values of ``sensor.Channel.scope``.
SCOPES = ("wall", "board", "module", "soc", "package", "cpu", "gpu", "memory", "system", "accelerator", "unknown")
_AT = re.compile(r"[0-9a-f]{2}\.[0-9]+")


class Rail(NamedTuple):
    """One rail of a board.

    Attributes:
        name: The usual label of the rail.
        labels: Other labels of the same rail.
        at: The I2C address and the channel from 1, such as ``40.1``, for readings without a label.
        scope: What the rail feeds.
        inside: The rail that already contains this one.
        shunt_uohm: The resistance of its shunt, in µΩ.
    """

    name: str
    labels: tuple[str, ...] = ()
    at: str | None = None
    scope: str = "unknown"
    inside: str | None = None
    shunt_uohm: float | None = None


class Total(NamedTuple):
    """Rails that add up to something worth quoting.

    Attributes:
        rails: The rails to add up, all of which are needed.
        covers: What the sum covers: ``module``, ``board``, ``pmic`` …
        name: A name for ``--rail``; None if it has only the names of its rails.
        excludes: What is not in the sum, in words.
    """

    rails: tuple[str, ...]
    covers: str
    name: str | None = None
    excludes: str | None = None


@dataclass(frozen=True)
class Board:
    """A board as its block in a board file describes it.

    Attributes:
        id: The block's name, ``unknown`` where none matches.
        name: The name for people.
        model: The model that the machine itself reports.
        match: Patterns for the device tree's compatible strings.
        model_match: Patterns for the device tree's model.
        totals: In order of preference.
        rails: By name.
        bus: The I2C bus of the board's own monitors, which decides where two chips have one address or one label.
        limit_w: The most power that any rail can show, in W.
        no_sensor: Why the board has no sensor, if it has none.
        note: A remark for readers of the joules.
        source: The source of these facts.
    """

    id: str
    name: str
    model: str = ""
    match: tuple[str, ...] = ()
    model_match: tuple[str, ...] = ()
    totals: tuple[Total, ...] = ()
    rails: Mapping[str, Rail] = field(default_factory=dict)
    bus: int | None = None
    limit_w: float | None = None
    no_sensor: str | None = None
    note: str | None = None
    source: str | None = None

    @property
    def is_known(self) -> bool:
        return self.id != "unknown"


_RAIL_KEYS = ("labels", "at", "scope", "inside", "shunt_uohm")
_TOTAL_KEYS = ("name", "rails", "covers", "excludes")


def load_boards(directory: Path | None = None) -> list[Board]:
    """All boards: the user's first, then the package's.

    Args:
        directory: The directory of the user's ``*.toml``; by default ``boards.d`` in the configuration directory.

    Raises:
        InputError: a file cannot be read or does not follow the form.
    """
    return [make_board(block) for block in load_blocks(directory)]


def make_board(block: Block, model: str = "") -> Board:
    """Make the board that a block describes.

    Args:
        block: The block.
        model: The model that the machine itself reports.

    Raises:
        InputError: the block does not follow the form.
    """
    rails = {key: _make_rail(key, facts, block) for key, facts in block.typed(block.facts, "rails", dict, {}).items()}
    for rail in rails.values():
        if rail.inside is not None and rail.inside not in rails:
            problem = unknown("rail", rail.inside, rails)
            raise block.error(
                "inside", f"rails.{rail.name} is inside {rail.inside!r}, which is no rail", problem.remedy
            )
    totals = tuple(_make_total(total, rails, block) for total in block.typed(block.facts, "totals", list, []))
    return Board(
        id=block.name,
        name=block.typed(block.facts, "name", str, block.name),
        model=model,
        match=block.texts(block.facts, "match"),
        model_match=block.texts(block.facts, "model"),
        totals=totals,
        rails=rails,
        bus=block.typed(block.facts, "bus", int, None),
        limit_w=block.typed(block.facts, "limit_w", (int, float), None),
        no_sensor=block.typed(block.facts, "no_sensor", str, None),
        note=block.typed(block.facts, "note", str, None),
        source=block.typed(block.facts, "source", str, None),
    )


def _make_rail(name: str, facts: Mapping[str, Any], block: Block) -> Rail:
    block.check_keys(facts, _RAIL_KEYS)
    scope = block.typed(facts, "scope", str, "unknown")
    if scope not in SCOPES:
        raise block.error("scope", f"rails.{name} has the unknown scope {scope!r}", f"Allowed: {', '.join(SCOPES)}.")
    at = block.typed(facts, "at", str, None)
    if at is not None and not _AT.fullmatch(at):
        raise block.error("at", f"rails.{name}: at = {at!r} is no address and channel", 'As at = "40.1": address 0x40.')
    return Rail(
        name=name,
        labels=block.texts(facts, "labels"),
        at=at,
        scope=scope,
        inside=block.typed(facts, "inside", str, None),
        shunt_uohm=block.typed(facts, "shunt_uohm", (int, float), None),
    )


def _make_total(total: Any, rails: Mapping[str, Rail], block: Block) -> Total:
    if not isinstance(total, dict):
        raise block.error(
            "totals", "totals must be a list of tables", 'As [{ rails = ["VDD_IN"], covers = "module" }].'
        )
    block.check_keys(total, _TOTAL_KEYS)
    names = block.texts(total, "rails")
    for name in names:
        if name not in rails:
            raise block.error("totals", f"the total's rail {name!r} is no rail", unknown("rail", name, rails).remedy)
        inside = rails[name].inside
        if inside in names:
            raise block.error("totals", f"{name} is inside {inside}: added together they would be counted twice")
    if not names or "covers" not in total:
        raise block.error("totals", "a total needs rails and covers", 'As { rails = ["VDD_IN"], covers = "module" }.')
    return Total(
        rails=names,
        covers=block.typed(total, "covers", str, ""),
        name=block.typed(total, "name", str, None),
        excludes=block.typed(total, "excludes", str, None),
    )
