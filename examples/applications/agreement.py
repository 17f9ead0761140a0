"""How far a variant agrees with its baseline, and how well embeddings verify people.

Agreement is not accuracy: the boxes of the baseline take the place of labels, with the baseline's mistakes.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.evaluation.labels import Boxes, detection, pairs
from edgeprof_plugins.metrics.detection import MeanAveragePrecision
from edgeprof_plugins.metrics.verification import Verification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from images import Found

    from edgeprof.evaluation.metric import Score

#: Boxes of the baseline with this score or more take the place of labels.
REFERENCE_SCORE = 0.5
#: Boxes of a variant count from this score on, so that its precision is known at low scores too.
VARIANT_SCORE = 0.05


def box_agreement(baseline: Sequence[Found], variant: Sequence[Found]) -> Score:
    """Return AP@.5 of a variant's boxes against those of its baseline: the mean over the baseline's classes.

    Args:
        baseline, variant: What each found in the same frames.

    Raises:
        InputError: the baseline found nothing in any frame.
    """
    names = sorted({label for found in (*baseline, *variant) for label in found.labels})
    numbers = {name: number for number, name in enumerate(names)}
    references = []
    for found in baseline:
        is_reference = found.scores >= REFERENCE_SCORE
        classes = np.array([numbers[label] for label in found.labels], np.int64)[is_reference]
        crowd = np.zeros(len(classes), bool)
        references.append(Boxes(found.boxes[is_reference], classes, crowd, found.image.shape[:2]))
    detections = np.full((len(variant), max(len(found.labels) for found in variant) or 1, 6), np.nan)
    for rows, found in zip(detections, variant, strict=True):
        for row, box, score, label in zip(rows, found.boxes, found.scores, found.labels, strict=False):
            row[:] = (*box, score, numbers[label])
    return MeanAveragePrecision((0.5,)).score({"detections": detections}, detection(references))


def verify(people: Sequence[str], embeddings: Sequence[np.ndarray]) -> Score:
    """Return the share of pairs of faces that are correctly taken for the same person or for two.

    Args:
        people: Of each face, who it is.
        embeddings: Of each face.

    Raises:
        InputError: there are not both pairs of one person and pairs of two.
    """
    chosen = list(itertools.combinations(range(len(people)), 2))
    labels = pairs([people[one] == people[other] for one, other in chosen], [0] * len(chosen))
    return Verification().score({"embedding": np.array([embeddings[face] for pair in chosen for face in pair])}, labels)


def likeness(baseline: Sequence[np.ndarray], variant: Sequence[np.ndarray]) -> float:
    """Return the mean cosine between a variant's embeddings and the baseline's of the same faces, all of length 1."""
    return float(np.mean([one @ other for one, other in zip(baseline, variant, strict=True)]))
