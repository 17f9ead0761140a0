"""The device memory that one process holds, by NVIDIA's driver. Not on a Jetson, whose GPU has no memory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprof.roots import Roots


def memory_bytes(roots: Roots, pid: int) -> int | None:
    """Bytes on all GPUs; None where NVML is not here or does not tell (as in a container with its own process ids)."""
    if not roots.is_live or not (roots.dev / "nvidiactl").exists():
        return None
    try:
        import pynvml  # noqa: PLC0415 - optional
    except ImportError:
        return None
    found: list[int] = []
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            found += [int(p.usedGpuMemory) for p in processes if p.pid == pid and p.usedGpuMemory is not None]
    except pynvml.NVMLError:
        return None
    return sum(found) if found else None
