"""The blocks of board files: the table that comes with edgeprof, and the user's own files, which override it.

``boards.json`` has the same content as ``boards.toml`` (a test writes it and keeps it so). It is read instead, because
a parser of TOML takes longer than everything else that a board's name needs.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.directories import config_directory
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The table that comes with the package, and the same as JSON.
BUILTIN = Path(__file__).with_name("boards.toml")
BUILTIN_JSON = BUILTIN.with_suffix(".json")
_KEYS = ("name", "match", "model", "totals", "rails", "bus", "limit_w", "no_sensor", "note", "source")


class Block(NamedTuple):
    """The block of one board.

    Attributes:
        name: The block's name.
        facts: Its keys and values, which may have types that do not follow the form.
        path: The file that contains it.
        text: The text of that file, for the lines in messages; empty for the package's own.
    """

    name: str
    facts: dict[str, Any]
    path: Path
    text: str = ""

    def line_of(self, key: str) -> int:
        """The line of this block that first names the key; the first line of the block if none does."""
        inside, line_number = False, 1
        head = re.compile(rf"\s*\[{re.escape(self.name)}\]")
        for number, line in enumerate(self.text.splitlines(), 1):
            if line.lstrip().startswith("[") and not inside and head.match(line):
                inside, line_number = True, number
            if inside and re.search(rf"(^|[\s.{{,\"]){re.escape(key)}\"?\s*[=.\]]", line):
                return number
        return line_number

    def error(self, key: str, message: str, remedy: str | None = None) -> InputError:
        return InputError(f"{self.path}, line {self.line_of(key)}, [{self.name}]: {message}", remedy=remedy)

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


def load_blocks(directory: Path | None = None) -> list[Block]:
    """All blocks: the user's first, then the package's; a user's block of the same name overrides key by key.

    Args:
        directory: The directory of the user's ``*.toml``; by default ``boards.d`` in the configuration directory.

    Raises:
        InputError: a file cannot be read or is not a table of blocks.
    """
    directory = config_directory() / "boards.d" if directory is None else directory
    builtin = _builtin_blocks()
    users: dict[str, Block] = {}
    for path in sorted(directory.glob("*.toml")) if directory.is_dir() else []:
        for name, block in read_blocks(path).items():
            base = users.get(name) or builtin.get(name)
            facts = block.facts
            if base is not None:
                facts = {**base.facts, **facts, "rails": {**base.facts.get("rails", {}), **facts.get("rails", {})}}
            users[name] = block._replace(facts=facts)
    return [*users.values(), *(block for name, block in builtin.items() if name not in users)]


@functools.cache
def _builtin_blocks() -> dict[str, Block]:
    blocks = json.loads(BUILTIN_JSON.read_bytes())
    return {name: Block(name, facts, BUILTIN) for name, facts in blocks.items()}


def read_blocks(path: Path) -> dict[str, Block]:
    """Read the blocks of one file, by their names.

    Raises:
        InputError: the file cannot be read or is not a table of blocks.
    """
    from edgeprof import toml_files  # noqa: PLC0415 - few users have board files of their own

    text = toml_files.read_text(path, "the board file")
    data = toml_files.parse(text, path, remedy="See docs/boards.md for the form.")
    blocks = {}
    for name, facts in data.items():
        block = Block(name, facts, path, text)
        if not isinstance(facts, dict):
            raise block.error(name, f"{name!r} is outside of a block", "Begin with a line like [my-board].")
        block.check_keys(facts, _KEYS)
        for rail, of_rail in block.typed(facts, "rails", dict, {}).items():
            if not isinstance(of_rail, dict):
                raise block.error(rail, f"rails.{rail} must be a table", 'As rails.VDD_IN = { scope = "module" }.')
        blocks[name] = block
    return blocks
