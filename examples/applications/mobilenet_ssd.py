"""Object detection by MobileNet-SSD, quantised to 8 bits, on LiteRT.

    python mobilenet_ssd.py street/ -o drawn/
    python mobilenet_ssd.py clip.mp4 --ssd mine.tflite --labels labels.txt
    edgeprof bench mobilenet_ssd.py:pipeline --frames clip.mp4

A model of your own (SSD) takes a uint8 image and has the outputs of TensorFlow's detection post-processing: boxes,
classes, scores and their number. LABELS has one class name on each line; the first line is the background.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from images import Found, Resized, draw, find_model, main, stretch
from networks import Network

import edgeprof

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_SCORE = 0.5


class Output(NamedTuple):
    """A frame and what the network returned for it: boxes, classes, scores and their number."""

    image: np.ndarray
    raw: list[np.ndarray]


def stages(path: Path) -> list[tuple[str, Callable]]:
    network = Network(path)
    if network.dtype != "uint8" or [len(shape) for shape in network.output_shapes] != [3, 2, 2, 1]:
        raise ValueError(
            f"{path} does not take uint8 and return boxes, classes, scores and their number, in this order"
        )
    labels = Path(os.environ.get("LABELS") or find_model("labelmap.txt")).read_text("utf-8").splitlines()[1:]
    _, height, width, _ = network.shape

    def resize(frame: np.ndarray) -> Resized:
        return stretch(frame, width, height)

    def detect(resized: Resized) -> Output:
        return Output(resized.image, network(np.ascontiguousarray(resized.small[np.newaxis, :, :, ::-1])))

    def boxes(output: Output) -> Found:
        return read_boxes(output, labels)

    return [("resize", resize), ("detect", detect), ("boxes", boxes), ("draw", draw)]


@edgeprof.pipeline
def pipeline() -> list[tuple[str, Callable]]:
    return stages(Path(os.environ.get("SSD") or find_model("ssd_mobilenet_v1_coco.tflite")))


def read_boxes(output: Output, labels: list[str]) -> Found:
    """Return the objects that the network found; the network itself removes overlapping boxes."""
    (edges,), (classes,), (scores,), _ = output.raw
    height, width = output.image.shape[:2]
    likely = scores >= LEAST_SCORE
    boxes = edges[likely][:, [1, 0, 3, 2]] * (width, height, width, height)
    names = [labels[number] if number < len(labels) else f"class {number}" for number in classes[likely].astype(int)]
    return Found(output.image, boxes, scores[likely], names)


if __name__ == "__main__":
    main({"pipeline": pipeline}, __doc__, {"SSD": None, "LABELS": None})
