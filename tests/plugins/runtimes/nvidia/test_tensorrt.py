"""TensorRT engines and builds in all four of its languages, against stand-ins for TensorRT and CUDA.

What this proves: every branch of the runtime's logic runs, with the calls that the bindings of that generation have
(test_tensorrt_bindings.py), across a C interface that defers copies as a GPU does. What it cannot prove: that a real
engine computes, and how long it takes.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.errors import VariantError
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof.worker.scenario import Scenario
from edgeprof_plugins.runtimes.nvidia.driver import Gpu
from edgeprof_plugins.runtimes.tensorrt.build import cache_path, parse
from edgeprof_plugins.runtimes.tensorrt.runtime import TensorRT
from tests.plugins.runtimes.nvidia.conftest import FIXED, GENERATIONS, OPEN, VERSIONS

if TYPE_CHECKING:
    from pathlib import Path

X = np.array([[1, 2, 3, 4]], np.float32)


def failure(worker) -> VariantError:
    with pytest.raises(VariantError) as caught:
        worker.load()
    return caught.value


def refusal(path: Path, device: str = "cuda", **options: object) -> str:
    """What is said before TensorRT is imported: no worker and no stand-in is needed for it."""
    with pytest.raises(LoadError) as caught:
        TensorRT().load(str(path), LoadOptions(device, None, 1, {}, {k: str(v) for k, v in options.items()}))
    return caught.value.message


@pytest.mark.parametrize("generation", GENERATIONS)
def test_an_engine_gives_the_right_outputs_in_every_generation(trt, engine, generation):
    with trt(generation, engine(generation)) as worker:
        loaded = worker.load()
        assert loaded.facts["api"].startswith("numbered" if generation == "8.2" else "named")
        assert loaded.facts["tensorrt"] == VERSIONS[generation]
        assert loaded.facts["gpu"] == "Stand-in GPU (compute capability 8.7)"
        assert loaded.devices == ["cuda"]
        np.testing.assert_allclose(worker.infer({"x": X})["y"], 2 * X + 1)


@pytest.mark.parametrize("generation", ["8.2", "10"])
def test_a_dynamic_batch_is_told_and_run_at_several_sizes(trt, engine, generation):
    with trt(generation, engine(generation, OPEN), batch=3) as worker:
        loaded = worker.load()
        assert loaded.inputs[0].shape == (None, 4)
        assert loaded.shapes == {"x": (3, 4)}
        assert loaded.facts["shapes of x"] == "1x4 to 8x4"
        for batch in (1, 8, 3):
            x = np.arange(batch * 4, dtype=np.float32).reshape(batch, 4)
            np.testing.assert_allclose(worker.infer({"x": x})["y"], 2 * x + 1)


@pytest.mark.parametrize("generation", ["8.2", "10"])
def test_a_shape_outside_the_profile_names_its_range(trt, engine, generation):
    error = failure(trt(generation, engine(generation, OPEN), batch=9))
    assert "'x' of shape [9, 4] is outside the engine's profile, which reaches from [1, 4] to [8, 4]" in error.message


@pytest.mark.parametrize("generation", ["8.2", "10"])
def test_another_profile_is_chosen_by_its_number(trt, engine, generation):
    network = {**OPEN, "profiles": [{"x": [[1, 4], [1, 4], [1, 4]]}, {"x": [[4, 4], [6, 4], [8, 4]]}]}
    with trt(generation, engine(generation, network), batch=6, profile=1) as worker:
        loaded = worker.load()
        assert loaded.facts["profile"] == "1 of 2"
        x = np.ones((6, 4), np.float32)
        np.testing.assert_allclose(worker.infer({"x": x})["y"], 2 * x + 1)
    assert (
        "profile=2 does not exist: the engine has 2"
        in failure(trt(generation, engine(generation, network), profile=2)).message
    )


@pytest.mark.parametrize("generation", ["8.2", "8.6"])
def test_an_implicit_batch_goes_by_number_and_is_bounded(trt, engine, generation):
    network = {
        "max_batch": 4,
        "tensors": [{**tensor, "shape": [4]} for tensor in FIXED["tensors"]],
    }
    with trt(generation, engine(generation, network), batch=3) as worker:
        loaded = worker.load()
        assert loaded.facts["api"] == "numbered bindings (execute_async)"
        assert loaded.inputs[0].shape == (None, 4)
        x = np.arange(12, dtype=np.float32).reshape(3, 4)
        np.testing.assert_allclose(worker.infer({"x": x})["y"], 2 * x + 1)
    assert "a batch of 5 is more than the 4" in failure(trt(generation, engine(generation, network), batch=5)).message


def test_types_are_those_of_the_engine_and_bfloat16_comes_as_float32(trt, engine):
    kinds = {"HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "UINT8": "uint8", "BF16": "float32"}
    outputs = [{"name": kind, "input": False, "shape": [1, 4], "dtype": kind} for kind in kinds]
    for kind in ("BF16", "INT32"):
        network = {"tensors": [{**FIXED["tensors"][0], "dtype": kind}, *outputs]}
        with trt("10", engine("10", network)) as worker:
            assert worker.load().inputs[0].dtype == kinds[kind]
            out = worker.infer({"x": X.astype(kinds[kind])})
            assert {name: array.dtype.name for name, array in out.items()} == kinds
            for name, array in out.items():
                np.testing.assert_array_equal(array, (2 * X + 1).astype(kinds[name]))


def test_a_type_that_python_cannot_feed_is_named(trt, engine):
    network = {"tensors": [{**tensor, "dtype": "FP8"} for tensor in FIXED["tensors"]]}
    assert "tensor 'x' is FP8, which cannot be fed" in failure(trt("10", engine("10", network))).message


def test_a_vectorised_format_is_refused_with_the_remedy(trt, engine):
    network = {"tensors": [{**FIXED["tensors"][0], "vectorized": 1}, FIXED["tensors"][1]]}
    error = failure(trt("10", engine("10", network)))
    assert "vectorised format" in error.message
    assert "--inputIOFormats" in error.remedy


@pytest.mark.parametrize("generation", ["8.2", "10"])
def test_a_shape_tensor_is_fed_from_host_memory(trt, engine, generation):
    shape = {"name": "s", "input": True, "shape": [2], "dtype": "INT32", "host": True}
    network = {"tensors": [FIXED["tensors"][0], shape, FIXED["tensors"][1]]}
    with trt(generation, engine(generation, network)) as worker:
        assert worker.load().inputs[1].dtype == "int32"
        out = worker.infer({"x": X, "s": np.array([1, 4], np.int32)})
        np.testing.assert_allclose(out["y"], 2 * X + 1)


@pytest.mark.parametrize("generation", ["8.6", "10"])
def test_an_output_whose_shape_depends_on_the_data_comes_in_its_own_shape(trt, engine, generation):
    network = {"tensors": [FIXED["tensors"][0], {**FIXED["tensors"][1], "shape": [-1], "dds": True}]}
    with trt(generation, engine(generation, network)) as worker:
        worker.load()
        assert worker.infer({"x": X - 2})["y"].tolist() == [3, 5]
    assert "depends on the data" in failure(trt(generation, engine(generation, network), cuda_graph=1)).message


@pytest.mark.parametrize(("generation", "cuda_version"), [("8.2", "10020"), ("8.6", "11040"), ("10", "12040")])
def test_a_cuda_graph_gives_the_same(trt, engine, generation, cuda_version, monkeypatch):
    """CUDA 12 changed how a graph is instantiated; both ways are called."""
    monkeypatch.setenv("STANDIN_CUDA_VERSION", cuda_version)
    with trt(generation, engine(generation), cuda_graph=1) as worker:
        assert worker.load().facts["cuda_graph"] == "yes, of the compute part"
        assert worker.window(Scenario(), 0.05).calls > 1
        np.testing.assert_allclose(worker.infer({"x": X})["y"], 2 * X + 1)
        assert worker.window(Scenario(), 0.05).calls > 1  # a graph made anew after other feeds


@pytest.mark.parametrize("generation", ["8.2", "10"])
def test_windows_of_every_scenario_run_and_only_offline_keeps_the_queue_full(trt, engine, generation):
    with trt(generation, engine(generation)) as worker:
        worker.load()
        worker.warm_up(0.05, 1.0)
        for name in ("single-stream", "multi-stream", "offline", "server", "periodic"):
            run = worker.window(Scenario(name, rate_hz=100.0, streams=2), 0.1)
            assert run.calls >= 1
            assert run.queued == (name == "offline")
            assert run.span.seconds > 0


@pytest.mark.parametrize("generation", ["8.2", "10"])
def test_device_times_come_by_their_parts_and_fit_into_the_wall(trt, engine, generation):
    with trt(generation, engine(generation)) as worker:
        worker.load()
        times = worker.device_times(0.1, 50)
        assert set(times) == {"h2d", "compute", "d2h", "enqueue", "wall"}
        assert 1 <= len(times["compute"]) <= 50
        parts = times["h2d"] + times["compute"] + times["d2h"]
        assert (parts > 0).all()
        assert np.median(parts) <= np.median(times["wall"])


def test_layers_are_timed_to_a_file(trt, engine, tmp_path):
    path = tmp_path / "layers.json"
    with trt("10", engine("10"), layers=path) as worker:
        worker.load()
        np.testing.assert_allclose(worker.infer({"x": X})["y"], 2 * X + 1)
    told = json.loads(path.read_text())
    assert [layer["name"] for layer in told["layers"]] == ["multiply", "add"]
    assert told["layers"][0]["mean_s"] == pytest.approx(0.3e-3)
    assert told["layers"][0]["share"] == pytest.approx(0.75)


def test_the_gpus_memory_is_told(trt, engine):
    with trt("10", engine("10", OPEN), batch=8) as worker:
        worker.load()
        peak = worker.memory().gpu_peak
        assert peak is not None
        assert peak >= 2 * 8 * 4 * 4


def test_an_engine_of_another_version_names_both(trt, engine, standin_plan, tmp_path):
    old = tmp_path / "old.engine"
    old.write_bytes(standin_plan("8.6.1.6", 87, FIXED))
    for generation in ("8.2", "10", "11"):
        error = failure(trt(generation, old))
        here = VERSIONS[generation]
        assert f"old.engine was built by TensorRT 8.6.1.6, and this is TensorRT {here}" in error.message
        assert "--runtime tensorrt" in error.remedy


def test_an_engine_of_another_gpu_names_both(trt, engine):
    error = failure(trt("10", engine("10", compute=75)))
    assert "was built for a GPU of compute capability 7.5, and this one (Stand-in GPU) has 8.7" in error.message


def test_a_missing_plugin_is_named(trt, engine):
    error = failure(trt("10", engine("10", {**FIXED, "plugin": "EfficientNMS_TRT"})))
    assert "needs the TensorRT plugin EfficientNMS_TRT" in error.message
    assert "plugins=LIBRARY.so" in error.remedy


def test_damaged_files_are_called_what_they_are(trt, engine, tmp_path):
    whole = engine("10").read_bytes()
    broken = {
        "cut.engine": (whole[: len(whole) // 2], "is cut off: a plan of"),
        "text.engine": (b"hello, I am no engine\n", "is neither a TensorRT plan nor an ONNX file"),
        "empty.engine": (b"", "is neither a TensorRT plan nor an ONNX file"),
    }
    for name, (content, message) in broken.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert message in refusal(path)
    path = tmp_path / "scrambled.engine"
    path.write_bytes(whole[:56] + b"\xff" * (len(whole) - 56))
    assert "does not load scrambled.engine: " in failure(trt("10", path)).message


def test_a_run_that_fails_says_what_tensorrt_said(trt, engine):
    error = failure(trt("10", engine("10", {**FIXED, "fails": True})))
    assert error.code == "runtime_error"
    assert "an illegal memory access was encountered" in error.message


def test_short_memory_is_out_of_memory(trt, engine, monkeypatch):
    error = failure(trt("10", engine("10", {**FIXED, "activation_bytes": 1 << 40})))
    assert "out of memory" in error.message
    monkeypatch.setenv("STANDIN_MEMORY", "20")
    error = failure(trt("10", engine("10")))
    assert error.code == "out_of_memory"
    assert "cudaMalloc: out of memory" in error.message


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"STANDIN_CU_INIT": "100"}, "NVIDIA's driver does not start: cuInit returned 100"),
        ({"STANDIN_GPUS": "0"}, "NVIDIA's driver has no GPU"),
        (
            {"STANDIN_DRIVER_VERSION": "11040"},
            "the driver supports CUDA up to 11.4, but the CUDA runtime here is newer",
        ),
    ],
)
def test_a_driver_that_cannot_be_used_says_why_and_what_the_file_was(trt, engine, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    error = failure(trt("10", engine("10")))
    assert message in error.message
    assert error.remedy


def test_options_and_devices_that_do_not_exist_are_refused_before_anything_starts(trt, engine):
    path = engine("10")
    assert "no option speed=1" in refusal(path, speed=1)
    assert "precision 'fp12'" in refusal(path, precision="fp12")
    assert "cuda_graph=yes" in refusal(path, cuda_graph="yes")
    assert "wait=long is none of auto, spin" in refusal(path, wait="long")
    assert "no device 'cpu'" in refusal(path, device="cpu")
    assert "there is no cuda:3: this machine has 1" in failure(trt("10", path, device="cuda:3")).message
    assert "already built, of which precision cannot" in failure(trt("10", path, precision="fp16")).message
    assert "this device has 0 DLA core(s)" in failure(trt("10", path, dla_core=0)).message


# ---- building ------------------------------------------------------------------------------------------------------


def engines(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.engine"))


@pytest.mark.parametrize("generation", ["8.2", "11"])
def test_an_onnx_file_is_built_once_and_taken_from_the_cache_then(trt, onnx_model, generation, tmp_path):
    with trt(generation, onnx_model, batch=4) as worker:
        loaded = worker.load()
        assert loaded.facts["cached"] == "no"
        assert float(loaded.facts["build_s"]) >= 0
        assert loaded.facts["shapes of x"] == "1x4 to 4x4"
        np.testing.assert_allclose(worker.infer({"x": X})["y"], 2 * X + 1)
    (kept,) = engines(tmp_path)
    with trt(generation, onnx_model, batch=4) as worker:
        assert worker.load().facts["cached"] == str(kept)
    kept.write_bytes(b"damaged")
    with trt(generation, onnx_model, batch=4) as worker:
        assert worker.load().facts["cached"] == "no"


def _open_to_all(kept: Path) -> None:
    kept.chmod(0o666)


def _in_an_open_folder(kept: Path) -> None:
    kept.parent.chmod(0o777)


def _behind_a_link(kept: Path) -> None:
    kept.rename(kept.with_name("elsewhere"))
    kept.symlink_to("elsewhere")


def _a_pipe(kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept)


def _of_another_user(kept: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(kept, 12345, 12345)


@pytest.mark.parametrize("spoil", [_open_to_all, _in_an_open_folder, _behind_a_link, _a_pipe, _of_another_user])
def test_a_cached_engine_that_others_could_have_put_there_is_not_loaded(trt, onnx_model, tmp_path, spoil) -> None:
    with trt("10", onnx_model) as worker:
        assert worker.load().facts["cached"] == "no"
    (kept,) = engines(tmp_path)
    assert kept.stat().st_mode & 0o777 == 0o600
    spoil(kept)
    with trt("10", onnx_model) as worker:
        assert worker.load().facts["cached"] == "no"
        np.testing.assert_allclose(worker.infer({"x": X})["y"], 2 * X + 1)


def test_other_flags_models_and_gpus_have_engines_of_their_own(onnx_model, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPROF_CACHE_DIR", str(tmp_path))
    other = tmp_path / "other.onnx"
    other.write_bytes(onnx_model.read_bytes() + b" ")

    def kept(
        model: Path = onnx_model, version: str = "10.3.0", compute: str = "8.7", batch: int = 1, **given: str
    ) -> str:
        options = LoadOptions("cuda", None, batch, {}, given)
        return cache_path(str(model), version, Gpu("GPU", compute), parse(given), options)

    different = [
        kept(),
        kept(precision="fp16"),
        kept(sparsity="1"),
        kept(max_batch="8"),
        kept(batch=2),
        kept(other),
        kept(version="8.6.1"),
        kept(compute="7.2"),
    ]
    assert len(set(different)) == len(different)
    assert kept() == kept(save="elsewhere.engine", timing_cache="timings") == different[0]


def test_an_engine_is_not_kept_where_nobody_wants_it(trt, onnx_model, tmp_path):
    with trt("8.6", onnx_model, cache=0) as worker:
        worker.load()
    assert engines(tmp_path) == []


@pytest.mark.parametrize("generation", ["8.2", "10"])
def test_flags_reach_the_builder(trt, onnx_model, generation, tmp_path):
    saved = tmp_path / "saved.engine"
    with trt(generation, onnx_model, precision="fp16", sparsity=1, tf32=0, workspace_mib=64, save=saved) as worker:
        worker.load()
    told = json.loads(saved.read_bytes()[56:])
    assert told["flags"] == ["FP16", "SPARSE_WEIGHTS", "no TF32"]
    assert told["workspace"] == 64 << 20
    with trt(generation, saved) as worker:
        worker.load()
        np.testing.assert_allclose(worker.infer({"x": X})["y"], 2 * X + 1)


def test_a_dla_core_is_used_where_there_is_one(trt, onnx_model, tmp_path, monkeypatch):
    assert "this device has 0 DLA core(s)" in failure(trt("10", onnx_model, dla_core=0, precision="fp16")).message
    monkeypatch.setenv("STANDIN_DLA", "2")
    assert "computes in fp16 or int8 only" in failure(trt("10", onnx_model, dla_core=0)).message


def test_tensorrt_11_keeps_the_types_of_the_file(trt, onnx_model):
    error = failure(trt("11", onnx_model, precision="fp16"))
    assert "TensorRT 11.4.0.106 has no builder flag for fp16: it keeps the types of the ONNX file" in error.message


def test_an_operator_that_tensorrt_does_not_have_is_named(trt, tmp_path):
    path = tmp_path / "fancy.onnx"
    path.write_bytes(b"\x08\x08FancyOp")
    error = failure(trt("10", path))
    assert "TensorRT 10.3.0 does not take fancy.onnx: node 3 (FancyOp): No importer registered" in error.message
    assert "node 3: No importer registered" in failure(trt("8.2", path)).message


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("memory", "out_of_memory", "out of memory while TensorRT built"),
        ("fails", "load_failed", "Could not find any implementation for node FancyOp"),
    ],
)
def test_a_build_that_fails_says_why(trt, onnx_model, monkeypatch, how, code, message):
    monkeypatch.setenv("STANDIN_BUILD", how)
    error = failure(trt("10", onnx_model))
    assert error.code == code
    assert message in error.message


@pytest.mark.parametrize("generation", ["8.2", "10"])
def test_int8_is_calibrated_on_every_whole_batch_of_the_data(trt, onnx_model, generation, tmp_path):
    data, cache = tmp_path / "data.npz", tmp_path / "scales"
    np.savez(data, x=np.ones((7, 4), np.float32))
    with trt(generation, onnx_model, batch=2, precision="int8", calibration=data, calibration_cache=cache) as worker:
        worker.load()
    assert cache.read_text() == "sum 24"  # three batches of two samples of four ones
    with trt(generation, onnx_model, precision="int8", calibration_cache=cache, cache=0) as worker:
        worker.load()


def test_int8_without_data_is_refused_and_data_that_do_not_fit_are_named(trt, onnx_model, tmp_path):
    error = failure(trt("10", onnx_model, precision="int8"))
    assert "precision=int8 needs calibration data" in error.message
    assert "--dataset" in error.remedy
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=np.ones((7, 5), np.float32))
    assert (
        "has [7, 5] for the input 'x', which takes [1, 4]"
        in failure(trt("10", onnx_model, precision="int8", calibration=wrong)).message
    )
    few = tmp_path / "few.npz"
    np.savez(few, x=np.ones((2, 4), np.float32))
    assert (
        "fewer samples than a batch of 3"
        in failure(trt("10", onnx_model, batch=3, precision="best", calibration=few)).message
    )


def test_a_timing_cache_is_made_used_and_refused_on_another_device(trt, onnx_model, tmp_path, monkeypatch):
    cache = tmp_path / "timings"
    for _ in range(2):
        with trt("10", onnx_model, timing_cache=cache, cache=0) as worker:
            worker.load()
        assert cache.read_bytes() == b"timings of compute 87"
    monkeypatch.setenv("STANDIN_COMPUTE", "72")
    error = failure(trt("10", onnx_model, timing_cache=cache, cache=0))
    assert f"the timing cache {cache} is not of this GPU and TensorRT" in error.message
