"""Whose faces are these: BlazeFace finds and aligns them, MobileFaceNet embeds them, known people are matched.

    python faces.py clip.mp4 --known people/ -o drawn/
    KNOWN=people/ edgeprof bench faces.py:pipeline --frames clip.mp4

KNOWN is a folder with a photo of each person, named as the person is. Without it nobody is known.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from images import SUFFIXES, Found, Resized, draw, find_model, fit, keep_best, main, read_image, sigmoid
from litert import Network
from PIL import Image

import edgeprof

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_SCORE = 0.6
MOST_OVERLAP = 0.3
#: A cosine of two embeddings from which on they are taken for one person's.
LEAST_LIKENESS = 0.4
#: Where the eyes and the mouth are in an aligned face of 112 × 112 pixels (ArcFace's template; the mouth's middle).
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.1396, 92.2848]])
FACE_SIZE = 112


class Output(NamedTuple):
    """A resized frame and what BlazeFace returned for it: offsets of 896 anchors, and their scores."""

    resized: Resized
    raw: list[np.ndarray]


class Faces(NamedTuple):
    """The faces of a frame.

    Attributes:
        image: The frame.
        boxes: n × 4: left, top, right, bottom (pixels).
        scores: n, from 0 to 1.
        points: n × 3 × 2: the eyes, left in the image first, and the mouth (pixels).
        aligned: n × 112 × 112 × 3: what the stage ``align`` made; None before it.
        embeddings: n × 192, each of length 1: what the stage ``embed`` made; None before it.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray
    aligned: np.ndarray | None = None
    embeddings: np.ndarray | None = None


@edgeprof.pipeline
def pipeline() -> list[tuple[str, Callable]]:
    detector, embedder = (
        Network(find_model("face_detection_short_range.tflite")),
        Network(find_model("MobileFaceNet.tflite")),
    )
    stages = [
        ("resize", resize),
        ("detect", lambda resized: detect(detector, resized)),
        ("boxes", read_faces),
        ("align", align),
        ("embed", lambda faces: embed(embedder, faces)),
    ]
    known = read_known(os.environ.get("KNOWN"), edgeprof.pipeline(stages))
    return [*stages, ("match", lambda faces: match(known, faces)), ("draw", draw)]


def resize(frame: np.ndarray) -> Resized:
    return fit(frame, 128, 128, padding=0)


def detect(network: Network, resized: Resized) -> Output:
    tensor = resized.small[np.newaxis, :, :, ::-1].astype(np.float32) / np.float32(127.5) - np.float32(1)
    return Output(resized, network(tensor))


def read_faces(output: Output) -> Faces:
    """The faces of a frame: boxes and points are offsets from anchors, in pixels of 128 × 128."""
    (offsets,), (logits,) = output.raw
    scores = sigmoid(np.clip(logits[:, 0].astype(float), -80, 80))
    likely = scores >= LEAST_SCORE
    offsets, anchors, scores = offsets[likely], ANCHORS[likely], scores[likely]
    centres, sizes = offsets[:, :2] + anchors, offsets[:, 2:4]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
    points = offsets[:, [4, 5, 6, 7, 10, 11]].reshape(-1, 3, 2) + anchors[:, np.newaxis]
    kept = keep_best(boxes, scores, np.zeros(len(boxes)), MOST_OVERLAP)
    scale = np.array(output.resized.scale)
    return Faces(output.resized.image, boxes[kept] * np.tile(scale, 2), scores[kept], points[kept] * scale)


def make_anchors() -> np.ndarray:
    """896 × 2 centres (pixels): two in each cell of 8 pixels, then six in each of 16."""
    grids = []
    for stride, count in ((8, 2), (16, 6)):
        rows, columns = np.divmod(np.arange((128 // stride) ** 2), 128 // stride)
        grids.append(np.repeat((np.stack([columns, rows], 1) + 0.5) * stride, count, 0))
    return np.concatenate(grids)


ANCHORS = make_anchors()


def align(faces: Faces) -> Faces:
    """Each face turned, moved and scaled so that its eyes and its mouth are where the template has them."""
    picture = Image.fromarray(faces.image)
    size = (FACE_SIZE, FACE_SIZE)
    aligned = [
        np.asarray(picture.transform(size, Image.Transform.AFFINE, similarity(points), Image.Resampling.BILINEAR))
        for points in faces.points
    ]
    return faces._replace(aligned=np.array(aligned, np.uint8).reshape(-1, *size, 3))


def similarity(points: np.ndarray) -> tuple[float, ...]:
    """The six coefficients that lead from the template to these points: least squares over turns, moves and scales.

    Args:
        points: 3 × 2 (pixels).
    """
    x, y = TEMPLATE.T
    ones, zeros = np.ones(3), np.zeros(3)
    equations = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, right, down = np.linalg.lstsq(equations, points.T.reshape(-1), rcond=None)[0]
    return float(a), float(-b), float(right), float(b), float(a), float(down)


def embed(network: Network, faces: Faces) -> Faces:
    """The embedding of each face. The network takes two at a time: each face and its mirror image, added up."""
    embeddings = np.zeros((len(faces.boxes), 192), np.float32)
    for number, face in enumerate(faces.aligned):
        tensor = (face[:, :, ::-1].astype(np.float32) - np.float32(127.5)) / np.float32(128)
        total = network(np.stack([tensor, tensor[:, ::-1]]))[0].sum(0)
        embeddings[number] = total / np.linalg.norm(total)
    return faces._replace(embeddings=embeddings)


def match(known: dict[str, np.ndarray], faces: Faces) -> Found:
    """The frame with the name of each face, and the cosine of its embedding and the known one as its score.

    A face that is like nobody known is "unknown", with the score of its detection.
    """
    labels, scores = [], []
    for embedding, detected in zip(faces.embeddings, faces.scores, strict=True):
        likeness, name = max(((float(embedding @ other), name) for name, other in known.items()), default=(0.0, ""))
        is_known = likeness >= LEAST_LIKENESS
        labels.append(name if is_known else "unknown")
        scores.append(likeness if is_known else detected)
    return Found(faces.image, faces.boxes, np.array(scores), labels)


def read_known(folder: str | None, recognise: Callable[[np.ndarray], Faces]) -> dict[str, np.ndarray]:
    """The embedding of each person whose photo lies in the folder, by the file's name.

    Raises:
        ValueError: the folder has no photo, or one shows no face, or several.
    """
    if not folder:
        return {}
    photos = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise ValueError(f"{folder} has no photo of anybody; name one after each person, as in people/ada.jpg")
    known = {}
    for path in photos:
        faces = recognise(read_image(path))
        if len(faces.boxes) != 1:
            raise ValueError(f"{path} has to show one face, and {len(faces.boxes)} were found")
        known[path.stem] = faces.embeddings[0]
    return known


if __name__ == "__main__":
    main({"pipeline": pipeline}, __doc__, {"KNOWN": None})
