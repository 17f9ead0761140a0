"""Language models for onnxruntime-genai from Hugging Face's format, by its model builder: int4, int8, or in float.

The builder writes an ONNX graph from the configuration. Its dense layers are ``MatMulNBits``, with weights in blocks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof.worker.runtime import library_version
from edgeprof_plugins.compressors.shared.coverage import Part, coverage, whole
from edgeprof_plugins.compressors.transformers import check_folder, one_sentence, require_libraries

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

_TYPES = ("int4", "int8", "fp32", "fp16")
#: ``accuracy_level`` of the dense layers: the type in which they compute.
_LEVELS = {"float32": 1, "int8": 4}
_FLOAT = "the builder leaves these weights in float"


class OnnxRuntimeGenai(Compressor):
    name = "onnxruntime-genai"
    version = "1"
    takes = ("transformers",)
    gives = "onnxruntime-genai"
    changes = ("precision",)
    parameters = (
        Parameter("type", "str", default="int4", choices=_TYPES, help="of the weights"),
        Parameter("block", "int", default=32, minimum=16, maximum=256, help="weights that share a scale: 16, 32 … 256"),
        Parameter(
            "compute", "str", default="int8", choices=tuple(_LEVELS), help="what int4 and int8 layers multiply in"
        ),
    )

    def apply(
        self,
        source: Path,
        target: Path,
        parameters: Mapping[str, Any],
        data: Dataset | None,  # noqa: ARG002 - it needs no data
        *,
        seed: int = 0,  # noqa: ARG002 - nothing is drawn
    ) -> dict[str, Any]:
        kind, block = parameters["type"], parameters["block"]
        if block & (block - 1):
            raise InputError(f"{self.name}: block={block} is no power of two", remedy="Use 16, 32, 64, 128 or 256.")
        check_folder(self.name, source)
        modules = ("onnxruntime_genai", "torch", "transformers", "onnx", "onnx_ir")
        require_libraries(self.name, "onnxruntime-genai-compress", modules)
        cache = target.parent / "cache"
        with one_sentence(source):
            from onnxruntime_genai.models import builder

            words = [f"block_size={block}", f"accuracy_level={_LEVELS[parameters['compute']]}", "hf_token=false"]
            options = builder.parse_extra_options("", str(source), str(target), kind, "cpu", str(cache), words)
            builder.create_model("", str(source), str(target), kind, "cpu", str(cache), **options)
        account = _account(target / "model.onnx")
        facts: dict[str, Any] = {"library": f"onnxruntime-genai {library_version('onnxruntime_genai')}"}
        return facts | ({"coverage": account} if kind.startswith("int") else {})


def _account(path: Path) -> dict[str, Any]:
    """Which weights of the built graph are integers; multiply-accumulates are counted for one token.

    An embedding that shares its weights with the last layer is counted there.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    parts, changed = [], []
    for node in graph.node:
        numbers = {attribute.name: attribute.i for attribute in node.attribute}
        stored = next((sizes[name] for name in node.input[:2] if name in sizes), None)
        if stored is None or node.op_type not in ("MatMul", "Gather", "MatMulNBits", "GatherBlockQuantized"):
            continue
        if node.op_type == "MatMulNBits":
            stored = numbers["K"] * numbers["N"]
        elif node.op_type == "GatherBlockQuantized":
            stored = stored * 8 // numbers.get("bits", 4)
        if node.op_type not in ("MatMul", "Gather"):
            changed.append(node.name)
        parts.append(Part(node.name, node.op_type, stored, stored if node.op_type.startswith("MatMul") else 0))
    return coverage(parts, whole(changed), {}, _FLOAT)
