"""Identify the board of a tree from its device tree, never from a version of L4T."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from edgeprof.sensing.board.blocks import BUILTIN, load_blocks
from edgeprof.sensing.files import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.roots import Roots
    from edgeprof.sensing.board.blocks import Block
    from edgeprof.sensing.board.files import Board


def identify_board(roots: Roots) -> Board:
    """The board of these roots; if none matches, a board with the id ``unknown`` and the machine's own name.

    Raises:
        InputError: a user's board file does not follow the form.
    """
    from edgeprof.sensing.board.files import Board, make_board  # noqa: PLC0415 - a board's name does not need it

    block, model = _find_block(roots)
    return Board(id="unknown", name=model, model=model) if block is None else make_board(block, model)


def name_and_model(roots: Roots) -> tuple[str, str]:
    """The name and the model of the board of these roots, as ``identify_board`` gives them.

    Raises:
        InputError: a user's board file does not follow the form.
    """
    block, model = _find_block(roots)
    return model if block is None else block.facts.get("name", block.name), model


def _find_block(roots: Roots) -> tuple[Block | None, str]:
    """Return the block that matches, or None, and the model that the machine itself reports.

    Raises:
        InputError: a user's board file does not follow the form.
    """
    blocks = load_blocks()
    for block in blocks:
        if block.path != BUILTIN:
            from edgeprof.sensing.board.files import make_board  # noqa: PLC0415 - few users have board files

            make_board(block)  # every block is checked, not only the one that matches
    tree = roots.sysfs / "firmware/devicetree/base"
    compatible = (text_of(tree / "compatible") or "").split("\n")
    model = text_of(tree / "model") or _pc_model(roots)
    for entry in filter(None, compatible):
        named = _block_of(entry, blocks)
        if named is not None:
            return named, model
    for block in blocks:
        if any(matches(model, pattern) for pattern in block.facts.get("model", [])):
            return block, model
    return None, model


def _block_of(entry: str, blocks: Sequence[Block]) -> Block | None:
    """The block that a compatible string names; of several matches, the one with the longest literal pattern.

    NVIDIA's strings name the carrier and then the module, as ``nvidia,p3449-0000+p3668-0001``. The monitors are the
    module's, and one carrier takes several modules: a board that is known by the module's part comes first.
    """
    vendor, comma, parts = entry.rpartition(",")
    module = f"{vendor}{comma}{parts.rpartition('+')[2]}"
    for name in dict.fromkeys((module, entry)):
        candidates = [
            (len(re.sub(r"[*?]", "", pattern)), -rank, block)
            for rank, block in enumerate(blocks)
            for pattern in block.facts.get("match", [])
            if matches(name, pattern)
        ]
        if candidates:
            return max(candidates, key=lambda match: match[:2])[2]
    return None


def matches(name: str, pattern: str) -> bool:
    """As ``fnmatch.fnmatchcase``, which compiles every pattern: that would take most of the time of naming a board.

    Most patterns are excluded by their longest literal part, which every name that matches contains.
    """
    literal = "" if "[" in pattern else max(pattern.replace("?", "*").split("*"), key=len)
    return literal in name and fnmatch.fnmatchcase(name, pattern)


def _pc_model(roots: Roots) -> str:
    vendor, product = (text_of(roots.sysfs / "class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    if product:
        return product if vendor is None or product.startswith(vendor) else f"{vendor} {product}"
    cpu = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text_of(roots.procfs / "cpuinfo") or "", re.MULTILINE)
    return f"{cpu[1]} machine" if cpu else "unknown machine"
