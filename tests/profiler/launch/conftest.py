from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.worker.runtime import LoadOptions

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
