"""Board files: the table of boards and rails that comes with edgeprof, and the user's own tables.

The form is described at the top of ``boards.toml``. A file that does not follow it is refused with an error that gives
its name, the line and the allowed keys, because a typing error that misplaces a rail would make all joules wrong.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import directories, toml_files
from edgeprof.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The table that comes with the package.
BUILTIN = Path(__file__).with_name("boards.toml")
#: The values of ``sensor.Channel.scope``.
SCOPES = ("wall", "board", "module", "soc", "package", "cpu", "gpu", "memory", "system", "accelerator", "unknown")
_AT = re.compile(r"[0-9a-f]{2}\.[0-9]+")


@dataclass(frozen=True)
class Rail:
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


@dataclass(frozen=True)
class Total:
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


_BOARD_KEYS = ("name", "match", "model", "totals", "rails", "bus", "limit_w", "no_sensor", "note", "source")
_RAIL_KEYS = ("labels", "at", "scope", "inside", "shunt_uohm")
_TOTAL_KEYS = ("name", "rails", "covers", "excludes")


def config_directory(environ: Mapping[str, str] | None = None) -> Path:
    """The directory of the user's own files: EDGEPROF_CONFIG, or else the user's directory for configuration."""
    environ = os.environ if environ is None else environ
    given = environ.get("EDGEPROF_CONFIG")
    return Path(given) if given else directories.user_config(environ)


def load_boards(directory: Path | None = None) -> list[Board]:
    """All boards: the user's first, then the package's; a user's block of the same name overrides key by key.

    Args:
        directory: The directory of the user's ``*.toml``; by default ``boards.d`` in the configuration directory.

    Raises:
        InputError: a file cannot be read or does not follow the form.
    """
    directory = config_directory() / "boards.d" if directory is None else directory
    blocks = _builtin_blocks()
    merged_blocks: dict[str, tuple[dict[str, Any], Path, str]] = {}
    for path in sorted(directory.glob("*.toml")) if directory.is_dir() else []:
        for name, (block, _, text) in _read_blocks(path).items():
            base = merged_blocks.get(name) or blocks.get(name)
            merged = (
                {**base[0], **block, "rails": {**base[0].get("rails", {}), **block.get("rails", {})}} if base else block
            )
            merged_blocks[name] = merged, path, text
    everything = {**merged_blocks, **{name: value for name, value in blocks.items() if name not in merged_blocks}}
    return [_make_board(name, block, _Where(path, text, name)) for name, (block, path, text) in everything.items()]


@functools.cache
def _builtin_blocks() -> dict[str, tuple[dict[str, Any], Path, str]]:
    return _read_blocks(BUILTIN)


def _read_blocks(path: Path) -> dict[str, tuple[dict[str, Any], Path, str]]:
    text = toml_files.read_text(path, "the board file")
    data = toml_files.parse(text, path, remedy="See docs/boards.md for the form.")
    blocks = {}
    for name, block in data.items():
        where = _Where(path, text, name)
        if not isinstance(block, dict):
            raise where.error(name, f"{name!r} is outside of a block", "Begin with a line like [my-board].")
        where.check_keys(block, _BOARD_KEYS)
        for rail, facts in where.typed(block, "rails", dict, {}).items():
            if not isinstance(facts, dict):
                raise where.error(rail, f"rails.{rail} must be a table", 'As rails.VDD_IN = { scope = "module" }.')
        blocks[name] = block, path, text
    return blocks


@dataclass(frozen=True)
class _Where:
    path: Path
    text: str
    block: str

    def line_of(self, key: str) -> int:
        """The line of this block that first names the key; the first line of the block if none does."""
        inside, line_number = False, 1
        head = re.compile(rf"\s*\[{re.escape(self.block)}\]")
        for number, line in enumerate(self.text.splitlines(), 1):
            if line.lstrip().startswith("[") and not inside and head.match(line):
                inside, line_number = True, number
            if inside and re.search(rf"(^|[\s.{{,\"]){re.escape(key)}\"?\s*[=.\]]", line):
                return number
        return line_number

    def error(self, key: str, message: str, remedy: str | None = None) -> InputError:
        return InputError(f"{self.path}, line {self.line_of(key)}, [{self.block}]: {message}", remedy=remedy)

    def check_keys(self, table: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        for key in table:
            if key not in allowed:
                raise self.error(key, f"unknown key {key!r}", f"Allowed keys: {', '.join(allowed)}.")

    def typed(self, table: Mapping[str, Any], key: str, kind: Any, default: Any) -> Any:
        value = table.get(key, default)
        if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
            names = {dict: "a table", list: "a list", str: "a text", int: "a whole number", (int, float): "a number"}
            raise self.error(key, f"{key} must be {names[kind]}, not {value!r}")
        return value

    def texts(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        values = self.typed(table, key, list, [])
        if not all(isinstance(value, str) for value in values):
            raise self.error(key, f"{key} must be a list of texts, not {values!r}")
        return tuple(values)


def _make_board(name: str, block: Mapping[str, Any], where: _Where) -> Board:
    rails = {key: _make_rail(key, facts, where) for key, facts in where.typed(block, "rails", dict, {}).items()}
    for rail in rails.values():
        if rail.inside is not None and rail.inside not in rails:
            problem = unknown("rail", rail.inside, rails)
            raise where.error(
                "inside", f"rails.{rail.name} is inside {rail.inside!r}, which is no rail", problem.remedy
            )
    totals = tuple(_make_total(total, rails, where) for total in where.typed(block, "totals", list, []))
    return Board(
        id=name,
        name=where.typed(block, "name", str, name),
        match=where.texts(block, "match"),
        model_match=where.texts(block, "model"),
        totals=totals,
        rails=rails,
        bus=where.typed(block, "bus", int, None),
        limit_w=where.typed(block, "limit_w", (int, float), None),
        no_sensor=where.typed(block, "no_sensor", str, None),
        note=where.typed(block, "note", str, None),
        source=where.typed(block, "source", str, None),
    )


def _make_rail(name: str, facts: Mapping[str, Any], where: _Where) -> Rail:
    where.check_keys(facts, _RAIL_KEYS)
    scope = where.typed(facts, "scope", str, "unknown")
    if scope not in SCOPES:
        raise where.error("scope", f"rails.{name} has the unknown scope {scope!r}", f"Allowed: {', '.join(SCOPES)}.")
    at = where.typed(facts, "at", str, None)
    if at is not None and not _AT.fullmatch(at):
        raise where.error("at", f"rails.{name}: at = {at!r} is no address and channel", 'As at = "40.1": address 0x40.')
    return Rail(
        name=name,
        labels=where.texts(facts, "labels"),
        at=at,
        scope=scope,
        inside=where.typed(facts, "inside", str, None),
        shunt_uohm=where.typed(facts, "shunt_uohm", (int, float), None),
    )


def _make_total(total: Any, rails: Mapping[str, Rail], where: _Where) -> Total:
    if not isinstance(total, dict):
        raise where.error(
            "totals", "totals must be a list of tables", 'As [{ rails = ["VDD_IN"], covers = "module" }].'
        )
    where.check_keys(total, _TOTAL_KEYS)
    names = where.texts(total, "rails")
    for name in names:
        if name not in rails:
            raise where.error("totals", f"the total's rail {name!r} is no rail", unknown("rail", name, rails).remedy)
        inside = rails[name].inside
        if inside in names:
            raise where.error("totals", f"{name} is inside {inside}: added together they would be counted twice")
    if not names or "covers" not in total:
        raise where.error("totals", "a total needs rails and covers", 'As { rails = ["VDD_IN"], covers = "module" }.')
    return Total(
        rails=names,
        covers=where.typed(total, "covers", str, ""),
        name=where.typed(total, "name", str, None),
        excludes=where.typed(total, "excludes", str, None),
    )
