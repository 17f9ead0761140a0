"""Which reading is which rail of the board: by the chip's place first, and by its label second.

A label alone proves little: a second chip on a header's bus may carry the same one, and a driver that gives no labels
leaves the I2C address and the input. So a labelled reading is a rail only where its place does not contradict the
board's table, an unlabelled one only where no labelled one claims the rail, and of two chips that both could be it, the
one on the board's own bus is. Where even that leaves two, neither is: a guess would be a wrong total for ever.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from edgeprof.sensing.board.files import Board, Rail

Reading = TypeVar("Reading", bound="Hashable")
_I2C = re.compile(r"i2c (\d+)-([0-9a-f]{4})")


@dataclass(frozen=True)
class Origin:
    """Where a reading comes from.

    Attributes:
        label: What its driver calls it; None where it gives no label.
        chip: The chip's place, as ``i2c 1-0040``; empty where the source does not tell.
        input: The chip's input, from 1; None where it does not tell.
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
    """The board's rail of that label, None where it has none."""
    return next((rail for rail in board.rails.values() if label == rail.name or label in rail.labels), None)


def find_rails(board: Board, origins: Mapping[Reading, Origin]) -> dict[Reading, Rail]:
    """Which of these readings are which rails of the board.

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
    """The reading whose place speaks most for it; None where two have the same to say."""

    def evidence(key: Reading) -> tuple[bool, int]:
        origin = origins[key]
        return board.bus is not None and origin.bus == board.bus, labels[origin.chip]

    ranked = sorted(keys, key=evidence, reverse=True)
    if len(ranked) > 1 and evidence(ranked[0]) == evidence(ranked[1]):
        return None
    return ranked[0] if ranked else None


def distinct_names(names: Sequence[str], origins: Sequence[Origin], keep: Iterable[int] = ()) -> list[str]:
    """The names, with the chip's place where two chips give the same one, and with the input where one chip does.

    What a reading is called depends on where it is alone, and not on which was found first.

    Args:
        names: What the readings would be called.
        origins: Where each comes from.
        keep: The positions of those that keep their name, as the board's own rails do.
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
