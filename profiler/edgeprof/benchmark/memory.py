"""Memory in a benchmark (bytes): whether all models fit together, and how much of a worker's memory is the model's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.benchmark.request import Candidate
    from edgeprof.launch.worker_memory import WorkerMemory
    from edgeprof.sensing.sensor import Sensor

#: The assumed memory of a model before it is loaded, to decide whether all models fit at the same time.
_WORKER_BYTES = 200 * 2**20
_BYTES_PER_MODEL_BYTE = 4


def group_candidates(candidates: list[Candidate]) -> list[list[Candidate]]:
    """Put all candidates into one group if they safely fit into memory together, otherwise each into its own group."""
    able = [c for c in candidates if c.failure is None]
    need = sum(_WORKER_BYTES + _BYTES_PER_MODEL_BYTE * (c.artifact.size_bytes or 0) for c in able)
    if len(candidates) == 1 or need < _available_bytes() / 2:
        return [candidates]
    return [[candidate] for candidate in candidates]


def _available_bytes() -> int:
    """Return the memory available for models, in bytes; 0 if unknown, as in a minimal container without /proc."""
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error, NotImplementedError):
        return 0


def own_memory(warm: WorkerMemory | None, after: WorkerMemory) -> WorkerMemory:
    """Return the model's own memory: the peak until the end of the warm-up, or the memory after the windows if larger.

    The peak within the windows is not used, because it contains edgeprof's own time stamps (8 bytes per inference),
    which are megabytes for a tiny model.
    """
    peaks = [size for size in (warm.peak_rss if warm else None, after.rss) if size is not None]
    return replace(after, peak_rss=max(peaks, default=None))


def device_memory(sensors: Sequence[Sensor], pid: int | None) -> int | None:
    """Return the bytes of device memory that a process holds, on all devices whose sensors report it."""
    held = [] if pid is None else [sensor.process_memory_bytes(pid) for sensor in sensors]
    known = [count for count in held if count is not None]
    return sum(known) if known else None
