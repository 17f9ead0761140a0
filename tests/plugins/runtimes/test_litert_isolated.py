"""Layers of .tflite models cut out of the file: with their recorded inputs, or refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from edgeprof.errors import VariantError
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.worker.runtime import LoadOptions
from edgeprof_plugins.runtimes.litert import isolated
from edgeprof_plugins.runtimes.litert.runtime import LiteRT
from tests.plugins.compressors.tflite.places import Graph, Model, draw

if TYPE_CHECKING:
    from pathlib import Path

CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})
ROWS, INNER, MIDDLE, OUTER = 64, 256, 512, 128
FIRST, SECOND = draw(1, MIDDLE, INNER, kind="float16"), draw(2, OUTER, MIDDLE)


def two_layers(path: Path) -> Path:
    """y = softmax(relu(x FIRSTᵀ) SECONDᵀ); FIRST is stored in float16 and widened when the model is loaded."""
    model = Model()
    graph = Graph(model, "main")
    x, hidden, kept = (graph.tensor(n, (ROWS, s)) for n, s in (("x", INNER), ("hidden", MIDDLE), ("kept", MIDDLE)))
    scores, y = graph.tensor("scores", (ROWS, OUTER)), graph.tensor("y", (ROWS, OUTER))
    first, wide = graph.weight("first", FIRST), graph.tensor("wide", FIRST.shape)
    graph.operator("DEQUANTIZE", [first], [wide], schema.DequantizeOptionsT())
    graph.operator("FULLY_CONNECTED", [x, wide, -1], [hidden], schema.FullyConnectedOptionsT())
    graph.operator("RELU", [hidden], [kept])
    graph.operator(
        "FULLY_CONNECTED", [kept, graph.weight("second", SECOND), -1], [scores], schema.FullyConnectedOptionsT()
    )
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    graph.operator("SOFTMAX", [scores], [y], softmax)
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model.save(path)


def two_branches(path: Path) -> Path:
    """y = x Wᵀ + cumsum(x) Vᵀ: XNNPACK leaves the cumulative sum to LiteRT, and no product needs the other."""
    model = Model()
    graph = Graph(model, "main")
    x, left, summed, right, y = (graph.tensor(name, (8, 8)) for name in ("x", "left", "summed", "right", "y"))
    axis = graph.tensor("axis", (), np.array(1, np.int32))
    graph.operator(
        "FULLY_CONNECTED", [x, graph.weight("w", draw(1, 8, 8)), -1], [left], schema.FullyConnectedOptionsT()
    )
    graph.operator("CUMSUM", [x, axis], [summed], schema.CumsumOptionsT())
    graph.operator(
        "FULLY_CONNECTED", [summed, graph.weight("v", draw(2, 8, 8)), -1], [right], schema.FullyConnectedOptionsT()
    )
    graph.operator("ADD", [left, right], [y], schema.AddOptionsT())
    graph.graph.inputs, graph.graph.outputs = [x], [y]
    return model.save(path)


def profile(path: Path, feeds: dict[str, Any]) -> list[Any]:
    return list(LiteRT().load(str(path), CPU).profile_operators(feeds, 2).operators)


def answer(call: Any) -> Any:
    """What the interpreter of a call computes."""
    call()
    interpreter = call.__self__
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_a_layer_runs_alone_on_the_inputs_that_it_has_inside_the_model(tmp_path: Path) -> None:
    path = two_layers(tmp_path / "net.tflite")
    x = draw(3, ROWS, INNER)
    kernels = profile(path, {"x": x})
    names = [kernel.name for kernel in kernels]
    first, second = (name for name in names if name.startswith("Fully Connected"))
    operators, calls = isolated.cut_out(
        str(path), kernels, {0: x}, names, threads=1, smallest_model=LiteRT.smallest_model
    )
    assert [workload.name for workload in operators.workloads] == [first, second]
    assert set(operators.refused) == set(names) - {first, second}
    assert all("only layers with weights" in why for why in operators.refused.values())
    hidden = x @ FIRST.astype("float32").T
    np.testing.assert_allclose(answer(calls[first]), hidden, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(answer(calls[second]), np.maximum(hidden, 0) @ SECOND.T, rtol=1e-3, atol=1e-3)


def test_a_worker_measures_a_layer_alone(tmp_path: Path) -> None:
    with Worker(WorkerSpec.of(LiteRT(), str(two_layers(tmp_path / "net.tflite")), CPU)) as worker:
        worker.load()
        (name, *_) = [o.name for o in worker.profile(0.01).operators if o.name.startswith("Fully Connected")]
        assert [workload.name for workload in worker.isolate([name]).workloads] == [name]
        assert worker.warm_up(0.01, 0.05, None, name).latency_s > 0


def test_layers_whose_order_is_not_certain_are_refused(tmp_path: Path) -> None:
    with Worker(WorkerSpec.of(LiteRT(), str(two_branches(tmp_path / "net.tflite")), CPU)) as worker:
        worker.load()
        names = [operator.name for operator in worker.profile(0.01).operators]
        assert any(name.startswith("CUMSUM") for name in names)
        with pytest.raises(VariantError, match="may run in another order"):
            worker.isolate(names)


def test_each_operator_is_listed_once_in_a_model_that_marks_no_runs(tmp_path: Path) -> None:
    session = LiteRT().load(str(two_layers(tmp_path / "net.tflite")), CPU)
    profiled = session.profile_operators({"x": draw(3, ROWS, INNER)}, 3)
    kinds = [operator.type for operator in profiled.operators]
    assert kinds.count("Fully Connected") == 2
    assert [operator.name.partition(" #")[2] for operator in profiled.operators] == [str(n) for n in range(len(kinds))]
    assert 0 < sum(operator.seconds for operator in profiled.operators) <= profiled.seconds
