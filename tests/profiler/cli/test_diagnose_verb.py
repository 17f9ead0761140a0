"""``edgeprof diagnose`` on real graphs: before a run (prediction) and after (explanation)."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime.quantization")  # compressors and workers are forks, which import nothing again

from edgeprof.artifact import recognise
from edgeprof.diagnosis.graph import read_graph
from edgeprof.diagnosis.noise import SAMPLES
from tests.fuzzing import readers
from tests.plugins.compressors.nets import convnet, samples
from tests.profiler.cli.in_process import verb

if TYPE_CHECKING:
    from pathlib import Path

    from tests.profiler.cli.in_process import Done, Verb

pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture
def edgeprof(capfd: pytest.CaptureFixture[str]) -> Verb:
    return verb(capfd)


def findings(done: Done) -> dict[str, Any]:
    return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return convnet(tmp_path / "net.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", x=samples(SAMPLES), y=np.arange(SAMPLES) % 4)
    return tmp_path / "data.npz"


def test_the_executed_graph_has_its_multiply_accumulates(net: Path) -> None:
    graph = read_graph(recognise(str(net)))
    assert graph is not None
    macs = {one.channels: one.macs for one in graph.layers if not one.depthwise}
    assert [one.macs for one in graph.layers] == [
        64 * 16 * 27, 64 * 16 * 144, 64 * 16 * 9, 64 * 32 * 16, 4 * 32,
    ]  # fmt: skip
    assert macs[4] == 128
    assert not graph.batch_norms  # ONNX Runtime fused it


def test_a_no_op_is_told_before_it_is_run(edgeprof: Verb, net: Path) -> None:
    done = edgeprof("diagnose", net, "--with", "int8-dynamic", "--json", "-q")
    found = findings(done)["int8-share"]
    assert found["status"] == "fail"
    assert found["number"] < 0.01
    assert json.loads(done.stdout)["measured_speed_up"] is None
    assert "a no-op for speed" in edgeprof("diagnose", net, "--with", "int8-dynamic", "-q").stdout.splitlines()[0]


def test_a_sound_static_variant_agrees_and_runs_in_integers(edgeprof: Verb, net: Path, data: Path) -> None:
    done = edgeprof("diagnose", net, "--with", "int8-static", "--dataset", data, "--json", "-q")
    found = findings(done)
    assert found["int8-share"]["status"] == "ok"
    assert found["agreement"]["number"] > 0.8
    assert found["sqnr"]["number"] > 10
    assert found["calibration"]["status"] == "ok"


def test_calibration_on_other_data_is_named_as_the_cause(edgeprof: Verb, net: Path, data: Path, tmp_path: Path) -> None:
    """The failure of the seed study is reproduced: the calibration samples are a hundred times too small."""
    out = tmp_path / "out"
    edgeprof("compress", net, "--with", "int8-static", "-o", out, "--dataset", data, "--preprocess", "scale=0.01", "-q")
    words = ["diagnose", out / "net.int8-static.onnx", "--baseline", net, "--dataset", data, "-q", "--measure"]
    done = edgeprof(*words, "0.2", "--json", "--strict", code=1)
    found = findings(done)
    assert found["preprocessing"]["status"] == "fail"
    assert found["clipping"]["number"] > 0.1
    assert found["sqnr"]["status"] == "fail"
    assert json.loads(done.stdout)["measured_speed_up"] > 0
    assert edgeprof(*words, "0").stdout.startswith("it was calibrated with another preprocessing")


def test_bench_prints_the_cause_under_a_disappointing_variant(edgeprof: Verb, net: Path) -> None:
    words = ["bench", net, "--with", "prune:amount=0.6", "--windows", 2, "--window", 0.2, "--idle", 0, "-q", "--json"]
    result = json.loads(edgeprof(*words).stdout)
    ratio = result["comparisons"][0]["latency_ratio"]["value"]
    told = [r["message"] for r in result["variants"][1]["reasons"] if r["code"] == "diagnosis"]
    if ratio > 0.95:
        assert len(told) == 1
        assert "60% of the weights are zero" in told[0]
    else:
        assert not told


def test_a_format_without_a_reader_says_so(edgeprof: Verb, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(readers.torchscript())
    done = edgeprof("diagnose", path, "-q")
    assert "cannot be read here" in " ".join(done.stdout.split())


def test_without_the_package_onnx_it_says_how_to_get_it(
    edgeprof: Verb, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "edgeprof_plugins.runtimes.onnxruntime.graph", raising=False)
    monkeypatch.delattr("edgeprof_plugins.runtimes.onnxruntime.graph", raising=False)
    printed = " ".join(edgeprof("diagnose", net, "-q").stdout.split())
    assert "cannot be read here" in printed
    assert "install" in printed
    assert "onnx>=" in printed


def test_with_and_baseline_exclude_each_other(edgeprof: Verb, net: Path) -> None:
    done = edgeprof("diagnose", net, "--with", "prune", "--baseline", net, code=2)
    assert "--with makes a variant of MODEL" in done.stderr
