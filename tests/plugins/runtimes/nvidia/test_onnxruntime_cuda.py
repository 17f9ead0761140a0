"""ONNX Runtime on a CUDA device: the real library, whose memory of the device is here the host's, and a stand-in for
libcudart, whose copies to the host come when the stream is waited for.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from edgeprof.testing import check_runtime
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof_plugins.runtimes.nvidia import cuda as nvidia_cuda
from edgeprof_plugins.runtimes.nvidia import cudart as nvidia_cudart
from edgeprof_plugins.runtimes.nvidia.driver import Driver
from edgeprof_plugins.runtimes.nvidia.driver import Gpu as Card
from tests import models

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from edgeprof_plugins.runtimes.onnxruntime import cuda as onnxruntime_cuda  # noqa: E402
from edgeprof_plugins.runtimes.onnxruntime import runtime  # noqa: E402 - after what it needs is known to be here

CUDA = LoadOptions(device="cuda", threads=1, batch=1, shapes={}, options={})
X = np.arange(8, dtype="float32").reshape(2, 4)


class Recorder:
    """ONNX Runtime with a CUDA provider that is its CPU's: what it is given is kept."""

    def __init__(self) -> None:
        self.given: list[dict[str, str]] = []
        self.runs: list[tuple[str, dict[str, str]]] = []
        self.takes_streams = True
        self.starts = True

    def __getattr__(self, name: str):
        return getattr(onnxruntime, name)

    __version__ = onnxruntime.__version__

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    class RunOptions:
        def __init__(self) -> None:
            self.real, self.entries = onnxruntime.RunOptions(), {}

        def add_run_config_entry(self, key: str, value: str) -> None:
            self.real.add_run_config_entry(key, value)
            self.entries[key] = value

    def InferenceSession(self, path, options, *, providers, enable_fallback):  # noqa: N802 - ONNX Runtime's
        assert not enable_fallback
        real = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outer, plain_run, bound_run = self, real.run, real.run_with_iobinding
        name, settings = providers[0]
        self.given = [dict(p[1]) for p in providers if isinstance(p, tuple)]

        def run(names, feeds, run_options=None):
            outer.runs.append(("plain", run_options.entries if run_options else {}))
            return plain_run(names, feeds, run_options.real if run_options else None)

        def run_with_iobinding(binding, run_options=None):
            outer.runs.append(("bound", run_options.entries))
            return bound_run(binding, run_options.real)

        real.run, real.run_with_iobinding = run, run_with_iobinding
        real.get_providers = lambda: [name, "CPUExecutionProvider"] if outer.starts else ["CPUExecutionProvider"]
        real.get_provider_options = lambda: {name: settings if outer.takes_streams else {}}
        return real


@pytest.fixture
def ort(cuda_libraries, monkeypatch):
    library = ctypes.CDLL(str(cuda_libraries / "libcudart.so"))
    recorder = Recorder()
    monkeypatch.setattr(nvidia_cudart, "_load_libcudart", lambda: library)
    monkeypatch.setattr(onnxruntime_cuda, "MEMORY", "cpu")  # what the stand-in calls the device is the host's memory
    monkeypatch.setattr(runtime, "ask_driver", lambda: Driver(13000, (Card("Stand-in GPU", "8.7"),)))
    monkeypatch.setattr(runtime, "_load_onnxruntime", lambda: recorder)
    return recorder


def load(model, **options):
    return runtime.OnnxRuntime().load(str(model), CUDA._replace(options=options))


def test_it_conforms(ort, onnx_model):
    check_runtime(runtime.OnnxRuntime(), onnx_model, feeds={"x": X}, expected={"y": 2 * X + 1}, options=CUDA)


def test_the_provider_computes_in_a_stream_of_ours_and_is_not_waited_for(ort, onnx_model):
    session = load(onnx_model)
    (given,) = ort.given
    assert int(given["user_compute_stream"]) > 0
    session.bind({"x": X})()
    assert ort.runs[-1] == ("bound", {"disable_synchronize_execution_providers": "1"})
    assert session.facts["cuda"] == "ctypes on libcudart (CUDA 12.4)"
    assert "pinned memory" in session.facts["transfers"]
    session.close()


def test_tensorrts_provider_gives_what_it_cannot_take_to_cuda_in_the_same_stream(ort, onnx_model):
    runtime.OnnxRuntime().load(str(onnx_model), CUDA._replace(device="tensorrt")).close()
    first, second = ort.given
    assert first["user_compute_stream"] == second["user_compute_stream"]


def test_the_parts_of_an_inference_are_timed_by_events(ort, onnx_model):
    session = load(onnx_model)
    timed = session.bind_timed({"x": X})
    assert timed is not None
    times = timed()
    assert set(times) == {"h2d", "compute", "d2h", "enqueue", "wall"}
    assert 0 < times["compute"] <= times["wall"]
    assert times["h2d"] + times["compute"] + times["d2h"] <= times["wall"] * 1.01 + 1e-6
    session.close()


def test_bound_inputs_reach_the_device_and_outputs_come_back(ort, onnx_model, monkeypatch):
    """The arrays behind the copies: what the last step leaves in pinned memory is the model's answer."""
    kept = []
    host = nvidia_cudart.Cudart.host
    monkeypatch.setattr(nvidia_cudart.Cudart, "host", lambda self, size: kept.append(host(self, size)) or kept[-1])
    session = load(onnx_model)
    call = session.bind({"x": X})
    source, target = kept
    source.view("float32")[:] = -X.ravel()  # the next inference reads these
    call()
    assert target.view("float32").tolist() == (-2 * X + 1).ravel().tolist()
    session.close()


def test_a_queued_call_leaves_its_inference_behind_and_waits_for_the_one_before(ort, onnx_model):
    session = load(onnx_model)
    queued = session.bind_queued({"x": X})
    assert queued is not None
    for _ in range(3):
        queued()
    session.synchronize()
    session.close()


def test_memory_of_the_device_is_told_and_given_back(ort, onnx_model):
    free = nvidia_cuda.choose("ctypes", 0, "auto", Driver(13000, ())).memory()[0]
    session = load(onnx_model)
    session.bind({"x": X})
    assert session.gpu_peak_bytes() == 2 * X.nbytes  # the stand-in counts what was allocated through it
    session.close()
    session.close()
    assert nvidia_cuda.choose("ctypes", 0, "auto", Driver(13000, ())).memory()[0] == free


def test_with_a_cuda_graph_plain_runs_are_kept_out_of_it(ort, onnx_model):
    session = load(onnx_model, **{"provider.enable_cuda_graph": "1"})
    session.run({"x": X})
    assert ort.runs[-1] == ("plain", {"gpu_graph_id": "-1"})
    assert session.facts["cuda_graph"] == "yes, of the compute part"
    before = len(ort.runs)
    session.bind({"x": X})
    assert [kind for kind, _ in ort.runs[before:]].count("bound") == onnxruntime_cuda.CAPTURE_RUNS
    session.close()


def test_a_captured_graph_that_is_waited_for_has_no_enqueue_and_no_queue(ort, onnx_model):
    ort.__version__ = "1.20.1"
    session = load(onnx_model, **{"provider.enable_cuda_graph": "1"})
    assert session.bind_queued({"x": X}) is None
    assert "enqueue" not in session.bind_timed({"x": X})()
    session.close()


@pytest.mark.parametrize(
    ("version", "takes", "says"), [("1.16.3", True, "1.16.3 accepts no CUDA"), (None, False, "did not accept")]
)
def test_without_our_stream_there_are_no_times_and_the_reason_is_told(ort, onnx_model, version, takes, says):
    """Events in a stream that the provider does not use would time nothing."""
    ort.__version__, ort.takes_streams = version or ort.__version__, takes
    session = load(onnx_model)
    assert ("user_compute_stream" in ort.given[0]) is (version is None)
    assert session.bind_timed({"x": X}) is None
    assert session.bind_queued({"x": X}) is None
    assert says in session.facts["device_times"]
    session.bind({"x": X})()
    assert ort.runs[-1][0] == "plain"
    session.close()


def test_strings_are_run_as_they_are(ort, tmp_path):
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Identity", ["s"], ["t"])]
    values = [[helper.make_tensor_value_info(name, kinds.STRING, [1])] for name in "st"]
    session = load(models.onnx_graph(tmp_path / "m.onnx", nodes, *values))
    feeds = {"s": np.array(["word"], dtype=object)}
    session.bind(feeds)()
    assert "does not contain numbers" in session.facts["device_times"]
    session.close()


def test_what_the_providers_library_lacks_is_named(ort, onnx_model, monkeypatch):
    ort.starts = False
    monkeypatch.setattr(runtime, "_missing_library", lambda *_: "libcublasLt.so.12: cannot open shared object file")
    with pytest.raises(LoadError, match=r"CUDAExecutionProvider could not be started \(libcublasLt\.so\.12") as caught:
        load(onnx_model)
    assert "LD_LIBRARY_PATH" in (caught.value.remedy or "")


def test_a_library_that_is_missing_is_found_by_loading_the_provider(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    module, folder = SimpleNamespace(__file__=str(tmp_path / "__init__.py")), tmp_path / "capi"
    assert (
        runtime._missing_library(module, "CUDAExecutionProvider") is None
    )  # the provider's own file is not what it lacks
    folder.mkdir()
    for name, more in (("needed", []), ("onnxruntime_providers_cuda", ["-L.", "-Wl,--no-as-needed", "-lneeded"])):
        command = [compiler, "-shared", "-o", f"lib{name}.so", "-x", "c", "/dev/null", "-x", "none", *more]
        subprocess.run(command, cwd=folder, check=True)
    (folder / "libneeded.so").unlink()
    assert str(runtime._missing_library(module, "CUDAExecutionProvider")).startswith("libneeded.so: cannot open")


def test_a_gpu_that_is_not_there_is_refused(ort, onnx_model):
    with pytest.raises(LoadError, match=r"no cuda:1: this machine has 1 GPU"):
        runtime.OnnxRuntime().load(str(onnx_model), CUDA._replace(device="cuda:1"))
    with pytest.raises(LoadError, match="no cuda:first"):
        load(onnx_model, **{"provider.device_id": "first"})


def test_without_a_driver_that_is_what_is_said(onnx_model, monkeypatch):
    def none() -> Driver:
        raise LoadError("there is no NVIDIA driver: libcuda.so.1 cannot be loaded", "Install it.")

    monkeypatch.setattr(runtime, "ask_driver", none)
    monkeypatch.setattr(runtime, "_load_onnxruntime", Recorder)
    with pytest.raises(LoadError, match="there is no NVIDIA driver"):
        load(onnx_model)
