"""Identify the board of a tree from its device tree, never from a version of L4T."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeprof.sensing.board.files import Board, load_boards
from edgeprof.sensing.files import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.roots import Roots


def identify_board(roots: Roots, boards: Sequence[Board] | None = None) -> Board:
    """The board of these roots; if none matches, a board with the id ``unknown`` and the machine's own name.

    Raises:
        InputError: a user's board file does not follow the form.
    """
    boards = load_boards() if boards is None else boards
    tree = roots.sysfs / "firmware/devicetree/base"
    compatible = (text_of(tree / "compatible") or "").split("\n")
    model = text_of(tree / "model") or _pc_model(roots)
    for entry in filter(None, compatible):
        board = _board_of(entry, boards)
        if board is not None:
            return replace(board, model=model)
    for board in boards:
        if any(fnmatch.fnmatchcase(model, pattern) for pattern in board.model_match):
            return replace(board, model=model)
    return Board(id="unknown", name=model, model=model)


def _board_of(entry: str, boards: Sequence[Board]) -> Board | None:
    """The board that a compatible string names; of several matches, the one with the longest literal pattern.

    NVIDIA's strings name the carrier and then the module, as ``nvidia,p3449-0000+p3668-0001``. The monitors are the
    module's, and one carrier takes several modules: a board that is known by the module's part comes first.
    """
    vendor, comma, parts = entry.rpartition(",")
    module = f"{vendor}{comma}{parts.rpartition('+')[2]}"
    for name in dict.fromkeys((module, entry)):
        matches = [
            (len(re.sub(r"[*?]", "", pattern)), -rank, board)
            for rank, board in enumerate(boards)
            for pattern in board.match
            if fnmatch.fnmatchcase(name, pattern)
        ]
        if matches:
            return max(matches, key=lambda match: match[:2])[2]
    return None


def _pc_model(roots: Roots) -> str:
    vendor, product = (text_of(roots.sysfs / "class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    if product:
        return product if vendor is None or product.startswith(vendor) else f"{vendor} {product}"
    cpu = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text_of(roots.procfs / "cpuinfo") or "", re.MULTILINE)
    return f"{cpu[1]} machine" if cpu else "unknown machine"
