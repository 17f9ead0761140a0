"""Object detection: FastestDet, YOLOX-nano and their variants, YOLOv8 with random weights, or your own detector.

    python detect.py frames/ -o drawn/
    python detect.py clip.mp4 --model mine.onnx
    edgeprof bench detect.py:fastestdet detect.py:yolox_nano --frames clip.mp4
    RUNTIME=openvino edgeprof bench detect.py:fastestdet --frames clip.mp4
    MODEL=mine.engine edgeprof bench detect.py:own --frames clip.mp4

A detector of your own (.onnx, .engine, .tflite, .xml, .param) has one image as its input and one of these outputs:
FastestDet's (1 × 5+classes × rows × columns), YOLOX's (1 × boxes × 5+classes) or YOLOv8's (1 × 4+classes × boxes). The
classes are the 80 of COCO, or those in LABELS, a file with one name on each line. RUNTIME chooses the runtime:
onnxruntime, openvino, ncnn, litert or tensorrt.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from images import Found, Resized, draw, find_model, fit, keep_best, main, sigmoid, stretch
from networks import Network

import edgeprof

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    #: Takes the raw output and the input's height and width; returns boxes (input pixels), scores and class numbers.
    Reader = Callable[[np.ndarray, int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]

LEAST_SCORE = 0.5
MOST_OVERLAP = 0.45


class Output(NamedTuple):
    """A resized frame and what the network returned for it."""

    resized: Resized
    raw: np.ndarray


class Layout(NamedTuple):
    """The input and output format of a family of detectors.

    Attributes:
        padding: The grey value that fills the rest of the input; None: frames are stretched to the input's size.
        divisor: The number by which the values 0 to 255 are divided.
        is_rgb: Whether the channels are red, green, blue instead of blue, green, red.
        read: Converts the output into boxes.
    """

    padding: int | None
    divisor: float
    is_rgb: bool
    read: Reader


class Detector:
    """A detector's stages, each a pure function of its input.

    Args:
        path: The model's file.
        labels: The names of its classes.
        shape: The shape of its input, for files that do not contain it.
        least_score: Boxes with a lower score are dropped.
    """

    def __init__(
        self,
        path: Path,
        labels: Sequence[str],
        shape: tuple[int, ...] | None = None,
        least_score: float = LEAST_SCORE,
    ) -> None:
        self._network = Network(path, shape)
        shape = self._network.shape
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise ValueError(f"{path} takes an input of the shape {list(shape)}, which is no colour image")
        self._is_channels_last = shape[1] != 3
        self._height, self._width = shape[1:3] if self._is_channels_last else shape[2:]
        (raw, *_) = self._network(np.zeros(shape, np.float32))
        self._layout = recognise(raw.shape, len(labels))
        self._labels, self._least_score = labels, least_score

    def stages(self) -> list[tuple[str, Callable]]:
        return [("resize", self.resize), ("detect", self.detect), ("boxes", self.boxes), ("draw", draw)]

    def resize(self, frame: np.ndarray) -> Resized:
        if self._layout.padding is None:
            return stretch(frame, self._width, self._height)
        return fit(frame, self._width, self._height, self._layout.padding)

    def tensor(self, resized: Resized) -> np.ndarray:
        """Convert a resized frame into the network's input."""
        image = resized.small[:, :, ::-1] if self._layout.is_rgb else resized.small
        image = image if self._is_channels_last else image.transpose(2, 0, 1)
        return np.ascontiguousarray(image[np.newaxis], np.float32) / np.float32(self._layout.divisor)

    def detect(self, resized: Resized) -> Output:
        return Output(resized, self._network(self.tensor(resized))[0])

    def boxes(self, output: Output) -> Found:
        boxes, scores, classes = self._layout.read(output.raw, self._height, self._width)
        likely = scores >= self._least_score
        boxes, scores, classes = boxes[likely], scores[likely], classes[likely]
        kept = keep_best(boxes, scores, classes, MOST_OVERLAP)
        boxes = boxes[kept] * np.tile(output.resized.scale, 2)
        return Found(output.resized.image, boxes, scores[kept], [self._labels[number] for number in classes[kept]])


def recognise(shape: Sequence[int], classes: int) -> Layout:
    """Return the layout of a detector's family, from the shape of its output.

    Raises:
        ValueError: the shape belongs to no known family.
    """
    if len(shape) == 4 and shape[1] == 5 + classes:
        return Layout(padding=None, divisor=255.0, is_rgb=False, read=read_fastestdet)
    if len(shape) == 3 and shape[2] == 5 + classes:
        return Layout(padding=114, divisor=1.0, is_rgb=False, read=read_yolox)
    if len(shape) == 3 and shape[1] == 4 + classes:
        return Layout(padding=114, divisor=255.0, is_rgb=True, read=read_yolov8)
    raise ValueError(f"an output of the shape {list(shape)} is no known detector of {classes} classes; see LABELS")


def read_fastestdet(raw: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read boxes from a grid of cells: objectness, offset of the centre, size, and a probability for each class."""
    cells = raw[0].reshape(raw.shape[1], -1).T
    rows, columns = np.divmod(np.arange(len(cells)), raw.shape[3])
    centres = np.tanh(cells[:, 1:3]) + np.stack([columns, rows], 1)
    centres = centres / (raw.shape[3], raw.shape[2]) * (width, height)
    sizes = sigmoid(cells[:, 3:5]) * (width, height)
    scores = cells[:, 0] ** 0.6 * cells[:, 5:].max(1) ** 0.4
    return _corners(centres, sizes), scores, cells[:, 5:].argmax(1)


def read_yolox(raw: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read boxes from three grids of 8, 16 and 32 pixels per cell: offset, logarithm of size, objectness, classes."""
    origins, strides = [], []
    for stride in (8, 16, 32):
        rows, columns = np.divmod(np.arange((height // stride) * (width // stride)), width // stride)
        origins.append(np.stack([columns, rows], 1))
        strides.append(np.full((len(rows), 1), stride))
    stride = np.concatenate(strides)
    cells = raw[0]
    scores = cells[:, 4:5] * cells[:, 5:]
    centres = (cells[:, :2] + np.concatenate(origins)) * stride
    return _corners(centres, np.exp(cells[:, 2:4]) * stride), scores.max(1), scores.argmax(1)


def read_yolov8(raw: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read boxes from columns: centre and size (pixels, or fractions of the input), and each class's probability."""
    cells = raw[0].T
    corners = _corners(cells[:, :2], cells[:, 2:4])
    if corners.max() <= 2:  # fractions, as in TFLite files; in pixels, the lower right cell alone exceeds this
        corners = corners * (width, height, width, height)
    return corners, cells[:, 4:].max(1), cells[:, 4:].argmax(1)


def _corners(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)


def read_labels() -> list[str]:
    """Return the names in the file LABELS, or COCO's names."""
    return Path(os.environ.get("LABELS") or find_model("coco.names")).read_text("utf-8").splitlines()


def load_detector(file: str, size: int | None = None, least_score: float = LEAST_SCORE) -> Detector:
    """Load a detector from the file of ``MODELS`` that matches a pattern.

    Args:
        file: The pattern. With RUNTIME=ncnn the file of ncnn's format is taken instead of an .onnx.
        size: Height and width of the input, which ncnn's files do not contain.
        least_score: Boxes with a lower score are dropped.
    """
    if os.environ.get("RUNTIME") == "ncnn":
        file = file.replace(".onnx", "*.param")  # pnnx names its files yolox_nano.ncnn.param
    shape = (1, 3, size, size) if size and file.endswith(".param") else None
    return Detector(find_model(file), read_labels(), shape, least_score)


#: Pipeline → the pattern of its model's file, and the size of its input. variants.py makes int8 and pruned files,
#: student.py the student, and yolov8.py the networks with random weights.
DETECTORS = {
    "fastestdet": ("FastestDet.onnx", 352),
    "fastestdet_int8": ("FastestDet.int8*.onnx", 352),
    "fastestdet_pruned": ("FastestDet.prune*.onnx", 352),
    "yolox_nano": ("yolox_nano.onnx", 416),
    "yolox_nano_int8": ("yolox_nano.int8*.onnx", 416),
    "yolox_nano_pruned": ("yolox_nano.prune*.onnx", 416),
    "student": ("student.onnx", 256),
    "yolov8n": ("yolov8n.onnx", 640),
    "yolov8s": ("yolov8s.onnx", 640),
}


def _pipeline(file: str, size: int) -> edgeprof.Pipeline:
    return edgeprof.pipeline(lambda: load_detector(file, size).stages())


PIPELINES = {name: _pipeline(*detector) for name, detector in DETECTORS.items()}
globals().update(PIPELINES)  # edgeprof bench detect.py:NAME


@edgeprof.pipeline
def own() -> list[tuple[str, Callable]]:
    if not os.environ.get("MODEL"):
        raise ValueError("MODEL has to name the file of your detector")
    return Detector(Path(os.environ["MODEL"]), read_labels()).stages()


if __name__ == "__main__":
    main({**PIPELINES, "own": own}, __doc__, {"MODEL": "own", "LABELS": None, "RUNTIME": None})
