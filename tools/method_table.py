"""Write the tables in docs/compression.md of what each method does to each kind of layer, by trying each method.

    python tools/method_table.py            # write them (python tools/method_table.py onnx: the table of one format)
    python tools/method_table.py --check    # exit 1 if a table differs from the result of a new trial

The layers are those of tests/plugins/compressors/*/places.py. Each model also has a dense layer that every method can
change, so that a method which leaves the layer under test unchanged reports why, instead of refusing the whole model.
"""

# ruff: noqa: PLC0415 - the libraries of each format are imported only where its table is made

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgeprof.artifact import recognise  # noqa: E402 - found after the path is set
from edgeprof.compression.variant import make_variant, parse_chain  # noqa: E402
from edgeprof.errors import EdgeprofError  # noqa: E402
from edgeprof.evaluation.load import load_dataset  # noqa: E402
from edgeprof.plugins import PluginHost  # noqa: E402
from edgeprof.worker import telemetry  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

telemetry.turn_off()
DOCUMENT = ROOT / "docs" / "compression.md"
METHODS = {
    "onnx": [
        "int8-static", "int8-dynamic", "int8-weight", "int4-weight", "fp16", "prune", "prune-2:4", "prune-structured",
        "low-rank", "cluster",
    ],
    "tflite": ["int8-static", "int8-dynamic", "int8-weight", "int4-weight", "fp16", "prune", "cluster"],
    "torch": ["int8-dynamic", "fp16", "prune", "prune-2:4", "low-rank", "cluster"],
}  # fmt: skip
TITLES = {"onnx": "ONNX", "tflite": "TFLite", "torch": "PyTorch (modules and programs)"}
#: Parameters that make a method act even on layers this small.
_CHAINS = {
    "low-rank": "low-rank:energy=0.5",
    "prune-structured": "prune-structured:amount=0.5,round_to=1",
    "int8-static": "int8-static:samples=4",
}


@dataclass(frozen=True)
class Cell:
    """What a method did to a layer: ``changed``, ``left`` or ``refused``, and why."""

    verdict: str
    reason: str = ""


@dataclass
class Layer:
    """A model with one layer of a kind.

    Attributes:
        spec: The model.
        names: The names of the layer's parts in the compressor's report.
        data: Calibration data; None if there is none.
    """

    spec: str
    names: set[str]
    data: Any
    folder: Path
    tried: int = field(default=0)


def layers(kind: str) -> dict[str, Callable[[Path, PluginHost], Layer]]:
    """Return, for a format, kind of layer → the function that writes its model to a folder."""
    if kind == "onnx":
        from tests.plugins.compressors.onnx import places

        return {
            name: lambda folder, host, make=make: _make_onnx_layer(make(1), folder, host)
            for name, make in places.NETS.items()
        }
    if kind == "tflite":
        from tests.plugins.compressors.tflite import places as flat

        return {
            name: lambda folder, host, make=make: _make_tflite_layer(make(1), folder, host)
            for name, make in flat.NETS.items()
        }
    from tests.plugins.compressors.torch import places as modules

    return {name: lambda folder, host, name=name: _make_torch_layer(name, folder, host) for name in modules.NETS}


def _make_onnx_layer(net: Any, folder: Path, host: PluginHost) -> Layer:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = net.model.graph
    names = {node.name for node in _all_nodes(graph)}
    _append_dense(net, next(iter(net.weights.values())))
    rows = next(iter(net.feeds.values())).shape[0]
    graph.input.append(helper.make_tensor_value_info("tail_x", TensorProto.FLOAT, [rows, 64]))
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(weight, "tail_w"))
    graph.node.append(helper.make_node("MatMul", ["tail_x", "tail_w"], ["tail_y"], name="tail"))
    graph.output.append(helper.make_tensor_value_info("tail_y", TensorProto.FLOAT, [rows, 64]))
    path = folder / "net.onnx"
    onnx.save(net.model, str(path))
    return Layer(
        str(path), names, _load_samples(folder, {**net.feeds, "tail_x": np.ones((rows, 64), np.float32)}, host), folder
    )


def _append_dense(net: Any, weights: Any) -> None:
    """Append a dense layer: channels that are the model's outputs could not be pruned."""
    from onnx import helper, numpy_helper

    graph, pooled = net.model.graph, "Conv" in net.family
    channels = {"Conv": 0, "ConvTranspose": 1}.get(net.family)
    width = weights.shape[channels] if channels is not None else _output_width(net)
    if pooled:
        graph.node.append(helper.make_node("GlobalAveragePool", ["y"], ["pooled"], name="pool"))
        graph.node.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"))
    post = np.random.default_rng(2).standard_normal((width, 8)).astype(weights.dtype)
    graph.initializer.append(numpy_helper.from_array(post, "post_w"))
    graph.node.append(helper.make_node("MatMul", ["flat" if pooled else "y", "post_w"], ["z"], name="post"))
    graph.output[0].name = "z"


def _output_width(net: Any) -> int:
    """Return the size of the last axis of the network's output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(net.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return int(session.run(["y"], net.feeds)[0].shape[-1])


def _all_nodes(graph: Any) -> list[Any]:
    from edgeprof_plugins.compressors.onnx.file import walk

    return list(walk(graph))


def _make_tflite_layer(net: Any, folder: Path, host: PluginHost) -> Layer:
    from tests.plugins.compressors.tflite import places

    names = {tensor.name.decode() for graph in net.packed.subgraphs for tensor in graph.tensors}
    main = places.Graph.__new__(places.Graph)
    main.model, main.graph = net, net.packed.subgraphs[0]
    rows = next(main.graph.tensors[index].shape for index in main.graph.inputs if main.graph.tensors[index].shape)[0]
    x, y = main.tensor("tail_x", (rows, 64)), main.tensor("tail_y", (rows, 64))
    w = main.tensor("tail_w", (64, 64), np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32))
    main.operator("FULLY_CONNECTED", [x, w, -1], [y], places.schema.FullyConnectedOptionsT())
    main.graph.inputs, main.graph.outputs = [*main.graph.inputs, x], [*main.graph.outputs, y]
    path = net.save(folder / "net.tflite")
    feeds = {
        tensor.name.decode(): np.random.default_rng(1).standard_normal([1, *tensor.shape[1:]]).astype(np.float32)
        for tensor in (main.graph.tensors[index] for index in main.graph.inputs)
        if len(tensor.shape)
    }
    return Layer(str(path), names, _load_samples(folder, feeds, host), folder)


def _make_torch_layer(name: str, folder: Path, host: PluginHost) -> Layer:
    import torch
    from tests.plugins.compressors.torch import places

    net = getattr(places, name)()
    data = None
    if net.example_inputs.dtype == torch.float32:
        data = _load_samples(folder, {"x": net.example_inputs.numpy()}, host)
    return Layer(f"{places.__file__}:{name}", {*net.layers, "matmul of activations"}, data, folder)


def _load_samples(folder: Path, feeds: dict[str, Any], host: PluginHost) -> Any:
    """Return four samples; the first axis of each array counts the samples."""
    count = 4 * max(array.shape[0] for array in feeds.values())
    arrays = {name: np.concatenate([array] * 4)[:count] for name, array in feeds.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        return None
    np.savez(folder / "data.npz", **arrays)
    return load_dataset(str(folder / "data.npz"), host)


def attempt(layer: Layer, method: str, host: PluginHost) -> Cell:
    """Apply a method to a layer's model and return what it did."""
    layer.tried += 1
    chain = _CHAINS.get(method, method)
    try:
        _, recipe = make_variant(
            recognise(layer.spec), parse_chain(chain), host.of("compressors"), layer.folder / str(layer.tried),
            layer.data, least_share=0.0,
        )  # fmt: skip
    except EdgeprofError as error:
        left = re.search(r"; it leaves [^(]*\((.*?)\)(,|$)", error.message)
        if getattr(error, "code", "") == "changed_nothing" and left:
            return Cell("left", left[1])
        return Cell("refused", _plain_message(error.message, layer))
    for reason, entry in recipe[-1]["facts"]["coverage"]["left"].items():
        layer_names = {name.partition(" (")[0] for name in entry["names"]} & layer.names
        if layer_names and not reason.startswith("biases"):
            return Cell("left", reason)
    return Cell("changed")


def _plain_message(message: str, layer: Layer) -> str:
    """Return a message without the names of this trial's files."""
    for part in (layer.spec, Path(layer.spec).name):
        message = message.replace(part, "the model")
    return message.partition("\n")[0][:200]


def render(kind: str, host: PluginHost) -> str:
    """Return the table of a format, with the reasons below it."""
    reasons: dict[str, int] = {}
    rows = []
    for name, make in layers(kind).items():
        with tempfile.TemporaryDirectory() as folder:
            layer = make(Path(folder), host)
            cells = [attempt(layer, method, host) for method in METHODS[kind]]
        rows.append(f"| {name} | " + " | ".join(_shown_cell(cell, reasons) for cell in cells) + " |")
    head = f"| {TITLES[kind]} | " + " | ".join(f"`{method}`" for method in METHODS[kind]) + " |"
    line = "|---" * (len(METHODS[kind]) + 1) + "|"
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([head, line, *rows, "", *notes])


def _shown_cell(cell: Cell, reasons: dict[str, int]) -> str:
    if cell.verdict == "changed":
        return "✓"
    return f"{cell.verdict} {reasons.setdefault(cell.reason, len(reasons) + 1)}"


def documented(kind: str) -> dict[tuple[str, str], Cell]:
    """Return the table of a format that is in the document: (layer, method) → cell."""
    lines = DOCUMENT.read_text("utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {TITLES[kind]} |"))
    methods = [text.strip(" `") for text in lines[start].strip("|").split("|")[1:]]
    rows, notes = [], {}
    for line in lines[start + 2 :]:
        note = re.match(r"(\d+)\. (.*)", line)
        if line.startswith("| ") and not notes:
            rows.append([text.strip() for text in line.strip("|").split("|")])
        elif note:
            notes[note[1]] = note[2]
        elif line:
            break
    cells = {}
    for name, *shown in rows:
        for method, text in zip(methods, shown, strict=True):
            verdict, _, number = text.partition(" ")
            cells[name, method] = Cell("changed") if verdict == "✓" else Cell(verdict, notes[number])
    return cells


def main() -> int:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], *METHODS], help="formats (all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the document differs")
    given = parser.parse_args()
    differs = False
    for kind in given.kinds or METHODS:
        table = render(kind, PluginHost())
        text = DOCUMENT.read_text("utf-8")
        begin, end = f"<!-- methods and layers, {kind}: begin -->", f"<!-- methods and layers, {kind}: end -->"
        before, rest = text.split(begin)
        updated = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
        differs |= updated != text
        if not given.check:
            DOCUMENT.write_text(updated, "utf-8")
    return int(given.check and differs)


if __name__ == "__main__":
    sys.exit(main())
