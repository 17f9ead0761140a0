"""CUDA's three libraries behind one interface."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeprof.worker.runtime import LoadError
from edgeprof_plugins.runtimes.nvidia import api
from edgeprof_plugins.runtimes.nvidia import cuda as nvidia_cuda
from edgeprof_plugins.runtimes.nvidia import cudart as nvidia_cudart
from edgeprof_plugins.runtimes.nvidia import packages as nvidia_packages
from edgeprof_plugins.runtimes.nvidia.driver import Driver, Gpu
from tests.plugins.runtimes.nvidia.conftest import environment

CLASSES = {"Cudart": nvidia_cudart, "CudaPython": nvidia_packages, "PyCuda": nvidia_packages}


def calls_of(kind: str) -> set[str]:
    """The names of CUDA's functions in the source of a class."""
    module = api if kind == "RuntimeApi" else CLASSES[kind]
    source = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    (found,) = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name == kind]
    texts = [n.value for n in ast.walk(found) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    names = [n.attr for n in ast.walk(found) if isinstance(n, ast.Attribute)]
    return {name for name in texts + names if name.startswith("cuda") and name.isidentifier()}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_library_answers_the_whole_interface(kind):
    interface = {name for name, value in vars(nvidia_cuda.Cuda).items() if inspect.isfunction(value)}
    library = getattr(CLASSES[kind], kind)
    assert [name for name in interface if getattr(library, name) is getattr(nvidia_cuda.Cuda, name)] == []


def test_every_call_to_cuda_python_exists_there():
    folder = Path(os.environ.get("EDGEPROF_TENSORRT_BINDINGS") or "none") / "cuda-python"
    if not folder.is_dir():
        pytest.skip("EDGEPROF_TENSORRT_BINDINGS names no folder with cuda-python (tests/.../bindings.sh DIR)")
    names = calls_of("CudaPython") | calls_of("RuntimeApi")
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
from edgeprof_plugins.runtimes.nvidia.cuda import choose
from edgeprof_plugins.runtimes.nvidia.driver import ask_driver

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
    """Where a CUDA runtime library is installed, with or without a GPU; in another process, which alone keeps it."""
    names = calls_of("Cudart") - {"cudaStreamNonBlocking"}
    assert len(names) > 20
    code = """
import ctypes, json, sys
from edgeprof_plugins.runtimes.nvidia.cudart import _load_libcudart

try:
    library = _load_libcudart()
except ImportError:
    print("null")
    sys.exit()
version = ctypes.c_int()
library.cudaGetErrorString.restype = ctypes.c_char_p
print(json.dumps({
    "missing": [name for name in sys.argv[1:] if not hasattr(library, name)],
    "asked": library.cudaRuntimeGetVersion(ctypes.byref(version)),
    "version": version.value,
    "errors": [library.cudaGetErrorString(number).decode() for number in (35, 2)],
}))
"""
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    if answer is None:
        pytest.skip("no libcudart.so on this machine (pip install nvidia-cuda-runtime brings one)")
    assert answer["missing"] == []
    assert answer["asked"] == 0
    assert answer["version"] >= 10000
    assert answer["errors"] == ["CUDA driver version is insufficient for CUDA runtime version", "out of memory"]


def test_without_any_library_all_three_are_named(monkeypatch):
    def gone() -> None:
        raise ImportError("libcudart.so was not found")

    monkeypatch.setattr(nvidia_cudart, "_load_libcudart", gone)
    for module in ("cuda", "pycuda"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LoadError) as caught:
        nvidia_cuda.choose(None, 0, "auto", Driver(12040, (Gpu("GPU", "8.7"),)))
    assert caught.value.message.startswith(
        "there is no CUDA runtime library (ctypes: libcudart.so was not found; cuda-py"
    )
    assert "pycuda: " in caught.value.message
    assert "pip install cuda-python" in (caught.value.remedy or "")


class PyCudaDriver:
    """``pycuda.driver`` 2026.1 as far as it is called: objects for handles, copies to the host when waited for."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        self.free, self.contexts, self.memory, self.waiting = 1 << 20, [], {}, []
        self.Stream = lambda: SimpleNamespace(handle=7, synchronize=self._settle)

    def init(self) -> None:
        pass

    def Device(self, number: int) -> Any:  # noqa: N802 - pycuda's
        if number:
            raise self.Error("cuDeviceGet failed: invalid device ordinal")
        context = SimpleNamespace(push=lambda: self.contexts.append(1), pop=self.contexts.pop)
        return SimpleNamespace(retain_primary_context=lambda: context)

    def get_version(self) -> tuple[int, int, int]:
        return 12, 6, 0

    def mem_get_info(self) -> tuple[int, int]:
        return self.free, 1 << 20

    def mem_alloc(self, size: int) -> Any:
        if size > self.free:
            raise self.Error("cuMemAlloc failed: out of memory")
        self.free -= size
        address = 4096 + len(self.memory)
        self.memory[address] = np.zeros(size, np.uint8)

        class Allocation(int):
            def free(allocation) -> None:  # noqa: N805 - self is the driver's
                self.free += len(self.memory[int(allocation)])

        return Allocation(address)

    def pagelocked_empty(self, shape: int, dtype: Any) -> Any:
        return np.zeros(shape, dtype)

    def memcpy_htod_async(self, dest: int, src: Any, stream: Any = None) -> None:
        self.memory[dest][: src.nbytes] = src

    def memcpy_dtoh_async(self, dest: Any, src: int, stream: Any = None) -> None:
        self.waiting.append((dest, self.memory[src]))

    def _settle(self) -> None:
        for dest, values in self.waiting:
            dest[:] = values[: dest.nbytes]

    class Event:
        def record(self, stream: Any = None) -> None:
            self.at = time.monotonic()

        def synchronize(self) -> None:
            pass

        def time_since(self, start: Any) -> float:
            return (self.at - start.at) * 1e3


def test_pycuda_is_used_as_it_wants_and_its_context_is_taken_back_at_the_end(monkeypatch):
    """A process that ends with a context on pycuda's stack is aborted."""
    driver, ends = PyCudaDriver(), []
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(nvidia_packages.atexit, "register", ends.append)
    cuda = nvidia_cuda.choose("pycuda", 0, "auto", Driver(13000, ()))
    assert cuda.runtime_version() == 12060
    free = cuda.memory()[0]
    stream, address, first, last = cuda.stream(), cuda.malloc(64), cuda.event(), cuda.event()
    source, target = cuda.host(64), cuda.host(64)
    source[:] = range(64)
    cuda.record(first, stream)
    cuda.copy_in(address, source, stream)()
    cuda.copy_out(target, address, stream)()
    cuda.record(last, stream)
    cuda.wait(stream)
    assert (target == source).all()
    assert 0 <= cuda.elapsed_s(first, last) < 10
    assert cuda.handle(stream) == 7
    with pytest.raises(nvidia_cuda.CudaError, match="out of memory"):
        cuda.malloc(1 << 21)
    cuda.free(address)
    assert cuda.memory()[0] == free
    with pytest.raises(nvidia_cuda.CudaError, match="invalid device ordinal"):
        nvidia_cuda.choose("pycuda", 1, "auto", Driver(13000, ()))
    assert driver.contexts == [1]
    for end in ends:
        end()
    assert driver.contexts == []
