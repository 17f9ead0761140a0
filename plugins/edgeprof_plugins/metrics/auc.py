"""The area under the ROC curve: how often a sample of a class scores higher for it than a sample of another class."""

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

    from edgeprof.hookspecs import Register


class Auc(Metric):
    """The area under the ROC curve (Hanley and McNeil 1982); equal scores count half.

    With one score per sample, labels are 0 and 1 (normal and anomalous) and a higher score means 1. With one score per
    class, the result is the mean over the classes of each class against all others, as in MLPerf Tiny.
    """

    name = "auc"
    title = "AUC"

    def check(self, labels: npt.NDArray[Any]) -> None:
        kinds.require(labels, metric=self.name)
        if len(np.unique(labels)) < 2:
            raise InputError(
                "auc needs samples of two classes at least, and all labels are alike", remedy="Use --metric top1."
            )

    def rehearse(self, outputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> None:
        scores = _scores(outputs)
        _require_classes(scores, labels)

    def score(self, outputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> Score:
        """Judge scores ``(samples,)`` or ``(samples, classes)`` against class numbers ``(samples,)``.

        Raises:
            InputError: there are several outputs, or labels are not classes of the model.
        """
        self.check(labels)
        scores = _scores(outputs)
        truth = _require_classes(scores, labels)
        columns = [(scores[:, 0], truth == 1)]
        if scores.shape[1] > 1:
            columns = [(scores[:, number], truth == number) for number in np.unique(truth)]
        ranked = [(*np.unique(column, return_inverse=True), is_positive) for column, is_positive in columns]

        def statistic(counts: npt.NDArray[np.int64]) -> float:
            areas = [_area(inverse, len(levels), is_positive, counts) for levels, inverse, is_positive in ranked]
            return math.fsum(areas) / len(areas)

        return bootstrapped(statistic, len(truth))


def _area(
    level: npt.NDArray[np.intp], levels: int, is_positive: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64]
) -> float:
    """The area for samples whose scores are given as ranks, each counted ``counts`` times; NaN without both classes."""
    positive = np.bincount(level, np.where(is_positive, counts, 0), levels)
    negative = np.bincount(level, np.where(is_positive, 0, counts), levels)
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + 0.5 * negative)).sum() / pairs) if pairs else math.nan


def _scores(outputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the scores as ``(samples, classes)``."""
    if len(outputs) != 1:
        raise InputError(
            f"auc needs one output, but the model has {len(outputs)}: {', '.join(outputs)}",
            remedy=f"Name it: --metric auc:output={next(iter(outputs), 'NAME')}",
        )
    ((name, output),) = outputs.items()
    flat = output.reshape(len(output), -1)
    if output.dtype.kind not in "biuf" or flat.shape[1] != max(output.shape[1:], default=1):
        raise InputError(f"auc needs one score per class, but the output {name} has the shape {output.shape}")
    return flat


def _require_classes(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    truth = np.asarray(labels).astype(np.int64)
    most = max(2, scores.shape[1])
    if truth.size and (truth.min() < 0 or truth.max() >= most):
        wrong = int(truth.min() if truth.min() < 0 else truth.max())
        raise InputError(f"the label {wrong} is none of the {most} classes that the model's scores tell apart")
    return truth


@hookimpl
def register_metrics(register: Register) -> None:
    register("auc", Auc)
