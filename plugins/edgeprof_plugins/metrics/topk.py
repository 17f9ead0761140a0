"""Top-k: the right class is among the k with the highest output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl
from edgeprof.errors import InputError
from edgeprof.evaluation import labels as kinds
from edgeprof.evaluation.metric import Metric, Score, proportion

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgeprof.hookspecs import Register


class TopK(Metric):
    """Whether the true class is among the k highest outputs; of equal outputs the lower class comes first, as argmax.

    Args:
        k: At least 1.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.name = f"top{k}"
        self.title = f"top-{k}"

    def check(self, labels: npt.NDArray[Any]) -> None:
        kinds.require(labels, metric=self.name)

    def score(self, outputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> Score:
        """Judge class scores ``(samples, classes)`` (further dimensions of 1 are fine) against class numbers.

        Raises:
            InputError: several outputs, no classes, or labels that are none of them.
        """
        self.check(labels)
        if len(outputs) != 1:
            raise InputError(
                f"{self.name} needs one output, but the model has {len(outputs)}: {', '.join(outputs)}",
                remedy="Judge it with a function of your own: --metric file.py:function",
            )
        ((name, found),) = outputs.items()
        scores = found.reshape(len(found), -1) if found.size == len(found) * max(found.shape[1:], default=1) else found
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise InputError(
                f"{self.name} needs one score per class, but the output {name} has the shape {found.shape}",
                remedy="Judge it with a function of your own: --metric file.py:function",
            )
        if scores.shape[1] < self.k:
            raise InputError(
                f"{self.name} needs at least {self.k} classes, but the output {name} has {scores.shape[1]}"
            )
        truth = _classes(labels, scores)
        rows = np.arange(len(scores))
        right = scores[rows, truth][:, None]
        earlier = np.arange(scores.shape[1])[None, :] < truth[:, None]
        rank = (scores > right).sum(axis=1) + ((scores == right) & earlier).sum(axis=1)
        return proportion(rank < self.k)


def _classes(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Class numbers, from themselves or from one-hot rows."""
    if labels.shape == scores.shape:
        return np.asarray(labels.argmax(axis=1), np.int64)
    flat = labels.reshape(-1)
    if len(flat) != len(scores):
        raise InputError(f"labels of shape {labels.shape} do not fit outputs of shape {scores.shape}")
    classes: npt.NDArray[np.int64] = flat.astype(np.int64)
    if not np.array_equal(classes, flat):
        raise InputError("labels are not whole numbers, so they are no classes")
    if classes.min() < 0 or classes.max() >= scores.shape[1]:
        raise InputError(
            f"labels go from {classes.min()} to {classes.max()}, but the model has the classes 0 to"
            f" {scores.shape[1] - 1}",
            remedy="Declare --preprocess label_offset=N if they are counted differently.",
        )
    return classes


@hookimpl
def register_metrics(register: Register) -> None:
    register("top1", lambda: TopK(1))
    register("top2", lambda: TopK(2))
    register("top3", lambda: TopK(3))
    register("top5", lambda: TopK(5))
    register("top10", lambda: TopK(10))
