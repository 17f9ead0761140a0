"""Inputs whose meaning the graph shows get values that are valid for the model."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - after what it needs is known to be here

from edgeprof.errors import VariantError  # noqa: E402 - as above
from edgeprof.launch.fitting import fits  # noqa: E402 - as above
from edgeprof.launch.supervisor import Worker, WorkerSpec  # noqa: E402 - as above
from edgeprof.worker.inputs import own_feeds  # noqa: E402 - as above
from edgeprof.worker.runtime import LoadOptions  # noqa: E402 - as above
from edgeprof_plugins.runtimes.onnxruntime import runtime  # noqa: E402 - as above
from tests import models  # noqa: E402 - as above

CPU = LoadOptions("cpu", 1, 1, {}, {})
INT, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


def weight(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


TABLE = weight("table", np.ones((50, 3), "float32"))
GRAPHS = {
    "indices": ([node("Gather", ["table", "i"], ["y"])], [value("i", INT, [1, 200])], [TABLE], ["below", 50]),
    "indices of the smaller table": (
        [
            node("Cast", ["i"], ["c"], to=INT),
            node("Gather", ["table", "c"], ["a"]),
            node("Gather", ["few", "i"], ["y"]),
        ],
        [value("i", INT, [1, 200])],
        [TABLE, weight("few", np.ones((7, 3), "float32"))],
        ["below", 7],
    ),
    "indices along another axis": (
        [node("Gather", ["table", "i"], ["y"], axis=-1)],
        [value("i", INT, [200])],
        [TABLE],
        ["below", 3],
    ),
    "sizes": ([node("Reshape", ["table", "i"], ["y"])], [value("i", INT, [3])], [TABLE], ["inferred"]),
    "repeats": ([node("Tile", ["table", "i"], ["y"])], [value("i", INT, [2])], [TABLE], ["all", 1]),
    "how many": ([node("TopK", ["table", "i"], ["y", "z"])], [value("i", INT, [1])], [TABLE], ["all", 1]),
    "a sample rate": (
        [
            node("Equal", ["i", "rate"], ["is"]),
            node(
                "If",
                ["is"],
                ["y"],
                then_branch=helper.make_graph([node("Identity", ["table"], ["t"])], "t", [], [value("t", FLOAT, None)]),
                else_branch=helper.make_graph(
                    [node("Cast", ["i"], ["e"], to=FLOAT)], "e", [], [value("e", FLOAT, None)]
                ),
            ),
        ],
        [value("i", INT, [])],
        [TABLE, weight("rate", np.int64(16000))],
        ["all", 16000],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_the_graph_shows_is_what_the_worker_feeds(tmp_path, name):
    nodes, inputs, weights, wanted = GRAPHS[name]
    path = models.onnx_graph(tmp_path / "m.onnx", nodes, inputs, [value("y", FLOAT, None)], weights)
    assert fits(path) == {"i": wanted}
    with Worker(WorkerSpec(runtime_file(), "OnnxRuntime", str(path), CPU)) as worker:
        assert worker.load().problems == []
    fed = own_feeds(runtime.OnnxRuntime().load(str(path), CPU), CPU, 0, fits(path))["i"]
    if wanted[0] == "below":
        assert fed.min() >= 0
        assert wanted[1] // 2 < fed.max() < wanted[1]  # the whole table, and no more
    elif wanted[0] == "all":
        assert (fed == wanted[1]).all()


def loop(body_nodes, carried):
    """Return a Loop of three iterations whose body carries ``carried`` and adds up what it gathers."""
    body = helper.make_graph(
        [*body_nodes, node("Identity", ["go"], ["still"]), node("Identity", ["kept"], ["handed_on"])],
        "body",
        [value("turn", INT, []), value("go", BOOL, []), value("kept", INT, [1, 200]), value("sum", FLOAT, [1, 200, 3])],
        [value("still", BOOL, []), value("handed_on", INT, [1, 200]), value("more", FLOAT, [1, 200, 3])],
    )
    nodes = [node("Loop", ["turns", "true", carried, "start"], ["last", "y"], body=body)]
    more = [weight("turns", np.int64(3)), weight("true", np.bool_(True)), weight("start", np.zeros((1, 200, 3), "f"))]
    return nodes, more


def scan():
    body = helper.make_graph(
        [node("Gather", ["table", "one"], ["row"])], "body", [value("one", INT, [20])], [value("row", FLOAT, [20, 3])]
    )
    return [node("Scan", ["i"], ["y"], body=body, num_scan_inputs=1)]


BODIES = {
    "a Loop, carried along": loop([node("Gather", ["table", "kept"], ["g"]), node("Add", ["sum", "g"], ["more"])], "i"),
    "a Loop, from around it": loop(
        [node("Gather", ["table", "i"], ["g"]), node("Add", ["sum", "g"], ["more"])], "other"
    ),
    "a Scan": (scan(), []),
    "a branch": (
        [
            node(
                "If",
                ["yes"],
                ["y"],
                **{
                    f"{name}_branch": helper.make_graph(
                        [node("Gather", ["table", "i"], [name])], name, [], [value(name, FLOAT, None)]
                    )
                    for name in ("then", "else")
                },
            )
        ],
        [weight("yes", np.bool_(True))],
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_a_branch_or_a_body_shows_counts(tmp_path, name):
    nodes, weights = BODIES[name]
    inputs = [value("i", INT, [10, 20] if name == "a Scan" else [1, 200])]
    more = [weight("other", np.zeros((1, 200), "int64"))] if name.endswith("around it") else []
    path = models.onnx_graph(tmp_path / "m.onnx", nodes, inputs, [value("y", FLOAT, None)], [TABLE, *weights, *more])
    assert fits(path) == {"i": ["below", 50]}
    with Worker(WorkerSpec(runtime_file(), "OnnxRuntime", str(path), CPU)) as worker:
        assert worker.load().problems == []


def test_a_name_that_a_body_gives_anew_is_another_tensor(tmp_path):
    """The ``i`` that the body defines is not the index into the table of few rows."""
    nodes, weights = loop(
        [
            node("Sub", ["kept", "kept"], ["i"]),
            node("Gather", ["few", "i"], ["g"]),
            node("Add", ["sum", "g"], ["more"]),
        ],
        "i",
    )
    few = weight("few", np.ones((1, 3), "float32"))
    path = models.onnx_graph(
        tmp_path / "m.onnx", nodes, [value("i", INT, [1, 200])], [value("y", FLOAT, None)], [few, *weights]
    )
    assert fits(path) == {}


def test_what_a_function_of_the_model_shows_counts(tmp_path):
    """The evidence passes through two calls, and through the output of the inner one."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    same = helper.make_function("own", "Same", ["a"], ["b"], [node("Identity", ["a"], ["b"])], opset[:1])
    look_up = helper.make_function(
        "own",
        "LookUp",
        ["of", "at"],
        ["found"],
        [helper.make_node("Same", ["at"], ["there"], domain="own"), node("Gather", ["of", "there"], ["found"])],
        opset,
    )
    graph = helper.make_graph(
        [helper.make_node("LookUp", ["table", "i"], ["y"], domain="own")],
        "g",
        [value("i", INT, [1, 200])],
        [value("y", FLOAT, None)],
        [TABLE],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, functions=[same, look_up], ir_version=8), path)
    assert fits(path) == {"i": ["below", 50]}
    with Worker(WorkerSpec(runtime_file(), "OnnxRuntime", str(path), CPU)) as worker:
        assert worker.load().problems == []


def test_a_mask_hides_nothing_and_a_length_is_the_whole(tmp_path):
    """A random mask or length would make the model do less work than in real use."""
    shape = (1, 4, 3)  # directions, hidden, input
    weights = [weight("w", np.ones((1, 4, 3), "float32")), weight("r", np.ones((1, 4, 4), "float32"))]
    path = models.onnx_graph(
        tmp_path / "m.onnx",
        [
            node("RNN", ["x", "w", "r", "", "length"], ["y"], hidden_size=4),
            node("Cast", ["attention_mask"], ["z"], to=FLOAT),
        ],
        [
            value("x", FLOAT, ["steps", 2, 3]),
            value("length", TensorProto.INT32, [2]),
            value("attention_mask", INT, [1, 9]),
        ],
        [value("y", FLOAT, None), value("z", FLOAT, None)],
        weights,
    )
    options = CPU._replace(shapes={"x": (6, 2, 3)})
    fed = own_feeds(runtime.OnnxRuntime().load(str(path), options), options, 0, fits(path))
    assert fed["length"].tolist() == [6, 6]
    assert (fed["attention_mask"] == 1).all()
    assert shape


def test_what_fails_on_random_inputs_is_told_how_to_get_real_ones(tmp_path):
    path = models.onnx_graph(
        tmp_path / "m.onnx",
        [node("Mul", ["i", "hundred"], ["far"]), node("Gather", ["table", "far"], ["y"])],
        [value("i", INT, [1, 20])],
        [value("y", FLOAT, None)],
        [TABLE, weight("hundred", np.int64(100))],
    )
    with (
        Worker(WorkerSpec(runtime_file(), "OnnxRuntime", str(path), CPU)) as worker,
        pytest.raises(VariantError) as caught,
    ):
        worker.load()
    assert "--input-data FILE.npz" in caught.value.remedy
    assert "random inputs" in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"\x08", b"\x3a\xff\xff\xff\x7f", bytes(range(256))])
def test_a_file_that_is_none_shows_nothing(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    assert fits(tmp_path / "m.onnx") == {}


def runtime_file():
    from pathlib import Path

    return Path(runtime.__file__)
