"""Weights that are NaN, empty, tied, scanned or integers already: each method counts right, or says why it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain
from edgeprof.errors import EdgeprofError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from tests.plugins.compressors.onnx import places
from tests.plugins.compressors.onnx.test_reconstruction import run

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

HOST = PluginHost()
ROWS, INNER, OUTER, STEPS = places.ROWS, places.INNER, places.OUTER, places.STEPS
METHODS = (
    "int8-static:samples=4",
    "int8-dynamic",
    "int8-weight",
    "int4-weight",
    "fp16",
    "prune",
    "prune-2:4",
    "prune-structured:amount=0.5,round_to=1",
    "low-rank:energy=0.5",
    "cluster:n=8",
)
#: Methods that change any layer, wherever its weights lie.
ANYWHERE = ("int8-weight", "fp16", "prune", "prune-2:4", "cluster:n=8")


def compress(net: places.Net, chain: str, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    source = net.save(folder / "net.onnx")
    data = None
    if "static" in chain and len({len(array) for array in net.feeds.values()}) == 1:
        np.savez(folder / "x.npz", **{name: np.concatenate([array] * 4) for name, array in net.feeds.items()})
        data = load_dataset(str(folder / "x.npz"), HOST)
    made, recipe = make_variant(
        recognise(str(source)), parse_chain(chain), HOST.of("compressors"), folder / "out", data,
        isolated=False, least_share=0.0,
    )  # fmt: skip
    return made.target, [step["facts"] for step in recipe]


def refusal(net: places.Net, chain: str, folder: Path) -> EdgeprofError:
    """A sentence that names the file and what to do, and is not the text of a library's exception."""
    with pytest.raises(EdgeprofError) as raised:
        compress(net, chain, folder)
    assert "net.onnx" in raised.value.message
    assert " failed on " not in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.remedy
    return raised.value


def expect_shares(facts: dict[str, Any], net: places.Net, *, weights: int, macs: int) -> None:
    account = facts["coverage"]
    assert account["weights"]["total"] == sum(values.size for values in net.weights.values()) + net.others
    assert account["macs"]["total"] == net.macs
    assert (account["weights"]["changed"], account["macs"]["changed"]) == (weights, macs)


# --- NaN and infinity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "value"), [("a dense layer with a bias", np.nan), ("weights in branches", -np.inf)])
def test_weights_that_are_not_finite_are_refused_with_their_number(
    method: str, name: str, value: float, tmp_path: Path
) -> None:
    net = places.NETS[name](1)
    spoilt = next(iter(net.weights.values())).copy()
    spoilt[0, :2] = value
    before = next(iter(net.weights.values())).tobytes()
    raw = net.model.SerializeToString()
    assert raw.count(before) == 1
    net.model = onnx.ModelProto.FromString(raw.replace(before, spoilt.tobytes()))
    if method.startswith("int8-static") and name == "weights in branches":
        pytest.skip("a condition has no samples to calibrate with")
    assert "NaN or infinite: 2 of " in refusal(net, method, tmp_path).message


@pytest.mark.parametrize("method", METHODS)
def test_infinite_values_of_a_mask_stay_infinite(method: str, tmp_path: Path) -> None:
    """Also in half precision, where a large finite value is clipped."""
    w, v, x = places.draw(1, INNER, OUTER), places.draw(2, OUTER, OUTER), places.draw(3, ROWS, INNER)
    mask = np.zeros((ROWS, OUTER), np.float32)
    mask[:, 1], mask[:, 2] = -np.inf, -1e30
    made = places.model(
        [
            places.node("MatMul", ["x", "w"], ["h"]),
            places.node("MatMul", ["h", "v"], ["s"]),
            places.node("Add", ["s", "mask"], ["m"]),
            places.node("Softmax", ["m"], ["y"], axis=-1),
        ],
        [places.info("x", ROWS, INNER)],
        {"w": w, "v": v, "mask": np.tile(mask, (1, 1))},
    )
    net = places.Net(made, {"x": x}, {"w": w, "v": v}, ROWS * (INNER + OUTER) * OUTER, mask.size)
    if "static" in method:
        refusal(net, method, tmp_path)  # a range without end has no steps
        return
    target, _ = compress(net, method, tmp_path)
    answer = run(target, {"x": x})
    assert not answer[:, 1:3].any()
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-2)


# --- no values --------------------------------------------------------------------------------------------------------


def with_empty_layers() -> places.Net:
    """x·w + e·v with nothing to sum in e·v, joined with x·u of no columns."""
    w, x = places.draw(1, INNER, OUTER), places.draw(2, ROWS, INNER)
    nodes = [
        places.node("MatMul", ["x", "w"], ["h"]),
        places.node("MatMul", ["e", "v"], ["zeros"]),
        places.node("Add", ["h", "zeros"], ["sum"]),
        places.node("MatMul", ["x", "u"], ["nothing"]),
        places.node("Concat", ["sum", "nothing"], ["y"], axis=1),
    ]
    weights = {"w": w, "v": np.zeros((0, OUTER), np.float32), "u": np.zeros((INNER, 0), np.float32)}
    made = places.model(nodes, [places.info("x", ROWS, INNER), places.info("e", ROWS, 0)], weights)
    feeds = {"x": x, "e": np.zeros((ROWS, 0), np.float32)}
    return places.Net(made, feeds, {"w": w}, ROWS * INNER * OUTER)


@pytest.mark.parametrize("method", METHODS)
def test_layers_without_values_are_left_alone(method: str, tmp_path: Path) -> None:
    net = with_empty_layers()
    if method.startswith("prune-structured"):
        refusal(net, method, tmp_path)  # its only channels are the model's outputs
        return
    target, (facts,) = compress(net, method, tmp_path)
    expect_shares(facts, net, weights=INNER * OUTER, macs=net.macs)
    before, after = run(net.save(tmp_path / "again.onnx"), net.feeds), run(target, net.feeds)
    assert after.shape == before.shape
    assert np.isfinite(after).all()


# --- tied weights -----------------------------------------------------------------------------------------------------


def tied(seed: int) -> places.Net:
    """One matrix in three layers, and another in one."""
    w, v, x = places.draw(seed, INNER, INNER), places.draw(seed + 1, INNER, OUTER), places.draw(seed + 2, ROWS, INNER)
    chain = ["x", "a", "b", "c"]
    nodes = [places.node("MatMul", [chain[k], "w"], [chain[k + 1]]) for k in range(3)]
    nodes.append(places.node("MatMul", ["c", "v"], ["y"]))
    made = places.model(nodes, [places.info("x", ROWS, INNER)], {"w": w, "v": v})
    return places.Net(made, {"x": x}, {"w": w, "v": v}, ROWS * INNER * (3 * INNER + OUTER))


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_several_layers_count_once_and_their_arithmetic_each_time(method: str, tmp_path: Path) -> None:
    net = tied(3)
    if method.startswith("prune-structured"):
        assert "shared" in refusal(net, method, tmp_path).message
        return
    target, (facts,) = compress(net, method, tmp_path)
    if method.startswith("low-rank"):
        expect_shares(facts, net, weights=INNER * OUTER, macs=ROWS * INNER * OUTER)
    else:
        expect_shares(facts, net, weights=INNER * (INNER + OUTER), macs=net.macs)
    assert run(target, net.feeds).shape == (ROWS, OUTER)


@pytest.mark.parametrize("method", ["int8-static:samples=4", "fp16"])
def test_a_tied_layer_that_is_excluded_takes_its_arithmetic_with_it(method: str, tmp_path: Path) -> None:
    """The matrix lies in the file twice then, once as it was; it counts where its first layer counts."""
    net = tied(4)
    chain = f"{method}{',' if ':' in method else ':'}exclude=MatMul_b"
    _, (facts,) = compress(net, chain, tmp_path)
    assert facts["coverage"]["macs"]["changed"] == net.macs - ROWS * INNER * INNER
    assert facts["coverage"]["weights"]["total"] == INNER * (INNER + OUTER)


# --- bodies and branches ----------------------------------------------------------------------------------------------


def scan(seed: int) -> places.Net:
    """h = h·w + row for each row of x; the body runs STEPS times."""
    w, x = places.draw(seed, INNER, INNER) / 4, places.draw(seed + 1, STEPS, ROWS, INNER)
    body = helper.make_graph(
        [places.node("MatMul", ["h", "w"], ["p"]), places.node("Add", ["p", "row"], ["ho"])],
        "body",
        [places.info("h", ROWS, INNER), places.info("row", ROWS, INNER)],
        [places.info("ho", ROWS, INNER)],
        [numpy_helper.from_array(w, "w")],
    )
    made = places.model(
        [places.node("Scan", ["start", "x"], ["y"], body=body, num_scan_inputs=1)],
        [places.info("x", STEPS, ROWS, INNER)],
        {"start": np.zeros((ROWS, INNER), np.float32)},
    )
    return places.Net(made, {"x": x}, {"w": w}, STEPS * ROWS * INNER * INNER, ROWS * INNER)


def nested(seed: int) -> places.Net:
    """A branch inside the body of a loop, and weights that both branches read from the main graph."""
    w, x = places.draw(seed, INNER, INNER) / 4, places.draw(seed + 1, ROWS, INNER)
    branches = [
        helper.make_graph(
            [places.node("MatMul", ["h", "w"], [f"{name}_p"]), places.node(op, [f"{name}_p"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, op in (("then", "Relu"), ("other", "Neg"))
    ]
    body = helper.make_graph(
        [
            places.node("If", ["going"], ["ho"], then_branch=branches[0], else_branch=branches[1]),
            places.node("Identity", ["going"], ["go"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            places.info("h", ROWS, INNER),
        ],
        [helper.make_tensor_value_info("go", TensorProto.BOOL, []), places.info("ho", ROWS, INNER)],
    )
    made = places.model(
        [places.node("Loop", ["count", "start", "x"], ["y"], body=body)],
        [places.info("x", ROWS, INNER)],
        {"count": np.array(STEPS, np.int64), "start": np.array(True), "w": w},
    )
    return places.Net(made, {"x": x}, {"w": w}, STEPS * ROWS * INNER * INNER)


@pytest.mark.parametrize("make", [scan, nested])
@pytest.mark.parametrize("method", METHODS)
def test_layers_of_inner_graphs_count_as_often_as_they_run(method: str, make: Any, tmp_path: Path) -> None:
    net = make(5)
    if method not in ANYWHERE and method != "int8-dynamic":
        try:
            _, (facts,) = compress(net, method, tmp_path)
        except EdgeprofError:
            refusal(net, method, tmp_path)
            return
        expect_left_or_changed(facts, net)
        return
    target, (facts,) = compress(net, method, tmp_path)
    if method == "fp16":
        assert facts["coverage"]["macs"] == {"changed": net.macs, "total": net.macs, "share": 1.0}
    else:
        expect_shares(facts, net, weights=INNER * INNER, macs=net.macs)
    before, after = run(net.save(tmp_path / "again.onnx"), net.feeds), run(target, net.feeds)
    assert after.shape == before.shape
    assert np.isfinite(after).all()
    if method in {"int8-weight", "fp16"}:
        assert np.abs(after - before).max() < 0.02 * np.abs(before).max()


def expect_left_or_changed(facts: dict[str, Any], net: places.Net) -> None:
    account = facts["coverage"]
    assert account["macs"]["total"] == net.macs
    assert account["macs"]["changed"] in {0, net.macs}
    assert account["macs"]["changed"] == net.macs or all(account["left"])


# --- integers already -------------------------------------------------------------------------------------------------


def two_layers(seed: int) -> places.Net:
    """A layer of 100 weights and one of 480: of the first, a table of 128 values would be no smaller."""
    w, v, x = places.draw(seed, 10, 10), places.draw(seed + 1, 10, 48), places.draw(seed + 2, ROWS, 10)
    nodes = [places.node("MatMul", ["x", "w"], ["h"]), places.node("MatMul", ["h", "v"], ["y"])]
    made = places.model(nodes, [places.info("x", ROWS, 10)], {"w": w, "v": v})
    return places.Net(made, {"x": x}, {"w": w, "v": v}, ROWS * 10 * 58)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", ["int8-static:samples=4", "int8-dynamic", "int4-weight"])
def test_a_quantised_model_is_refused_by_name(first: str, method: str, tmp_path: Path) -> None:
    error = refusal(two_layers(6), f"{first}+{method}", tmp_path)
    assert "quantised already" in error.message
    assert error.remedy is not None
    assert "first" in error.remedy


@pytest.mark.parametrize("method", METHODS)
def test_integers_behind_a_table_count_among_the_weights(method: str, tmp_path: Path) -> None:
    """cluster's codebook leaves the small layer in float, which then is a sixth of the weights, not all."""
    net = two_layers(7)
    chain = f"cluster:n=128,store=codebook+{method}"
    if method.startswith(("fp16", "prune-2:4", "prune-structured")):
        refusal(net, chain, tmp_path)
        return
    _, facts = compress(net, chain, tmp_path)
    assert facts[0]["coverage"]["weights"] == {"changed": 480, "total": 580, "share": 480 / 580}
    folded = method in {"int8-static:samples=4", "int8-dynamic"}  # the table is looked up before they begin
    account = facts[1]["coverage"]
    assert account["macs"]["total"] == net.macs
    assert account["weights"]["changed"] == (580 if folded else 100)
    assert account["weights"]["total"] >= 580


def test_weights_joined_when_the_model_is_loaded_are_weights_that_no_method_changes(tmp_path: Path) -> None:
    w, v, u = places.draw(1, INNER, 8), places.draw(2, INNER, 8), places.draw(3, 16, OUTER)
    x = places.draw(4, ROWS, INNER)
    nodes = [
        places.node("Concat", ["w", "v"], ["wv"], axis=1),
        places.node("MatMul", ["x", "wv"], ["h"]),
        places.node("MatMul", ["h", "u"], ["y"]),
    ]
    made = places.model(nodes, [places.info("x", ROWS, INNER)], {"w": w, "v": v, "u": u})
    net = places.Net(made, {"x": x}, {"w": w, "v": v, "u": u}, ROWS * 16 * (INNER + OUTER))
    _, (facts,) = compress(net, "prune", tmp_path)
    expect_shares(facts, net, weights=u.size, macs=ROWS * 16 * OUTER)
    (reason,) = facts["coverage"]["left"]
    assert "computed from other constants" in reason


@pytest.mark.parametrize("method", ["fp16", "int8-dynamic", "prune"])
def test_a_tensor_that_is_listed_twice_stays_two_outputs(method: str, tmp_path: Path) -> None:
    w, x = places.draw(1, INNER, OUTER), places.draw(2, ROWS, INNER)
    made = places.model([places.node("MatMul", ["x", "w"], ["y"])], [places.info("x", ROWS, INNER)], {"w": w})
    made.graph.output.append(made.graph.output[0])
    net = places.Net(made, {"x": x}, {"w": w}, ROWS * INNER * OUTER)
    target, _ = compress(net, method, tmp_path)
    assert [value.name for value in onnx.load(target).graph.output] == ["y", "y"]
    assert run(target, net.feeds).shape == (ROWS, OUTER)


@pytest.mark.parametrize("count", [STEPS, 2**63 - 1])
def test_a_loop_that_the_data_may_end_has_unknown_arithmetic(count: int, tmp_path: Path) -> None:
    """Beside a layer that pruning changes; the weights of the body have their zeros already."""
    net = places.loop(6)
    model = net.model
    (body,) = (attribute.g for attribute in model.graph.node[0].attribute)
    (w,) = body.initializer
    values = numpy_helper.to_array(w).copy()
    values[np.abs(values) < np.median(np.abs(values))] = 0
    w.CopyFrom(numpy_helper.from_array(values, "w"))
    body.node.pop()
    body.node.append(places.node("ReduceSum", ["ho"], ["rest"], keepdims=0))
    body.node.append(places.node("Greater", ["rest", "limit"], ["go"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e6, np.float32), "limit"))
    next(t for t in model.graph.initializer if t.name == "count").CopyFrom(
        numpy_helper.from_array(np.array(count, np.int64), "count")
    )
    model.graph.node.append(places.node("MatMul", ["y", "v"], ["z"]))
    v = places.draw(7, INNER, 9)
    model.graph.initializer.append(numpy_helper.from_array(v, "v"))
    model.graph.output[0].CopyFrom(places.info("z", ROWS, 9))
    _, (facts,) = compress(places.Net(model, net.feeds, {**net.weights, "v": v}, 0), "prune", tmp_path)
    assert facts["coverage"]["weights"]["changed"] == v.size
    assert facts["coverage"]["macs"]["share"] is None
    assert "how often a loop runs" in facts["coverage"]["macs"]["reason"]
