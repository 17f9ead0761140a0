"""Stand-ins for libcuda, libcudart and TensorRT, where a machine has no NVIDIA GPU."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgeprof_plugins.runtimes as runtimes
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.worker.runtime import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STANDINS = Path(__file__).with_name("standins")
RUNTIME = Path(next(iter(runtimes.__path__))) / "tensorrt/runtime.py"
GENERATIONS = ("8.2", "8.6", "10", "11")
VERSIONS = {"8.2": "8.2.1.8", "8.6": "8.6.1", "10": "10.3.0", "11": "11.4.0.106"}

#: float32 x [1, 4] to y [1, 4].
FIXED: dict[str, Any] = {
    "tensors": [
        {"name": "x", "input": True, "shape": [1, 4], "dtype": "FLOAT"},
        {"name": "y", "input": False, "shape": [1, 4], "dtype": "FLOAT"},
    ]
}
#: The same with a batch of 1 to 8, of which 2 is best.
OPEN: dict[str, Any] = {
    "tensors": [
        {"name": "x", "input": True, "shape": [-1, 4], "dtype": "FLOAT"},
        {"name": "y", "input": False, "shape": [-1, 4], "dtype": "FLOAT"},
    ],
    "profiles": [{"x": [[1, 4], [2, 4], [8, 4]]}],
}


@pytest.fixture(scope="session")
def cuda_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libcuda and libcudart that compute on the host."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for CUDA with")
    folder = tmp_path_factory.mktemp("cuda")
    for name in ("libcudart.so", "libcuda.so.1"):
        command = [compiler, "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run([*command, str(STANDINS / "cuda.c")], check=True)
    return folder


def environment(cuda: Path, generation: str, cache: Path) -> dict[str, str]:
    return {
        "LD_LIBRARY_PATH": str(cuda),
        "PYTHONPATH": f"{STANDINS / ('v' + generation)}{os.pathsep}{STANDINS}",
        "EDGEPROF_CACHE_DIR": str(cache),
    }


@pytest.fixture
def trt(
    cuda_libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked_workers: None
) -> Iterator[Callable[..., Worker]]:
    """``trt(generation, model, …)``: a worker with that TensorRT, not yet loaded; closed at the end."""
    workers = []

    def make(generation: str, model: Path, *, python: str | None = None, batch: int = 1, **given: Any) -> Worker:
        for name, value in environment(cuda_libraries, generation, tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        device, shapes = given.pop("device", "cuda"), given.pop("shapes", {})
        options = LoadOptions(device, None, batch, shapes, {k: str(v) for k, v in given.items()})
        spec = WorkerSpec(RUNTIME, "TensorRT", str(model), options, python=python, timeout_s=60.0, label="engine")
        workers.append(Worker(spec))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


@pytest.fixture(scope="session")
def standin_plan() -> Callable[..., bytes]:
    """``standin_plan(version, compute, network)``: the bytes of a plan, as the stand-in reads them."""

    def make(version: str, compute: int, network: dict[str, Any]) -> bytes:
        import json

        body = b"\x12\x80\x01\x00\x10\x80\x01\x00\x07\x80\x01\x00" + struct.pack("<I", compute // 10)
        body += b"\x07\x80\x01\x00" + struct.pack("<I", compute % 10) + b"\x07\x80\x01\x00"
        body += json.dumps(network).encode()
        numbers = ([int(n) for n in version.split(".")] + [0, 0])[:4]
        return struct.pack("<4sIIIQ4B", b"ftrt", 0, 1, 0, 28 + len(body), *numbers) + body

    return make


@pytest.fixture
def engine(tmp_path: Path, standin_plan: Callable[..., bytes]) -> Callable[..., Path]:
    """``engine(generation, network)``: a plan of that TensorRT for this GPU."""

    def make(generation: str, network: dict[str, Any] = FIXED, *, compute: int = 87) -> Path:
        path = tmp_path / f"model-{generation}.engine"
        path.write_bytes(standin_plan(VERSIONS[generation], compute, network))
        return path

    return make


@pytest.fixture(scope="session")
def standin_classes() -> Callable[[str], dict[str, Any]]:
    """``standin_classes(generation)``: what the stand-in offers, asked in another process."""

    def ask(generation: str, cuda: Path) -> dict[str, Any]:
        import json

        code = (
            "import inspect, json, tensorrt, tensorrt_core as core\n"
            "found = {}\n"
            "for kind in core.CLASSES:\n"
            "    if not hasattr(tensorrt, kind.__name__): continue\n"
            "    names = {}\n"
            "    for name in dir(kind):\n"
            "        if name.startswith('_') or not hasattr(kind, name): continue\n"
            "        value = getattr(kind, name)\n"
            "        plain = inspect.isfunction(value)\n"
            "        names[name] = list(inspect.signature(value).parameters)[1:] if plain else None\n"
            "    found[kind.__name__] = names\n"
            "found['enums'] = {e: list(getattr(tensorrt, e).__members__) for e in ('BuilderFlag', 'MemoryPoolType',\n"
            "    'NetworkDefinitionCreationFlag', 'TensorIOMode', 'TensorLocation', 'DeviceType')\n"
            "    if hasattr(tensorrt, e)}\n"
            "print(json.dumps(found))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment(cuda, generation, Path())},
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return ask
