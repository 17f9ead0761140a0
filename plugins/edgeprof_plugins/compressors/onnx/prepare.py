"""What quantising an ONNX model needs first: a recent operator set, shapes, folded constants, fused batch norms."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.target import current_target
from edgeprof.errors import InputError, UnavailableError, unknown
from edgeprof.worker.runtime import install_command
from edgeprof_plugins.compressors.onnx.file import OnnxFile, require, tensor, walk
from edgeprof_plugins.compressors.onnx.weights import count_readers

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
    plain = folder / "plain.onnx"
    with OnnxFile(source) as model:
        opset = model.opset()
        if opset >= enough:
            return source
        # onnx's converter knows nothing of sparse weights and of those in other files.
        model.write(plain, lambda name: [model.dense(name)])
    try:
        converted = onnx.version_converter.convert_version(onnx.load(str(plain)), _OPSET)
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
    ready = folder / "ready.onnx"
    with OnnxFile(target) as model:
        _name_nodes(model.model.graph)
        model.write(ready)
    return ready


def plain_gemms(source: Path, target: Path) -> Path:
    """A copy with Gemms whose constants hold their factors, and whose biases are (n,).

    ONNX Runtime's quantiser looks at biases element by element, and its kernels take alpha for 1.
    """
    with OnnxFile(source) as model:
        readers = count_readers(model)
        for node in walk(model.model.graph):
            if node.op_type == "Gemm" and node.domain in {"", "ai.onnx"}:
                _fold_factor(model, readers, node, 1, "alpha")
                _fold_factor(model, readers, node, 2, "beta")
        model.write(target)
    return target


def _fold_factor(model: OnnxFile, readers: dict[str, int], node: Any, position: int, factor: str) -> None:
    """Multiply a constant by a factor of its Gemm; a bias gets a value for each column too."""
    name = node.input[position] if len(node.input) > position else ""
    if not model.has(name):
        return
    scale = next((a.f for a in node.attribute if a.name == factor), 1.0)
    values = model.array(name)
    used = values
    if factor == "beta" and model.has(node.input[1]):
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        width = int(model.header(node.input[1]).dims[0 if turned else 1])
        if values.size in {1, width}:
            used = np.broadcast_to(values.reshape(-1), width)
    if scale == 1.0 and used is values:
        return
    if scale != 1.0:
        used = (used * scale).astype(values.dtype)
        for attribute in node.attribute:
            if attribute.name == factor:
                attribute.f = 1.0
    free = f"{name}_{node.output[0]}"  # its other readers keep what they had
    model.add(tensor(np.array(used, order="C"), free))
    node.input[position] = free
    readers[name] -= 1
    if not readers[name]:
        model.remove(name)


def reduces_range(parameters: Mapping[str, Any]) -> bool:
    """Whether weights get 7 bits: as given, else where the target's kernels saturate with 8.

    Activations of 16 bits are multiplied in float.
    """
    given: bool | None = parameters.get("reduce_range")
    if given is not None:
        return given
    return parameters.get("activations") != "int16" and current_target().saturates


def check_nodes(path: Path, text: str) -> list[str]:
    """Names of nodes as they are given, checked against the graph and those inside it.

    ``*`` at the end stands for any rest. A node may also be called by what it gives, and by the name that it had before
    ONNX Runtime joined it with another (it then ends in the name of the fusion).

    Raises:
        InputError: no such node; the nearest name is in the remedy.
    """
    wanted = [name for name in text.replace("|", " ").split() if name]
    if not wanted:
        return []
    with OnnxFile(path) as model:
        called = {node.name: [_FUSION.sub("", node.name), *node.output] for node in walk(model.model.graph)}
    nodes: list[str] = []
    for name in wanted:
        fitting = [n for n in called if n == name or (name.endswith("*") and n.startswith(name[:-1]))]
        fitting = fitting or [n for n, others in called.items() if name in others and n]
        if not fitting:
            raise unknown("node of the graph", name, called)
        nodes += fitting
    return list(dict.fromkeys(nodes))


#: What ONNX Runtime adds to the name of a node that it joins with another.
_FUSION = re.compile(r"(/\w+Fusion/?)+$")


def _name_nodes(graph: Any) -> None:
    """Give each node a name of its own, so that it can be excluded; the first of several of one name keeps it."""
    taken = {node.name for node in walk(graph)}
    seen = set()
    for index, node in enumerate(walk(graph)):
        name, number = node.name or f"{node.op_type}_{index}", 1
        while name in seen or (name != node.name and name in taken):
            name, number = f"{node.name or node.op_type}_{index}_{number}", number + 1
        node.name = name
        seen.add(name)


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
