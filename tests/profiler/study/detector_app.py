"""A pipeline on the device of the running test, whose detector takes as long as its file has weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

import edgeprof
from tests.profiler.benchmark.virtual_device import work

#: Seconds per byte of weights, and watts.
DETECT_S, DETECT_W = 0.020 / 2560, 8.0
RESIZE_S, RESIZE_W = 0.004, 5.0
IDLE_W = 2.0


class Found(NamedTuple):
    frame: Any
    scores: Any


class Detector:
    def __init__(self, path: str) -> None:
        tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
        self._seconds = DETECT_S * sum(tensor.nbytes for tensor in tensors)
        self._weights = max(tensors, key=lambda tensor: tensor.size).astype(np.float32)

    def __call__(self, frame: Any) -> Found:
        work(self._seconds, DETECT_W)
        return Found("a picture", frame @ self._weights)


def resize(frame: Any) -> Any:
    work(RESIZE_S, RESIZE_W)
    return frame


@edgeprof.pipeline(source=lambda: np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32))
def pipeline(detect: str = "detector.onnx") -> list[Any]:
    return [resize, ("detect", Detector(detect))]


listed = edgeprof.pipeline([resize])
