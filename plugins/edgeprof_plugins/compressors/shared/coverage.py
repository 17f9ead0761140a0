"""What share of a model a method changed, what it left unchanged, and why: counted from the layers of the result."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: At most this many layers are named for each reason; the others are only counted.
_NAMED = 8
#: The reason given for the layers that the user excluded.
EXCLUDED = "excluded"


@dataclass(frozen=True)
class Part:
    """A layer, or a group of parameters of one kind that no layer multiplies with.

    Attributes:
        name: The name in the graph.
        family: The operator; for parameters without an operator, the kind of parameter.
        weights: The number of weight values.
        macs: Multiply-accumulate operations for one sample; None where they are not known.
        reason: Why no method changes the part; "" for layers.
    """

    name: str
    family: str
    weights: int
    macs: int | None
    reason: str = ""


def coverage(
    parts: Iterable[Part], changed: Mapping[str, Fraction], why: Mapping[str, str], otherwise: str
) -> dict[str, Any]:
    """Return the entry ``coverage`` of a step's facts.

    Args:
        parts: The parts of the model before the step.
        changed: Name of each changed part → the share of its weights that was changed (see ``whole``).
        why: Name of a part → why all or some of its weights were left unchanged.
        otherwise: The reason for parts that have none in ``why`` or of their own.

    Returns:
        ``weights`` and ``macs``: the total, the number changed, and the share changed (None where it is not known);
        ``families``: the same for each operator; ``left``: the parts left unchanged, by reason.
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
        shares = {changed.get(part.name, Fraction(0)) for part in parts if part.macs != 0}
        known = float(shares.pop()) if shares in ({Fraction(0)}, {Fraction(1)}) else None  # of whatever it is in all
        work = {"changed": None, "total": None, "share": known, "reason": _unknown_sentence(unknown)}
    return {"weights": _share_facts(families, "weights"), "macs": work, "families": families, "left": left}


def whole(names: Iterable[str]) -> dict[str, Fraction]:
    """Return the share 1 for each name, for parts whose weights were all changed."""
    return dict.fromkeys(names, Fraction(1))


def partial(sizes: Mapping[str, Sequence[tuple[int, bool]]]) -> dict[str, Fraction]:
    """Return the changed share of each part that has at least one changed weight tensor.

    The share of values is also the share of MACs: a layer with several weights, such as an LSTM, multiplies equally
    often with each value.

    Args:
        sizes: Part → for each of its weight tensors, the number of values and whether the tensor was changed.
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


def _unknown_sentence(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the arithmetic of {names[0]}{more} is not known: sizes are open, or the data decide how often a loop runs"
