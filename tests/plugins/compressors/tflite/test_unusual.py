"""Weights that are NaN, empty, shared, sparse, in several graphs or integers already: counted right, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("ai_edge_quantizer")

from ai_edge_litert import schema_py_generated as schema

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from tests.plugins.compressors.tflite import places

if TYPE_CHECKING:
    from pathlib import Path

METHODS = ("int8-static", "int8-dynamic", "int8-weight", "int4-weight", "fp16", "prune", "cluster:n=8")
HOST = PluginHost()
ROWS, INNER, OUTER = places.ROWS, places.INNER, places.OUTER


def compress(net: places.Model, chain: str, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    source = net.save(folder / "net.tflite")
    data = None
    if "static" in chain:
        graph = net.packed.subgraphs[0]
        tensors = [graph.tensors[index] for index in graph.inputs]
        chance = np.random.default_rng(0)
        feeds = {
            tensor.name.decode(): chance.standard_normal([8, *tensor.shape[1:]]).astype(np.float32)
            for tensor in tensors
        }
        np.savez(folder / "x.npz", **feeds)
        data = load_dataset(str(folder / "x.npz"), HOST)
    made, recipe = make_variant(
        recognise(str(source)), parse_chain(chain), HOST.of("compressors"), folder / "out", data,
        isolated=False, least_share=0.0,
    )  # fmt: skip
    assert made.path is not None
    return made.path, [step["facts"] for step in recipe]


def refusal(net: places.Model, chain: str, folder: Path) -> EdgeprofError:
    with pytest.raises(EdgeprofError) as raised:
        compress(net, chain, folder)
    assert "net.tflite" in raised.value.message
    assert " failed on " not in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.remedy
    return raised.value


def expect_shares(facts: dict[str, Any], net: places.Model, *, weights: int, macs: int) -> None:
    account = facts["coverage"]
    assert account["weights"]["total"] == sum(values.size for values in net.weights.values()) + net.others
    assert account["macs"]["total"] == net.macs
    assert (account["weights"]["changed"], account["macs"]["changed"]) == (weights, macs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "value"), [("a dense layer", np.nan), ("a convolution", np.inf)])
def test_weights_that_are_not_finite_are_refused_with_their_number(
    method: str, name: str, value: float, tmp_path: Path
) -> None:
    net = places.NETS[name](1)
    spoilt = net.weights["w"].copy()
    spoilt.reshape(-1)[:2] = value
    tensor = next(tensor for tensor in net.packed.subgraphs[0].tensors if tensor.name == b"w")
    net.packed.buffers[tensor.buffer].data = np.frombuffer(spoilt.tobytes(), np.uint8)
    assert f"NaN or infinite: 2 of {spoilt.size} in w" in refusal(net, method, tmp_path).message


def tied(seed: int) -> places.Model:
    """One matrix in three layers, once through a second tensor with the same buffer, and another in one."""
    model = places.Model(macs=ROWS * INNER * (3 * INNER + OUTER))
    graph = places.Graph(model, "main")
    ends = [graph.tensor(name, (ROWS, INNER)) for name in "xabc"] + [graph.tensor("y", (ROWS, OUTER))]
    w, v = graph.weight("w", places.draw(seed, INNER, INNER)), graph.weight("v", places.draw(seed + 1, OUTER, INNER))
    twin = graph.tensor("twin", (INNER, INNER))
    graph.graph.tensors[twin].buffer = graph.graph.tensors[w].buffer
    for k, weight in enumerate((w, w, twin, v)):
        graph.operator("FULLY_CONNECTED", [ends[k], weight, -1], [ends[k + 1]], places.schema.FullyConnectedOptionsT())
    graph.graph.inputs, graph.graph.outputs = [ends[0]], [ends[-1]]
    return model


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_several_layers_count_once_and_their_arithmetic_each_time(method: str, tmp_path: Path) -> None:
    net = tied(2)
    path, (facts,) = compress(net, method, tmp_path)
    expect_shares(facts, net, weights=INNER * (INNER + OUTER), macs=net.macs)
    assert places.run(path).shape == (ROWS, OUTER)


@pytest.mark.parametrize("method", ["int8-static", "int8-dynamic", "fp16"])
@pytest.mark.parametrize("name", ["", "one"])
def test_tensors_that_share_a_name_or_have_none_are_told_apart(method: str, name: str, tmp_path: Path) -> None:
    net = tied(4)
    tensors = net.packed.subgraphs[0].tensors
    expected = places.run(net.save(tmp_path / "net.tflite"))
    for tensor in tensors[1:]:
        tensor.name = name.encode()
    path, (facts,) = compress(net, method, tmp_path)
    assert facts["coverage"]["macs"]["changed"] == net.macs
    np.testing.assert_allclose(places.run(path), expected, atol=0.1 * np.abs(expected).max())


def test_a_layer_that_is_excluded_takes_only_its_own_arithmetic_with_it(tmp_path: Path) -> None:
    net = tied(3)
    try:
        path, (facts,) = compress(net, "int8-dynamic:exclude=^c$", tmp_path)
    except EdgeprofError:
        refusal(net, "int8-dynamic:exclude=^c$", tmp_path)
        return
    kinds = {}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for operator in model.subgraphs[0].operators:
        output, weight = (model.subgraphs[0].tensors[k] for k in (operator.outputs[0], operator.inputs[1]))
        kinds[output.name.decode()] = weight.type
    integers = [name for name in ("a", "b", "c") if kinds[name] == schema.TensorType.INT8]
    assert facts["coverage"]["macs"]["changed"] == ROWS * INNER * (INNER * len(integers) + OUTER)


def entries(model: places.Model) -> places.Model:
    """Two graphs, each with a signature of its own; only the first is the main one."""
    model.packed.signatureDefs = []
    for k, graph in enumerate(model.packed.subgraphs):
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = f"entry{k}".encode(), k
        for field, indices in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            made = []
            for index in indices:
                entry = schema.TensorMapT()
                entry.name, entry.tensorIndex = graph.tensors[index].name, index
                made.append(entry)
            setattr(signature, field, made)
        model.packed.signatureDefs.append(signature)
    return model


def two_graphs(seed: int) -> places.Model:
    model = places.Model(macs=2 * ROWS * INNER * OUTER)
    for k in (1, 2):
        graph = places.Graph(model, f"graph{k}")
        x, y = graph.tensor(f"x{k}", (ROWS, INNER)), graph.tensor(f"y{k}", (ROWS, OUTER))
        w = graph.weight(f"w{k}", places.draw(seed + k, OUTER, INNER))
        graph.operator("FULLY_CONNECTED", [x, w, -1], [y], places.schema.FullyConnectedOptionsT())
        graph.graph.inputs, graph.graph.outputs = [x], [y]
    return entries(model)


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "the second first"])
@pytest.mark.parametrize("method", METHODS)
def test_every_graph_of_a_file_counts_and_the_main_one_is_calibrated(method: str, turned: bool, tmp_path: Path) -> None:
    net = two_graphs(4)
    if turned:
        net.packed.signatureDefs.reverse()
    path, (facts,) = compress(net, method, tmp_path)
    changed = INNER * OUTER * (1 if method == "int8-static" else 2)  # samples are of the main graph
    expect_shares(facts, net, weights=changed, macs=ROWS * changed)
    before = places.run(tmp_path / "net.tflite")
    assert np.abs(places.run(path) - before).max() < 1.5 * np.abs(before).max()


def with_empty_layer(seed: int) -> places.Model:
    """Beside a dense layer one without inputs, of which its bias is the answer."""
    model = places.Model(macs=ROWS * INNER * OUTER, others=2 * OUTER)
    graph = places.Graph(model, "main")
    x, e = graph.tensor("x", (ROWS, INNER)), graph.tensor("e", (ROWS, 0))
    y, z, s = (graph.tensor(name, (ROWS, OUTER)) for name in "yzs")
    w, v = graph.weight("w", places.draw(seed, OUTER, INNER)), graph.tensor("v", (OUTER, 0), np.zeros((OUTER, 0), "f"))
    biases = [graph.tensor(f"b{k}", (OUTER,), places.draw(seed + k, OUTER)) for k in (1, 2)]
    graph.operator("FULLY_CONNECTED", [x, w, biases[0]], [y], places.schema.FullyConnectedOptionsT())
    graph.operator("FULLY_CONNECTED", [e, v, biases[1]], [z], places.schema.FullyConnectedOptionsT())
    graph.operator("ADD", [y, z], [s], places.schema.AddOptionsT())
    graph.graph.inputs, graph.graph.outputs = [x, e], [s]
    return model


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_without_values_is_left_alone_or_refused(method: str, tmp_path: Path) -> None:
    net = with_empty_layer(5)
    try:
        _, (facts,) = compress(net, method, tmp_path)
    except EdgeprofError:
        refusal(net, method, tmp_path)
        return
    expect_shares(facts, net, weights=INNER * OUTER, macs=net.macs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", ["int8-static", "int8-dynamic", "int8-weight", "int4-weight", "fp16"])
def test_a_compressed_model_is_changed_in_place_or_refused(first: str, method: str, tmp_path: Path) -> None:
    net = places.NETS["a dense layer"](6)
    in_place = method in {"prune", "cluster:n=8"} and first != "int4-weight"
    if not in_place:
        refusal(net, f"{first}+{method}", tmp_path)
        return
    path, facts = compress(net, f"{first}+{method}", tmp_path)
    account = facts[1]["coverage"]
    assert account["macs"] == {"changed": net.macs, "total": net.macs, "share": 1.0}
    assert account["weights"]["changed"] == INNER * OUTER
    before, after = places.run(tmp_path / "net.tflite"), places.run(path)
    assert np.abs(after - before).max() < np.abs(before).max()


def passed(kind: str, seed: int) -> places.Model:
    """An IF or a WHILE that gets the weights of its layer from outside, as TensorFlow's converter writes it."""
    model = places.Model(macs=ROWS * INNER * INNER)
    graph = places.Graph(model, "main")
    x, y = graph.tensor("x", (ROWS, INNER)), graph.tensor("y", (ROWS, INNER))
    w = graph.weight("w", places.draw(seed, INNER, INNER))
    condition = graph.tensor("condition", (), kind="bool")
    if kind == "IF":
        options = schema.IfOptionsT()
        options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
        graph.operator("IF", [condition, x, w], [y], options)
    else:
        options = schema.WhileOptionsT()
        options.condSubgraphIndex, options.bodySubgraphIndex = 1, 2
        ends, same = graph.tensor("ends", (), kind="bool"), graph.tensor("same", (INNER, INNER))
        graph.operator("WHILE", [condition, x, w], [ends, y, same], options)
    graph.graph.inputs, graph.graph.outputs = [condition, x], [y]
    for k in (1, 2):
        inner = places.Graph(model, f"inner{k}")
        given = [inner.tensor(f"condition{k}", (), kind="bool")] if kind == "WHILE" else []
        rows, weights = inner.tensor(f"x{k}", (ROWS, INNER)), inner.tensor(f"w{k}", (INNER, INNER))
        result, stop = inner.tensor(f"y{k}", (ROWS, INNER)), inner.tensor(f"stop{k}", (), np.array([False])[0])
        inner.graph.inputs = [*given, rows, weights]
        inner.graph.outputs = [result] if kind == "IF" else given if k == 1 else [stop, result, weights]
        if kind == "IF" or k == 2:
            inner.operator("FULLY_CONNECTED", [rows, weights, -1], [result], schema.FullyConnectedOptionsT())
    return model


def stored(path: Path, name: str) -> Any:
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    tensor = next(tensor for tensor in model.subgraphs[0].tensors if tensor.name == name.encode())
    return np.asarray(model.buffers[tensor.buffer].data).view({0: "float32", 1: "float16", 9: "int8"}[tensor.type])


@pytest.mark.parametrize("kind", ["IF", "WHILE"])
def test_weights_that_are_passed_to_branches_and_bodies_are_changed(kind: str, tmp_path: Path) -> None:
    net = passed(kind, 6)
    path, (facts,) = compress(net, "prune", tmp_path)
    weights, macs = facts["coverage"]["weights"], facts["coverage"]["macs"]
    assert (weights["changed"], weights["total"]) == (INNER * INNER, INNER * INNER)
    assert macs["share"] == 1
    assert macs["total"] == (net.macs if kind == "IF" else None)  # the data decide how often the loop runs
    magnitudes = np.abs(net.weights["w"].reshape(-1))
    np.testing.assert_array_equal(stored(path, "w") == 0, magnitudes < np.median(magnitudes))


@pytest.mark.parametrize("kind", ["IF", "WHILE"])
def test_a_quantiser_names_the_layers_whose_passed_weights_it_leaves(kind: str, tmp_path: Path) -> None:
    error = refusal(passed(kind, 7), "int8-dynamic", tmp_path)
    assert f"it leaves {'y1' if kind == 'IF' else 'y2'}" in error.message


def test_the_arithmetic_of_a_loop_is_unknown_rather_than_that_of_one_run(tmp_path: Path) -> None:
    """Beside a layer outside, of which pruning changes the weights: those in the body have their zeros already."""
    net = passed("WHILE", 8)
    w = net.weights["w"]
    w[np.abs(w) < np.median(np.abs(w))] = 0
    graph = net.packed.subgraphs[0]
    net.packed.buffers[1].data = np.frombuffer(w.tobytes(), np.uint8)
    main = places.Graph(net, "main again")
    net.packed.subgraphs.pop()
    main.graph = graph
    z, v = main.tensor("z", (ROWS, OUTER)), main.weight("v", places.draw(9, OUTER, INNER))
    main.operator("FULLY_CONNECTED", [graph.outputs[0], v, -1], [z], schema.FullyConnectedOptionsT())
    graph.outputs = [z]
    _, (facts,) = compress(net, "prune", tmp_path)
    account = facts["coverage"]
    assert account["weights"]["changed"] == INNER * OUTER
    assert account["macs"]["share"] is None
    assert "how often a loop runs" in account["macs"]["reason"]
