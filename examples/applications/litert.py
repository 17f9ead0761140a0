"""A TFLite model as a function of one array, for the applications that use LiteRT."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:  # LiteRT's former name, for example on JetPack 4
    from tflite_runtime.interpreter import Interpreter

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


class Network:
    """A TFLite model with one input.

    Args:
        path: The model's file.

    Attributes:
        shape, dtype: The shape and the type of the input.
        output_shapes: The shape of each output.
    """

    def __init__(self, path: Path) -> None:
        threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or None  # bench --threads sets it
        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.shape, self.dtype = tuple(self._input["shape"].tolist()), self._input["dtype"]
        self.output_shapes = [tuple(output["shape"].tolist()) for output in self._outputs]

    def __call__(self, tensor: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for an input of the model's shape and type."""
        self._interpreter.set_tensor(self._input["index"], tensor)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"]) for output in self._outputs]
