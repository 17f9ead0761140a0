"""Top-k accuracy: the true class is among the k classes with the highest outputs."""

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
    """The share of samples whose true class is among the k highest outputs; ties go to the lower class, as in argmax.

    Args:
        k: The number of classes considered, at least 1.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.name = f"top{k}"
        self.title = f"top-{k}"

    def check(self, labels: npt.NDArray[Any]) -> None:
        kinds.require(labels, metric=self.name)

    def rehearse(self, outputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> None:
        """Check that the smallest and the largest label are classes of the model, using its answer to one sample."""
        if labels.ndim == 1 and labels.dtype.kind in "iuf" and len(labels):
            labels = labels[[labels.argmin(), labels.argmax()]]
        else:
            labels = labels[:1]
        self.score({name: np.repeat(array[:1], len(labels), axis=0) for name, array in outputs.items()}, labels)

    def score(self, outputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> Score:
        """Judge class scores ``(samples, classes)`` (further dimensions of size 1 are allowed) against class numbers.

        Where the scores of each sample are a map from class to score, as from scikit-learn models, labels are its keys.
        Top-1 also judges an output that is the class itself: integers without a scale, or strings, ``(samples,)``.

        Raises:
            InputError: there are several outputs, no class scores, or labels that are not classes.
        """
        self.check(labels)
        if len(outputs) != 1:
            raise InputError(
                f"{self.name} needs one output, but the model has {len(outputs)}: {', '.join(outputs)}",
                remedy=f"Name it: --metric {self.name}:output={next(iter(outputs), 'NAME')}",
            )
        ((name, output),) = outputs.items()
        if output.dtype.kind == "O" and output.ndim == 1 and all(isinstance(item, dict) for item in output):
            return proportion(_map_ranks(output, labels) < self.k)
        if output.dtype.kind in "iuOSU" and output.size == len(output) and self.k == 1:
            return proportion(_equal_labels(output, labels))
        scores = (
            output.reshape(len(output), -1) if output.size == len(output) * max(output.shape[1:], default=1) else output
        )
        if scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind not in "biuf":
            raise InputError(
                f"{self.name} needs one score per class, but the output {name} has the shape {output.shape}",
                remedy="Judge it with a function of your own: --metric file.py:function",
            )
        if scores.shape[1] < self.k:
            raise InputError(
                f"{self.name} needs at least {self.k} classes, but the output {name} has {scores.shape[1]}"
            )
        truth = _class_numbers(labels, scores)
        rows = np.arange(len(scores))
        right = scores[rows, truth][:, None]
        earlier = np.arange(scores.shape[1])[None, :] < truth[:, None]
        rank = (scores > right).sum(axis=1) + ((scores == right) & earlier).sum(axis=1)
        return proportion(rank < self.k)


def _plain_label(label: Any) -> Any:
    """Return a label as a Python value, so that equal numbers or strings of different types compare equal."""
    value = label.item() if isinstance(label, np.generic) else label
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _equal_labels(answered: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return for each answer whether it equals its label."""
    answers, truth = (
        [_plain_label(value) for value in answered.reshape(-1)],
        [_plain_label(value) for value in labels.reshape(-1)],
    )
    if len(answers) != len(truth):
        raise InputError(f"labels of shape {labels.shape} do not fit outputs of shape {answered.shape}")
    if isinstance(answers[0], str) != isinstance(truth[0], str):
        raise InputError(f"the model answers {answers[0]!r}, and labels are as {truth[0]!r}: of another kind")
    return np.array([a == b for a, b in zip(answers, truth, strict=True)], np.bool_)


def _map_ranks(maps: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Count the classes that precede the true one in each map from class to score; ties are kept in map order."""
    truth = [_plain_label(value) for value in labels.reshape(-1)]
    if len(maps) != len(truth):
        raise InputError(f"labels of shape {labels.shape} do not fit outputs of shape {maps.shape}")
    ranks = []
    for scores, label in zip(maps, truth, strict=True):
        keys = [_plain_label(key) for key in scores]
        if label not in keys:
            raise InputError(
                f"the label {label!r} is no class of the model, whose classes are {', '.join(map(repr, keys[:10]))}",
                remedy="Declare --preprocess label_offset=N if they are counted differently.",
            )
        best_first = np.argsort(-np.array(list(scores.values()), np.float64), kind="stable")
        ranks.append(int(np.flatnonzero(best_first == keys.index(label))[0]))
    return np.array(ranks, np.int64)


def _class_numbers(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return class numbers from labels that are class numbers or one-hot rows."""
    if labels.shape == scores.shape:
        return np.asarray(labels.argmax(axis=1), np.int64)
    flat = labels.reshape(-1)
    if len(flat) != len(scores):
        raise InputError(f"labels of shape {labels.shape} do not fit outputs of shape {scores.shape}")
    if flat.dtype.kind not in "biuf":
        raise InputError(
            f"labels are words, as {flat[0]!r}, but the model scores classes by their numbers",
            remedy="Give class numbers, or judge an output that is the class itself: --metric top1:output=NAME",
        )
    if flat.dtype.kind == "f" and not np.array_equal(flat, np.trunc(flat)):  # NaN equals nothing
        raise InputError("labels are not whole numbers, so they are no classes")
    classes: npt.NDArray[np.int64] = flat.astype(np.int64)
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
