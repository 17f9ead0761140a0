"""8-bit quantisation of ONNX models without calibration: dynamic (by ONNX Runtime), and weights only."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx.cluster import prepend
from edgeprof_plugins.compressors.onnx.file import OnnxFile, tensor, walk
from edgeprof_plugins.compressors.onnx.inventory import Inventory
from edgeprof_plugins.compressors.onnx.normal import graphs
from edgeprof_plugins.compressors.onnx.prepare import (
    check_nodes,
    has_two_files,
    prepared,
    quantization,
    quiet,
    reduces_range,
    upgraded,
)
from edgeprof_plugins.compressors.onnx.weights import count_readers
from edgeprof_plugins.compressors.shared.coverage import EXCLUDED
from edgeprof_plugins.compressors.shared.magnitude import sqnr_db, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof_plugins.compressors.onnx.weights import Weight


class Int8Dynamic(Compressor):
    """Stores weights as 8-bit integers; the range of activations is computed in each inference."""

    name = "int8-dynamic"
    changes = ("precision",)
    weight_bits = 8
    version = "2"
    takes = ("onnx",)
    for_target = True
    parameters = (
        Parameter("per_channel", "bool", default=False, help="a scale for each output channel"),
        Parameter("reduce_range", "bool", help="7-bit weights; by itself for x86 without VNNI, where 8 bits saturate"),
        Parameter("conv", "bool", default=False, help="convolutions too (ConvInteger: smaller, and slower than float)"),
        Parameter(
            "exclude", "str", default="", help="nodes left in float, separated by spaces or |; name* for several"
        ),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        tools = quantization()
        with tempfile.TemporaryDirectory(prefix="edgeprof-onnx-") as folder:
            ready = prepared(source, Path(folder))
            excluded = check_nodes(ready, parameters["exclude"])
            # Unsigned weights have kernels that do not saturate.
            reduced = bool(parameters.get("reduce_range")) if parameters["conv"] else reduces_range(parameters)
            kinds = ["MatMul", "Gemm", "Attention", "LSTM", "EmbedLayerNormalization"]
            if parameters["conv"]:
                kinds.append("Conv")
            with OnnxFile(ready) as model:
                inventory = Inventory(model, source)
                outside = _sink_recurrent_weights(model)
                sunk = Path(folder) / "sunk.onnx"
                model.write(sunk)
            quantised = Path(folder) / "quantised.onnx"
            with quiet():
                tools.quantize_dynamic(
                    sunk,
                    quantised,
                    op_types_to_quantize=kinds,
                    per_channel=parameters["per_channel"],
                    reduce_range=reduced,
                    # ONNX Runtime has ConvInteger for unsigned weights only.
                    weight_type=tools.QuantType.QUInt8 if parameters["conv"] else tools.QuantType.QInt8,
                    nodes_to_exclude=[*excluded, *outside],
                    extra_options={"EnableSubgraph": True},
                    use_external_data_format=has_two_files(sunk),
                )
            with OnnxFile(quantised) as model:
                counted = _count_nodes(model)
                changed = [name for part in inventory.work for name in part.weights if not model.has(name)]
                model.write(target)
        why = inventory.by_operator(_DYNAMIC_LEFT) | dict.fromkeys(outside, _SHARED) | dict.fromkeys(excluded, EXCLUDED)
        account = inventory.by_weights(changed, why, _NO_KERNEL)
        remedy = _CONVOLUTIONS if counted["convolutions"] else WEIGHTS_ONLY
        return {**counted, "reduce_range": reduced, "excluded": excluded, "coverage": account | {"remedy": remedy}}


def _sink_recurrent_weights(model: OnnxFile) -> list[str]:
    """Move weights of LSTMs back into the branch or body of the LSTM: ONNX Runtime's quantiser looks only there.

    Returns:
        The nodes for which that is not possible.
    """
    readers, outside = count_readers(model), []
    for graph in list(graphs(model.model.graph))[1:]:
        for node in graph.node:
            if node.op_type != "LSTM":
                continue
            constants = [name for name in node.input[1:3] if model.has(name)]
            if any(readers[name] > 1 for name in constants):
                outside.append(node.name)
                continue
            for name in constants:
                graph.initializer.append(model.dense(name))
                model.remove(name)
    return outside


#: Operator → why dynamic quantisation does not change it.
_DYNAMIC_LEFT = {
    "Conv": "convolutions stay in float unless conv=true",
    "ConvTranspose": "ONNX Runtime has no dynamic 8-bit kernel for it",
    "GRU": "ONNX Runtime has no 8-bit kernel for it; it has one for LSTM",
    "RNN": "ONNX Runtime has no 8-bit kernel for it; it has one for LSTM",
    "Einsum": "ONNX Runtime has no 8-bit kernel for it",
}
_CONVOLUTIONS = "Use int8-static, which quantises convolutions (or int8-dynamic:conv=true, for size alone)."
#: The remedy where a layer cannot be computed in 8 bits.
WEIGHTS_ONLY = "Use int8-weight, which stores the weights of any layer in 8 bits (for size alone)."
_SHARED = "it is in a branch or a body, and shares its weights"
_NO_KERNEL = "ONNX Runtime's quantiser leaves it in float"


class Int8Weight(Compressor):
    """Stores weights as 8-bit integers with a scale for each output channel; arithmetic stays in float."""

    name = "int8-weight"
    changes = ("precision",)
    weight_bits = 8
    version = "1"
    takes = ("onnx",)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del parameters, data, seed
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeprof-onnx-"))
            # Before operator set 7, Mul does not broadcast by default.
            model = stack.enter_context(OnnxFile(upgraded(source, Path(folder), 7)))
            return self._write(model, source, target)

    def _write(self, model: OnnxFile, source: Path, target: Path) -> dict[str, Any]:
        import onnx

        inventory = Inventory(model, source)
        weights = {w.name: w for w in model.weights()}
        if not weights:
            raise InputError(
                f"{source} has no float weights of layers that multiply", remedy="Start from the float model."
            )
        # Not DequantizeLinear: runtimes keep it for integer kernels, and would run it again in every inference.
        nodes = []
        for n in weights:
            kind = model.header(n).data_type
            nodes.append(onnx.helper.make_node("Cast", [f"{n}_int8"], [f"{n}_wide"], name=f"{n}_cast", to=kind))
            nodes.append(onnx.helper.make_node("Mul", [f"{n}_wide", f"{n}_scale"], [n], name=f"{n}_scaled"))
        prepend(model.model.graph, nodes, set(weights))
        sqnr: dict[str, float | None] = {}

        def edit(name: str) -> Iterable[Any]:
            if name not in weights:
                return [model.whole(name)]
            values = model.array(name)
            quantised, scale, sqnr[name] = _per_channel(values, weights[name])
            return [tensor(quantised, f"{name}_int8"), tensor(scale, f"{name}_scale")]

        model.write(target, edit)
        account = inventory.by_weights(weights)
        return {"layers": len(weights), "sqnr_db": sqnr, "worst": worst(sqnr), "coverage": account}


def _per_channel(
    values: npt.NDArray[Any], weight: Weight
) -> tuple[npt.NDArray[np.int8], npt.NDArray[Any], float | None]:
    """Quantise to symmetric int8; return the values, a scale per output channel (type of the weights), and the SQNR."""
    scaled_axes = {0, weight.axis} if weight.op in {"LSTM", "GRU", "RNN"} else {weight.axis}  # axis 0: directions
    wide = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
    largest = np.abs(wide).max(
        axis=tuple(axis for axis in range(values.ndim) if axis not in scaled_axes), keepdims=True
    )
    scale = (np.where(largest > 0, largest, 1.0) / 127).astype(values.dtype)
    # Use the scale as it is stored, rounded to its type; in float16 the scale of small weights may round to zero.
    steps = np.where(scale.astype(wide.dtype) > 0, scale.astype(wide.dtype), 1.0)
    quantised = np.clip(np.rint(wide / steps), -127, 127).astype(np.int8)
    return quantised, scale, sqnr_db(wide, quantised * scale.astype(wide.dtype))


def _count_nodes(model: OnnxFile) -> dict[str, int]:
    """Count the nodes that now run in integers, and the convolutions and dense layers that do not."""
    kinds = [node.op_type for node in walk(model.model.graph)]
    return {
        "quantised": sum(kind in _INTEGER for kind in kinds),
        "convolutions": sum(kind in {"Conv", "ConvTranspose"} for kind in kinds),
        "dense_left": sum(kind in {"MatMul", "Gemm"} for kind in kinds),
    }


_INTEGER = frozenset({"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM", "QAttention"})
