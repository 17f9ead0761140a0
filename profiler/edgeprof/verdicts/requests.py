"""Whether two language models were measured with equal requests; only then their figures per request are comparable."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprof.results.schema import Variant

#: Largest relative difference of lengths that count as equal. A server counts the tokens of its prompts itself, so
#: their length only approximates the one that was asked for.
NEARLY = 0.05


def difference(variant: Variant, baseline: Variant) -> str | None:
    """How the requests of two language models differ, as ``prompt 512 against 128``.

    None if they are equal, or one of the two is not a language model.
    """
    mine, its = variant.language, baseline.language
    if mine is None or its is None:
        return None
    counts = {
        "prompt": (mine.prompt_tokens, its.prompt_tokens),
        "generate": (mine.generated_tokens, its.generated_tokens),
        "depth": (mine.depth, its.depth),
        "batch": (mine.batch, its.batch),
    }
    differences = [f"{name} {a} against {b}" for name, (a, b) in counts.items() if abs(a - b) > NEARLY * b]
    return ", ".join(differences) or None
