"""Sensors of a Jetson beside its rails: GPU load and clock, clocks of memory and engines, fan, over-current events.

GPU: found through ``/sys/class/devfreq/*`` (``cur_freq`` Hz) and its device's ``load`` (tenths of a percent), at any
path: it changed with every JetPack, and ``/sys/devices/gpu.0`` does not exist on Orin. Clocks of memory (``emc``) and
engines (nvenc, nvdec, nvjpg, vic, ofa, dla, pva): ``/sys/kernel/debug/bpmp/debug/clk/NAME/rate`` Hz, root only; an
engine whose clock is 0 is idle. Fan: hwmon ``pwmfan``, ``pwm1`` of 255; JetPack 4
``/sys/devices/pwm-fan/cur_pwm``. Over-current: hwmon ``soctherm_oc``, ``ocN_event_cnt``: each event halves the clocks
for about 1 ms, which no other file shows.
Refresh: load is one window of the GPU's power controller, not an average since the last read; about 0.3 ms per read.
Traps: load reads 0 while the GPU is gated; otherwise reading it keeps the GPU awake; the devfreq node may appear late;
Thor has no load file (use NVML); a devfreq device named after a bus or a display is not a GPU.
Sources: jetson_stats core/gpu.py, core/memory.py, core/engine.py, core/fan.py; nvgpu's gk20a_load_show; Linux's
tegra234 soctherm.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from edgeprof import hookimpl
from edgeprof.sensing.file_sensor import FileSensor
from edgeprof.sensing.files import NumberFile, listing, provenance, text_of, trouble
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Kind, Quantity

NAME = "jetson"
_GPU = re.compile(r"(gpu|.*\.gpu|.*\.(gm20b|gp10b|gv11b|ga10b)|(gm20b|gp10b|gv11b|ga10b)|gpu-gpc-\d+)")
_CLOCK = re.compile(r"emc|nvenc\d?|nvdec\d?|nvjpg\d?|vic|ofa|dla\d_core|pva\d_(vps|cpu_axi)")
_OVER_CURRENT = {1: "under-voltage", 2: "average over-current", 3: "instantaneous over-current"}


class _Node(NamedTuple):
    path: Path
    name: str
    quantity: Quantity
    scope: str
    scale: float
    plausible: tuple[float, float]
    kind: Kind = "gauge"
    note: str = ""


def find(roots: Roots) -> list[Sensor]:
    """Make one sensor with the files that exist; the list is empty if the device tree does not name a Tegra."""
    if "nvidia,tegra" not in (text_of(roots.sysfs / "firmware/devicetree/base/compatible") or ""):
        return []
    nodes = [*_find_gpus(roots.sysfs), *_find_clocks(roots.sysfs), *_find_hwmon(roots.sysfs)]
    fan = roots.sysfs / "devices/pwm-fan/cur_pwm"
    if fan.exists():
        nodes.append(_Node(fan, "fan", "fan", "board", 1 / 255, (0.0, 1.0)))
    channels: list[Channel] = []
    files: list[NumberFile] = []
    refused: list[Channel] = []
    resolved = roots.sysfs.resolve()  # a GPU is found through its link; the root may be given as a relative path
    for node in nodes:
        problem = trouble(node.path)
        root = resolved if node.path.is_relative_to(resolved) else roots.sysfs
        channel = Channel(
            NAME,
            node.name,
            node.quantity,
            kind=node.kind,
            scope=node.scope,
            provenance=provenance(roots),
            resolution=node.scale if node.scale != 1 else None,
            plausible=node.plausible,
            location=str(node.path.relative_to(root)),
            note=node.note,
            available=problem is None,
            reason=problem[0] if problem else None,
        )
        if problem is None:
            channels.append(channel)
            files.append(NumberFile(node.path, node.scale))
        else:
            refused.append(channel)
    return [FileSensor(NAME, channels, files, refused)] if channels or refused else []


def _find_gpus(sysfs: Path) -> list[_Node]:
    nodes = []
    gpus: list[tuple[Path, Path]] = []
    for node in listing(sysfs / "class/devfreq"):
        device = (node / "device").resolve()
        if _GPU.fullmatch(text_of(device / "of_node/name") or "") or _GPU.fullmatch(node.name):
            gpus.append((node, device))
    for index, (node, device) in enumerate(gpus):
        name = "gpu" if len(gpus) == 1 else f"gpu{index}"
        if (device / "load").exists():
            nodes.append(_Node(device / "load", name, "utilization", "gpu", 1e-3, (0.0, 1.0)))
        nodes.append(_Node(node / "cur_freq", name, "frequency", "gpu", 1.0, (0.0, 1e10)))
    return nodes


def _find_clocks(sysfs: Path) -> list[_Node]:
    # Only root may read debugfs; for other users the listing is empty.
    nodes = []
    for path in listing(sysfs / "kernel/debug/bpmp/debug/clk"):
        if _CLOCK.fullmatch(path.name) and (path / "rate").exists():
            scope = "memory" if path.name == "emc" else "accelerator"
            nodes.append(_Node(path / "rate", path.name, "frequency", scope, 1.0, (0.0, 2e10)))
    return nodes


def _find_hwmon(sysfs: Path) -> list[_Node]:
    nodes = []
    for path in listing(sysfs / "class/hwmon"):
        name = text_of(path / "name")
        if name == "pwmfan" and (path / "pwm1").exists():
            nodes.append(_Node(path / "pwm1", "fan", "fan", "board", 1 / 255, (0.0, 1.0)))
        if name == "soctherm_oc":
            nodes += [
                _Node(path / f"oc{n}_event_cnt", f"oc{n}", "count", "module", 1.0, (0.0, 2.0**63), "counter", what)
                for n, what in _OVER_CURRENT.items()
                if (path / f"oc{n}_event_cnt").exists()
            ]
    return nodes


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
