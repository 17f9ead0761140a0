"""Operators of an ONNX model by themselves, cut out of the graph that ONNX Runtime executes. Python 3.6 grammar.

ONNX Runtime writes the optimised graph to a file. The inputs of an operator are recorded in one inference of that
graph, and a model that consists of this operator alone is run on them, without further optimisation.
"""

import collections
import functools
import os
import re
import shutil
import tempfile
import time
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from edgeprof.worker.runtime import IsolatedOperators, LoadError, install_command
from edgeprof.worker.workload import Workload

from . import operators
from .refusals import first_line

#: A call starts threads and binds outputs, which takes microseconds. The operator is therefore repeated in its model
#: until a call takes at least so long (s), at most this many times. Some kernels repack their weights, each copy its
#: own; together they must not need more than so many bytes.
LEAST_CALL_S = 2e-3
MOST_COPIES = 1000
MOST_WEIGHTS = 64 * 1024 * 1024
#: ONNX's first version in which weights need not be declared as inputs.
_IR_VERSION = 4

Call = Callable[[], Any]


def cut_out(
    ort: Any, options: Any, again: Callable[[Any], Any], feeds: Dict[str, Any], names: Sequence[str]
) -> Tuple[IsolatedOperators, Dict[str, Call]]:
    """Make a model of each operator, and record its inputs.

    Args:
        ort: The module onnxruntime.
        options: The SessionOptions of the model; they are changed.
        again: Creates a session of the model from options.
        feeds: The inputs of the model, as ONNX Runtime takes them.
        names: The operators.

    Returns:
        The workloads, and the call of each.

    Raises:
        LoadError: the executed graph cannot be written, or read.
    """
    graph = ExecutedGraph(ort, options, again, feeds)
    nodes: Dict[str, Any] = {}
    refused: Dict[str, str] = {}
    for name in names:
        try:
            nodes[name] = graph.node(name)
        except ValueError as error:  # noqa: PERF203 - an unknown operator does not stop the others
            refused[name] = str(error)
    graph.record(feeds, list(nodes.values()))
    workloads: List[Workload] = []
    calls: Dict[str, Call] = {}
    for name, node in nodes.items():
        try:
            calls[name], copies = graph.repeat(node)
        except Exception as error:  # noqa: PERF203 - an operator that cannot run alone does not stop the others
            refused[name] = "it does not run alone: {}".format(first_line(error))
        else:
            workloads.append(Workload(name, "inference", copies))
    return IsolatedOperators(workloads, refused), calls


class ExecutedGraph:
    """The graph that ONNX Runtime executes, in the memory layout of this processor's kernels.

    Args:
        ort: The module onnxruntime.
        options: The SessionOptions of the model; they are changed.
        again: Creates a session of the model from options.
        feeds: The inputs of the model, as ONNX Runtime takes them.

    Raises:
        LoadError: the graph cannot be written, or read.
    """

    def __init__(self, ort: Any, options: Any, again: Callable[[Any], Any], feeds: Dict[str, Any]) -> None:
        self._ort, self._options = ort, options
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL  # copies run one after the other
        self._model = self._executed_model(again, feeds)
        self._weights = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._values: Dict[str, Any] = {}  # tensor → OrtValue
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is already optimised

    def node(self, name: str) -> Any:
        """The operator of this name.

        Raises:
            ValueError: there is no such operator, or it cannot be cut out; the text says why.
        """
        alike = [node for node in self._model.graph.node if node.name == name]
        if len(alike) != 1:
            raise ValueError("the graph has {} operators of this name".format(len(alike) or "no"))
        if any(attribute.HasField("g") or attribute.graphs for attribute in alike[0].attribute):
            raise ValueError("it contains a graph of its own")
        return alike[0]

    def record(self, feeds: Dict[str, Any], nodes: Sequence[Any]) -> None:
        """Record the inputs of operators in one inference.

        Raises:
            LoadError: ONNX Runtime does not run the graph as it wrote it.
        """
        import onnx

        wanted = {name for node in nodes for name in node.input if name and name not in self._weights}
        self._values = {name: self._as_value(feeds[name]) for name in wanted if name in feeds}
        inside = sorted(wanted - set(feeds))
        if not inside:
            return
        tapped = onnx.ModelProto()
        tapped.CopyFrom(self._model)
        del tapped.graph.output[:]
        tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside)
        try:
            values = self._outputs(self._session(tapped), feeds, inside)
        except Exception as error:
            raise LoadError("the inputs of operators cannot be recorded: {}".format(first_line(error))) from None
        self._values.update(zip(inside, values))

    def repeat(self, node: Any) -> Tuple[Call, int]:
        """A call that runs an operator repeatedly on its recorded inputs, and how often it does."""
        weights = sum(int(self._weights[name].ByteSize()) for name in node.input if name in self._weights)
        most, copies = max(1, min(MOST_COPIES, MOST_WEIGHTS // (1 + weights))), 1
        while True:
            session, binding = self._bound(self._model_of(node, copies))
            call = functools.partial(session.run_with_iobinding, binding)
            call()
            seconds = min(_seconds(call) for _ in range(3))
            if seconds >= LEAST_CALL_S or copies == most:
                return call, copies
            # The first estimate contains the start of the call and is too high, so the number may have to grow again.
            copies = min(most, max(2 * copies, int(copies * LEAST_CALL_S / max(seconds, 1e-9)) + 1))

    def outputs(self, node: Any) -> List[Any]:
        """What an operator computes from its recorded inputs, as arrays."""
        session, binding = self._bound(self._model_of(node, 1))
        session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()]

    def _model_of(self, node: Any, copies: int) -> Any:
        """A model of so many copies of an operator with the same inputs; its outputs are those of the last one."""
        import onnx

        alone = onnx.ModelProto(ir_version=max(self._model.ir_version, _IR_VERSION), functions=self._model.functions)
        alone.opset_import.extend(self._model.opset_import)
        graph = alone.graph
        graph.name = "alone"
        for copy in range(copies):
            repeated = graph.node.add()
            repeated.CopyFrom(node)
            repeated.name = "{} {}".format(node.name, copy)
            repeated.output[:] = ["{} {}".format(name, copy) if name else "" for name in node.output]
        for name in dict.fromkeys(name for name in node.input if name):
            if name in self._weights:
                graph.initializer.append(self._weights[name])
                continue
            value = self._values[name]
            kind = onnx.TensorProto.DataType.Value(re.sub(r"tensor\((\w+)\)$", r"\1", value.data_type()).upper())
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape()))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in graph.node[-1].output if name)
        return alone

    def _bound(self, model: Any) -> Tuple[Any, Any]:
        """A session, and a binding of its inputs to the recorded values."""
        session = self._session(model)
        return session, self._binding(session, self._values, [node.name for node in session.get_outputs()])

    def _outputs(self, session: Any, feeds: Dict[str, Any], names: Sequence[str]) -> List[Any]:
        """The OrtValues of these outputs of a session for these inputs."""
        binding = self._binding(session, feeds, names)
        session.run_with_iobinding(binding)
        return list(binding.get_outputs())

    def _binding(self, session: Any, feeds: Dict[str, Any], names: Sequence[str]) -> Any:
        binding = session.io_binding()
        for node in session.get_inputs():
            binding.bind_ortvalue_input(node.name, self._as_value(feeds[node.name]))
        for name in names:
            binding.bind_output(name, "cpu")
        return binding

    def _session(self, model: Any) -> Any:
        return self._ort.InferenceSession(model.SerializeToString(), self._options, providers=["CPUExecutionProvider"])

    def _as_value(self, value: Any) -> Any:
        """An input of the model as an OrtValue."""
        if isinstance(value, self._ort.OrtValue):
            return value
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value).reshape(np.shape(value)))

    def _executed_model(self, again: Callable[[Any], Any], feeds: Dict[str, Any]) -> Any:
        """The model that ONNX Runtime makes of the file, its operators named as in ONNX Runtime's profile.

        Raises:
            LoadError: the graph cannot be written, or read.
        """
        try:
            import onnx
        except ImportError:
            raise LoadError(
                "operators are cut out of a model with onnx, which is not installed",
                install_command("onnx-compress", "onnx"),
            ) from None
        options = self._options
        folder = tempfile.mkdtemp(prefix="edgeprof-operators-")
        try:
            options.optimized_model_filepath = os.path.join(folder, "executed.onnx")
            options.enable_profiling, options.profile_file_prefix = True, os.path.join(folder, "profile")
            session = again(options)
            model = onnx.load(options.optimized_model_filepath)
            self._outputs(session, feeds, [node.name for node in session.get_outputs()])
            _name_operators(model.graph.node, operators.kernels(session.end_profiling()))
        except Exception as error:
            raise LoadError("the executed graph cannot be written: {}".format(first_line(error))) from None
        finally:
            options.optimized_model_filepath, options.enable_profiling = "", False
            shutil.rmtree(folder, ignore_errors=True)
        return model


def _name_operators(nodes: Sequence[Any], executed: Sequence[operators.Kernel]) -> None:
    """Give operators without a name that of the profile, which numbers them with numbers that the file does not have.

    The file nearly always has the operators in the order in which ONNX Runtime executes them one after the other. In
    another order, only those that are the only one of their type can be told apart.
    """
    executed = [kernel for kernel in executed if not kernel.is_inside]
    if len(nodes) != len(executed) or not all(map(_may_be, nodes, executed)):
        names = {node.name for node in nodes}
        nodes = _only_ones([node for node in nodes if not node.name], lambda node: node.op_type)
        executed = _only_ones([kernel for kernel in executed if kernel.name not in names], lambda kernel: kernel.type)
        by_type = {kernel.type: kernel for kernel in executed}
        nodes = [node for node in nodes if node.op_type in by_type]
        executed = [by_type[node.op_type] for node in nodes]
    for node, kernel in zip(nodes, executed):
        node.name = kernel.name


def _may_be(node: Any, kernel: operators.Kernel) -> bool:
    return bool(node.op_type == kernel.type and node.name in ("", kernel.name))


def _only_ones(values: Sequence[Any], kind: Callable[[Any], str]) -> List[Any]:
    counts = collections.Counter(map(kind, values))
    return [value for value in values if counts[kind(value)] == 1]


def _seconds(call: Call) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start
