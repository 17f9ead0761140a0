"""Which inputs of TFLite operators are weights, how many MACs each operator has, and the coverage of a model.

Positions: the operators' Prepare functions in tensorflow/lite/kernels (lstm_shared.h, bidirectional_sequence_lstm.cc,
basic_rnn.cc, svdf.cc); -1 stands for an omitted input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeprof_plugins.compressors.shared.coverage import Part, coverage, partial, whole
from edgeprof_plugins.compressors.shared.finite import require_finite
from edgeprof_plugins.compressors.tflite.file import WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeprof_plugins.compressors.tflite.file import TfliteFile, TfliteWeight

    Place = tuple[int, int]  # number of the subgraph, index of the tensor

#: Operators that look values up in a table.
_LOOKUPS = frozenset({"GATHER", "EMBEDDING_LOOKUP", "GATHER_ND", "HASHTABLE_LOOKUP"})
_FLOATS = frozenset({"float32", "float16", "float64", "bfloat16"})
_CHECKED = frozenset({"float32", "float16", "float64"})  # numpy has no bfloat16
_TABLES, _OTHER = "a table that is looked up, not multiplied", "biases, norms and other constants"
_ACTIVATIONS = "it multiplies two activations and has no weights"


class Inventory:
    """The layers and parameters of a model before a method changes it.

    Args:
        model: The open file; it is read here only.

    Raises:
        InputError: a layer has weights that are NaN or infinite.

    Attributes:
        parts: The layers and parameters.
        weights: Part → its weights.
        outputs: Part → its output tensor.
    """

    def __init__(self, model: TfliteFile) -> None:
        self.parts: list[Part] = []
        self.weights: dict[str, list[TfliteWeight]] = {}
        self.outputs: dict[str, Place] = {}
        owners = model.weights_by_operator()
        macs = model.macs_of_runs(
            {
                (subgraph, index): _operator_macs(op, operator, model, subgraph)
                for subgraph, index, op, operator in model.all_operators()
                if op in WEIGHTED
            }
        )
        taken: set[int] = set()
        for subgraph, index, op, operator in model.all_operators():
            if op not in WEIGHTED:
                continue
            constants = owners.get((subgraph, index), [])
            size = sum(math.prod(constant.shape) for constant in constants if constant.buffer not in taken)
            for constant in constants:
                if constant.buffer not in taken and constant.dtype in _CHECKED and not constant.sparse:
                    require_finite(str(model.source), constant.name or op, model.values(constant))
            taken.update(constant.buffer for constant in constants)
            name = self._unique(model.tensor_name(subgraph, operator.Outputs(0)) or f"{op}_{index}")
            family, reason = (op, "") if constants else (f"{op} of activations", _ACTIVATIONS)
            self.parts.append(Part(name, family, size, macs.get((subgraph, index)), reason))
            self.weights[name], self.outputs[name] = constants, (subgraph, operator.Outputs(0))
        self._add_constants(model, taken)

    def _add_constants(self, model: TfliteFile, taken: set[int]) -> None:
        looked_up = {
            (subgraph, index)
            for subgraph, _, op, operator in model.all_operators()
            if op in _LOOKUPS
            for index in _operator_inputs(operator)
        }
        for (subgraph, index), weight in model.constants():
            size = math.prod(weight.shape)
            if weight.buffer in taken or weight.dtype not in _FLOATS or size <= 1:
                continue
            taken.add(weight.buffer)
            family, reason = ("GATHER", _TABLES) if (subgraph, index) in looked_up else ("other", _OTHER)
            self.parts.append(Part(self._unique(weight.name or f"tensor_{index}"), family, size, 0, reason))

    def _unique(self, name: str) -> str:
        taken, number, free = {part.name for part in self.parts}, 1, name
        while free in taken:
            number += 1
            free = f"{name} ({number})"
        return free

    def by_buffers(self, changed: Iterable[int], why: Mapping[int, str], otherwise: str) -> dict[str, Any]:
        """Return the coverage of a method that changed these buffers."""
        touched = set(changed)
        sizes = {
            name: [(math.prod(constant.shape), constant.buffer in touched) for constant in constants]
            for name, constants in self.weights.items()
        }
        reasons = {
            name: why[constant.buffer]
            for name, constants in self.weights.items()
            for constant in constants
            if constant.buffer in why and constant.buffer not in touched
        }
        return coverage(self.parts, partial(sizes), reasons, otherwise)

    def by_types(self, variant: TfliteFile, why: Mapping[str, str], otherwise: str) -> dict[str, Any]:
        """Return the coverage of a quantiser: parts whose weights, or output without weights, have another type now.

        Args:
            variant: The open file that the method wrote; its tensors have the same indices.
            why: Part → why it was left unchanged.
            otherwise: The reason for the others.
        """
        stored = {
            name: [(math.prod(c.shape), variant.dtype(*c.place) != c.dtype) for c in constants]
            for name, constants in self.weights.items()
        }
        changed = [
            name
            for name, constants in self.weights.items()
            if not constants and variant.dtype(*self.outputs[name]).startswith("int")
        ]
        changed += [
            part.name
            for part in self.parts
            if part.family == "GATHER"
            and any(w.name == part.name and w.dtype != "float32" for _, w in variant.constants())
        ]
        return coverage(self.parts, {**whole(changed), **partial(stored)}, why, otherwise)


def _operator_inputs(operator: Any) -> list[int]:
    return [operator.Inputs(index) for index in range(operator.InputsLength())]


def _operator_macs(op: str, operator: Any, model: TfliteFile, subgraph: int) -> int | None:
    """The multiply-accumulate operations, from the shapes that the file declares; None where they are not known."""
    shapes = [model.shape(subgraph, index) for index in _operator_inputs(operator)]
    output = model.shape(subgraph, operator.Outputs(0))
    weights = [shapes[k] for k in WEIGHTED[op] if k < len(shapes) and shapes[k] is not None]
    sizes = sum(math.prod(shape) for shape in weights if shape is not None)
    first = shapes[0]
    if output is None or first is None or not weights:
        return None
    if op == "BATCH_MATMUL":
        return math.prod(output) * first[-2 if _read_option(operator, "AdjX") else -1]
    if op == "FULLY_CONNECTED":
        return math.prod(output) * (shapes[1] or (0,))[-1]
    if op in {"TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"}:
        places = shapes[2][:-1] if len(shapes) > 2 and shapes[2] is not None else (0,)
    elif "CONV" in op:
        places = output[:-1]  # also holds for grouped convolutions: the weights have the inputs of one group
    else:
        places = first[:-1] if "SEQUENCE" in op else first[:1]
    return math.prod(places) * sizes


def _read_option(operator: Any, name: str) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    table = operator.BuiltinOptions()
    if table is None:
        return False
    options = schema.BatchMatMulOptions()
    options.Init(table.Bytes, table.Pos)
    return bool(getattr(options, name)())
