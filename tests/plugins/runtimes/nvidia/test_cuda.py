"""CUDA's three libraries behind one interface."""

from __future__ import annotations

import ast
import ctypes
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprof.workload.runtime import LoadError
from edgeprof_plugins.runtimes import nvidia_cuda, nvidia_cudart, nvidia_packages
from edgeprof_plugins.runtimes.nvidia_driver import Driver, Gpu
from tests.plugins.runtimes.nvidia.conftest import environment

CLASSES = {"Cudart": nvidia_cudart, "CudaPython": nvidia_packages, "PyCuda": nvidia_packages}


def calls_of(kind: str) -> set[str]:
    """The names of CUDA's functions in the source of a class."""
    source = ast.parse(Path(str(CLASSES[kind].__file__)).read_text("utf-8"))
    (found,) = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name == kind]
    texts = [n.value for n in ast.walk(found) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    names = [n.attr for n in ast.walk(found) if isinstance(n, ast.Attribute)]
    return {name for name in texts + names if name.startswith("cuda") and name.isidentifier()}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_library_answers_the_whole_interface(kind):
    interface = {name for name, value in vars(nvidia_cuda.Cuda).items() if inspect.isfunction(value)}
    assert interface <= set(vars(getattr(CLASSES[kind], kind)))


def test_every_call_to_cuda_python_exists_there():
    folder = Path(os.environ.get("EDGEPROF_TENSORRT_BINDINGS") or "none") / "cuda-python"
    if not folder.is_dir():
        pytest.skip("EDGEPROF_TENSORRT_BINDINGS names no folder with cuda-python (tests/.../bindings.sh DIR)")
    names = calls_of("CudaPython")
    assert len(names) > 20
    # Without a GPU a call that asks the driver returns its error first: the shape that the code unpacks.
    code = """
import json, sys
from cuda.bindings import runtime

flags = {"spin": "Spin", "yield": "Yield", "block": "BlockingSync"}
print(json.dumps({
    "missing": [name for name in sys.argv[1:] if not hasattr(runtime, name)],
    "answers": [len(runtime.cudaMalloc(16)), len(runtime.cudaMemGetInfo()), len(runtime.cudaSetDevice(0))],
    "kinds": [int(runtime.cudaMemcpyKind.cudaMemcpyHostToDevice), int(runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)],
    "capture": int(runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
    "flags": {name: int(getattr(runtime, "cudaDeviceSchedule" + flag)) for name, flag in flags.items()},
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(names)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named" in done.stderr:
        pytest.skip("cuda-python was fetched for another Python")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["missing"] == []
    assert found["answers"] == [2, 3, 1]
    assert found["kinds"] == [nvidia_cuda.H2D, nvidia_cuda.D2H]
    assert found["capture"] == nvidia_cuda.CAPTURE_THREAD
    assert found["flags"] == {name: flag for name, flag in nvidia_cuda.WAITS.items() if name != "auto"}


def test_ctypes_reaches_every_function_of_the_c_library(cuda_libraries, tmp_path):
    """In a process of its own: copies come when the stream is waited for, events in order, memory goes back."""
    code = """
import numpy as np
from edgeprof_plugins.runtimes.nvidia_cuda import choose
from edgeprof_plugins.runtimes.nvidia_driver import ask_driver

driver = ask_driver()
assert driver.gpus[0].compute == "8.7", driver
cuda = choose("ctypes", 0, "spin", driver)
free, total = cuda.memory()
stream, address = cuda.stream(), cuda.malloc(64)
assert cuda.memory() == (free - 64, total)
source, target = cuda.host(64), cuda.host(64)
source[:] = np.arange(64)
first, last = cuda.event(), cuda.event()
cuda.record(first, stream)
cuda.copy_in(address, source, stream)()
cuda.copy_out(target, address, stream)()
assert not target.any(), "a copy to the host is not there before it is waited for"
cuda.record(last, stream)
cuda.wait_event(last)
assert (target == source).all()
assert 0 <= cuda.elapsed_s(first, last) < 1
for event in (first, last):
    cuda.close_event(event)
cuda.host_free(source), cuda.host_free(target)
cuda.free(address)
cuda.close_stream(stream)
assert cuda.memory() == (free, total)
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment(cuda_libraries, "10", tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr


def test_the_real_libcudart_has_every_function_and_its_error_is_told():
    """Where a CUDA runtime library is installed, with or without a GPU."""
    try:
        library = nvidia_cudart._libcudart()
    except ImportError:
        pytest.skip("no libcudart.so on this machine (pip install nvidia-cuda-runtime brings one)")
    names = calls_of("Cudart") - {"cudaStreamNonBlocking"}
    assert len(names) > 20
    for name in names:
        assert hasattr(library, name), name
    version = ctypes.c_int()
    assert library.cudaRuntimeGetVersion(ctypes.byref(version)) == 0
    assert version.value >= 10000
    library.cudaGetErrorString.restype = ctypes.c_char_p
    assert library.cudaGetErrorString(35) == b"CUDA driver version is insufficient for CUDA runtime version"
    assert library.cudaGetErrorString(2) == b"out of memory"


def test_without_any_library_all_three_are_named(monkeypatch):
    def gone() -> None:
        raise ImportError("no libcudart.so is found")

    monkeypatch.setattr(nvidia_cudart, "_libcudart", gone)
    for module in ("cuda", "pycuda"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LoadError) as caught:
        nvidia_cuda.choose(None, 0, "auto", Driver(12040, (Gpu("GPU", "8.7"),)))
    assert caught.value.message.startswith(
        "there is no CUDA runtime library (ctypes: no libcudart.so is found; cuda-py"
    )
    assert "pycuda: " in caught.value.message
    assert "pip install cuda-python" in (caught.value.remedy or "")
