"""The built-in compressors: which classes implement each name for which formats. Modules are imported on first use.

To support a further format under an existing name, add one entry to its row.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from edgeprof import hookimpl

if TYPE_CHECKING:
    from edgeprof.compression.compressor import Compressor
    from edgeprof.hookspecs import Register

#: Name → ``module:class`` in this package, one for each format or group of formats.
METHODS: dict[str, tuple[str, ...]] = {
    "int8-dynamic": (
        "onnx.int8:Int8Dynamic",
        "tflite.quantize:Int8Dynamic",
        "torch.int8:Int8Dynamic",
        "keras.convert:Int8Dynamic",
    ),
    "int8-static": (
        "onnx.static:Int8Static",
        "tflite.quantize:Int8Static",
        "torch.int8:Int8Static",
        "keras.convert:Int8Static",
    ),
    "int8-weight": (
        "onnx.int8:Int8Weight",
        "tflite.quantize:Int8Weight",
        "transformers:Int8Weight",
        "torch.weight_only:Int8Weight",
    ),
    "int4-weight": ("onnx.int4:Int4Weight", "tflite.quantize:Int4Weight"),
    "fp16": ("onnx.fp16:Fp16", "tflite.quantize:Fp16", "torch.half:Fp16", "keras.convert:Fp16"),
    "bf16": ("torch.half:Bf16",),
    "prune": (
        "onnx.prune:Prune",
        "tflite.weights:Prune",
        "torch.prune:Prune",
        "torch.prune:PruneScript",
        "keras.weights:Prune",
    ),
    "prune-2:4": ("onnx.prune:Prune24", "torch.prune:Prune24"),
    "prune-structured": ("onnx.structured:PruneStructured", "torch.structured:PruneStructured"),
    "low-rank": ("onnx.lowrank:LowRank", "torch.lowrank:LowRank"),
    "cluster": (
        "onnx.cluster:Cluster",
        "tflite.weights:Cluster",
        "torch.cluster:Cluster",
        "torch.cluster:ClusterScript",
        "keras.weights:Cluster",
    ),
    "qat": ("torch.int8:Qat", "keras.training:Qat"),
    "distill": ("torch.distill:Distill",),
    "fine-tune": ("torch.distill:FineTune",),
    "export-onnx": ("torch.export:ExportOnnx",),
    "export-pt2": ("torch.export:ExportPt2",),
    "export-tflite": ("torch.tflite:ExportTflite", "keras.convert:ExportTflite"),
    "export-torchscript": ("torch.export:ExportTorchScript",),
    "tensorrt": ("tensorrt:Engine",),
    "gguf": ("gguf:Gguf",),
    "onnxruntime-genai": ("onnxruntime_genai:OnnxRuntimeGenai",),
}


def make(name: str) -> Compressor:
    """Create the compressor with this name: a Family, or an instance of the class where there is only one."""
    members = []
    for place in METHODS[name]:
        module, _, attribute = place.partition(":")
        members.append(getattr(importlib.import_module(f"edgeprof_plugins.compressors.{module}"), attribute)())
    if len(members) == 1:
        single: Compressor = members[0]
        return single
    from edgeprof_plugins.compressors.shared.dispatch import Family

    return Family(name, members)


@hookimpl
def register_compressors(register: Register) -> None:
    for name in METHODS:
        register(name, functools.partial(make, name))
