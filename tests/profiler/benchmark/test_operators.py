"""Operator profiles: each operator's share of the measured time, and the time outside of all operators."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.benchmark.operators import OUTSIDE, look_into, operators_of
from edgeprof.launch.supervisor import WorkerSpec
from edgeprof.worker.runtime import LoadOptions, OperatorProfile, OperatorTime

CPU = LoadOptions(device="cpu", threads=1, batch=1, shapes={}, options={})
TIMES = st.floats(1e-9, 10.0)


@given(st.lists(TIMES, min_size=1, max_size=40), TIMES, st.integers(1, 50), TIMES, TIMES)
def test_shares_seconds_and_joules_add_up_to_the_whole_whatever_the_profile_says(times, call, kept, latency, joules):
    profile = OperatorProfile([OperatorTime(f"op{n}", "Conv", t) for n, t in enumerate(times)], call)
    rows = operators_of(profile, kept, latency, joules)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert sum(row.seconds for row in rows) == pytest.approx(latency)
    assert sum(row.energy_j_attributed for row in rows) == pytest.approx(joules)
    assert all(row.share >= 0 for row in rows)
    assert len(rows) <= kept + 2
    assert rows[-1].name == OUTSIDE


def test_the_longest_come_first_and_the_others_are_one_row():
    profile = OperatorProfile([OperatorTime("a", "Conv", 1.0), OperatorTime("b", "Relu", 3.0)], 5.0)
    rows = operators_of(profile, 1, 10.0, None)
    assert [(row.name, row.share, row.seconds) for row in rows] == [
        ("b", 0.6, 6.0),
        ("1 other operators", 0.2, 2.0),
        (OUTSIDE, pytest.approx(0.2), pytest.approx(2.0)),
    ]
    assert {row.energy_j_attributed for row in rows} == {None}


def test_a_profile_in_which_nothing_took_time_tells_nothing():
    assert operators_of(OperatorProfile([OperatorTime("a", "Conv", 0.0)], 1.0), 3, 1.0, 1.0) == []


def test_onnx_runtimes_operators_are_told_by_a_worker_of_its_own(shared_data):
    pytest.importorskip("onnxruntime")
    from edgeprof_plugins.runtimes.onnxruntime.runtime import OnnxRuntime

    path = str(shared_data / "onnx-mnist" / "mnist.onnx")
    profile, missing = look_into(WorkerSpec.of(OnnxRuntime(), path, CPU), "onnxruntime")
    assert missing == []
    assert {"MatMul", "Conv"} & {one.type for one in profile.operators}
    assert sum(one.seconds for one in profile.operators) <= 1.05 * profile.seconds


def test_litert_tells_the_operators_inside_of_xnnpack(shared_data):
    pytest.importorskip("ai_edge_litert")
    from edgeprof_plugins.runtimes.litert.runtime import LiteRT

    path = str(shared_data / "mlperf-tiny" / "ic01" / "pretrainedResnet_quant.tflite")
    profile, missing = look_into(WorkerSpec.of(LiteRT(), path, CPU), "litert")
    assert missing == []
    assert any("Convolution" in one.type for one in profile.operators)
    assert not any("Delegate" in one.name for one in profile.operators)
    assert 0.2 * profile.seconds < sum(one.seconds for one in profile.operators) <= 1.05 * profile.seconds


@pytest.mark.usefixtures("forked_workers")
def test_pytorchs_operators_are_told_by_kind(torchscript_model):
    from edgeprof_plugins.runtimes.pytorch.runtime import PyTorch

    options = CPU._replace(shapes={"x": (64, 4)})
    profile, missing = look_into(WorkerSpec.of(PyTorch(), str(torchscript_model), options), "pytorch")
    assert missing == []
    assert any(one.name.startswith("aten::") for one in profile.operators)


def test_a_runtime_without_a_profiler_is_named(tmp_path):
    from edgeprof_plugins.runtimes.python import Python

    app = tmp_path / "app.py"
    app.write_text("def frame():\n    return 1.0\n")
    profile, (reason,) = look_into(WorkerSpec.of(Python(), f"{app}:frame", CPU), "python")
    assert profile is None
    assert "the runtime python has no profiler" in reason.message


def test_a_library_whose_profiler_cannot_be_used_says_why(tflite_model):
    from edgeprof_plugins.runtimes.litert.runtime import LiteRT

    options = CPU._replace(options={"xnnpack": "0"})
    profile, (reason,) = look_into(WorkerSpec.of(LiteRT(), str(tflite_model), options), "litert")
    assert profile is None
    assert "only LiteRT itself (ai-edge-litert) with XNNPACK" in reason.message
