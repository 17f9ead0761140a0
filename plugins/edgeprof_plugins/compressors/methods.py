"""The built-in compressors: which name is done by which class for which formats; a module is imported when it is used.

A further format of a known name is one more entry in its row.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from edgeprof import hookimpl

if TYPE_CHECKING:
    from edgeprof.compression.compressor import Compressor
    from edgeprof.hookspecs import Register

#: name → ``module:class`` in this package, one for each format or group of formats.
METHODS: dict[str, tuple[str, ...]] = {
    "int8-dynamic": ("onnx_int8:Int8Dynamic", "tflite_quantize:Int8Dynamic", "torch_int8:Int8Dynamic"),
    "int8-static": ("onnx_static:Int8Static", "tflite_quantize:Int8Static", "torch_int8:Int8Static"),
    "int8-weight": ("onnx_int8:Int8Weight", "tflite_quantize:Int8Weight"),
    "int4-weight": ("onnx_int4:Int4Weight", "tflite_quantize:Int4Weight"),
    "fp16": ("onnx_fp16:Fp16", "tflite_quantize:Fp16", "torch_half:Fp16"),
    "bf16": ("torch_half:Bf16",),
    "prune": ("onnx_prune:Prune", "tflite_weights:Prune", "torch_prune:Prune", "torch_prune:PruneScript"),
    "prune-2:4": ("onnx_prune:Prune24", "torch_prune:Prune24"),
    "prune-structured": ("onnx_structured:PruneStructured", "torch_structured:PruneStructured"),
    "low-rank": ("onnx_lowrank:LowRank", "torch_lowrank:LowRank"),
    "cluster": (
        "onnx_cluster:Cluster",
        "tflite_weights:Cluster",
        "torch_cluster:Cluster",
        "torch_cluster:ClusterScript",
    ),
    "qat": ("torch_int8:Qat",),
    "distill": ("torch_distill:Distill",),
    "fine-tune": ("torch_distill:FineTune",),
    "export-onnx": ("torch_export:ExportOnnx",),
    "export-pt2": ("torch_export:ExportPt2",),
    "export-tflite": ("torch_tflite:ExportTflite",),
    "export-torchscript": ("torch_export:ExportTorchScript",),
    "tensorrt": ("tensorrt_engine:Engine",),
}


def make(name: str) -> Compressor:
    """The compressor of that name: its Family, or the one class where a single one does it."""
    members = []
    for place in METHODS[name]:
        module, _, attribute = place.partition(":")
        members.append(getattr(importlib.import_module(f"edgeprof_plugins.compressors.{module}"), attribute)())
    if len(members) == 1:
        single: Compressor = members[0]
        return single
    from edgeprof_plugins.compressors.dispatch import Family

    return Family(name, members)


@hookimpl
def register_compressors(register: Register) -> None:
    for name in METHODS:
        register(name, functools.partial(make, name))
