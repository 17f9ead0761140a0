"""What share of a model a method changed, what it left, and why: counted by layers, not by intentions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Layers that are named for each reason at most; the others are counted.
_NAMED = 8
#: The reason of what the user excluded.
EXCLUDED = "excluded"


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


def coverage(
    parts: Iterable[Part], changed: Mapping[str, Fraction], why: Mapping[str, str], otherwise: str
) -> dict[str, Any]:
    """The entry ``coverage`` of a step's facts.

    Args:
        parts: Of the model as it was.
        changed: Name of a part that the method changed → which share of its weights (see ``whole``).
        why: Name → why it was left, or what of it was.
        otherwise: The reason for those that neither ``why`` nor the part itself gives one for.

    Returns:
        ``weights`` and ``macs``: how many in all, how many were changed, and their share (None where none is known);
        ``families``: the same by operator; ``left``: by reason, which parts.
    """
    parts = list(parts)
    families: dict[str, Any] = {}
    left: dict[str, Any] = {}
    for part in parts:
        share = changed.get(part.name, Fraction(0))
        family = families.setdefault(part.family, {"layers": [0, 0], "weights": [0, 0], "macs": [0, 0]})
        touched = {"layers": int(share > 0), "weights": _of(part.weights, share), "macs": _of(part.macs, share)}
        for key, size in (("layers", 1), ("weights", part.weights), ("macs", part.macs or 0)):
            family[key][0] += touched[key]
            family[key][1] += size
        if share < 1:
            entry = left.setdefault(
                why.get(part.name) or part.reason or otherwise, {"parts": 0, "weights": 0, "macs": 0, "names": []}
            )
            entry["parts"] += 1
            entry["weights"] += part.weights - touched["weights"]
            entry["macs"] += (part.macs or 0) - touched["macs"]
            entry["names"] += [part.name] if len(entry["names"]) < _NAMED else []
    unknown = [part.name for part in parts if part.macs is None]
    work = _share_facts(families, "macs")
    if unknown:
        work = {"changed": None, "total": None, "share": None, "reason": _open_sizes_sentence(unknown)}
    return {"weights": _share_facts(families, "weights"), "macs": work, "families": families, "left": left}


def whole(names: Iterable[str]) -> dict[str, Fraction]:
    """Parts all of whose weights were changed."""
    return dict.fromkeys(names, Fraction(1))


def partial(sizes: Mapping[str, Sequence[tuple[int, bool]]]) -> dict[str, Fraction]:
    """Parts of which some weights were changed; a layer with several, as an LSTM, multiplies as often with each number.

    Args:
        sizes: Part → for each of its weights the number of values, and whether it was changed.
    """
    return {
        part: Fraction(sum(size for size, changed in weights if changed), sum(size for size, _ in weights))
        for part, weights in sizes.items()
        if any(size and changed for size, changed in weights)
    }


def _of(count: int | None, share: Fraction) -> int:
    return round((count or 0) * share)


def _share_facts(families: Mapping[str, Any], key: str) -> dict[str, Any]:
    changed, total = (sum(family[key][k] for family in families.values()) for k in (0, 1))
    return {"changed": changed, "total": total, "share": changed / total if total else None}


def _open_sizes_sentence(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the sizes of {names[0]}{more} are open"
