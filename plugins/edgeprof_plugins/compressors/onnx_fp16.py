"""ONNX in half precision: half the file, and half the memory traffic on devices that compute in it."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx_file import OnnxFile, require
from edgeprof_plugins.compressors.onnx_prepare import check_nodes, quantization, quiet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

_LARGEST = 65504.0


class Fp16(Compressor):
    name = "fp16"
    version = "1"
    takes = ("onnx",)
    parameters = (
        Parameter("io", "str", default="float32", choices=("float32", "float16"), help="type of inputs and outputs"),
        Parameter("exclude", "str", default="", help="nodes left in float32, separated by spaces or |"),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        onnx = require()
        excluded = check_nodes(source, parameters["exclude"])
        clipped: dict[str, float] = {}
        clean = target.with_name(f"{target.name}.clean")
        with OnnxFile(source) as model:
            floats = 0
            for name in model.order:
                if model.proto(name).data_type == 1:
                    floats += 1
                    values = model.array(name)
                    largest = float(np.abs(values).max()) if values.size else 0.0
                    if largest > _LARGEST:
                        clipped[name] = largest
        if not floats:
            raise InputError(f"{source} has no float32 weights", remedy="It is converted already, or has none.")
        convert = _converter()
        try:
            with OnnxFile(source) as model:
                del model.model.graph.value_info[:]
                model.write(clean)
            loaded = onnx.load(str(clean))
        finally:
            clean.unlink(missing_ok=True)
        with quiet():
            made = convert(
                loaded,
                keep_io_types=parameters["io"] == "float32",
                node_block_list=excluded or None,
                disable_shape_infer=False,
            )
        onnx.save(made, str(target))
        return {"tensors": floats, "clipped": clipped, "excluded": excluded}


def _converter() -> Any:
    """ONNX Runtime's converter; importing its package must not leave its folder on the module path."""
    quantization()
    before = list(sys.path)
    try:
        return importlib.import_module("onnxruntime.transformers.float16").convert_float_to_float16
    finally:
        sys.path[:] = before
