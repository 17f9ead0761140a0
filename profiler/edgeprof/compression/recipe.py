"""Compare the data that a variant was made with, as its recipe records it, with the data that it is evaluated on."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from edgeprof import whole_files
from edgeprof.errors import EdgeprofError, InputError
from edgeprof.reasons import Code
from edgeprof.results.schema import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgeprof.artifact import Artifact
    from edgeprof.compression.compressor import Compressor
    from edgeprof.evaluation.dataset import Dataset

    Recipe = Sequence[Mapping[str, Any]]


def recipe_beside(variant: Artifact) -> list[dict[str, Any]]:
    """Return the recipe of a variant from the manifest that ``edgeprof compress`` wrote beside it; empty if absent."""
    if variant.path is None:
        return []
    for manifest in sorted(variant.path.parent.glob("*.compress.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            for entry in json.loads(whole_files.read_text(manifest))["variants"]:
                if entry["model"] and entry["model"]["sha256"] == variant.sha256:
                    return list(entry["recipe"])
    return []


def check_preprocessing(name: str, recipe: Recipe, data: Dataset | None) -> None:
    """Check that calibration, training and evaluation have the same preprocessing.

    Different preprocessing is the most common cause of accuracy near chance.

    Args:
        name: The variant's name.
        recipe: How the variant was made.
        data: The data for its evaluation or its next step.

    Raises:
        InputError: The declared preprocessing differs, and ``data.accepts`` does not allow the difference.
    """
    if data is None:
        return
    for step, facts in _step_facts(recipe):
        theirs = facts.get("preprocessing")
        if theirs in {None, data.preprocessing} or any(str(theirs).startswith(prefix) for prefix in data.accepts):
            continue
        did, on = _data_use(facts)
        who = step if name == step else f"{name}: {step}"
        raise InputError(
            f"{who} {did} on {on} with the preprocessing {_describe_preprocessing(theirs, facts.get('declared'))}, but"
            f" {data.name} declares {_describe_preprocessing(data.preprocessing, data.declared)}",
            remedy="Declare the same for both. If it is meant, because both make the same numbers, say so:"
            f" --preprocess accepts={str(theirs)[:23]}",
        )


def judged_before(recipe: Recipe, data: Dataset | None) -> list[Reason]:
    """Return the warnings about accuracy on data that the variant was trained or calibrated on; none for other data."""
    marked = [(step, facts) for step, facts in _step_facts(recipe) if facts.get("fingerprint")]
    if data is None or not marked:
        return []
    try:
        here = data.fingerprint()
    except EdgeprofError:  # a sample that cannot be read is reported by the evaluation
        return []
    reasons = {}
    for step, facts in marked:
        if facts["fingerprint"] != here:
            continue
        if "trained_on" in facts:
            reasons[Code.JUDGED_ON_TRAINING_DATA] = (
                f"{step} was trained on the very data that it is judged on ({data.name}): what it learnt by heart"
                " counts as accuracy"
            )
        else:
            reasons[Code.JUDGED_ON_CALIBRATION_DATA] = (
                f"{step} was calibrated on {facts.get('samples', 'some')} of the {len(data)} samples that it is judged"
                " on: its accuracy may be a little too good"
            )
    remedy = "Judge it on data of its own; skip=N and limit=N cut one dataset in two."
    return [Reason(code=code, message=message, remedy=remedy) for code, message in reasons.items()]


def declared_changes(compressor: Compressor) -> dict[str, Any]:
    """Return the changes that a compressor declares, in the form of a recipe's step."""
    bits = {} if compressor.weight_bits is None else {"weight_bits": compressor.weight_bits}
    return {"changes": list(compressor.changes), **bits} if compressor.changes else {}


def changes_of(step: Mapping[str, Any]) -> frozenset[str]:
    """Return the properties that a step of a recipe changed (``Compressor.changes``)."""
    facts = step.get("facts") or {}
    if "changes" in facts:
        return frozenset(facts["changes"])
    return _before_changes_were_kept(step)[0]


def weight_bits_of(step: Mapping[str, Any]) -> int | None:
    """Return the bits of the weights that a step stored; None if it kept the weights or a parameter determines them."""
    facts = step.get("facts") or {}
    if "changes" in facts:
        bits = facts.get("weight_bits")
        return bits if isinstance(bits, int) else None
    return _before_changes_were_kept(step)[1]


def _before_changes_were_kept(step: Mapping[str, Any]) -> tuple[frozenset[str], int | None]:
    name = str(step.get("compressor", ""))
    return next((known for prefix, known in _OF_OLD_RECIPES.items() if name.startswith(prefix)), (frozenset(), None))


#: Prefixes of the names of edgeprof 0.1's compressors, whose recipes lack the changes; longer prefixes come first.
_OF_OLD_RECIPES: dict[str, tuple[frozenset[str], int | None]] = {
    "int8": (frozenset({"precision"}), 8),
    "int4": (frozenset({"precision"}), 4),
    "fp16": (frozenset({"precision"}), 16),
    "bf16": (frozenset({"precision"}), 16),
    "qat": (frozenset({"precision", "weights"}), 8),
    "prune-structured": (frozenset({"channels"}), None),
    "prune": (frozenset({"sparsity"}), None),
    "low-rank": (frozenset({"rank"}), None),
    "cluster": (frozenset({"values"}), None),
    "distill": (frozenset({"weights"}), None),
    "fine-tune": (frozenset({"weights"}), None),
}


def _step_facts(recipe: Recipe) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for step in recipe:
        if "stage" in step:  # its data are inputs of a stage's model, not frames
            continue
        yield str(step.get("compressor", "a step")), step.get("facts") or {}


def _data_use(facts: Mapping[str, Any]) -> tuple[str, str]:
    if "trained_on" in facts:
        return "was trained", str(facts["trained_on"])
    return "was calibrated", str(facts.get("calibration", "its data"))


def _describe_preprocessing(hashed: object, declared: str | None) -> str:
    return f"{hashed!s:.23}" + (f" ({declared})" if declared else "")
