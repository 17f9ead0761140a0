"""ONNX models in half precision: half the file size, and half the memory traffic on devices that compute in float16."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx.file import OnnxFile, require, tensor
from edgeprof_plugins.compressors.onnx.inventory import INTEGERS, Inventory
from edgeprof_plugins.compressors.onnx.prepare import check_nodes, quantization, quiet
from edgeprof_plugins.compressors.shared.coverage import EXCLUDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

_LARGEST = 65504.0
#: TensorProto.FLOAT16.
_FLOAT16 = 10
#: Weights with at least this many values are converted while the file is written, smaller ones in memory.
_LARGE = 1024


class Fp16(Compressor):
    """Converts weights and arithmetic to float16; values beyond its range are clipped, and their tensors reported."""

    name = "fp16"
    changes = ("precision",)
    weight_bits = 16
    version = "2"
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
        with OnnxFile(source) as model:
            inventory = Inventory(model)
            _refuse_integers(inventory, source)
            types = {name: int(model.header(name).data_type) for name in model.order}
            floats = [name for name, kind in types.items() if kind == 1]
            if not floats:
                raise _no_floats(model)
            streamed = [name for name in floats if np.prod(model.header(name).dims) >= _LARGE]
            ends = [value.name for value in (*model.model.graph.input, *model.model.graph.output)]
            outputs = [value.name for value in model.model.graph.output]
            graph = _without_weights(onnx, model, streamed)
            with quiet():
                converted = _load_converter()(
                    graph,
                    keep_io_types=ends if parameters["io"] == "float32" else False,
                    node_block_list=excluded or None,
                )
            _list_outputs(converted.graph, outputs)
            # Weights are inputs of the converted graph, with the type that their readers expect.
            kinds = {value.name: value.type.tensor_type.elem_type for value in converted.graph.input}
            kinds |= {initializer.name: initializer.data_type for initializer in converted.graph.initializer}
            inputs = [value for value in converted.graph.input if value.name not in streamed]
            copies = [type(value).FromString(value.SerializeToString()) for value in inputs]
            del converted.graph.input[:], converted.graph.value_info[:]
            converted.graph.input.extend(copies)
            model.model, model.order = converted, streamed

            def edit(name: str) -> Iterable[Any]:
                values = model.array(name)
                if kinds.get(name) == _FLOAT16:
                    # Infinite values of masks stay infinite.
                    finite = np.isfinite(values)
                    largest = float(np.abs(values).max(initial=0, where=finite))
                    if largest > _LARGEST:
                        clipped[name] = largest
                        values = np.where(finite, np.clip(values, -_LARGEST, _LARGEST), values)
                    values = values.astype(np.float16)
                return [tensor(values, name)]

            model.write(target, edit)
        account = inventory.by_nodes(*_halved_parts(inventory, kinds, types, excluded))
        return {"tensors": len(floats), "clipped": clipped, "excluded": excluded, "coverage": account}


def _refuse_integers(inventory: Inventory, source: Path) -> None:
    """Raise InputError where layers multiply with stored integers: their arithmetic could change, their weights not."""
    stored = [part.name for part in inventory.parts if part.reason == INTEGERS]
    if stored:
        raise InputError(
            f"{source} stores the weights of {stored[0]} as integers",
            remedy="Put this step first, as in --with fp16+int8-weight.",
        )


def _no_floats(model: OnnxFile) -> InputError:
    kinds = {model.header(name).data_type for name in model.order}
    if 11 in kinds:
        return InputError(
            f"{model.path} has float64 weights, and fp16 halves float32 ones",
            remedy="Export the model in float32 first (in PyTorch: model.float()).",
        )
    if kinds & {10, 16}:
        return InputError(f"{model.path} is in half precision already", remedy="Start from the float32 model.")
    return InputError(f"{model.path} has no float32 weights", remedy="Start from the float32 model.")


_IN_FLOAT32 = "an operator that ONNX Runtime has in float32 only, or one beside such"
#: TensorProto.DataType of real numbers that are not converted.
_TYPES = {10: "float16 already", 11: "float64", 16: "bfloat16"}


def _halved_parts(
    inventory: Inventory, kinds: Mapping[str, int], types: Mapping[str, int], excluded: list[str]
) -> tuple[list[str], dict[str, str]]:
    """The parts that now compute in half precision, and why others do not."""
    changed, why = [], dict.fromkeys(excluded, EXCLUDED)
    for part in inventory.parts:
        names = inventory.weights_of(part.name)
        if part.name in excluded:
            continue
        if all(kinds.get(name) == _FLOAT16 for name in names):
            changed.append(part.name)
        else:
            other = next((_TYPES[types[name]] for name in names if types.get(name) in _TYPES), "")
            why[part.name] = f"its weights are {other}" if other else _IN_FLOAT32
    return changed, why


def _without_weights(onnx: Any, model: OnnxFile, streamed: list[str]) -> Any:
    """Return the model with its large weights as inputs: the converter only chooses types and needs no values."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model.model)
    del copy.graph.value_info[:]
    _list_outputs(copy.graph, list(dict.fromkeys(value.name for value in copy.graph.output)))
    large = set(streamed)
    for name in model.order:
        if name in large:
            shape = list(model.header(name).dims)
            copy.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        else:
            copy.graph.initializer.append(model.dense(name))
    return copy


def _list_outputs(graph: Any, names: Sequence[str]) -> None:
    """List the outputs of a graph by name. The converter would define a tensor that is listed twice twice."""
    values = {value.name: type(value).FromString(value.SerializeToString()) for value in graph.output}
    del graph.output[:]
    graph.output.extend(values[name] for name in names)


def _load_converter() -> Any:
    """Return ONNX Runtime's converter; importing its package must not leave its folder in ``sys.path``."""
    quantization()
    before = list(sys.path)
    try:
        return importlib.import_module("onnxruntime.transformers.float16").convert_float_to_float16
    finally:
        sys.path[:] = before
