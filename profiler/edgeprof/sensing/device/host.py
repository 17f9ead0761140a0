"""The circumstances of a measurement: a description of the host, and what must agree for two results to be comparable.

Nothing volatile is in it (no load, no temperature): two runs on an unchanged device have the same fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from typing import TYPE_CHECKING

from edgeprof.reasons import Code
from edgeprof.results.schema import Host, Reason
from edgeprof.sensing.board.identity import identify_board
from edgeprof.sensing.device.power_mode import cpu_governors, cpufreq_directories, power_mode
from edgeprof.sensing.device.throttle import Counters, describe_difference, read_counters
from edgeprof.sensing.files import listing, number_of, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.roots import Roots

__all__ = [
    "COMPETING",
    "Counters",
    "competing_load",
    "describe_difference",
    "describe_host",
    "preflight",
    "processor_seconds",
    "read_counters",
]

#: Another program's share of the processors that disturbs a measurement (measurement rules, preflight).
COMPETING = 0.05
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
#: MIDR part numbers of Arm's cores (arch/arm64/include/asm/cputype.h).
_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD4F: "Neoverse-V2",
    0xD83: "Neoverse-V3AE",
}


def describe_host(roots: Roots) -> Host:
    """Describe the device that these roots belong to.

    The fingerprint is a hash over what must agree for two results to be compared: board, processor and cores, power
    mode, governors, the limits of the clocks, SMT and boost, L4T, and whether the board is simulated. Facts that are
    only worth noting (C library, CUDA) are in ``context``.

    Raises:
        InputError: a user's board file does not follow the form.
    """
    board = identify_board(roots)
    cpu, cores = _processor_and_cores(roots)
    decisive = {**_clock_limits(roots), **_cpu_settings(roots)}
    if roots.is_simulated:
        decisive["simulated"] = "a virtual board"
    mode, governor = power_mode(roots), cpu_governors(roots)
    arch = platform.machine()
    agree = [board.name, board.model, arch, cpu, cores, mode, governor, sorted(decisive.items())]
    return Host(
        board=board.name,
        hostname=platform.node(),
        arch=arch,
        cpu=cpu,
        cores=cores,
        memory_bytes=_memory_bytes(roots),
        kernel=text_of(roots.procfs / "sys/kernel/osrelease") or platform.release(),
        os=_os_name(roots),
        power_mode=mode,
        governor=governor,
        fingerprint=f"sha256:{hashlib.sha256(json.dumps(agree).encode()).hexdigest()}",
        context={**decisive, **_noted_facts(roots, board.model)},
    )


def preflight(roots: Roots) -> list[Reason]:
    """Return what may disturb a measurement that is about to begin; this takes about 0.2 s."""
    reasons = []
    busy = competing_load(roots)
    if busy is not None and busy > COMPETING:
        reasons.append(
            Reason(
                code=Code.COMPETING_LOAD,
                message=f"other programs were busy: they used {100 * busy:.0f} % of the processors before the run",
                remedy="Stop them and measure again: latency and energy both contain their work.",
            )
        )
    counters = read_counters(roots)
    held = [cause for cause, state in counters.states.items() if state > 0]
    if held:
        reasons.append(
            Reason(
                code=Code.THROTTLED, message=f"already before the run: {', '.join(held)}", remedy="Let it cool down."
            )
        )
    if "under-voltage" in counters.sticky:
        reasons.append(
            Reason(
                code=Code.UNDERVOLTAGE,
                message="the supply voltage was too low at some time since boot",
                remedy="Use a stronger power supply and a shorter cable.",
            )
        )
    return reasons


def competing_load(roots: Roots, seconds: float = 0.2) -> float | None:
    """The share of all processors (0 to 1) that is busy now, while edgeprof itself does nothing; None if unknown."""
    first = _processor_ticks(roots.procfs / "stat")
    if first is None:
        return None
    time.sleep(seconds)
    second = _processor_ticks(roots.procfs / "stat")
    if second is None or second[1] <= first[1]:
        return None
    return max(0.0, (second[0] - first[0]) / (second[1] - first[1]))


def processor_seconds(roots: Roots) -> tuple[float, float] | None:
    """Return the busy and the total processor seconds since boot, over all cores; None if the kernel reports none."""
    ticks = _processor_ticks(roots.procfs / "stat")
    return None if ticks is None else (ticks[0] / _TICKS_PER_S, ticks[1] / _TICKS_PER_S)


def _processor_ticks(path: Path) -> tuple[int, int] | None:
    match = re.match(r"cpu\s+([\d ]+)", text_of(path) or "")
    fields = [int(word) for word in match[1].split()[:8]] if match else []
    if len(fields) < 5:
        return None
    return sum(fields) - fields[3] - fields[4], sum(fields)


def _processor_and_cores(roots: Roots) -> tuple[str, int]:
    text = text_of(roots.procfs / "cpuinfo") or ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    parts = [_ARM_PARTS.get(int(part, 16)) for part in re.findall(r"^CPU part\s*:\s*(0x\w+)$", text, re.MULTILINE)]
    known = [part for part in parts if part]
    chosen = known or names or [platform.processor() or platform.machine()]
    cores = len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or os.cpu_count() or 1
    return " + ".join(dict.fromkeys(name.strip() for name in chosen)), cores


def _memory_bytes(roots: Roots) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", text_of(roots.procfs / "meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _os_name(roots: Roots) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', text_of(roots.root / "etc/os-release") or "", re.MULTILINE)
    return match[1] if match else platform.system()


def _clock_limits(roots: Roots) -> dict[str, str]:
    """Return the lowest and highest clocks of CPUs and GPUs, MHz; after ``jetson_clocks`` the two are equal."""
    limits: dict[str, str] = {}
    spans: dict[str, list[str]] = {}
    for path in cpufreq_directories(roots):
        least, most = (number_of(path / f"scaling_{end}_freq", 1e-3) for end in ("min", "max"))
        if least is not None and most is not None:
            spans.setdefault(f"{least:.0f} to {most:.0f} MHz", []).append(path.parent.name)
    for span, cpus in spans.items():
        limits[f"max_freq_{cpus[0]}"] = span
    for node in listing(roots.sysfs / "class/devfreq"):
        least, most = (number_of(node / f"{end}_freq", 1e-6) for end in ("min", "max"))
        if least is not None and most is not None and "gpu" in (text_of(node / "device/of_node/name") or node.name):
            limits["max_freq_gpu"] = f"{least:.0f} to {most:.0f} MHz"
    return limits


def _cpu_settings(roots: Roots) -> dict[str, str]:
    cpu = roots.sysfs / "devices/system/cpu"
    no_turbo = text_of(cpu / "intel_pstate/no_turbo")
    settings = {
        "boost": text_of(cpu / "cpufreq/boost") or (None if no_turbo is None else str(1 - int(no_turbo == "1"))),
        "smt": text_of(cpu / "smt/control"),
        "l4t": _l4t_version(roots),
    }
    return {name: value for name, value in settings.items() if value}


def _l4t_version(roots: Roots) -> str | None:
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text_of(roots.root / "etc/nv_tegra_release") or "")
    return f"{match[1]}.{match[2]}" if match else None


def _noted_facts(roots: Roots, model: str) -> dict[str, str]:
    noted = {
        "model": model,
        "libc": " ".join(platform.libc_ver()).strip(),
        "cpu_driver": next((d for p in cpufreq_directories(roots) if (d := text_of(p / "scaling_driver"))), ""),
        "cpu_preference": next(
            (d for p in cpufreq_directories(roots) if (d := text_of(p / "energy_performance_preference"))), ""
        ),
        "cuda": _cuda_version(roots),
        "fan": _fan_control(roots),
        "supply": _supply_voltage(roots),
    }
    return {name: value for name, value in noted.items() if value}


def _fan_control(roots: Roots) -> str:
    """Return how the fan is controlled (pwm1_enable: 0 full speed, 1 by hand, 2 by the kernel) and a manual setting."""
    for path in listing(roots.sysfs / "class/hwmon"):
        if text_of(path / "name") in {"pwmfan", "pwm-fan"}:
            rule = text_of(path / "pwm1_enable")
            if rule == "1":
                level = number_of(path / "pwm1", 1 / 255)
                return "manual" if level is None else f"manual, {level:.0%}"
            return {"0": "full speed", "2": "automatic"}.get(rule or "", "present")
    return ""


def _supply_voltage(roots: Roots) -> str:
    """Return the supply: the highest bus voltage of the power monitors, in whole volts to hide load effects."""
    volts = []
    for path in listing(roots.sysfs / "class/hwmon"):
        if text_of(path / "name") == "ina3221":
            volts += [number_of(path / f"in{n}_input", 1e-3) for n in (1, 2, 3)]
        elif text_of(path / "name") == "ina238":
            volts.append(number_of(path / "in1_input", 1e-3))
    highest = max((v for v in volts if v is not None), default=0.0)
    return f"{highest:.0f} V" if highest >= 1 else ""


def _cuda_version(roots: Roots) -> str:
    match = re.search(
        r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', text_of(roots.root / "usr/local/cuda/version.json") or ""
    )
    return match[1] if match else ""
