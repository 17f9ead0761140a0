from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.workload.runtime import LoadOptions
from edgeprof.workload.supervisor import Worker, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOY = Path(__file__).with_name("toy_runtime.py")


@pytest.fixture
def toy() -> Iterator[Callable[..., Worker]]:
    """``toy(target, …)``: a worker for a toy model, not yet loaded; closed at the end."""
    workers = []

    def make(target: str = "sleep:0.001", **given: Any) -> Worker:
        batch, threads = given.pop("batch", 1), given.pop("threads", None)
        runtime = given.pop("runtime", "ToyRuntime")
        options = LoadOptions("cpu", threads, batch, {}, {})
        spec = WorkerSpec(TOY, runtime, target, options, **{"timeout_s": 60.0, "label": "toy", **given})
        workers.append(Worker(spec))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


@pytest.fixture(scope="session")
def python36() -> str:
    """A Python 3.6 with numpy, as JetPack 4 has; the test is skipped where there is none."""
    found = [shutil.which("python3.6"), *map(str, Path.home().glob(".pyenv/versions/3.6*/bin/python3.6"))]
    for python in filter(None, found):
        done = subprocess.run([python, "-c", "import numpy"], capture_output=True, check=False)
        if done.returncode == 0:
            return python
    pytest.skip("no python3.6 with numpy on PATH or under ~/.pyenv")
