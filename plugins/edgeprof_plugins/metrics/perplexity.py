"""Perplexity: the exponential of the mean negative log-likelihood per token, from logits and the expected tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl
from edgeprof.errors import InputError
from edgeprof.evaluation import labels as kinds
from edgeprof.evaluation.metric import Metric, Score, bootstrapped

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof.evaluation.metric import Outputs
    from edgeprof.hookspecs import Register


class Perplexity(Metric):
    """The perplexity of a language model: lower is better, 1 means certainty, the vocabulary size means guessing.

    Labels have shape ``(samples, tokens)``: for each position the token that follows it, or a negative number (such as
    −100) where no token is judged, for example in the padding.
    """

    name, higher_is_better = "perplexity", False

    def check(self, labels: npt.NDArray[Any]) -> None:
        kinds.require(labels, metric=self.name)
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise InputError(
                f"perplexity needs the token that follows each position, samples x tokens, but the labels are"
                f" {labels.dtype} of shape {labels.shape}"
            )

    def reduce(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Outputs:
        """Sum −log p from logits ``(n, tokens, vocabulary)``; return sums and counts of judged tokens, ``(n,)`` each.

        Raises:
            InputError: there is not exactly one output with logits for these labels, or a token is not in the
                vocabulary.
        """
        self.check(labels)
        fitting = [name for name, array in outputs.items() if array.ndim == 3 and array.shape[:2] == labels.shape]
        if len(fitting) != 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
            raise InputError(
                f"perplexity needs one output of logits, {labels.shape[0]} x {labels.shape[1]} x vocabulary; there are"
                f" {shapes}",
                remedy="Judge it with a metric of your own: --metric file.py:name",
            )
        logits = outputs[fitting[0]]
        judged = labels >= 0
        if (labels >= logits.shape[2]).any():
            raise InputError(f"labels go to {labels.max()}, but the vocabulary has {logits.shape[2]} tokens")
        sums = np.zeros(len(labels))
        for row, (scores, targets, wanted) in enumerate(zip(logits, labels, judged, strict=True)):
            x = scores[wanted].astype(np.float64)
            highest = x.max(axis=1, initial=-np.inf, keepdims=True)
            total = highest[:, 0] + np.log(np.exp(x - highest).sum(axis=1))
            sums[row] = (total - x[np.arange(len(x)), targets[wanted]]).sum()
        return {"nll": sums, "tokens": judged.sum(axis=1)}

    def score(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Score:
        """Compute the score from the sums of ``reduce``; the interval is a bootstrap over sequences, not over tokens.

        Raises:
            InputError: no token is judged, or the model gives a token a probability of zero.
        """
        del labels
        sums, tokens = outputs["nll"], outputs["tokens"]
        if not tokens.sum():
            raise InputError("no token is judged: every label is negative")
        if sums.sum() / tokens.sum() > math.log(np.finfo(np.float64).max):
            raise InputError("the perplexity is beyond any number: the model gives the due tokens no probability")

        def of(counts: npt.NDArray[np.int64]) -> float:
            judged = (counts * tokens).sum()
            return float(np.exp(min((counts * sums).sum() / judged, 700.0))) if judged else float("nan")

        return bootstrapped(of, len(sums))


@hookimpl
def register_metrics(register: Register) -> None:
    register("perplexity", Perplexity)
