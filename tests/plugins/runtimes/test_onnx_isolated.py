"""Operators of ONNX models cut out of the executed graph: with their recorded inputs, or refused with the reason."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.errors import VariantError
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.worker.runtime import LoadOptions
from tests import models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")), reason="onnx or onnxruntime is missing"
)
CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """row = table[index of the largest of x]: a Gather that fails unless its index is the one from inside the model."""
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(0).standard_normal((4, 50_000)).astype("float32")
    always, never = (
        helper.make_graph(
            [helper.make_node(kind, ["row"], [f"{kind}_out"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, [1, 50_000])],
        )
        for kind in ("Exp", "Neg")
    )
    nodes = [
        helper.make_node("ArgMax", ["x"], ["largest"], axis=1, keepdims=0, name="largest"),
        helper.make_node("Gather", ["table", "largest"], ["row"], axis=0, name="gather"),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0, name="top"),
        helper.make_node("Greater", ["top", "zero"], ["is_positive"], name="compare"),
        helper.make_node("If", ["is_positive"], ["chosen"], then_branch=always, else_branch=never, name="branch"),
        helper.make_node("Softmax", ["chosen"], ["y"]),
    ]
    return models.onnx_graph(
        tmp_path_factory.mktemp("gather") / "gather.onnx",
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 50_000])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.float32(0), "zero")],
    )


@pytest.fixture
def worker(path: Path) -> Iterator[Worker]:
    from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

    with Worker(WorkerSpec.of(OnnxRuntime(), str(path), CPU)) as worker:
        worker.load()
        yield worker


def test_an_operator_runs_alone_on_the_inputs_that_it_has_inside_the_model(worker: Worker) -> None:
    profile = worker.profile(0.05)
    unnamed = next(operator.name for operator in profile.operators if operator.type == "Softmax")
    isolated = worker.isolate(["gather", unnamed])
    assert isolated.refused == {}
    assert [workload.name for workload in isolated.workloads] == ["gather", unnamed]
    gather = isolated.workloads[0]
    assert gather.unit == "inference"
    assert gather.units_per_call > 1  # a copy of one row takes microseconds
    assert worker.warm_up(0.01, 0.05, None, "gather").latency_s > 0


def test_each_of_several_operators_without_a_name_is_the_one_of_the_profile(tmp_path: Path) -> None:
    """Two products of the same type, of which one takes a thousand times as long as the other."""
    from onnx import TensorProto, helper, numpy_helper

    from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

    weights = {name: np.ones(shape, "float32") for name, shape in {"small": (4, 64), "large": (64, 16000)}.items()}
    path = models.onnx_graph(
        tmp_path / "products.onnx",
        [helper.make_node("MatMul", ["x", "small"], ["h"]), helper.make_node("MatMul", ["h", "large"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 16000])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    with Worker(WorkerSpec.of(OnnxRuntime(), str(path), CPU)) as worker:
        worker.load()
        products = sorted(worker.profile(0.05).operators, key=lambda operator: operator.seconds)
        isolated = worker.isolate([operator.name for operator in products])
    assert isolated.refused == {}
    short, long = isolated.workloads
    assert short.units_per_call > 10 * long.units_per_call


def test_the_time_of_an_operator_that_contains_a_graph_is_without_that_graphs_operators(tmp_path: Path) -> None:
    from edgeprof_plugins.runtimes.onnxruntime.operators import kernels

    def event(name: str, ts: int, dur: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "tid": 1, "args": {"op_name": name}}

    run = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 40}
    ended = [event("Add", 1, 0), event("Neg", 1, 0), event("Exp", 3, 9), event("Mul", 12, 6), event("If", 3, 17)]
    (tmp_path / "profile.json").write_text(json.dumps([*ended, event("Softmax", 20, 5), run]))
    executed = [
        (kernel.name, round(kernel.seconds * 1e6), kernel.is_inside) for kernel in kernels(tmp_path / "profile.json")
    ]
    assert executed == [
        ("Add", 0, False),
        ("Neg", 0, False),
        ("If", 2, False),
        ("Exp", 9, True),
        ("Mul", 6, True),
        ("Softmax", 5, False),
    ]


def test_operators_that_cannot_be_cut_out_are_named_with_the_reason(worker: Worker) -> None:
    isolated = worker.isolate(["branch", "no such operator", "gather"])
    assert [workload.name for workload in isolated.workloads] == ["gather"]
    assert isolated.refused == {
        "branch": "it contains a graph of its own",
        "no such operator": "the graph has no operators of this name",
    }


def test_the_values_of_a_call_alone_are_those_inside_the_model(path: Path) -> None:
    import onnxruntime

    from edgeprof_plugins.runtimes.onnxruntime.graph import taps
    from edgeprof_plugins.runtimes.onnxruntime.isolated import ExecutedGraph

    feeds = {"x": np.array([[1, 3, 2, 0]], "float32")}
    graph = ExecutedGraph(
        onnxruntime, onnxruntime.SessionOptions(), lambda given: onnxruntime.InferenceSession(str(path), given), feeds
    )
    gather = graph.node("gather")
    graph.record(feeds, [gather])
    (inside,) = taps(path, ["row"], [feeds])
    (alone,) = graph.outputs(gather)
    assert np.array_equal(alone, inside["row"])
    assert alone.shape == (1, 50_000)


def test_another_provider_than_the_cpus_own_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

    session = OnnxRuntime().load(str(path), CPU)
    monkeypatch.setattr(session, "_again", None)
    from edgeprof.worker.runtime import LoadError

    with pytest.raises(LoadError, match="only on the CPU's own provider"):
        session.isolate_operators({"x": np.zeros((1, 4), "float32")}, ["gather"])
    session.close()


def test_a_runtime_without_cut_out_operators_offers_none(tmp_path: Path) -> None:
    from edgeprof.benchmark import isolated
    from edgeprof.worker.scenario import Scenario
    from edgeprof.worker.workload import INFERENCE
    from edgeprof_plugins.runtimes.python import Python

    app = tmp_path / "app.py"
    app.write_text("def frame():\n    return 1.0\n")
    with Worker(WorkerSpec.of(Python(), f"{app}:frame", CPU)) as worker:
        worker.load()
        assert worker.isolate(["a"]) is None
        with pytest.raises(VariantError, match="its runtime cannot cut operators out"):
            isolated.workload_records(worker, INFERENCE, ["a"], Scenario())
