"""Run the same benchmark in each power mode of the device: the conductor of ``bench --power-modes``."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.benchmark.conductor import bench
from edgeprof.errors import UnavailableError, unknown
from edgeprof.sensing.device.settings import Settings
from edgeprof.sensing.files import listing, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeprof.benchmark.progress import Progress
    from edgeprof.benchmark.request import BenchRequest
    from edgeprof.plugins import PluginHost
    from edgeprof.results.schema import Result
    from edgeprof.roots import Roots

#: Governors that are not power modes, because another program sets the clock.
_NO_MODE = frozenset({"userspace"})


@dataclass(frozen=True)
class Mode:
    """One power mode.

    Attributes:
        name: nvpmodel's name, such as ``MAXN`` or ``15W``, or a governor's name.
        number: nvpmodel's id; None for a governor.
    """

    name: str
    number: int | None = None


@dataclass(frozen=True)
class Swept:
    """The outcome of one mode: a result, or the reason why there is none."""

    mode: Mode
    result: Result | None
    reason: str | None = None


def modes(roots: Roots) -> list[Mode]:
    """Return the power modes of this device: those of nvpmodel if it has them, otherwise the CPU's governors."""
    table = text_of(roots.root / "etc/nvpmodel.conf") or ""
    rows = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", table)
    if rows and _nvpmodel_path(roots) is not None:
        return [Mode(name, int(number)) for number, name in rows]
    names: list[str] = []
    for path in _cpufreq_limits(roots):
        names += (text_of(path / "scaling_available_governors") or "").split()
    return [Mode(name) for name in dict.fromkeys(names) if name not in _NO_MODE]


def choose(roots: Roots, names: Sequence[str] = ()) -> list[Mode]:
    """Return the modes with these names (or nvpmodel's numbers); all modes without names.

    Raises:
        UnavailableError: The device has no power modes.
        InputError: The device has no mode of a given name.
    """
    available = modes(roots)
    if not available:
        raise UnavailableError(
            "this device has no power modes to sweep: neither nvpmodel nor CPU governors",
            remedy="Run without --power-modes.",
        )
    if not names or list(names) == ["all"]:
        return available
    by_name = {mode.name: mode for mode in available} | {str(m.number): m for m in available if m.number is not None}
    for name in names:
        if name not in by_name:
            raise unknown("power mode", name, [mode.name for mode in available])
    return [by_name[name] for name in names]


def sweep(
    request: BenchRequest, host: PluginHost, roots: Roots, progress: Progress, names: Sequence[str] = ()
) -> list[Swept]:
    """Run the benchmark in each mode, and restore the mode, the governors and the limits of the clocks at the end.

    A mode that cannot be entered (nvpmodel requires a reboot for it) is skipped, with the reason.

    Raises:
        UnavailableError: The device has no modes, may not be changed, or could not be restored.
        InputError: See ``bench``.
    """
    chosen = choose(roots, names)
    swept: list[Swept] = []
    with Settings() as settings:
        # nvpmodel resets the clocks that jetson_clocks fixed, so the clocks' limits are restored after the mode.
        for path in _frequency_limits(roots):
            settings.remember(path)
        for mode in chosen:
            progress.note(f"power mode {mode.name}")
            reason = _enter_mode(mode, roots, settings)
            if reason is not None:
                progress.note(f"power mode {mode.name}: {reason}")
                swept.append(Swept(mode, None, reason))
                continue
            result = bench(request, host, roots, progress)
            swept.append(Swept(mode, result))
            if result.interrupted:
                break
    return swept


def _enter_mode(mode: Mode, roots: Roots, settings: Settings) -> str | None:
    """Enter a power mode. Return None if the device is in the mode now, otherwise the reason why it is not."""
    if mode.number is None:
        for path in _cpufreq_limits(roots):
            if mode.name in (text_of(path / "scaling_available_governors") or "").split():
                settings.write(path / "scaling_governor", mode.name)
        return None
    program = _nvpmodel_path(roots)
    before = _read_number(roots)
    if program is None or before is None:
        raise UnavailableError(
            "the present power mode is unknown, so it could not be put back", remedy="nvpmodel -q tells it, as root."
        )
    if before == mode.number:
        return None
    done = settings.command([program, "-m", str(mode.number)], [program, "-m", str(before)])
    message = " ".join(f"{done.stdout} {done.stderr}".split())
    if _read_number(roots) == mode.number:
        return None
    if "ermission" in message or "root" in message:
        raise UnavailableError(f"nvpmodel -m {mode.number}: {message[:200]}", remedy="Run it with sudo -E.")
    wants = "it needs a reboot" if "reboot" in message.lower() else message[:200] or f"status {done.returncode}"
    return f"nvpmodel did not enter it: {wants}"


def _nvpmodel_path(roots: Roots) -> str | None:
    """Return the path of ``nvpmodel``: from PATH on this machine, from the tree itself for a captured tree."""
    if roots.is_live:
        return shutil.which("nvpmodel") or shutil.which("nvpmodel", path="/usr/sbin:/sbin")
    in_tree = roots.root / "usr/sbin/nvpmodel"
    return str(in_tree) if in_tree.exists() else None


def _read_number(roots: Roots) -> int | None:
    match = re.search(r"pmode:(\d+)", text_of(roots.root / "var/lib/nvpmodel/status") or "")
    return int(match[1]) if match else None


def _cpufreq_limits(roots: Roots) -> list[Path]:
    cpus = [cpu for cpu in listing(roots.sysfs / "devices/system/cpu") if re.fullmatch(r"cpu\d+", cpu.name)]
    return [cpu / "cpufreq" for cpu in cpus if (cpu / "cpufreq").is_dir()]


def _frequency_limits(roots: Roots) -> list[Path]:
    paths = [
        path / f"scaling_{what}" for path in _cpufreq_limits(roots) for what in ("governor", "min_freq", "max_freq")
    ]
    for node in listing(roots.sysfs / "class/devfreq"):
        paths += [node / "governor", node / "min_freq", node / "max_freq"]
    return [path for path in paths if path.exists()]
