"""Small models that the tests make themselves, with answers that can be told by hand."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def onnx_affine(path: Path, *, external: bool = False, opset: int = 17, operator: str = "") -> Path:
    """y = 2x + 1, float32 [batch, 4]; its weights in a file beside it, or with an operator that nobody knows."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = [
        numpy_helper.from_array(np.full((1, 4), 2, "float32"), "two"),
        numpy_helper.from_array(np.full((1, 4), 1, "float32"), "one"),
    ]
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["scaled"]),
        helper.make_node(operator or "Add", ["scaled", "one"], ["y"], domain="com.example" if operator else None),
    ]
    return onnx_graph(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        weights,
        opset=opset,
        save={"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0} if external else {},
        domains=["com.example"] if operator else [],
        onnx=onnx,
    )


def onnx_graph(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Sequence[Any] = (),
    *,
    opset: int = 17,
    save: dict[str, Any] | None = None,
    domains: Sequence[str] = (),
    onnx: Any = None,
) -> Path:
    if onnx is None:
        import onnx
    helper = onnx.helper
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="edgeprof's tests")
    onnx.save_model(model, str(path), **(save or {}))
    return path


def tflite_double(path: Path, *, custom: str | None = None) -> Path:
    """y = x + x, float32 [?, 4]; or the same graph around a custom operator.

    LiteRT cannot build models: this packs the flatbuffer itself, by tensorflow/lite/schema/schema.fbs.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str) -> Any:
        made = schema.TensorT()
        made.name, made.type, made.buffer = name, schema.TensorType.FLOAT32, 0
        made.shape, made.shapeSignature = [1, 4], [-1, 4]
        return made

    code, node, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.version = 1
    builtin = schema.BuiltinOperator.CUSTOM if custom else schema.BuiltinOperator.ADD
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    if custom:
        code.customCode = custom
    else:
        node.builtinOptionsType, node.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    node.opcodeIndex, node.inputs, node.outputs = 0, [0, 0], [1]
    graph.name, graph.tensors, graph.operators = "main", [tensor("x"), tensor("y")], [node]
    graph.inputs, graph.outputs = [0], [1]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def tflite_sum(path: Path, *, resource: bool = False) -> Path:
    """y = x + the sum of what came before, float32 [1, 2]: state in a variable tensor, or in a resource variable."""
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    builtin = schema.BuiltinOperator
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [], [graph]
    graph.name, graph.tensors, graph.operators = "main", [], []

    def tensor(
        name: str, shape: list[int], values: Any = None, *, variable: bool = False, kind: str = "FLOAT32"
    ) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.isVariable, made.buffer = name, shape, variable, 0
        made.type = getattr(schema.TensorType, kind)
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(values, "float32").tobytes(), "uint8")
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def add(code: int, inputs: list[int], outputs: list[int], options: Any = None, where: Any = graph) -> None:
        made, node = schema.OperatorCodeT(), schema.OperatorT()
        made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), 1
        model.operatorCodes.append(made)
        node.opcodeIndex, node.inputs, node.outputs = len(model.operatorCodes) - 1, inputs, outputs
        if options is not None:
            node.builtinOptions = options
            node.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        where.operators.append(node)

    x = tensor("x", [1, 2])
    if resource:
        handle, old, y = tensor("h", [], kind="RESOURCE"), tensor("old", [1, 2]), tensor("y", [1, 2])
        options = schema.VarHandleOptionsT()
        options.container, options.sharedName = "", "total"
        start, once = schema.SubGraphT(), schema.CallOnceOptionsT()
        start.name, start.operators, start.inputs, start.outputs, once.initSubgraphIndex = "start", [], [], [], 1
        model.subgraphs.append(start)
        zeros = tensor("zeros", [1, 2], np.zeros((1, 2)))
        start.tensors = graph.tensors[:]
        add(builtin.VAR_HANDLE, [], [handle], options, start)
        add(builtin.ASSIGN_VARIABLE, [handle, zeros], [], schema.AssignVariableOptionsT(), start)
        add(builtin.CALL_ONCE, [], [], once)
        add(builtin.VAR_HANDLE, [], [handle], options)
        add(builtin.READ_VARIABLE, [handle], [old], schema.ReadVariableOptionsT())
        add(builtin.ADD, [x, old], [y], schema.AddOptionsT())
        add(builtin.ASSIGN_VARIABLE, [handle, y], [], schema.AssignVariableOptionsT())
    else:  # a recurrent cell without an activation: h = x · 1 + h · 1
        one, zero = tensor("one", [2, 2], np.eye(2)), tensor("zero", [2], np.zeros(2))
        state, y = tensor("state", [1, 2], variable=True), tensor("y", [1, 2])
        add(builtin.RNN, [x, one, one, zero, state], [y], schema.RNNOptionsT())
    graph.inputs, graph.outputs = [x], [y]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def affine_module() -> Any:
    """y = 2x + 1 as a torch module."""
    import torch

    class Affine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = torch.nn.Parameter(torch.full((4,), 2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.two + 1

    return Affine().eval()


def torchscript_affine(path: Path) -> Path:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated; its files will be met for years
        torch.jit.trace(affine_module(), torch.zeros(1, 4)).save(str(path))
    return path


def exported_affine(path: Path) -> Path:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch")
        program = torch.export.export(affine_module(), (torch.zeros(2, 4),), dynamic_shapes={"x": {0: batch}})
        torch.export.save(program, str(path))
    return path
