"""What share of a model a method changed, what it left, and why: counted by layers, not by intentions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Layers that are named for each reason at most; the others are counted.
_NAMED = 8


@dataclass(frozen=True)
class Part:
    """A layer, or parameters of one kind that no layer multiplies with.

    Attributes:
        name: As in the graph.
        family: Its operator; for parameters without one what they are.
        weights: How many numbers it has.
        macs: Multiply-accumulates for one sample; None where they are not known.
        reason: Why no method changes it; "" for layers.
    """

    name: str
    family: str
    weights: int
    macs: int | None
    reason: str = ""


def coverage(parts: Iterable[Part], changed: Iterable[str], why: Mapping[str, str], otherwise: str) -> dict[str, Any]:
    """The entry ``coverage`` of a step's facts.

    Args:
        parts: Of the model as it was.
        changed: Names of those that the method changed.
        why: Name → why it was left.
        otherwise: The reason for those that neither ``why`` nor the part itself gives one for.

    Returns:
        ``weights`` and ``macs``: how many in all, how many are those of changed layers, and their share (None where
        none is known); ``families``: the same by operator; ``left``: by reason, which parts.
    """
    parts, touched = list(parts), set(changed)
    families: dict[str, Any] = {}
    left: dict[str, Any] = {}
    for part in parts:
        family = families.setdefault(part.family, {"layers": [0, 0], "weights": [0, 0], "macs": [0, 0]})
        for key, size in (("layers", 1), ("weights", part.weights), ("macs", part.macs or 0)):
            family[key][1] += size
            family[key][0] += size if part.name in touched else 0
        if part.name not in touched:
            entry = left.setdefault(
                why.get(part.name) or part.reason or otherwise, {"parts": 0, "weights": 0, "macs": 0, "names": []}
            )
            entry["parts"] += 1
            entry["weights"] += part.weights
            entry["macs"] += part.macs or 0
            entry["names"] += [part.name] if len(entry["names"]) < _NAMED else []
    weights = [part.weights for part in parts]
    unknown = [part.name for part in parts if part.macs is None]
    work = _share_facts([p.macs or 0 for p in parts], parts, touched)
    if unknown:
        work = {"changed": None, "total": None, "share": None, "reason": _open_sizes_sentence(unknown)}
    return {"weights": _share_facts(weights, parts, touched), "macs": work, "families": families, "left": left}


def _share_facts(counts: list[int], parts: list[Part], touched: set[str]) -> dict[str, Any]:
    changed = sum(count for count, part in zip(counts, parts, strict=True) if part.name in touched)
    total = sum(counts)
    return {"changed": changed, "total": total, "share": changed / total if total else None}


def _open_sizes_sentence(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the sizes of {names[0]}{more} are open"
