"""Compare the outputs of a variant with those of its original, and reject a variant that answers something else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import VariantError
from edgeprof.reasons import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Samples that are enough to tell whether a variant answers as its original does.
COMPARED = 8
#: Below this ratio the outputs are not those of the original, unless the classes agree (an example: pytorch/ao#4292).
_HOPELESS_DB = 3.0
_AGREEING = 0.95


def compare_outputs(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Compare outputs of real numbers with those of a variant, where their shapes are equal.

    Args:
        pairs: For one sample or several: an output of the original, and the same output of the variant.

    Returns:
        ``output_sqnr_db``: the ratio of the outputs to their errors in dB; None where there are no errors or outputs.
        ``top1_agreement``: the share of equal classes in outputs of shape (samples, classes); None without such ones.

    Raises:
        VariantError: The variant gives NaN or infinite values where the original gives numbers (``nan_output``).
    """
    signal = noise = 0.0
    same = total = 0
    for original, answer in pairs:
        if not _are_comparable(original, answer):
            continue
        exact, given = original.astype(np.float64), answer.astype(np.float64)
        finite = np.isfinite(exact)
        if not np.isfinite(given[finite]).all():
            raise VariantError("its outputs are NaN or infinite, those of the original are not", code=Code.NAN_OUTPUT)
        signal += float(np.square(exact[finite]).sum())
        noise += float(np.square(exact[finite] - given[finite]).sum())
        if exact.ndim == 2 and exact.shape[1] > 1:
            same += int((exact.argmax(1) == given.argmax(1)).sum())
            total += len(exact)
    return {
        "output_sqnr_db": round(10 * math.log10(signal / noise), 2) if signal and noise else None,
        "top1_agreement": round(same / total, 4) if total else None,
    }


def _are_comparable(original: Any, answer: Any) -> bool:
    """Whether both are real numbers of one shape; outputs may also be sequences, maps, texts, or classes."""
    both = isinstance(original, np.ndarray) and isinstance(answer, np.ndarray)
    return both and original.dtype.kind == answer.dtype.kind == "f" and original.shape == answer.shape


def check_outputs(name: str, model: str, facts: Mapping[str, Any]) -> None:
    """Reject a variant whose outputs, by the facts of ``compare_outputs``, have nothing to do with those of the model.

    Args:
        name: The compressor's name.
        model: The user's name for the model.
        facts: The facts of the step; a step that compared no outputs is not judged.

    Raises:
        VariantError: The error is about as large as the outputs, and their classes differ (``bad_output``).
    """
    sqnr, agreement = facts.get("output_sqnr_db"), facts.get("top1_agreement")
    if sqnr is None or sqnr >= _HOPELESS_DB or (agreement or 0.0) >= _AGREEING:
        return
    classes = "" if agreement is None else f", and {agreement:.0%} of the classes agree"
    raise VariantError(
        f"the outputs after {name} are not those of {model}: {sqnr:.1f} dB between signal and error{classes}",
        remedy="See which layers lose it: edgeprof diagnose MODEL --with CHAIN --dataset SPEC. Often the calibration"
        " data are not like the model's inputs.",
        code=Code.BAD_OUTPUT,
    )
