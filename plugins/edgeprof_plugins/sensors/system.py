"""CPU load, memory in use and CPU clocks: ``/proc/stat``, ``/proc/meminfo``, ``/sys/devices/system/cpu``.

Units: ``/proc/stat`` counts ticks (USER_HZ), so load is a ratio of differences between two readings, and the first
reading gives none; ``/proc/meminfo`` kB (used = MemTotal − MemAvailable; on a Jetson the GPU shares it); clocks kHz.
Refresh: load every tick (10 ms), memory at once, ``scaling_cur_freq`` whenever the governor runs.
Traps: iowait may go backwards; guest time is part of user time; ``scaling_cur_freq`` is the requested clock, and only
root may read the measured one, ``cpuinfo_cur_freq``. There is one clock for each group of equal cores, since reading 64
files at 100 Hz would be a load itself. The files are read here, and not by psutil, to keep them open and to respect the
roots.
Source: proc(5), Documentation/admin-guide/pm/cpufreq.rst.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from edgeprof import hookimpl
from edgeprof.sensing.files import NumberFile, TextFile, listing, number_of, provenance
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "system"


class System(Sensor):
    """Load, memory and clocks of the machine."""

    name = NAME

    def __init__(
        self, channels: Sequence[Channel], stat: TextFile, memory: TextFile, clocks: Sequence[NumberFile]
    ) -> None:
        self._channels = tuple(channels)
        self._stat, self._memory, self._clocks = stat, memory, tuple(clocks)
        self._before: tuple[int, int] | None = None
        self._ratio = math.nan

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def open(self) -> None:
        for file in (self._stat, self._memory, *self._clocks):
            file.open()
        self._before, self._ratio = _cpu_ticks(self._stat.read()), math.nan

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        before = time.monotonic()
        values[0] = self._load()
        values[1] = _used_bytes(self._memory.read())
        for index, clock in enumerate(self._clocks, 2):
            values[index] = clock.number()
        middle = 0.5 * (before + time.monotonic())
        for index in range(len(self._channels)):
            times[index] = middle

    def close(self) -> None:
        for file in (self._stat, self._memory, *self._clocks):
            file.close()

    def _load(self) -> float:
        now, self._before = _cpu_ticks(self._stat.read()), self._before
        if now is None or self._before is None:
            self._before = now or self._before
            return math.nan
        total = now[1] - self._before[1]
        if total > 0:
            self._ratio = min(1.0, max(0.0, (now[0] - self._before[0]) / total))
            self._before = now
        return self._ratio  # within one tick nothing changes, so the last ratio is repeated


def find(roots: Roots) -> list[Sensor]:
    """Make the sensor of the machine; the list is empty if there is no /proc/stat."""
    stat, memory = roots.procfs / "stat", roots.procfs / "meminfo"
    if not stat.exists():
        return []
    source = provenance(roots)
    channels = [
        Channel(NAME, "cpu", "utilization", scope="cpu", provenance=source, plausible=(0.0, 1.0), location=str(stat)),
        Channel(NAME, "ram", "memory", scope="memory", provenance=source, plausible=(0.0, 1e15), location=str(memory)),
    ]
    clocks = []
    groups: set[float | None] = set()
    for cpu in listing(roots.sysfs / "devices/system/cpu"):
        path = cpu / "cpufreq/scaling_cur_freq"
        if not cpu.name[3:].isdigit() or not path.exists():
            continue
        most = number_of(cpu / "cpufreq/cpuinfo_max_freq") or number_of(cpu / "cpufreq/scaling_max_freq")
        if most in groups or number_of(path) is None:
            continue
        groups.add(most)
        clocks.append(NumberFile(path, 1e3))
        channels.append(
            Channel(
                NAME,
                cpu.name,
                "frequency",
                scope="cpu",
                provenance=source,
                plausible=(0.0, 1e10),
                location=str(path),
                note="the requested clock",
            )
        )
    return [System(channels, TextFile(stat, 512), TextFile(memory, 256), clocks)]


def _cpu_ticks(text: bytes | None) -> tuple[int, int] | None:
    """The busy ticks and all ticks of all CPUs together; None if the text has another form."""
    if not text or not text.startswith(b"cpu "):
        return None
    try:
        fields = [int(word) for word in text[: text.index(b"\n")].split()[1:9]]
    except ValueError:
        return None
    idle = fields[3] + (fields[4] if len(fields) > 4 else 0)
    return sum(fields) - idle, sum(fields)


def _used_bytes(text: bytes | None) -> float:
    """Memory in use (bytes), from the first lines of /proc/meminfo; NaN if it is unknown."""
    numbers = {}
    for line in (text or b"").split(b"\n"):
        words = line.split()
        if len(words) == 3:
            numbers[words[0]] = words[1]
    try:
        return (int(numbers[b"MemTotal:"]) - int(numbers[b"MemAvailable:"])) * 1024.0
    except (KeyError, ValueError):
        return math.nan


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
