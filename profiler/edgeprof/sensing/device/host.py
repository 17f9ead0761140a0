"""A description of the host, and what may disturb a measurement that is about to begin."""

from __future__ import annotations

import os
import platform
import re
import time
from typing import TYPE_CHECKING

from edgeprof.reasons import Code
from edgeprof.results.schema import Host, Reason
from edgeprof.sensing.device.circumstances import circumstances
from edgeprof.sensing.device.power_mode import cpufreq_directories
from edgeprof.sensing.device.throttle import read_counters
from edgeprof.sensing.files import listing, number_of, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.roots import Roots

#: Another program's share of the processors that disturbs a measurement (measurement rules, preflight).
COMPETING = 0.05
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def describe_host(roots: Roots) -> Host:
    """Describe the device that these roots belong to.

    Facts that are only worth noting (C library, CUDA) are in ``context`` beside those of the fingerprint.

    Raises:
        InputError: a user's board file does not follow the form.
    """
    facts = circumstances(roots)
    return Host(
        board=facts.board,
        hostname=facts.hostname,
        arch=facts.arch,
        cpu=facts.cpu,
        cores=facts.cores,
        memory_bytes=_memory_bytes(roots),
        kernel=text_of(roots.procfs / "sys/kernel/osrelease") or platform.release(),
        os=facts.os,
        power_mode=facts.power_mode,
        governor=facts.governor,
        fingerprint=facts.fingerprint(),
        context={**facts.settings, **_noted_facts(roots, facts.model)},
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


def _memory_bytes(roots: Roots) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", text_of(roots.procfs / "meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


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
