"""Prepares an ONNX model for quantisation: recent operator set, shapes, folded constants, fused batch norms."""

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
from edgeprof_plugins.compressors.onnx.file import OnnxFile, require, second_file, tensor, walk
from edgeprof_plugins.compressors.onnx.weights import count_readers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: Operators that compute in integers, or make or read integers that stand for real numbers.
_QUANTISED = re.compile(
    "(Dynamic)?Quantize(Linear|LSTM|MatMul)|QLinear.*|Q(Gemm|Attention|MoE|OrderedMatMul|EmbedLayerNormalization)"
    "|(MatMul|Conv)Integer.*|MatMul(NBits|BnB4|FpQ4|Bnb4)|GatherBlockQuantized"
)
_OPSET = 17
#: Models with this operator set or a later one are not upgraded, because older runtimes cannot load newer sets.
_ENOUGH = 13


def quantization() -> Any:
    """Return the module ``onnxruntime.quantization``.

    Raises:
        UnavailableError: onnxruntime is not installed.
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
    """Return a copy with a recent operator set, or the file itself where its set is ``enough`` or later.

    Raises:
        InputError: onnx cannot convert the model; the message quotes onnx's reason.
    """
    onnx = require()
    plain = folder / "plain.onnx"
    with OnnxFile(source) as model:
        opset = model.opset()
        if opset >= enough:
            return source
        # onnx's converter does not support sparse weights or weights in other files.
        model.write(plain, lambda name: [model.dense(name)])
    try:
        converted = onnx.version_converter.convert_version(onnx.load(str(plain)), _OPSET)
    except Exception as error:  # noqa: BLE001 - onnx raises RuntimeError, ConvertError and more
        raise InputError(
            f"{source} has operator set {opset}, and onnx cannot bring it to {_OPSET}: {first_line(error)}",
            remedy="Export it again with a recent opset_version.",
        ) from None
    target = folder / "upgraded.onnx"
    onnx.save(converted, str(target))
    return target


def refuse_quantised(model: OnnxFile) -> None:
    """Raise InputError if the model already has integer arithmetic, in any of its graphs."""
    for node in walk(model.model.graph):
        stored = node.op_type == "DequantizeLinear" and model.has(node.input[0])
        if stored or _QUANTISED.fullmatch(node.op_type):
            raise InputError(
                f"{model.path} is quantised already (it has {node.op_type})",
                remedy="Start from the float model: put this step first, as in --with prune+int8-static.",
            )


def prepared(source: Path, folder: Path) -> Path:
    """Return a copy with inferred shapes, folded constants and fused batch norms, as ONNX Runtime's quantiser needs.

    Raises:
        InputError: the file is not a whole model, or cannot be prepared.
    """
    tools = quantization()
    with OnnxFile(source) as model:
        refuse_quantised(model)
    recent = upgraded(source, folder)
    # Shapes written by an exporter may contradict the inferred ones (torch's dynamo exporter), so they are dropped.
    clean = folder / "clean.onnx"
    with OnnxFile(recent) as model:
        del model.model.graph.value_info[:]
        _name_nodes(model.model.graph)
        model.write(clean, lambda name: [model.dense(name)])
    target = folder / "prepared.onnx"
    apart = {"save_as_external_data": True, "all_tensors_to_one_file": True} if has_two_files(clean) else {}
    try:
        with quiet():
            tools.shape_inference.quant_pre_process(str(clean), str(target), skip_symbolic_shape=True, **apart)
    except Exception as error:  # noqa: BLE001 - the quantiser raises many types of errors for graphs that it does not know
        raise InputError(
            f"{source} cannot be prepared for quantisation: {first_line(error)}",
            remedy="Check that ONNX Runtime runs it: edgeprof bench.",
        ) from None
    ready = folder / "ready.onnx"
    with OnnxFile(target) as model:
        _name_nodes(model.model.graph)
        model.write(ready)
    return ready


def has_two_files(path: Path) -> bool:
    """Return whether ``OnnxFile.write`` put weights into a second file; ONNX Runtime must then do so as well."""
    return second_file(path).exists()


def plain_gemms(source: Path, target: Path) -> Path:
    """Write a copy in which alpha and beta of each Gemm are folded into its constants and biases have shape (n,).

    ONNX Runtime's quantiser reads biases element by element, and its kernels assume that alpha is 1.
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
    """Multiply a constant by a factor of its Gemm; a bias is also expanded to one value per column."""
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
    free = f"{name}_{node.output[0]}"  # other readers keep the original constant
    model.add(tensor(np.array(used, order="C"), free))
    node.input[position] = free
    readers[name] -= 1
    if not readers[name]:
        model.remove(name)


def reduces_range(parameters: Mapping[str, Any]) -> bool:
    """Return whether weights get 7 bits: as given, else where the target's kernels saturate with 8 bits.

    With 16-bit activations the default is False, because those are multiplied in float.
    """
    given: bool | None = parameters.get("reduce_range")
    if given is not None:
        return given
    return parameters.get("activations") != "int16" and current_target().saturates


def check_nodes(path: Path, text: str) -> list[str]:
    """Return the nodes that ``text`` names, checked against the graph and the graphs inside it.

    ``*`` at the end matches any suffix. A node may also be named by one of its outputs, or by its name before ONNX
    Runtime fused it with another (the new name ends in the name of the fusion).

    Raises:
        InputError: there is no such node; the remedy gives the nearest name.
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


#: The suffix that ONNX Runtime adds to the name of a node that it fuses with another.
_FUSION = re.compile(r"(/\w+Fusion/?)+$")


def _name_nodes(graph: Any) -> None:
    """Give each node a unique name, so that it can be excluded; the first node with a given name keeps it."""
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
    """Suppress the logging and warnings of a library; problems that matter are raised as exceptions."""
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


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, or the name of the error's type."""
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]
