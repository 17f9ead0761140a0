"""What quantising an ONNX model needs first: a recent operator set, shapes, folded constants, fused batch norms."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

from edgeprof.compression.target import current_target
from edgeprof.errors import InputError, UnavailableError, unknown
from edgeprof.worker.runtime import install_command
from edgeprof_plugins.compressors.onnx.file import OnnxFile, require, tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "MatMulInteger", "ConvInteger", "MatMulNBits"}
_OPSET = 17
#: Beyond this only what is needed: a newer operator set is no use to an older runtime.
_ENOUGH = 13


def quantization() -> Any:
    """``onnxruntime.quantization``.

    Raises:
        UnavailableError: it is not installed.
    """
    require()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from onnxruntime import quantization as module
    except ImportError as error:
        raise UnavailableError(
            f"quantising ONNX models needs onnxruntime ({error})",
            remedy=install_command("onnx-compress", "onnxruntime"),
        ) from None
    return module


def upgraded(source: Path, folder: Path, enough: int = _ENOUGH) -> Path:
    """A copy with a recent operator set; the file itself where that is 13 (or ``enough``) or later.

    Raises:
        InputError: onnx cannot convert it; the sentence names the operator.
    """
    onnx = require()
    with OnnxFile(source) as model:
        if model.opset() >= enough:
            return source
        opset = model.opset()
    loaded = onnx.load(str(source))
    try:
        converted = onnx.version_converter.convert_version(loaded, _OPSET)
    except Exception as error:  # noqa: BLE001 - onnx raises RuntimeError, ConvertError and more
        raise InputError(
            f"{source} has operator set {opset}, and onnx cannot bring it to {_OPSET}: {_first_line(error)}",
            remedy="Export it again with a recent opset_version.",
        ) from None
    target = folder / "upgraded.onnx"
    onnx.save(converted, str(target))
    return target


def refuse_quantised(model: OnnxFile) -> None:
    """Raise InputError for what has integer arithmetic already."""
    if any(node.op_type in _QUANTISED for node in model.model.graph.node):
        raise InputError(f"{model.path} is quantised already", remedy="Start from the float model.")


def prepared(source: Path, folder: Path) -> Path:
    """A copy with shapes inferred, constants folded and batch norms fused, as ONNX Runtime's quantiser wants it.

    Raises:
        InputError: it is no whole model, or cannot be prepared.
    """
    tools = quantization()
    with OnnxFile(source) as model:
        refuse_quantised(model)
    recent = upgraded(source, folder)
    # Shapes that an exporter wrote down may contradict the inferred ones (torch's dynamo exporter); they are dropped.
    clean = folder / "clean.onnx"
    with OnnxFile(recent) as model:
        del model.model.graph.value_info[:]
        _name_nodes(model.model.graph)
        model.write(clean, lambda name: [model.dense(name)])
    target = folder / "prepared.onnx"
    try:
        with quiet():
            tools.shape_inference.quant_pre_process(str(clean), str(target), skip_symbolic_shape=True)
    except Exception as error:  # noqa: BLE001 - whatever a quantiser finds in a graph that it does not know
        raise InputError(
            f"{source} cannot be prepared for quantisation: {_first_line(error)}",
            remedy="Check that ONNX Runtime runs it: edgeprof bench.",
        ) from None
    return _flat_biases(target, folder / "ready.onnx")


def _flat_biases(source: Path, target: Path) -> Path:
    """Biases of shape (1, n) as (n,), which is what ONNX Runtime's quantiser looks at element by element."""
    with OnnxFile(source) as model:
        for node in model.model.graph.node:
            name = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
            if model.has(name) and len(model.header(name).dims) == 2 and model.header(name).dims[0] == 1:
                flat = f"{name}_flat"  # its other readers keep the shape that they had
                model.add(tensor(model.array(name).reshape(-1), flat))
                node.input[2] = flat
        _name_nodes(model.model.graph)
        model.write(target)
    return target


def reduces_range(parameters: Mapping[str, Any]) -> bool:
    """Whether weights get 7 bits: as given, else where the target's kernels saturate with 8.

    Activations of 16 bits are multiplied in float.
    """
    given: bool | None = parameters.get("reduce_range")
    if given is not None:
        return given
    return parameters.get("activations") != "int16" and current_target().saturates


def check_nodes(path: Path, text: str) -> list[str]:
    """Names of nodes as they are given, checked against the graph; ``*`` at the end stands for any rest.

    Raises:
        InputError: no such node; the nearest name is in the remedy.
    """
    wanted = [name for name in text.replace("|", " ").split() if name]
    if not wanted:
        return []
    with OnnxFile(path) as model:
        names = [node.name for node in model.model.graph.node]
    nodes: list[str] = []
    for name in wanted:
        fitting = [n for n in names if n == name or (name.endswith("*") and n.startswith(name[:-1]))]
        if not fitting:
            raise unknown("node of the graph", name, names)
        nodes += fitting
    return nodes


def _name_nodes(graph: Any) -> None:
    """Nodes without a name get one, so that they can be excluded."""
    for index, node in enumerate(graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{index}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's chatter (logging and warnings) off the user's screen; what matters is raised."""
    import onnxruntime

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(4)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]
