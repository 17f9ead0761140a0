"""Verification: whether two embeddings belong to the same subject, decided by their cosine similarity.

Embeddings need not be normalised. For normalised embeddings the squared Euclidean distance is 2 − 2 · cosine, so a
threshold on one is equivalent to a threshold on the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl
from edgeprof.errors import InputError
from edgeprof.evaluation import labels as kinds
from edgeprof.evaluation.metric import Metric, Score, bootstrapped, proportion

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof.evaluation.metric import Outputs
    from edgeprof.hookspecs import Register

_FOLDS = 10


class _OfPairs(Metric):
    def check(self, labels: npt.NDArray[Any]) -> None:
        kinds.require(labels, "same", "pair", "fold", metric=self.name)
        same = labels["same"][::2]
        if same.all() or not same.any():
            raise InputError(
                f"{self.name} needs pairs of the same and of different ones, but all {len(same)} are"
                f" {'the same' if same.all() else 'different'}",
                remedy="Take more of them, or in another order: limit=N takes the first ones.",
            )

    def similarities(self, outputs: Outputs, labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the cosine similarity of each pair, shape ``(pairs,)``; an embedding of zeros has similarity 0."""
        self.check(labels)
        if len(outputs) != 1:
            raise InputError(
                f"{self.name} needs one output, the embedding, but the model has {len(outputs)}: {', '.join(outputs)}",
                remedy="Judge it with a function of your own: --metric file.py:function",
            )
        (embeddings,) = outputs.values()
        vectors = embeddings.reshape(len(embeddings), -1).astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.where(norms > 0, norms, 1.0)
        return np.asarray((unit[::2] * unit[1::2]).sum(axis=1), np.float64)


class Verification(_OfPairs):
    """The share of pairs that are classified correctly, each with the threshold that is best on the other folds.

    This is the accuracy that LFW reports (Huang et al. 2007): the mean over 10 folds of equal size is the share of all
    pairs. Data without folds is divided into 10 folds with equal shares of same and different pairs.
    """

    name = "verification"

    def score(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Score:
        """Score embeddings of shape ``(2 · pairs, …)``, in which the two samples of a pair are consecutive.

        Raises:
            InputError: labels are not pairs, or there are only same or only different pairs.
        """
        similar, same, folds = self.similarities(outputs, labels), labels["same"][::2], labels["fold"][::2]
        if len(np.unique(folds)) < 2:
            folds = _assign_folds(same)
        right = np.zeros(len(same), np.bool_)
        for fold in np.unique(folds):
            held = folds == fold
            threshold = _best_threshold(similar[~held], same[~held])
            right[held] = (similar[held] > threshold) == same[held]
        return proportion(right)


class TrueAccepts(_OfPairs):
    """TAR@FAR: the share of same pairs accepted by the threshold that accepts at most ``far`` of the different pairs.

    Args:
        far: False accept rate, above 0 and below 1.
    """

    def __init__(self, far: float) -> None:
        self.far = far
        self.name = f"tar@far={far:g}"

    def check(self, labels: npt.NDArray[Any]) -> None:
        super().check(labels)
        different = int((~labels["same"][::2]).sum())
        if different * self.far < 1:
            raise InputError(
                f"{self.name} needs at least {np.ceil(1 / self.far):.0f} different pairs, but there are {different}",
                remedy="Ask for a higher rate, or give more pairs.",
            )

    def score(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Score:
        """Score embeddings as ``Verification`` does; the interval is a bootstrap over pairs.

        Raises:
            InputError: labels are not pairs, or there are too few different pairs for the rate.
        """
        similar, same = self.similarities(outputs, labels), labels["same"][::2]
        order = np.argsort(-similar[~same], kind="stable")

        def rate(counts: npt.NDArray[np.int64]) -> float:
            others, mine = counts[~same][order], counts[same]
            if not others.sum() or not mine.sum():
                return float("nan")
            # Lower the threshold while few enough different pairs are accepted: it ends at the first one too many.
            first_over = int((np.cumsum(others) <= self.far * others.sum()).sum())
            accepted = similar[same] > similar[~same][order][first_over]
            return float((mine * accepted).sum() / mine.sum())

        return bootstrapped(rate, len(same))


def _assign_folds(same: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the fold of each pair; same and different pairs are assigned to the folds in turn."""
    folds = np.zeros(len(same), np.int64)
    for kind in (True, False):
        folds[same == kind] = np.arange(np.count_nonzero(same == kind)) % _FOLDS
    return folds


def _best_threshold(similar: npt.NDArray[np.float64], same: npt.NDArray[np.bool_]) -> float:
    """Return the midpoint of two neighbouring similarities that classifies most pairs correctly; lowest in a tie."""
    order = np.argsort(similar, kind="stable")
    values, truth = similar[order], same[order]
    # Correct pairs for a threshold after the first k values: different pairs below it plus same pairs above it.
    right = np.concatenate([[0], np.cumsum(~truth)]) + truth.sum() - np.concatenate([[0], np.cumsum(truth)])
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    possible = edges[:-1] < edges[1:]  # not between equal values
    best = int(np.argmax(np.where(possible, right, -1)))
    low, high = max(edges[best], -2.0), min(edges[best + 1], 2.0)  # beyond any cosine
    return float((low + high) / 2)


@hookimpl
def register_metrics(register: Register) -> None:
    register("verification", Verification)
    register("tar@far=0.01", lambda: TrueAccepts(0.01))
    register("tar@far=0.001", lambda: TrueAccepts(0.001))
    register("tar@far=0.0001", lambda: TrueAccepts(0.0001))
