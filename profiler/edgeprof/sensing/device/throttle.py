"""Throttling of the device: counters of heat, under-voltage and over-current, read before and after a window.

Counters that only grow are compared; states that come and go (a cooling device that limits a clock) count if they are
seen at either end. The Raspberry Pi's sticky bits count where they were newly set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeprof.sensing.files import NumberFile, listing, number_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeprof.roots import Roots

#: soctherm_oc: OC1 under-voltage, OC2 average, OC3 instantaneous over-current (Linux, tegra234).
_OVER_CURRENT = {1: "under-voltage", 2: "average over-current", 3: "instantaneous over-current"}
#: vcgencmd get_throttled: bit → the present condition; the bit 16 places higher: the same at some time since boot.
_PI_BITS = {0: "under-voltage", 1: "the clock was capped", 2: "throttled", 3: "the soft temperature limit was reached"}
#: Cooling devices that slow something down; fans do not.
_SLOWING = re.compile(r"(cpufreq|devfreq|thermal-cpu|thermal-devfreq|Processor|cpu-)", re.IGNORECASE)


@dataclass(frozen=True)
class Counters:
    """A reading of everything that indicates throttling.

    Attributes:
        counts: Events since boot: cause → number.
        states: Present conditions: cause → level; 0 is normal.
        sticky: Conditions that held at some time since boot (Raspberry Pi).
    """

    counts: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    sticky: frozenset[str] = frozenset()


def read_counters(roots: Roots) -> Counters:
    """Read all counters that exist on this device; the others are absent from the result."""
    counts: dict[str, int] = {}
    states: dict[str, int] = {}
    for hwmon in listing(roots.sysfs / "class/hwmon"):
        if text_of(hwmon / "name") == "soctherm_oc":
            for number, cause in _OVER_CURRENT.items():
                _add_count(counts, f"{cause} (OC{number})", number_of(hwmon / f"oc{number}_event_cnt"))
    for cpu in listing(roots.sysfs / "devices/system/cpu"):
        for node in ("core", "package"):
            path = cpu / "thermal_throttle" / f"{node}_throttle_count"
            _add_count(counts, f"thermal throttling ({node})", number_of(path), add=True)
    for cause, path in _state_files(roots):
        value = number_of(path)
        if value is not None:  # of several processors, one that is held down is enough
            states[cause] = max(int(value), states.get(cause, 0))
    bits = _pi_bits(roots)
    states |= {cause: bits >> bit & 1 for bit, cause in _PI_BITS.items() if bits is not None}
    sticky = frozenset(cause for bit, cause in _PI_BITS.items() if bits is not None and bits >> (bit + 16) & 1)
    return Counters(counts, states, sticky)


class Causes:
    """What slows the device down now, for a display that asks again and again; the files stay open.

    Args:
        roots: Where /sys is.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._files = [(cause, NumberFile(path)) for cause, path in _state_files(roots)]
        self._is_pi = _pi_bits(roots) is not None

    def read(self) -> list[str]:
        """The causes, in words; empty if nothing slows the device down."""
        causes = [cause for cause, file in self._files if file.number() > 0]  # not if it is NaN
        bits = _pi_bits(self._roots) if self._is_pi else None
        causes += [cause for bit, cause in _PI_BITS.items() if bits is not None and bits >> bit & 1]
        return list(dict.fromkeys(causes))

    def close(self) -> None:
        """Close the files."""
        for _, file in self._files:
            file.close()


def describe_difference(before: Counters, after: Counters) -> list[str]:
    """Describe what happened between two readings, one sentence for each cause; empty if nothing did."""
    events = []
    for cause, count in after.counts.items():
        grown = count - before.counts.get(cause, count)
        if grown > 0:
            events.append(f"{cause}: {grown} event{'s' if grown > 1 else ''}")
    events += [
        cause
        for cause, state in after.states.items()
        if max(state, before.states.get(cause, 0)) > 0 and cause not in after.sticky - before.sticky
    ]
    events += sorted(after.sticky - before.sticky)
    return events


def _state_files(roots: Roots) -> Iterator[tuple[str, Path]]:
    """The files that hold a present condition: its cause, and the path; 0 in the file is normal."""
    for hwmon in listing(roots.sysfs / "class/hwmon"):
        if text_of(hwmon / "name") == "rpi_volt":
            yield "under-voltage alarm", hwmon / "in0_lcrit_alarm"
    for device in listing(roots.sysfs / "class/thermal"):
        if device.name.startswith("cooling_device"):
            kind = text_of(device / "type") or ""
            if _SLOWING.match(kind):
                yield f"{kind} is held down by heat", device / "cur_state"


def _add_count(into: dict[str, int], cause: str, value: float | None, *, add: bool = False) -> None:
    if value is not None:
        into[cause] = int(value) + (into.get(cause, 0) if add else 0)


def _pi_bits(roots: Roots) -> int | None:
    """The firmware's throttling bits: its sysfs node (hexadecimal), a captured tree's text, or vcgencmd."""
    node = text_of(roots.sysfs / "devices/platform/soc/soc:firmware/get_throttled")
    text = f"0x{node}" if node else text_of(roots.root / "vcgencmd/get_throttled")
    if text is None and roots.is_live and (roots.dev / "vcio").exists():
        import shutil  # noqa: PLC0415 - only older Raspberry Pi systems start a program
        import subprocess  # noqa: PLC0415

        program = shutil.which("vcgencmd")
        if program is None:
            return None
        try:
            done = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=2.0, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        text = done.stdout
    match = re.search(r"0x([0-9a-fA-F]+)", text or "")
    return int(match[1], 16) if match else None
