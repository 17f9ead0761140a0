"""Inputs of which the graph shows what they are get values that the model can take."""

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


def test_a_mask_hides_nothing_and_a_length_is_the_whole(tmp_path):
    """A mask or a length drawn at random would make the model do less than it does in use."""
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
