"""Object detection on ONNX Runtime: FastestDet, YOLOX-nano, or a detector of your own.

    python detect.py frames/ -o drawn/
    python detect.py clip.mp4 --model mine.onnx
    edgeprof bench detect.py:fastestdet detect.py:yolox_nano --frames clip.mp4
    MODEL=mine.onnx edgeprof bench detect.py:own --frames clip.mp4

A detector of your own has one image as its input and one of these outputs: FastestDet's (1 × 5+classes × rows ×
columns), YOLOX's (1 × boxes × 5+classes) or YOLOv8's (1 × 4+classes × boxes). The classes are the 80 of COCO, or those
in LABELS, a file with one name on each line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnxruntime
from images import Found, Resized, draw, find_model, fit, keep_best, main, sigmoid, stretch

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
        path: The ONNX file.
        labels: The names of its classes.
    """

    def __init__(self, path: Path | str, labels: Sequence[str]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))  # bench --threads sets it
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class
            raise ValueError(f"{path} cannot be loaded: {error}") from None
        (given,), (output,) = self._session.get_inputs(), self._session.get_outputs()
        if not all(isinstance(size, int) for size in (*given.shape, *output.shape)):
            raise ValueError(f"{path} has an input of the shape {given.shape}; export it with a fixed size")
        self._input, (_, _, self._height, self._width) = given.name, given.shape
        self._layout = recognise(output.shape, len(labels))
        self._labels = labels

    def stages(self) -> list[tuple[str, Callable]]:
        return [("resize", self.resize), ("detect", self.detect), ("boxes", self.boxes), ("draw", draw)]

    def resize(self, frame: np.ndarray) -> Resized:
        if self._layout.padding is None:
            return stretch(frame, self._width, self._height)
        return fit(frame, self._width, self._height, self._layout.padding)

    def detect(self, resized: Resized) -> Output:
        image = resized.small[:, :, ::-1] if self._layout.is_rgb else resized.small
        tensor = np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis], np.float32) / np.float32(
            self._layout.divisor
        )
        return Output(resized, self._session.run(None, {self._input: tensor})[0])

    def boxes(self, output: Output) -> Found:
        boxes, scores, classes = self._layout.read(output.raw, self._height, self._width)
        likely = scores >= LEAST_SCORE
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


def read_yolov8(raw: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # noqa: ARG001 - a Reader
    """Read boxes from columns: centre and size in pixels, and a probability for each class."""
    cells = raw[0].T
    return _corners(cells[:, :2], cells[:, 2:4]), cells[:, 4:].max(1), cells[:, 4:].argmax(1)


def _corners(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)


def read_labels() -> list[str]:
    """Return the names in the file LABELS, or COCO's names."""
    return Path(os.environ.get("LABELS") or find_model("coco.names")).read_text("utf-8").splitlines()


@edgeprof.pipeline
def fastestdet() -> list[tuple[str, Callable]]:
    return Detector(find_model("FastestDet.onnx"), read_labels()).stages()


@edgeprof.pipeline
def yolox_nano() -> list[tuple[str, Callable]]:
    return Detector(find_model("yolox_nano.onnx"), read_labels()).stages()


@edgeprof.pipeline
def own() -> list[tuple[str, Callable]]:
    if not os.environ.get("MODEL"):
        raise ValueError("MODEL has to name the ONNX file of your detector")
    return Detector(os.environ["MODEL"], read_labels()).stages()


if __name__ == "__main__":
    main({"fastestdet": fastestdet, "yolox_nano": yolox_nano, "own": own}, __doc__, {"MODEL": "own", "LABELS": None})
