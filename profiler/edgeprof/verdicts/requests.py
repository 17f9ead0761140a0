"""Whether two language models were asked the same: figures per request are of the same work only then. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprof.results.schema import Variant

#: Requests whose lengths differ by no more are alike: a server counts the tokens of its prompts itself, and its prompts
#: come only near to the length that was asked for.
NEARLY = 0.05


def difference(variant: Variant, baseline: Variant) -> str | None:
    """How the requests of two language models differ, as ``prompt 512 against 128``; None where they are alike, or one
    of the two is no language model.
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
