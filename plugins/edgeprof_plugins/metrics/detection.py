"""mAP of detectors: raw outputs are decoded, pycocotools (COCO's evaluation) matches boxes, and precision is averaged.

Labels are boxes in the image as the model sees it (``edgeprof.evaluation.labels``). Scaling width and height does not
change overlaps, and therefore not mAP, so this is also the mAP in the original image.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl
from edgeprof.errors import InputError, UnavailableError
from edgeprof.evaluation import labels as kinds
from edgeprof.evaluation.metric import Metric, Score, bootstrapped
from edgeprof_plugins.metrics.boxes import decoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgeprof.evaluation.metric import Outputs
    from edgeprof.hookspecs import Register
    from edgeprof_plugins.metrics.boxes import Found

    Array = npt.NDArray[np.float64]

#: The most detections kept per image; COCO's evaluation uses the best 100 of each class.
_KEPT = 300
_PER_CLASS = 100
#: Overlaps (IoU) from which a detection counts as correct, and recalls at which precision is read (COCO).
_OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)


class MeanAveragePrecision(Metric):
    """The mean over classes and overlaps of the area under the precision-recall curve, as COCO defines it.

    To decode other outputs, write a subclass that overrides ``decode`` and give it as ``--metric file.py:Mine``.

    Args:
        overlaps: The IoU values from which a detection counts as correct.
    """

    name = "map"
    title = "mAP@[.5:.95]"

    def __init__(self, overlaps: Sequence[float] = tuple(_OVERLAPS)) -> None:
        self.overlaps = np.asarray(overlaps, np.float64)

    def check(self, labels: npt.NDArray[Any]) -> None:
        kinds.require(labels, "boxes", "classes", "crowd", "size", metric=self.name)
        if not ((labels["classes"] >= 0) & ~labels["crowd"]).any():
            raise InputError(f"{self.name} needs a box at least, but these {len(labels)} images have none")
        _load_pycocotools()

    def decode(self, outputs: Outputs) -> list[Found]:
        """Decode the outputs of a batch into boxes (left, top, right, bottom), scores and classes from 0 per image.

        Boxes are in pixels of the model's input, or all are fractions of its size.

        Raises:
            InputError: the form of the outputs is not known.
        """
        return decoded(outputs)

    def reduce(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Outputs:
        decoded = self.decode(outputs)
        if len(decoded) != len(labels):
            raise InputError(f"{self.name}: {len(decoded)} images were decoded of {len(labels)}")
        detections = np.full((len(decoded), _KEPT, 6), np.nan)
        for row, (boxes, scores, classes) in zip(detections, decoded, strict=True):
            best = np.argsort(-scores, kind="stable")[:_KEPT]
            row[: len(best)] = np.column_stack([boxes[best], scores[best], classes[best]])
        return {"detections": detections}

    def score(self, outputs: Outputs, labels: npt.NDArray[Any]) -> Score:
        """Compute the score from the results of ``reduce``; the interval is a bootstrap over images.

        Raises:
            InputError: labels are not boxes, or there is no box.
            UnavailableError: pycocotools is not installed.
        """
        self.check(labels)
        curves = [
            _Curves.of(records, self.overlaps)
            for records in _match_detections(outputs["detections"], labels, self.overlaps)
        ]

        def mean(counts: npt.NDArray[Any]) -> float:
            each = [value for curve in curves if (value := curve.precision(counts)) is not None]
            return float(np.mean(each)) if each else float("nan")

        return bootstrapped(mean, len(labels), keeps_all=True)


def _match_detections(
    detections: npt.NDArray[Any], labels: npt.NDArray[Any], overlaps: Array
) -> Iterator[list[dict[str, Any] | None]]:
    """Return the matches of pycocotools for each class that has boxes, image by image."""
    coco, evaluation = _load_pycocotools()
    truth, answers = _ground_truth(labels), _detections_of(detections, labels)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints progress there, where only results belong
        ground_truth = coco.COCO()
        ground_truth.dataset = truth
        ground_truth.createIndex()
        run = evaluation.COCOeval(
            ground_truth, ground_truth.loadRes(answers) if answers else _without_detections(coco, truth), "bbox"
        )
        run.params.iouThrs, run.params.maxDets = overlaps, [_PER_CLASS]
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
    images = len(labels)
    for start in range(0, len(run.evalImgs), images):
        yield run.evalImgs[start : start + images]


def _ground_truth(labels: npt.NDArray[Any]) -> dict[str, Any]:
    """The labels in COCO's structure; annotation ids start at 1, because 0 means unmatched in pycocotools."""
    annotations: list[dict[str, Any]] = []
    for image, row in enumerate(labels):
        for box, category, crowd in zip(row["boxes"], row["classes"], row["crowd"], strict=True):
            if category >= 0:
                left, top, right, bottom = (float(value) for value in box)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "category_id": int(category),
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": int(crowd),
                    }
                )
    present = sorted({annotation["category_id"] for annotation in annotations})
    return {
        "info": {},
        "images": [{"id": image} for image in range(len(labels))],
        "categories": [{"id": category} for category in present],
        "annotations": annotations,
    }


def _detections_of(detections: npt.NDArray[Any], labels: npt.NDArray[Any]) -> list[dict[str, Any]]:
    sizes = labels["size"].astype(np.float64)
    rows_by_image = np.array(detections, np.float64)
    corners = rows_by_image[..., :4]
    # Pixel coordinates up to 2 would mean only the corner of every image; such small values are fractions of the input.
    if corners.size and not (np.nan_to_num(np.abs(corners)) > 2.0).any():
        corners *= sizes[:, None, [1, 0, 1, 0]]
    answers = []
    for image, rows in enumerate(rows_by_image):
        for left, top, right, bottom, score, category in rows[~np.isnan(rows[:, 4])].tolist():
            bbox = [left, top, right - left, bottom - top]
            answers.append({"image_id": image, "category_id": int(category), "bbox": bbox, "score": score})
    return answers


def _without_detections(coco: Any, truth: dict[str, Any]) -> Any:
    """Return a COCO object without detections; ``COCO.loadRes`` fails on an empty list."""
    empty = coco.COCO()
    empty.dataset = {**truth, "annotations": []}
    empty.createIndex()
    return empty


@dataclass(frozen=True)
class _Curves:
    """The detections of one class, best first.

    Attributes:
        images: The image of each detection, shape ``(d,)``.
        right: Whether the detection matched a box, for each overlap, shape ``(overlaps, d)``.
        wrong: Whether the detection matched no box, same shape; a detection in a crowd is neither right nor wrong.
        boxes: The number of boxes to find in each image, shape ``(images,)``.
    """

    images: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, records: Sequence[dict[str, Any] | None], overlaps: Array) -> _Curves:
        boxes = np.array(
            [0 if record is None else np.count_nonzero(record["gtIgnore"] == 0) for record in records], np.int64
        )
        known = [(image, record) for image, record in enumerate(records) if record is not None]
        scores = np.concatenate([np.asarray(record["dtScores"], np.float64) for _, record in known] or [np.zeros(0)])
        order = np.argsort(-scores, kind="stable")
        shape = (len(overlaps), 0)
        matched = (
            np.concatenate([record["dtMatches"] for _, record in known] or [np.zeros(shape)], axis=1)[:, order] > 0
        )
        ignored = np.concatenate([record["dtIgnore"] for _, record in known] or [np.zeros(shape)], axis=1)[:, order] > 0
        images = np.concatenate([np.full(len(record["dtScores"]), image) for image, record in known] or [np.zeros(0)])
        return cls(images.astype(np.int64)[order], matched & ~ignored, ~matched & ~ignored, boxes)

    def precision(self, counts: npt.NDArray[Any]) -> float | None:
        """Return the average precision if image i has the weight ``counts[i]``; None if there is then no box to find.

        This computes the same as ``COCOeval.accumulate``, but with weights, so that a resample needs no new matching.
        """
        due = (counts * self.boxes).sum()
        if due <= 0:
            return None
        weights = counts[self.images]
        right, wrong = np.cumsum(self.right * weights, axis=1), np.cumsum(self.wrong * weights, axis=1)
        judged = right + wrong
        precision = right / np.where(judged > 0, judged, 1)
        # Interpolated precision: the highest precision at this recall or any higher recall.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        total = 0.0
        for recall, best in zip(right / due, envelope, strict=True):
            where = np.searchsorted(recall, _RECALLS, side="left")
            total += float(best[where[where < len(best)]].sum()) / len(_RECALLS)
        return total / len(self.right)


def _load_pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools import coco, cocoeval
    except ImportError:
        raise UnavailableError(
            "mAP needs pycocotools, which is not installed", remedy="pip install 'edgeprof[detection]'"
        ) from None
    return coco, cocoeval


class _At50(MeanAveragePrecision):
    name = "map50"
    title = "mAP@.5"

    def __init__(self) -> None:
        super().__init__((0.5,))


@hookimpl
def register_metrics(register: Register) -> None:
    register("map", MeanAveragePrecision)
    register("map50", _At50)
