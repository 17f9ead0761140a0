"""Real models through the first-party runtimes in real workers, and damaged copies of them."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from edgeprof.errors import VariantError
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.worker.runtime import LoadOptions
from edgeprof.worker.scenario import Scenario

DATA = Path(__file__).parents[4] / "shared" / "data"
MODELS = {
    "onnxruntime": ("onnxruntime", "onnx-mnist/mnist.onnx"),
    "litert": ("ai_edge_litert", "mlperf-tiny/ic01/pretrainedResnet_quant.tflite"),
}


@pytest.fixture(params=MODELS)
def real(request):
    """The runtime's file and class, and the model."""
    library, model = MODELS[request.param]
    pytest.importorskip(library)
    if not (DATA / model).exists():
        pytest.skip(f"../shared/data/{model} is not here")
    from edgeprof.plugins import PluginHost

    runtime = type(PluginHost(only=[request.param]).get("runtimes", request.param)())
    return Path(inspect.getfile(runtime)), runtime.__name__, DATA / model


def worker(real, target: Path) -> Worker:
    file, class_name, _ = real
    return Worker(WorkerSpec(file, class_name, str(target), LoadOptions("cpu", 1, 1, {}, {})))


def test_a_real_model_runs_in_every_scenario(real):
    with worker(real, real[2]) as one:
        loaded = one.load()
        assert loaded.problems == []
        assert loaded.rss_bytes > loaded.base_rss_bytes  # the library and the model take room
        assert one.warm_up(0.05, 2.0).latency_s > 0
        for scenario in (
            Scenario(),
            Scenario("multi-stream", streams=2),
            Scenario("server", rate_hz=50.0),
            Scenario("periodic", rate_hz=30.0),
        ):
            assert one.window(scenario, 0.2).calls >= 1, scenario.name
        spec = loaded.inputs[0]
        zeros = np.zeros(loaded.shapes[spec.name], spec.dtype)
        outputs = one.infer({spec.name: zeros})
        again = one.infer({spec.name: zeros})
        for name, values in outputs.items():
            np.testing.assert_array_equal(values, again[name])  # windows in between have left no trace


@pytest.mark.parametrize("damage", ["truncated", "scrambled"])
def test_a_damaged_copy_costs_that_variant_alone(real, tmp_path, damage):
    content = bytearray(real[2].read_bytes())
    if damage == "truncated":
        del content[len(content) // 3 :]
    else:
        rng = np.random.default_rng(5)
        for position in rng.integers(8, len(content), 2000):
            content[position] = int(rng.integers(256))
    copy = tmp_path / real[2].name
    copy.write_bytes(content)
    with worker(real, real[2]) as healthy, worker(real, copy) as damaged:
        healthy.load()
        with pytest.raises(VariantError) as caught:
            damaged.load()
        assert caught.value.code in {"load_failed", "runtime_error", "crashed", "out_of_memory"}
        assert copy.name in caught.value.message
        assert "\n" not in caught.value.message
        assert healthy.window(Scenario(), 0.02).calls >= 1
