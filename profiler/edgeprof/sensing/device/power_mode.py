"""The device's power mode and its CPUs' governors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeprof.sensing.files import listing, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.roots import Roots


def power_mode(roots: Roots) -> str | None:
    """Return the name of nvpmodel's mode (its number if the table is missing), or else the ACPI platform profile."""
    status = re.search(r"pmode:(\d+)", text_of(roots.root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return text_of(roots.sysfs / "firmware/acpi/platform_profile")
    number = int(status[1])
    table = text_of(roots.root / "etc/nvpmodel.conf") or ""
    names: dict[int, str] = {
        int(n): name for n, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", table)
    }
    return names.get(number, f"mode {number}")


def cpufreq_directories(roots: Roots) -> list[Path]:
    """Return the cpufreq directory of each CPU that has one."""
    cpus = [cpu for cpu in listing(roots.sysfs / "devices/system/cpu") if re.fullmatch(r"cpu\d+", cpu.name)]
    return [cpu / "cpufreq" for cpu in cpus if (cpu / "cpufreq").is_dir()]


def cpu_governors(roots: Roots) -> str | None:
    """Return the governors of all CPUs, each once; None if there are none."""
    names = [text_of(path / "scaling_governor") for path in cpufreq_directories(roots)]
    return " + ".join(dict.fromkeys(name for name in names if name)) or None


def mode_and_governor(roots: Roots) -> tuple[str, str]:
    """Return the power mode and the governors, empty if unknown, as labels of edgeprof_power_mode_info."""
    return power_mode(roots) or "", cpu_governors(roots) or ""
