"""The memory of a worker's process, as /proc reports it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeprof.roots import Roots


@dataclass(frozen=True)
class WorkerMemory:
    """The memory of a worker in bytes; None where it is unknown.

    Attributes:
        rss: Resident memory now.
        peak_rss: The most resident memory since the start (VmHWM), including loading.
        gpu_peak: The most device memory, if the runtime knows it.
        anonymous: Resident memory that belongs to no file, so that the kernel cannot drop it.
        mapped: Resident memory of mapped files (weights, libraries), which the kernel may drop.
    """

    rss: int | None
    peak_rss: int | None
    gpu_peak: int | None
    anonymous: int | None = None
    mapped: int | None = None


def memory_of(pid: int) -> dict[str, int | None]:
    """Return VmRSS, VmHWM, RssAnon and RssFile in bytes; values that /proc does not have are None.

    (ru_maxrss is no substitute for VmHWM: in a child it starts at its launcher's value.)
    """
    memory: dict[str, int | None] = dict.fromkeys(("VmRSS", "VmHWM", "RssAnon", "RssFile"))
    try:
        text = (Roots().procfs / str(pid) / "status").read_text()
    except OSError:
        return memory
    for name, kibibytes in re.findall(r"^(VmRSS|VmHWM|RssAnon|RssFile):\s+(\d+) kB$", text, re.MULTILINE):
        memory[name] = int(kibibytes) * 1024
    return memory


def reset_peak() -> None:
    """Reset VmHWM of this process (proc(5), clear_refs)."""
    try:
        (Roots().procfs / "self" / "clear_refs").write_text("5")
    except OSError:
        return  # the peak then includes the past of this process
