"""A network as a function of one array: the applications load all formats by edgeprof's own runtimes.

``edgeprof bench mine.onnx`` uses the same runtimes, so the joules of a stage can be compared with those of its model.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import numpy as np

from edgeprof.worker.runtime import LoadError, LoadOptions

if TYPE_CHECKING:
    from pathlib import Path

#: Runtime → its module in edgeprof_plugins.runtimes, and its class there.
RUNTIMES = {
    "onnxruntime": ("onnxruntime.runtime", "OnnxRuntime"),
    "openvino": ("openvino", "OpenVino"),
    "ncnn": ("ncnn", "Ncnn"),
    "litert": ("litert.runtime", "LiteRT"),
    "tensorrt": ("tensorrt.runtime", "TensorRT"),
}
#: Suffix of a model's file → the runtime that loads it unless the environment variable RUNTIME names another.
DEFAULTS = {
    ".onnx": "onnxruntime",
    ".xml": "openvino",
    ".param": "ncnn",
    ".tflite": "litert",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
}
PYTORCH_SUFFIXES = (".pt", ".pth")


def chosen_runtime(path: Path) -> str:
    """Return the name of the runtime that loads a file.

    Raises:
        ValueError: RUNTIME or the file's suffix is not known.
    """
    if path.suffix in PYTORCH_SUFFIXES:
        raise ValueError(
            f"{path} contains Python objects and not a graph; export it first, a YOLO of Ultralytics by "
            f"'yolo export model={path.name} format=onnx imgsz=640', any other model by "
            f"torch.onnx.export(model.eval(), (image,), '{path.stem}.onnx')"
        )
    name = os.environ.get("RUNTIME") or DEFAULTS.get(path.suffix)
    if name not in RUNTIMES:
        known = ", ".join(RUNTIMES if name else DEFAULTS)
        raise ValueError(f"no runtime {name or f'for {path.name}'}: choose from {known}")
    return name


class Network:
    """A model with one input.

    Args:
        path: The model's file.
        shape: The shape of the input, for formats whose files rarely contain it (ncnn).

    Attributes:
        shape, dtype: The shape and the type of the input.
        output_shapes: The shape of each output, as far as the file contains it.

    Raises:
        ValueError: the file cannot be loaded; one sentence and a remedy.
    """

    def __init__(self, path: Path, shape: tuple[int, ...] | None = None) -> None:
        module, name = RUNTIMES[chosen_runtime(path)]
        runtime = getattr(importlib.import_module(f"edgeprof_plugins.runtimes.{module}"), name)()
        threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or None  # bench --threads sets it
        try:
            self._session = runtime.load(str(path), LoadOptions(runtime.default_device, threads, 1, {}, {}))
        except LoadError as error:
            raise ValueError(f"{path} cannot be loaded: {error.message}. {error.remedy or ''}".strip()) from None
        (self._input,) = self._session.inputs
        self.dtype = self._input.dtype
        self.shape = shape or tuple(self._input.shape)
        if not all(isinstance(size, int) for size in self.shape):
            raise ValueError(f"{path} has an input of the shape {list(self.shape)}; export it with a fixed size")
        self.output_shapes = [tuple(output.shape) for output in self._session.outputs]

    def __call__(self, tensor: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for an input of the model's shape.

        A quantised input takes real numbers too, and quantised outputs are returned as real numbers.
        """
        if self._input.quantization and tensor.dtype.kind == "f":
            scale, zero = self._input.quantization
            limits = np.iinfo(self.dtype)
            tensor = np.clip(np.rint(tensor / scale) + zero, limits.min, limits.max).astype(self.dtype)
        outputs = self._session.run({self._input.name: tensor})
        return [_real(outputs[spec.name], spec.quantization) for spec in self._session.outputs]


def _real(values: np.ndarray, quantization: tuple[float, int] | None) -> np.ndarray:
    """Return the real numbers that quantised integers mean; other values as they are."""
    if quantization is None or values.dtype.kind not in "iu":
        return values
    scale, zero = quantization
    return (values.astype(np.float32) - zero) * np.float32(scale)
