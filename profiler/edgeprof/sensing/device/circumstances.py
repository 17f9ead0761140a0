"""The circumstances of a measurement: what must agree for two results to be comparable.

Nothing volatile is in it (no load, no temperature): two runs on an unchanged device have the same fingerprint. A door
of a fleet answers with these facts, so this module imports little.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.sensing.board.identity import name_and_model
from edgeprof.sensing.device.power_mode import cpu_governors, cpufreq_directories, power_mode
from edgeprof.sensing.files import listing, number_of, text_of

if TYPE_CHECKING:
    from edgeprof.roots import Roots

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


class Circumstances(NamedTuple):
    """What a device is, and the settings that affect a measurement.

    Attributes:
        board: The board's name.
        model: The model that the machine itself reports.
        hostname: The machine's name in its network.
        arch: The architecture, as ``aarch64``.
        cpu: The names of its processor cores.
        cores: How many cores it has.
        os: The name of the operating system.
        power_mode: The present power mode; None if it has none.
        governor: The governors of its CPUs; None if it has none.
        settings: Other settings that must agree: the limits of the clocks, SMT and boost, L4T, and whether the board is
            simulated.
    """

    board: str
    model: str
    hostname: str
    arch: str
    cpu: str
    cores: int
    os: str
    power_mode: str | None
    governor: str | None
    settings: dict[str, str]

    def fingerprint(self) -> str:
        """Return a hash over what must agree for two results to be compared."""
        agree = [self.board, self.model, self.arch, self.cpu, self.cores, self.power_mode, self.governor]
        text = json.dumps([*agree, sorted(self.settings.items())])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def circumstances(roots: Roots) -> Circumstances:
    """Return the circumstances of a measurement on the device that these roots belong to.

    Raises:
        InputError: a user's board file does not follow the form.
    """
    board, model = name_and_model(roots)
    machine = os.uname()
    cpu, cores = _processor_and_cores(roots, machine.machine)
    settings = {**_clock_limits(roots), **_cpu_settings(roots)}
    if roots.is_simulated:
        settings["simulated"] = "a virtual board"
    return Circumstances(
        board=board,
        model=model,
        hostname=machine.nodename,
        arch=machine.machine,
        cpu=cpu,
        cores=cores,
        os=_os_name(roots, machine.sysname),
        power_mode=power_mode(roots),
        governor=cpu_governors(roots),
        settings=settings,
    )


def _processor_and_cores(roots: Roots, arch: str) -> tuple[str, int]:
    text = text_of(roots.procfs / "cpuinfo") or ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    parts = [_ARM_PARTS.get(int(part, 16)) for part in re.findall(r"^CPU part\s*:\s*(0x\w+)$", text, re.MULTILINE)]
    known = [part for part in parts if part]
    chosen = known or names or [arch]
    cores = len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or os.cpu_count() or 1
    return " + ".join(dict.fromkeys(name.strip() for name in chosen)), cores


def _os_name(roots: Roots, kernel: str) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', text_of(roots.root / "etc/os-release") or "", re.MULTILINE)
    return match[1] if match else kernel


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
