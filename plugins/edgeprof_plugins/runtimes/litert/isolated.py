"""Layers of a .tflite model by themselves, cut out of the file and run on recorded inputs. Python 3.6 grammar.

LiteRT's profile names kernels of XNNPACK, which are not the operators of the file: activations become kernels of their
own, and a 1 × 1 convolution becomes a matrix product. Only layers with weights, which take most of the time of most
models, can be found again, because both sides have them in the same order.
"""

import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgeprof.worker.runtime import IsolatedOperators, LoadError, OperatorTime
from edgeprof.worker.workload import Workload

from . import graph
from .refusals import first_line

#: Start of a kernel's name → the operators of the file that it may run.
_KERNELS = (
    ("Convolution", ("CONV_2D", "DEPTHWISE_CONV_2D")),
    ("Fully Connected", ("FULLY_CONNECTED", "CONV_2D")),
    ("Deconvolution", ("TRANSPOSE_CONV",)),
    ("Batch Matrix Multiply", ("BATCH_MATMUL",)),
)
_LAYERS = frozenset(name for _, names in _KERNELS for name in names)
#: The start of a call may take at most this part of it.
_MOST_OVERHEAD = 0.1
_TIMED_CALLS = 20

Call = Callable[[], Any]


def cut_out(
    path: str,
    kernels: Sequence[OperatorTime],
    feeds: Dict[int, Any],
    names: Sequence[str],
    *,
    threads: Optional[int],
    smallest_model: bytes,
) -> Tuple[IsolatedOperators, Dict[str, Call]]:
    """Make a model of each layer, and record its inputs.

    Args:
        path: The file.
        kernels: All kernels that run, in their order, as the profile names them.
        feeds: The arrays of the model's inputs, by tensor number.
        names: Kernels to measure alone.
        threads: Number of threads; None for LiteRT's default.
        smallest_model: A model whose only cost is that of a call.

    Returns:
        The workloads, and the call of each.

    Raises:
        LoadError: The kernels cannot be told apart, or the inputs cannot be recorded.
    """
    file = _File(path)
    layers = file.match(kernels)
    refused = {name: "only layers with weights can be found again in the file" for name in names if name not in layers}
    file.record(feeds, [layers[name] for name in names if name in layers])
    workloads: List[Workload] = []
    calls: Dict[str, Call] = {}
    start_s = _seconds(_ready(smallest_model, {}, threads))
    for name in names:
        if name in refused:
            continue
        try:
            call = _ready(*file.alone(layers[name]), threads=threads)
            call_s = _seconds(call)
        except Exception as error:
            refused[name] = "it does not run alone: {}".format(first_line(error))
            continue
        if start_s > _MOST_OVERHEAD * call_s:
            refused[name] = "it takes {:.3g} µs, and the start of a call alone takes up to {:.3g} µs".format(
                1e6 * call_s, 1e6 * start_s
            )
            continue
        workloads.append(Workload(name, "inference"))
        calls[name] = call
    return IsolatedOperators(workloads, refused), calls


class _File:
    """A .tflite file whose layers are cut out of its main graph."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._data = np.fromfile(path, np.uint8)
        self._stored = schema.Model.GetRootAs(self._data, 0)
        self._model = schema.ModelT.InitFromObj(self._stored)
        self._graph = self._model.subgraphs[0]
        self._names = graph.operator_names(self._data, self._stored)
        self._makers = {output: op for op in self._graph.operators for output in op.outputs}
        self._values: Dict[int, Any] = {}

    def match(self, kernels: Sequence[OperatorTime]) -> Dict[str, Any]:
        """Return the operator of each kernel that runs a layer.

        Raises:
            LoadError: Kernels and layers cannot be matched.
        """
        run = [(kernel.name, names) for kernel in kernels for names in [_operators_of(kernel)] if names]
        layers = [(op, name) for op, name in zip(self._graph.operators, self._names) if name in _LAYERS]
        if len(run) != len(layers) or any(name not in names for (_, names), (_, name) in zip(run, layers)):
            raise LoadError("the layers of the file cannot be found again in LiteRT's profile")
        if not self._is_in_one_order(kernels, [op for op, _ in layers]):
            raise LoadError("several parts of the model run outside XNNPACK, and its layers may run in another order")
        return {kernel: op for (kernel, _), (op, _) in zip(run, layers)}

    def _is_in_one_order(self, kernels: Sequence[OperatorTime], layers: Sequence[Any]) -> bool:
        """Whether the layers can only run in the order of the file.

        XNNPACK keeps that order. Where it leaves operators to LiteRT, they divide the model into parts, and of layers
        that do not depend on one another those of a later part may run first.
        """
        left = [kernel for kernel in kernels if kernel.type in self._names]
        pairs = zip(layers, layers[1:])  # noqa: RUF007 - Python 3.6 has no pairwise
        return not left or all(self._depends(after, before) for before, after in pairs)

    def _depends(self, after: Any, before: Any) -> bool:
        """Whether an operator needs what another one computes."""
        waiting, seen = list(after.inputs), set()
        while waiting:
            tensor = waiting.pop()
            if tensor in before.outputs:
                return True
            if tensor in self._makers and tensor not in seen:
                seen.add(tensor)
                waiting.extend(self._makers[tensor].inputs)
        return False

    def record(self, feeds: Dict[int, Any], layers: Sequence[Any]) -> None:
        """Record the inputs of layers in one inference of the model.

        Raises:
            LoadError: LiteRT does not run the model with its own kernels.
        """
        try:
            interpreter = Interpreter(
                model_path=self._path,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            for number, array in feeds.items():
                interpreter.resize_tensor_input(number, list(np.shape(array)))
            interpreter.allocate_tensors()
            for number, array in feeds.items():
                interpreter.set_tensor(number, array)
            interpreter.invoke()
            wanted = {number for layer in layers for number in layer.inputs if number >= 0}
            self._values = {
                number: np.array(interpreter.get_tensor(number)) for number in wanted if not self._is_fixed(number)
            }
        except (RuntimeError, ValueError) as error:
            raise LoadError("the inputs of layers cannot be recorded: {}".format(error)) from None

    def _is_fixed(self, number: int) -> bool:
        """Whether a tensor is a weight, or what is computed from weights alone."""
        maker = self._makers.get(number)
        if maker is not None:
            return all(self._is_fixed(source) for source in maker.inputs)
        return graph.content(self._data, self._stored, self._graph.tensors[number].buffer) is not None

    def alone(self, layer: Any) -> Tuple[bytes, Dict[int, Any]]:
        """Return a model of one layer with its weights, and the arrays of its inputs by tensor number."""
        operators = [*self._preparing(layer), layer]
        used = list(dict.fromkeys(t for op in operators for t in (*op.inputs, *op.outputs) if t >= 0))
        numbers = {tensor: place for place, tensor in enumerate(used)}
        buffers, tensors = [schema.BufferT()], []
        for tensor in used:
            described = schema.TensorT()
            described.__dict__.update(self._graph.tensors[tensor].__dict__, buffer=0, shapeSignature=None)
            weights = graph.content(self._data, self._stored, self._graph.tensors[tensor].buffer)
            if weights is not None:
                described.buffer = len(buffers)
                buffers.append(schema.BufferT())
                buffers[-1].data = weights
            elif tensor in self._values:
                described.shape = list(self._values[tensor].shape)
            tensors.append(described)
        alone = schema.SubGraphT()
        alone.tensors, alone.name = tensors, b"alone"
        inputs = [tensor for tensor in layer.inputs if tensor in self._values]
        alone.inputs = [numbers[tensor] for tensor in dict.fromkeys(inputs)]
        alone.outputs = [numbers[tensor] for tensor in layer.outputs]
        alone.operators = []
        for operator in operators:
            moved = schema.OperatorT()
            moved.__dict__.update(operator.__dict__)
            moved.inputs = [numbers.get(tensor, -1) for tensor in operator.inputs]
            moved.outputs = [numbers[tensor] for tensor in operator.outputs]
            alone.operators.append(moved)
        model = schema.ModelT()
        model.version, model.operatorCodes = self._model.version, self._model.operatorCodes
        model.subgraphs, model.buffers = [alone], buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output()), {numbers[tensor]: self._values[tensor] for tensor in inputs}

    def _preparing(self, layer: Any) -> List[Any]:
        """The operators that compute a layer's weights from stored ones, such as DEQUANTIZE, in their order."""
        makers = [self._makers[t] for t in layer.inputs if t in self._makers and t not in self._values]
        return [operator for maker in makers for operator in (*self._preparing(maker), maker)]


def _operators_of(kernel: OperatorTime) -> Tuple[str, ...]:
    """The operators of a file that a kernel may run; empty if it runs no layer."""
    if kernel.type in _LAYERS:
        return (kernel.type,)  # one of LiteRT's own kernels
    return next((names for start, names in _KERNELS if kernel.type.startswith(start)), ())


def _ready(model: bytes, arrays: Dict[int, Any], threads: Optional[int]) -> Call:
    """A call that runs a model on these inputs."""
    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    for number, array in arrays.items():
        interpreter.set_tensor(number, array)
    call: Call = interpreter.invoke
    call()
    return call


def _seconds(call: Call) -> float:
    """The shortest of some calls, in seconds."""
    shortest = float("inf")
    for _ in range(_TIMED_CALLS):
        start = time.monotonic()
        call()
        shortest = min(shortest, time.monotonic() - start)
    return shortest
