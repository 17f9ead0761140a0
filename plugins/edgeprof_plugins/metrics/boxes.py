"""Decode raw outputs of detectors into boxes: the common forms are recognised by shape, and duplicates are suppressed.

- (n, k, 4), (n, k), (n, k), (n,): TFLite_Detection_PostProcess, which gives boxes (top, left, bottom, right), classes,
  scores and their count.
- (n, k, 6): end to end, such as YOLO26 or a YOLO exported with suppression: left, top, right, bottom, score, class.
- (n, 4 + classes, m): YOLOv8 and later, with boxes given by centre, width and height.
- boxes (n, k, 4), scores (n, k) and classes (n, k), by these names, among any others: what an application returns.
- (n, m, 4), (n, m, 1 + classes): SSD with decoded boxes (left, top, right, bottom) and the background score first.

In the first two forms and in the one by names, the model has already suppressed duplicates. In the others, detections
are kept whose score is above 0.001 and which do not overlap a better detection of their class by more than 0.7 (YOLO's
own validation) or 0.45 (SSD, Liu et al. 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeprof.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_LEAST_SCORE = 0.001
_YOLO, _SSD = 0.7, 0.45
#: The most candidates per image that are considered, and the most detections that are kept.
_LOOKED_AT, _KEPT = 3000, 300


class Found(NamedTuple):
    """The detections of one image: boxes (left, top, right, bottom) ``(k, 4)``, scores ``(k,)``, classes ``(k,)``."""

    boxes: npt.NDArray[Any]
    scores: npt.NDArray[Any]
    classes: npt.NDArray[Any]


def decoded(outputs: dict[str, npt.NDArray[Any]]) -> list[Found]:
    """Return the detections of each image of a batch.

    Raises:
        InputError: the outputs have none of the forms in the description of this module.
    """
    if {"boxes", "scores", "classes"} <= set(outputs):
        return _decode_named(*(np.asarray(outputs[name], np.float64) for name in ("boxes", "scores", "classes")))
    arrays = [np.asarray(array, np.float64) for array in outputs.values()]
    shapes = [array.shape for array in arrays]
    ranks = [array.ndim for array in arrays]
    if len(arrays) == 4 and sorted(ranks) == [1, 2, 2, 3] and shapes[ranks.index(3)][2] == 4:
        return _decode_postprocessed(arrays)
    if len(arrays) == 1 and ranks == [3]:
        _, rows, columns = shapes[0]
        if columns == 6:
            filled = [rows[rows[:, 4] > 0] for rows in arrays[0]]  # rows without a detection are zeros
            return [Found(rows[:, :4], rows[:, 4], rows[:, 5]) for rows in filled]
        if 4 < rows < columns:
            return [_decode_yolo(rows.T) for rows in arrays[0]]
    if len(arrays) == 2 and ranks == [3, 3] and shapes[0][1] == shapes[1][1]:
        boxes = [number for number, shape in enumerate(shapes) if shape[2] == 4]
        if len(boxes) == 2:  # scores of three classes and the background also have size 4
            boxes = [number for number, name in enumerate(outputs) if "box" in name.lower() or "loc" in name.lower()]
        if len(boxes) == 1 and shapes[1 - boxes[0]][2] > 1:
            return [_decode_ssd(*pair) for pair in zip(arrays[boxes[0]], arrays[1 - boxes[0]], strict=True)]
    description = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
    raise InputError(
        f"outputs of no known form of detection: {description}",
        remedy="Decode them yourself: a class made of MeanAveragePrecision, --metric file.py:Class (docs/data.md).",
    )


def _decode_named(boxes: Array, scores: Array, classes: Array) -> list[Found]:
    return [
        Found(corners.reshape(-1, 4), values.reshape(-1), kinds.reshape(-1))
        for corners, values, kinds in zip(boxes, scores, classes, strict=True)
    ]


def _decode_postprocessed(arrays: list[Array]) -> list[Found]:
    boxes = next(array for array in arrays if array.ndim == 3)
    counts = next(array for array in arrays if array.ndim == 1)
    first, second = (array for array in arrays if array.ndim == 2)
    # The operator gives classes before scores, but converters reorder outputs; only classes are whole numbers.
    swapped = not (first == np.rint(first)).all() and (second == np.rint(second)).all()
    classes, scores = (second, first) if swapped else (first, second)
    detections = []
    for image, count in enumerate(counts.astype(int)):
        top, left, bottom, right = boxes[image, :count].T
        corners = np.stack([left, top, right, bottom], axis=1)
        detections.append(Found(corners, scores[image, :count], classes[image, :count]))
    return detections


def _decode_yolo(rows: Array) -> Found:
    middle, half = rows[:, :2], rows[:, 2:4] / 2
    return _suppress_overlaps(np.concatenate([middle - half, middle + half], axis=1), rows[:, 4:], _YOLO)


def _decode_ssd(boxes: Array, scores: Array) -> Found:
    return _suppress_overlaps(boxes, scores[:, 1:], _SSD)


def _suppress_overlaps(boxes: Array, scores: Array, overlap: float) -> Found:
    """Apply non-maximum suppression: drop each detection that overlaps a better one of its class by more than a limit.

    Args:
        boxes: Left, top, right and bottom of each box, shape ``(m, 4)``.
        scores: The score of each box for each class, shape ``(m, classes)``.
        overlap: The limit, as intersection over union.
    """
    rows, classes = np.nonzero(scores > _LEAST_SCORE)
    order = np.argsort(-scores[rows, classes], kind="stable")[:_LOOKED_AT]
    rows, classes = rows[order], classes[order]
    chosen, values = boxes[rows], scores[rows, classes]
    # The boxes of each class are shifted far from those of the others, so that one pass serves all classes.
    spread = (np.abs(chosen).max(initial=0.0) + 1.0) * 2
    moved = chosen + (classes * spread)[:, None]
    area = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
    alive = np.ones(len(moved), bool)
    chosen_rows: list[int] = []
    for index in range(len(moved)):
        if not alive[index]:
            continue
        chosen_rows.append(index)
        if len(chosen_rows) == _KEPT:
            break
        low, high = np.maximum(moved[:, :2], moved[index, :2]), np.minimum(moved[:, 2:], moved[index, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        alive &= shared <= overlap * (area + area[index] - shared)
    return Found(chosen[chosen_rows], values[chosen_rows], classes[chosen_rows])
