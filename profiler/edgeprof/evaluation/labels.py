"""Labels other than class numbers: the common forms for detection and verification, and for samples without labels.

All are structured arrays with one element per sample, so that they can be sliced and counted like class numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


class Boxes(NamedTuple):
    """The objects in one image after the preprocessing, that is, in the model's input.

    Attributes:
        boxes: Left, top, right, bottom in pixels of the model's input, shape ``(k, 4)``.
        classes: Class numbers from 0, shape ``(k,)``.
        crowd: Whether a box holds a crowd; detections in it count neither as right nor as wrong (COCO's iscrowd), shape
            ``(k,)``.
        size: Height and width of the model's input.
    """

    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    size: tuple[int, int]


def detection(images: Sequence[Boxes]) -> npt.NDArray[Any]:
    """Return labels for detection, shape ``(n,)``, with the fields ``boxes`` (m, 4), ``classes`` (m,) with −1 for no
    box, ``crowd`` (m,) and ``size`` (2,); m is the largest number of boxes in an image.
    """
    most = max((len(image.classes) for image in images), default=0) or 1
    fields = [("boxes", "f8", (most, 4)), ("classes", "i8", (most,)), ("crowd", "?", (most,)), ("size", "i8", (2,))]
    table = np.zeros(len(images), np.dtype(fields))
    table["classes"] = -1
    for row, image in zip(table, images, strict=True):
        count = len(image.classes)
        row["boxes"][:count], row["classes"][:count] = image.boxes, image.classes
        row["crowd"][:count], row["size"] = image.crowd, image.size
    return table


def pairs(same: Sequence[bool], folds: Sequence[int]) -> npt.NDArray[Any]:
    """Return labels for verification, shape ``(2 n,)``: the two samples of each pair, one after the other.

    Args:
        same: For each pair, whether both samples show the same subject.
        folds: For each pair, its fold in the cross-validation.

    Returns:
        An array with the fields ``pair`` (its number), ``same`` and ``fold``.
    """
    table = np.zeros(2 * len(same), np.dtype([("pair", "i8"), ("same", "?"), ("fold", "i8")]))
    table["pair"] = np.repeat(np.arange(len(same)), 2)
    table["same"], table["fold"] = np.repeat(np.asarray(same, bool), 2), np.repeat(np.asarray(folds, np.int64), 2)
    return table


def absent(count: int) -> npt.NDArray[Any]:
    """Return labels ``(count,)`` for samples without labels, which serve calibration and comparison but no metric."""
    return np.zeros(count, np.dtype([("absent", "?")]))


def are_absent(labels: npt.NDArray[Any]) -> bool:
    return labels.dtype.names == ("absent",)


def require_some(labels: npt.NDArray[Any], data: str) -> None:
    """Check that a dataset has labels.

    Args:
        labels: The dataset's labels.
        data: The dataset's name.

    Raises:
        InputError: The dataset has no labels.
    """
    if are_absent(labels):
        raise InputError(
            f"{data} has no labels, and no metric judges without",
            remedy="Give labelled data (docs/data.md); of an .npz name the array: --preprocess y=NAME."
            " Samples without labels serve compress and diagnose.",
        )


def require(labels: npt.NDArray[Any], *fields: str, metric: str) -> None:
    """Check that labels have the form that a metric needs.

    Args:
        labels: The dataset's labels.
        fields: Fields of ``detection`` or ``pairs``; none for plain numbers.
        metric: The metric's name.

    Raises:
        InputError: The labels have another form; the remedy names a metric for it.
    """
    given = labels.dtype.names or ()
    if (set(fields) <= set(given)) if fields else not given:
        return
    kinds = {(): "classes", ("boxes",): "boxes of objects", ("same",): "pairs"}
    metrics = {"classes": "top1", "boxes of objects": "map", "pairs": "verification"}
    here = "boxes of objects" if "boxes" in given else "pairs" if "same" in given else "classes"
    wanted = kinds.get(fields[:1], " and ".join(fields))
    raise InputError(
        f"{metric} judges by {wanted}, but the labels of this dataset are {here}",
        remedy=f"Choose a metric for them, as --metric {metrics[here]}, or give other data (docs/data.md).",
    )
