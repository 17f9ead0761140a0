"""Face recognition: BlazeFace finds faces, MobileFaceNet embeds them, and embeddings are compared with known people.

    python faces.py clip.mp4 --known people/ -o drawn/
    KNOWN=people/ edgeprof bench faces.py:pipeline faces.py:int8 --frames clip.mp4
    edgeprof bench faces.py:inception_resnet --frames clip.mp4

KNOWN is a folder with one photo of each person; the file's name is the person's name. Without it nobody is known.
EMBEDDER is the file of another embedding, with the input of MobileFaceNet (2 × 112 × 112 × 3, the face and its mirror
image) or of InceptionResNetV1 (1 × 3 × 160 × 160).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from images import SUFFIXES, Found, Resized, draw, find_model, fit, keep_best, main, read_image, sigmoid
from networks import Network
from PIL import Image

import edgeprof

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_SCORE = 0.6
MOST_OVERLAP = 0.3
#: The least cosine of two embeddings that are taken to be of the same person.
LEAST_LIKENESS = 0.4
#: The eyes and the middle of the mouth in an aligned face of 112 × 112 pixels (ArcFace's template).
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.1396, 92.2848]])
TEMPLATE_SIZE = 112


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
        points: n × 3 × 2: the left eye in the image, the right eye, and the mouth (pixels).
        aligned: n × size × size × 3: the output of the stage ``align``; None before it.
        embeddings: n × 192 (or 512), each of length 1: the output of the stage ``embed``; None before it.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray
    aligned: np.ndarray | None = None
    embeddings: np.ndarray | None = None


class Embedder:
    """An embedding of faces: MobileFaceNet's, or one with the input of InceptionResNetV1.

    Args:
        path: The model's file.

    Attributes:
        size: Height and width of the faces that it takes.

    Raises:
        ValueError: the model has another input.
    """

    def __init__(self, path: Path) -> None:
        self._network = Network(path)
        shape = self._network.shape
        self._is_channels_last = shape == (2, 112, 112, 3)
        if not self._is_channels_last and not (len(shape) == 4 and shape[:2] == (1, 3) and shape[2] == shape[3]):
            raise ValueError(f"{path} takes an input of the shape {list(shape)}; see EMBEDDER in faces.py --help")
        self.size = shape[2]

    def tensor(self, face: np.ndarray) -> np.ndarray:
        """Convert an aligned face into the network's input; MobileFaceNet's file takes it with its mirror image."""
        image = (face[:, :, ::-1].astype(np.float32) - np.float32(127.5)) / np.float32(128)
        if self._is_channels_last:
            return np.stack([image, image[:, ::-1]])
        return np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis])

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """Return the embedding of an aligned face, of length 1; the embeddings of both images are added."""
        total = self._network(self.tensor(face))[0].sum(0)
        return total / np.linalg.norm(total)


def detection(size: int) -> list[tuple[str, Callable]]:
    """Return the stages that find faces, and align them at the size that an embedding takes."""
    detector = Network(find_model("face_detection_short_range.tflite"))
    return [
        ("resize", resize),
        ("detect", lambda resized: detect(detector, resized)),
        ("boxes", read_faces),
        ("align", lambda faces: align(faces, size)),
    ]


def stages(embedder: Embedder) -> list[tuple[str, Callable]]:
    embedding = [*detection(embedder.size), ("embed", lambda faces: embed(embedder, faces))]
    known = read_known(os.environ.get("KNOWN"), edgeprof.pipeline(embedding))
    return [*embedding, ("match", lambda faces: match(known, faces)), ("draw", draw)]


@edgeprof.pipeline
def pipeline() -> list[tuple[str, Callable]]:
    return stages(Embedder(Path(os.environ.get("EMBEDDER") or find_model("MobileFaceNet.tflite"))))


@edgeprof.pipeline
def int8() -> list[tuple[str, Callable]]:
    return stages(Embedder(find_model("MobileFaceNet.int8*.tflite")))


@edgeprof.pipeline
def pruned() -> list[tuple[str, Callable]]:
    return stages(Embedder(find_model("MobileFaceNet.prune*.tflite")))


@edgeprof.pipeline
def inception_resnet() -> list[tuple[str, Callable]]:
    return stages(Embedder(find_model("inception_resnet_v1.onnx")))


def resize(frame: np.ndarray) -> Resized:
    return fit(frame, 128, 128, padding=0)


def detect(network: Network, resized: Resized) -> Output:
    tensor = resized.small[np.newaxis, :, :, ::-1].astype(np.float32) / np.float32(127.5) - np.float32(1)
    return Output(resized, network(tensor))


def read_faces(output: Output) -> Faces:
    """Return the faces of a frame; the network's boxes and points are offsets from anchors, in pixels of 128 × 128."""
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
    """Return the centres of the anchors (pixels), 896 × 2: two in each cell of 8 pixels, then six in each of 16."""
    grids = []
    for stride, count in ((8, 2), (16, 6)):
        rows, columns = np.divmod(np.arange((128 // stride) ** 2), 128 // stride)
        grids.append(np.repeat((np.stack([columns, rows], 1) + 0.5) * stride, count, 0))
    return np.concatenate(grids)


ANCHORS = make_anchors()


def align(faces: Faces, size: int) -> Faces:
    """Rotate, move and scale each face so that its eyes and its mouth are at the places of the template."""
    picture = Image.fromarray(faces.image)
    sides = (size, size)
    aligned = [
        np.asarray(picture.transform(sides, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR))
        for coefficients in (similarity(points, size) for points in faces.points)
    ]
    return faces._replace(aligned=np.array(aligned, np.uint8).reshape(-1, *sides, 3))


def similarity(points: np.ndarray, size: int = TEMPLATE_SIZE) -> tuple[float, ...]:
    """Return the six coefficients of the similarity transform from the template to these points, by least squares.

    Args:
        points: 3 × 2 (pixels): the eyes and the mouth.
        size: Height and width of the aligned face (pixels).
    """
    x, y = TEMPLATE.T * (size / TEMPLATE_SIZE)
    ones, zeros = np.ones(3), np.zeros(3)
    equations = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, right, down = np.linalg.lstsq(equations, points.T.reshape(-1), rcond=None)[0]
    return float(a), float(-b), float(right), float(b), float(a), float(down)


def embed(embedder: Embedder, faces: Faces) -> Faces:
    return faces._replace(embeddings=np.array([embedder(face) for face in faces.aligned]))


def match(known: dict[str, np.ndarray], faces: Faces) -> Found:
    """Name each face; its score is the cosine between its embedding and that of the known person.

    A face that resembles no known person is named "unknown", with the score of its detection.
    """
    labels, scores = [], []
    for embedding, detected in zip(faces.embeddings, faces.scores, strict=True):
        likeness, name = max(((float(embedding @ other), name) for name, other in known.items()), default=(0.0, ""))
        is_known = likeness >= LEAST_LIKENESS
        labels.append(name if is_known else "unknown")
        scores.append(likeness if is_known else detected)
    return Found(faces.image, faces.boxes, np.array(scores), labels)


def read_known(folder: str | None, recognise: Callable[[np.ndarray], Faces]) -> dict[str, np.ndarray]:
    """Return file name → embedding of each person whose photo is in the folder.

    Raises:
        ValueError: the folder has no photo, or a photo shows no face or several faces.
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
    PIPELINES = {"pipeline": pipeline, "int8": int8, "pruned": pruned, "inception_resnet": inception_resnet}
    main(PIPELINES, __doc__, {"KNOWN": None, "EMBEDDER": "pipeline"})
