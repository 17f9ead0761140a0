"""A device in virtual time: stages that say how long they take and what they draw, and a sensor that reads their power.

Nothing waits: what a busy machine does between two readings of the clock is not seen, so that joules and seconds are
the same on every machine and at every load.
"""

from __future__ import annotations

import gc
import itertools
import sys
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof import hookimpl
from edgeprof.benchmark import conductor
from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.plugins import PluginHost, PluginInfo
from edgeprof.roots import SIMULATION_MARKER, Roots
from edgeprof.sensing.board.files import Board
from edgeprof.sensing.board.topology import arrange
from edgeprof.sensing.discover import Discovery
from edgeprof.sensing.reader import ChannelStats
from edgeprof.sensing.sampler import SelfCostNumbers
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.sensing.trace import Series, deduplicate
from tests.clocks import turn_clock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.results.schema import Result
    from edgeprof.worker.runtime import Runtime
    from tests.profiler.watching import Watcher

#: A reading of the clock takes this long (s), so that a loop that only reads it comes to an end.
READING_S = 2e-7
#: A collection of garbage takes this long (s) and draws that much (W).
COLLECTION_S, COLLECTION_W = 0.03, 5.0
#: The sensor gives the mean of each period (s), in steps of a milliwatt.
REFRESH_S, STEP_W = 0.02, 0.001
RAIL = Channel(
    "virtual", "VDD_IN", "power", scope="module", role="total", provenance="simulated", resolution=STEP_W,
    gain_limit=0.0, offset_limit=0.0, update_interval_s=REFRESH_S, filter=Filter("block", length_s=REFRESH_S),
)  # fmt: skip


class VirtualDevice:
    """The clock and the power of a device.

    Args:
        idle_w: Its power while nothing runs (W).
    """

    def __init__(self, idle_w: float) -> None:
        self.idle_w = idle_w
        self.now = 1000.0
        self._times, self._joules, self._watts = [self.now], [0.0], [idle_w]

    def work(self, seconds: float, watts: float) -> None:
        """Run for some seconds at a power."""
        self._draw(watts)
        self.now += seconds
        self._draw(self.idle_w)

    def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)

    def read_clock(self) -> float:
        self.now += READING_S
        return self.now

    def joules(self, time: float) -> float:
        """The energy until a time (J)."""
        index = max(0, bisect_right(self._times, time) - 1)
        return self._joules[index] + self._watts[index] * (time - self._times[index])

    def _draw(self, watts: float) -> None:
        self._joules.append(self.joules(self.now))
        self._times.append(self.now)
        self._watts.append(watts)


#: The device of the running test, which an application's stages use.
current: list[VirtualDevice] = []


def work(seconds: float, watts: float) -> None:
    """Let the device of the running test work."""
    current[-1].work(seconds, watts)


class VirtualSampler:
    """Has all readings of the rail from ``start`` until now."""

    def __init__(self, device: VirtualDevice, *_: Any) -> None:
        self._device, self._values = device, list[float]()
        self._first = 0
        self.channels = [RAIL]

    def start(self) -> None:
        self._first = int(self._device.now / REFRESH_S) + 1
        self._device.sleep(2 * REFRESH_S)

    def stop(self) -> None:
        """What was read stays."""

    @property
    def trace(self) -> VirtualSampler:
        return self

    def readings(self, _key: Any) -> Series:
        joules = self._device.joules
        for tick in itertools.count(self._first + len(self._values)):
            end = tick * REFRESH_S
            if end > self._device.now:
                break
            watts = (joules(end) - joules(end - REFRESH_S)) / REFRESH_S
            self._values.append(round(watts / STEP_W) * STEP_W)
        times = [(self._first + n) * REFRESH_S for n in range(len(self._values))]
        return Series(times, list(self._values))

    def series(self, key: Any) -> Series:
        return deduplicate(self.readings(key), RAIL, REFRESH_S)

    def latest(self) -> dict[Any, Any]:
        return {}

    def stats(self) -> list[ChannelStats]:
        return [ChannelStats(RAIL.key, 1 / REFRESH_S, len(self._values), 0, REFRESH_S)]

    def failures(self) -> list[Any]:
        return []

    def cost(self) -> SelfCostNumbers:
        return SelfCostNumbers(cpu_ratio=None, rss_bytes=None)


def measure(
    runtime: type[Runtime], models: Mapping[str, str], idle_w: float, folder: Path, watcher: Watcher, **settings: Any
) -> Result:
    """Measure models of a runtime in this process and in virtual time.

    Args:
        runtime: The runtime; what its models do calls ``work``.
        models: The content of each model's file, by its name.
        idle_w: The power of the device while nothing runs (W).
        folder: For the models and the data.
        watcher: The observer of the bench.
        settings: Of ``BenchRequest``.
    """
    host = PluginHost()
    host.register(_plugin(runtime), PluginInfo(runtime.name, runtime.name, "1"))
    requests = []
    for name, content in models.items():
        (folder / name).write_text(content)
        requests.append(ModelRequest(str(folder / name), name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROF_DATA_DIR", str(folder / "data"))
        roots = use(VirtualDevice(idle_w), patch, folder)
        return bench(BenchRequest(models=requests, isolated=False, **settings), host, roots, watcher)


def _plugin(runtime: type[Runtime]) -> Any:
    class Plugin:
        @hookimpl
        def register_runtimes(self, register: Any) -> None:
            register(runtime.name, runtime)

    return Plugin()


def use(device: VirtualDevice, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Roots:
    """Let benchmarks of this thread run in a device's time; return the roots of its empty tree."""
    monkeypatch.setattr(f"{__name__}.current", [device])
    clock = device.read_clock
    turn_clock(
        monkeypatch, monotonic=clock, perf_counter=clock, process_time=clock, thread_time=clock,
        clock_gettime=lambda _which: clock(), sleep=device.sleep,
    )  # fmt: skip
    # Real collections, before each window, would take seconds in a large process. These are work as well.
    monkeypatch.setattr(gc, "collect", lambda *_: device.work(COLLECTION_S, device.idle_w + COLLECTION_W))
    monkeypatch.setattr(sys, "path", list(sys.path))  # an application in this process adds its folder
    discovery = Discovery([], arrange(Board("unknown", "a virtual device", model="a virtual device"), [RAIL]), [], [])
    monkeypatch.setattr(conductor, "prepare", lambda *_, **__: discovery)
    monkeypatch.setattr(conductor, "Sampler", lambda *given: VirtualSampler(device, *given))
    tree = folder / "tree"
    (tree / "proc").mkdir(parents=True, exist_ok=True)
    (tree / SIMULATION_MARKER).write_text("{}")
    return Roots.resolve(tree)
