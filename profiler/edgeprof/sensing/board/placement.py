"""Assign readings to the rails of a board, by the chip's place first and by the label second.

A label alone proves little: a second chip on a header's bus may have the same one, and a driver without labels leaves
only the I2C address and the input. A labelled reading is therefore a rail only if its place does not contradict the
board's table, and an unlabelled one only if no labelled reading claims that rail. Of two possible chips the one on the
board's own bus is chosen. If two readings remain, neither is taken to be the rail, because a wrong guess would make all
totals wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from edgeprof.sensing.board.files import Board, Rail

Reading = TypeVar("Reading", bound="Hashable")
_I2C = re.compile(r"i2c (\d+)-([0-9a-f]{4})")


class Origin(NamedTuple):
    """Where a reading comes from.

    Attributes:
        label: The label that its driver gives; None if it gives none.
        chip: The place of the chip, such as ``i2c 1-0040``; empty if the source does not know it.
        input: The input of the chip, from 1; None if unknown.
    """

    label: str | None
    chip: str = ""
    input: int | None = None

    @property
    def bus(self) -> int | None:
        """The number of its I2C bus; None for another kind of place."""
        match = _I2C.fullmatch(self.chip)
        return int(match[1]) if match else None

    @property
    def at(self) -> str | None:
        """Address and input as board files write them, ``40.1``; None for another kind of place."""
        match = _I2C.fullmatch(self.chip)
        return f"{int(match[2], 16):02x}.{self.input}" if match and self.input is not None else None


def rail_labelled(board: Board, label: str) -> Rail | None:
    """Return the board's rail with that label; None if it has none."""
    return next((rail for rail in board.rails.values() if label == rail.name or label in rail.labels), None)


def find_rails(board: Board, origins: Mapping[Reading, Origin]) -> dict[Reading, Rail]:
    """Assign readings to the rails of the board.

    Args:
        board: From ``identify_board``.
        origins: Any name of a reading → where it comes from.

    Returns:
        The readings that are rails. Several may be the same rail only where their sources tell no place (a service
        that reads the same chips); of those with a place at most one is.
    """
    labels = Counter(
        origin.chip for origin in origins.values() if origin.label and _is_at_home(board, origin, origin.label)
    )
    result: dict[Reading, Rail] = {}
    for rail in board.rails.values():
        labelled = [key for key, origin in origins.items() if origin.label and _label_matches(rail, origin)]
        result |= {key: rail for key in labelled if not origins[key].chip}
        placed = [key for key in labelled if origins[key].chip]
        unlabelled = [key for key, origin in origins.items() if not origin.label and rail.at and origin.at == rail.at]
        best = _best_placed(board, placed or unlabelled, origins, labels)
        if best is not None:
            result[best] = rail
    return result


def _label_matches(rail: Rail, origin: Origin) -> bool:
    named = origin.label == rail.name or origin.label in rail.labels
    return named and (rail.at is None or origin.at is None or origin.at == rail.at)


def _is_at_home(board: Board, origin: Origin, label: str) -> bool:
    rail = rail_labelled(board, label)
    return rail is not None and rail.at is not None and rail.at == origin.at


def _best_placed(
    board: Board, keys: Sequence[Reading], origins: Mapping[Reading, Origin], labels: Counter[str]
) -> Reading | None:
    """The reading with the best evidence for its place; None if two have equally good evidence."""

    def evidence(key: Reading) -> tuple[bool, int]:
        origin = origins[key]
        return board.bus is not None and origin.bus == board.bus, labels[origin.chip]

    ranked = sorted(keys, key=evidence, reverse=True)
    if len(ranked) > 1 and evidence(ranked[0]) == evidence(ranked[1]):
        return None
    return ranked[0] if ranked else None


def distinct_names(names: Sequence[str], origins: Sequence[Origin], keep: Iterable[int] = ()) -> list[str]:
    """Make names unique, by the chip's place if two chips give the same name, and by the input if one chip does.

    The name of a reading depends only on its place, not on the order of discovery.

    Args:
        names: The names that the readings would have.
        origins: The origin of each reading.
        keep: The positions of names that must not change, such as those of the board's own rails.
    """
    fixed = set(keep)
    result = list(names)
    for index, (name, origin) in enumerate(zip(names, origins, strict=True)):
        elsewhere = any(n == name and o.chip != origin.chip for n, o in zip(names, origins, strict=True))
        place = origin.chip.rpartition(" ")[2]
        if elsewhere and place and index not in fixed and f"@{place}" not in name:
            result[index] = f"{name}@{place}"
    placed = tuple(result)
    for index, (name, origin) in enumerate(zip(placed, origins, strict=True)):
        if placed.count(name) > 1 and origin.input is not None and index not in fixed:
            result[index] = f"{name} #{origin.input}"
    return result
