"""A TFLite flatbuffer whose weights are changed in place: offsets and size stay the same, and nothing is repacked.

Layout: tensorflow/lite/schema/schema.fbs, read with the generated classes of ai-edge-litert.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker.runtime import install_command
from edgeprof.worker.tensors import unique_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Place = tuple[int, int]  # number of a subgraph, index of a tensor or an operator in it

_LSTM = (*range(1, 9), 16)
#: Operator → positions of the weights that it multiplies with.
WEIGHTED: dict[str, tuple[int, ...]] = {
    "CONV_2D": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "CONV_3D": (1,),
    "TRANSPOSE_CONV": (1,),
    "CONV_3D_TRANSPOSE": (1,),
    "FULLY_CONNECTED": (1,),
    "BATCH_MATMUL": (1, 0),
    "LSTM": _LSTM,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
    "BIDIRECTIONAL_SEQUENCE_LSTM": (*range(1, 9), 16, *range(18, 26), 33),
    "RNN": (1, 2),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
    "BIDIRECTIONAL_SEQUENCE_RNN": (1, 2, 5, 6),
    "SVDF": (1, 2),
}

#: TensorType → numpy name of the type.
DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float64",
    17: "int4", 18: "bfloat16",
}  # fmt: skip
#: Operators whose output holds the values of an input in another type or arrangement.
_HANDED_ON = frozenset({"DEQUANTIZE", "DENSIFY", "RESHAPE", "TRANSPOSE", "CAST"})
_IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class TfliteWeight:
    """A weight tensor.

    Attributes:
        name: The name of the tensor.
        buffer: Index of its buffer.
        op: The operator that reads it.
        shape: The shape of the tensor.
        dtype: The numpy name of its type.
        scales: The quantisation scales; empty for a float tensor.
        axis: The axis of the scales.
        place: Number of the subgraph and index of the tensor.
        sparse: Whether only the nonzero values are stored.
    """

    name: str
    buffer: int
    op: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    axis: int = 0
    place: tuple[int, int] = (0, 0)
    sparse: bool = False


class TfliteFile:
    """An open TFLite file. Use it as a context manager.

    Args:
        path: The file.
        writable: Whether arrays from ``values`` may be changed, which changes the file.
        source: The file of which it is a copy, for messages; None for the file itself.
    """

    def __init__(self, path: Path, *, writable: bool = False, source: Path | None = None) -> None:
        self.path, self.writable, self.source = path, writable, source or path
        self._stack = contextlib.ExitStack()
        self.schema: Any = None
        self.model: Any = None
        self.graph: Any = None
        self._view: Any = None

    def __enter__(self) -> TfliteFile:  # noqa: PYI034 - Python 3.10's typing has no Self
        self.schema = _load_schema()
        mode, access = ("r+b", mmap.ACCESS_WRITE) if self.writable else ("rb", mmap.ACCESS_READ)
        try:
            file = self._stack.enter_context(self.path.open(mode))
            data = mmap.mmap(file.fileno(), 0, access=access)
            # Arrays returned by ``values`` may outlive this object; the mapping is released with the last of them.
            view = np.frombuffer(data, np.uint8)
            self._read_graph(view)
        except (ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
            self._stack.close()
            raise InputError(f"{self.path} is not a whole TFLite model: {error}", remedy="Download it again.") from None
        except Exception as error:  # flatbuffers unpacks with struct, which raises struct.error
            self._stack.close()
            raise InputError(
                f"{self.path} is not a whole TFLite model: {error}", remedy="Download it again."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.model = self.graph = self._view = None
        self._stack.close()

    def _read_graph(self, view: npt.NDArray[np.uint8]) -> None:
        if bytes(view[4:8]) != _IDENTIFIER:
            raise ValueError("its identifier is missing")
        self._view = view
        self.model = self.schema.Model.GetRootAs(view, 0)
        if not self.model.SubgraphsLength():
            raise ValueError("it has no graph")
        self.graph = self.model.Subgraphs(0)
        self.weights()
        self.inputs()

    def operators(self) -> Iterator[tuple[str, Any]]:
        """Iterate over the operators of the main graph in order, as (name, operator)."""
        return ((name, operator) for subgraph, _, name, operator in self.all_operators() if subgraph == 0)

    def all_operators(self) -> Iterator[tuple[int, int, str, Any]]:
        """Iterate over all operators in order, as (number of the subgraph, index, name, operator).

        Branches and bodies are separate subgraphs.
        """
        names = {v: k for k, v in vars(self.schema.BuiltinOperator).items() if not k.startswith("_")}
        for subgraph in range(self.model.SubgraphsLength()):
            graph = self.model.Subgraphs(subgraph)
            for index in range(graph.OperatorsLength()):
                operator = graph.Operators(index)
                code = self.model.OperatorCodes(operator.OpcodeIndex())
                builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
                yield subgraph, index, names.get(builtin, f"OPERATOR_{builtin}"), operator

    def operators_outside(self) -> list[str]:
        """Return the names of the outputs of all operators outside of the main graph."""
        return [
            self.tensor_name(subgraph, operator.Outputs(index))
            for subgraph, _, _, operator in self.all_operators()
            if subgraph
            for index in range(operator.OutputsLength())
        ]

    def weights(self) -> list[TfliteWeight]:
        """Return the constant weights of layers that multiply, each once."""
        by_buffer = {weight.buffer: weight for weights in self.weights_by_operator().values() for weight in weights}
        return list(by_buffer.values())

    def weights_by_operator(self) -> dict[tuple[int, int], list[TfliteWeight]]:
        """Return (subgraph, index of the operator) → its constant weights; shared weights appear for each operator."""
        operators = list(self.all_operators())
        # A weight-only model stores integers and converts them to floats in front of the operator.
        stored = {
            (subgraph, operator.Outputs(0)): (subgraph, operator.Inputs(0))
            for subgraph, _, name, operator in operators
            if name in _HANDED_ON and operator.InputsLength() and operator.OutputsLength()
        }
        stored.update(self._passed_constants(operators))
        by_operator: dict[tuple[int, int], list[TfliteWeight]] = {}
        for subgraph, index, name, operator in operators:
            for position in WEIGHTED.get(name, ()):
                place = (subgraph, operator.Inputs(position) if position < operator.InputsLength() else -1)
                for _ in range(len(operators) + len(stored)):  # each step goes back through another operator
                    if place not in stored:
                        break
                    place = stored[place]
                weight = None if place[1] < 0 else self._constant_values(*place, name)
                if weight is not None:
                    by_operator.setdefault((subgraph, index), []).append(weight)
        return by_operator

    def _passed_constants(self, operators: Sequence[tuple[int, int, str, Any]]) -> dict[Place, Place]:
        """Return input of a branch or body → the tensor that its caller passes for it, in every run the same one.

        TensorFlow's converter passes weights to branches and bodies in this way.
        """
        from edgeprof_plugins.runtimes.litert.graph import called_subgraphs

        passed: dict[Place, set[Place]] = {}
        for caller, _, name, operator in operators:
            given = [(caller, operator.Inputs(k)) for k in range(operator.InputsLength())]
            for number in called_subgraphs(name, operator):
                graph = self.model.Subgraphs(number)
                sources = given[1:] if name == "IF" else given
                for k, source in enumerate(sources[: graph.InputsLength()]):
                    target = graph.Inputs(k)
                    changes = name == "WHILE" and k < graph.OutputsLength() and graph.Outputs(k) != target
                    passed.setdefault((number, target), set()).add((-1, -1) if changes else source)
        return {target: next(iter(sources)) for target, sources in passed.items() if len(sources) == 1}

    def macs_of_runs(self, macs: Mapping[Place, int | None]) -> dict[Place, int | None]:
        """Return operator → its multiply-accumulates for one sample, from those of one run of its subgraph.

        Only the branch of an IF with the most counts, the others have 0. How often a loop runs is not known.

        Args:
            macs: (number of the subgraph, index of the operator) → its multiply-accumulates.
        """
        from edgeprof_plugins.runtimes.litert.graph import called_subgraphs

        calls: dict[int, list[tuple[str, list[int]]]] = {}
        for subgraph, _, name, operator in self.all_operators():
            calls.setdefault(subgraph, []).append((name, called_subgraphs(name, operator)))

        def visit(subgraph: int, around: frozenset[int]) -> dict[Place, int | None]:
            all_counts = {place: count for place, count in macs.items() if place[0] == subgraph}
            for name, callees in calls.get(subgraph, []):
                inner = [visit(k, around | {subgraph}) for k in callees if k not in around and k != subgraph]
                largest = max(inner, key=_total, default={})
                for counts in inner:
                    if name == "WHILE":
                        all_counts.update(dict.fromkeys(counts))
                    elif name == "IF" and counts is not largest:
                        all_counts.update(dict.fromkeys(counts, 0))
                    else:
                        all_counts.update(counts)
            return all_counts

        called = {k for steps in calls.values() for _, callees in steps for k in callees}
        roots = {0, *range(self.model.SubgraphsLength())} - (called - {0})  # the graphs of all signatures
        return {place: count for root in roots for place, count in visit(root, frozenset()).items()}

    def constants(self) -> Iterator[tuple[tuple[int, int], TfliteWeight]]:
        """Iterate over every tensor whose values are in the file, as ((subgraph, index), tensor)."""
        for subgraph in range(self.model.SubgraphsLength()):
            for index in range(self.model.Subgraphs(subgraph).TensorsLength()):
                constant = self._constant_values(subgraph, index, "")
                if constant is not None:
                    yield (subgraph, index), constant

    def shape(self, subgraph: int, index: int) -> tuple[int, ...] | None:
        """Return the shape of a tensor; None for an omitted tensor (index < 0)."""
        if index < 0:
            return None
        tensor = self.model.Subgraphs(subgraph).Tensors(index)
        return tuple(1 if size < 0 else int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()

    def dtype(self, subgraph: int, index: int) -> str:
        """Return the numpy name of a tensor's type."""
        kind = self.model.Subgraphs(subgraph).Tensors(index).Type()
        return DTYPES.get(kind, f"type {kind}")

    def tensor_name(self, subgraph: int, index: int) -> str:
        """Return the name of a tensor."""
        name: bytes = self.model.Subgraphs(subgraph).Tensors(index).Name() or b""
        return name.decode("utf-8", "replace")

    def _constant_values(self, subgraph: int, index: int, op: str) -> TfliteWeight | None:
        tensor = self.model.Subgraphs(subgraph).Tensors(index)
        if self._buffer_content(tensor.Buffer()) is None:
            return None
        quantisation = tensor.Quantization()
        scales: tuple[float, ...] = ()
        axis = 0
        if quantisation is not None and quantisation.ScaleLength():
            scales = tuple(float(s) for s in quantisation.ScaleAsNumpy())
            axis = int(quantisation.QuantizedDimension())
        shape = self.shape(subgraph, index) or ()
        place, sparse = (subgraph, index), tensor.Sparsity() is not None
        name = self.tensor_name(subgraph, index)
        return TfliteWeight(name, tensor.Buffer(), op, shape, self.dtype(subgraph, index), scales, axis, place, sparse)

    def values(self, weight: TfliteWeight) -> npt.NDArray[Any]:
        """Return the values of a weight as stored in the file."""
        raw = self._buffer_content(weight.buffer)
        assert raw is not None  # it is one of weights()
        return raw.view(weight.dtype).reshape(weight.shape)

    def _buffer_content(self, buffer: int) -> npt.NDArray[np.uint8] | None:
        from edgeprof_plugins.runtimes.litert.graph import content

        return content(self._view, self.model, buffer)

    def old(self) -> bool:
        """Return whether some operators have their code in the deprecated field only."""
        codes = [self.model.OperatorCodes(index) for index in range(self.model.OperatorCodesLength())]
        return any(code.BuiltinCode() < code.DeprecatedBuiltinCode() for code in codes)

    def unclear_names(self) -> bool:
        """Return whether some tensor has no name, or that of another tensor."""
        names = [
            self.tensor_name(subgraph, index)
            for subgraph in range(self.model.SubgraphsLength())
            for index in range(self.model.Subgraphs(subgraph).TensorsLength())
        ]
        return "" in names or len(set(names)) < len(names)

    def dtypes(self) -> dict[str, int]:
        """Return dtype → the number of weights that have it."""
        counts: dict[str, int] = {}
        for weight in self.weights():
            counts[weight.dtype] = counts.get(weight.dtype, 0) + 1
        return counts

    def inputs(self) -> dict[str, tuple[tuple[int | None, ...], str]]:
        """Return the inputs of the model: name → (shape with None for an open size, dtype)."""
        inputs = {}
        for index in range(self.graph.InputsLength()):
            tensor = self.graph.Tensors(self.graph.Inputs(index))
            signature = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else tensor.ShapeAsNumpy()
            shape = tuple(int(s) if s >= 0 else None for s in signature)
            inputs[(tensor.Name() or b"").decode("utf-8", "replace")] = (shape, DTYPES.get(tensor.Type(), "float32"))
        return inputs

    def signature(self) -> tuple[str | None, dict[str, str]]:
        """Return the key of the main graph's first signature, and input tensor name → name in the signature.

        The key is None where the main graph has no signature.
        """
        signatures = (self.model.SignatureDefs(index) for index in range(self.model.SignatureDefsLength()))
        first = next((signature for signature in signatures if not signature.SubgraphIndex()), None)
        if first is None:
            return None, {}
        names = {}
        for index in range(first.InputsLength()):
            entry = first.Inputs(index)
            tensor = self.graph.Tensors(entry.TensorIndex())
            names[(tensor.Name() or b"").decode("utf-8", "replace")] = entry.Name().decode()
        return first.SignatureKey().decode(), names


def _total(counts: Mapping[Place, int | None]) -> float:
    """The sum; infinite where a part is not known, because it may be the most."""
    return sum(math.inf if count is None else count for count in counts.values())


def modern(source: Path, target: Path) -> None:
    """Write a copy that ai-edge-quantizer can read: with a signature, new operator codes, and a name for each tensor.

    ai-edge-quantizer calibrates by signature and keeps what it knows of a tensor under its name. Files from before 2020
    have operator codes in the old field only, and it would read each of their operators as an addition.
    """
    schema = _load_schema()
    packed = source.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(packed, 0)
    graph = model.subgraphs[0]
    _name_tensors(model)

    def entries(indices: Any) -> list[Any]:
        built = []
        for index in indices:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = graph.tensors[index].name, int(index)
            built.append(entry)
        return built

    for code in model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    if not any(not signature.subgraphIndex for signature in model.signatureDefs or ()):
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs, signature.outputs = entries(graph.inputs), entries(graph.outputs)
        model.signatureDefs = [signature, *(model.signatureDefs or ())]
    import flatbuffers

    builder = flatbuffers.Builder(len(packed) + 4096)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    target.write_bytes(bytes(builder.Output()))


def _name_tensors(model: Any) -> None:
    """Give each tensor a name of its own; inputs have the names that the runtime gives them."""
    main = model.subgraphs[0]
    inputs = [main.tensors[index] for index in main.inputs]
    names = unique_names([_decoded(tensor) for tensor in inputs], "input")
    names_of_inputs = {id(tensor): name for tensor, name in zip(inputs, names, strict=True)}
    taken = set(names)
    for number, tensor in enumerate(tensor for graph in model.subgraphs for tensor in graph.tensors):
        name = names_of_inputs.get(id(tensor)) or _decoded(tensor)
        while id(tensor) not in names_of_inputs and (not name or name in taken):
            name = f"{name or 'tensor'}_{number}"
        taken.add(name)
        tensor.name = name.encode()


def _decoded(tensor: Any) -> str:
    return (tensor.name or b"").decode("utf-8", "replace")


def copy(source: Path, target: Path) -> TfliteFile:
    """Open a copy for writing; ``source`` is checked first, so that no copy of an invalid file is left behind."""
    with TfliteFile(source):
        pass
    shutil.copyfile(source, target)
    return TfliteFile(target, writable=True, source=source)


def _load_schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise UnavailableError(
            f"compressing TFLite models needs ai-edge-litert ({error})",
            remedy=install_command("litert-compress", "ai-edge-litert"),
        ) from None
    return schema_py_generated
