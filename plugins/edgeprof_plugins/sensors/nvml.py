"""NVIDIA GPUs by NVML (``pip install 'edgeprof[nvidia]'``): energy counter, power, load, memory, temperature, clock.

Calls and units: ``nvmlDeviceGetTotalEnergyConsumption`` mJ since the driver was loaded (Volta and later; starts again
when the driver does); power mW: field ``NVML_FI_DEV_POWER_INSTANT`` (186), else ``_AVERAGE`` (185), else
``nvmlDeviceGetPowerUsage``, which is a 1 s average on Ampere and later except GA100 and instantaneous before;
``nvmlDeviceGetUtilizationRates`` % ("any kernel ran", over the last 1/6 to 1 s); memory bytes; °C; SM clock MHz.
Refresh: counter and power every 20 to 100 ms.
Traps: A100, H100 and H200 observe only 25 of every 100 ms (Yang et al., SC24), also for the counter; on a Jetson NVML
starts but supports none of this, so each call is judged by its value; 0xFFFFFFFF is not a reading.
Sources: NVML API reference; arXiv 2312.02741.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl
from edgeprof.errors import UnavailableError
from edgeprof.sensing.sensor import INSTANTANEOUS, Channel, Filter, PartTime, Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots
    from edgeprof.sensing.sensor import Kind, Quantity

NAME = "nvml"
_POWER_INSTANT, _POWER_AVERAGE = 186, 185
_ARCH_AMPERE = 7
_GA100 = ("A100", "A30", "A800")
_PART_TIME = ("A100", "A800", "H100", "H800", "H200", "H20", "GH200")
_LOOK = PartTime(look_s=0.025, period_s=0.1)
_SENTINEL = 0xFFFFFFFF
#: Reasons for a reduced clock (NVML, clocks event reasons): thermal slowdown by hardware or software, power brake.
_SLOWDOWN = 0x8 | 0x20 | 0x40 | 0x80
#: The same reasons and the power limit, which reduces the clock without a fault.
_HELD_DOWN = _SLOWDOWN | 0x4


@dataclass(frozen=True)
class _Reading:
    channel: Channel
    call: Callable[[], float]


class Gpu(Sensor):
    """One GPU."""

    name = NAME

    def __init__(
        self,
        readings: Sequence[_Reading],
        refused: Sequence[Channel],
        processes: Callable[[], Sequence[Any]] = lambda: (),
    ) -> None:
        self._readings = tuple(readings)
        self._refused = tuple(refused)
        self._processes = processes

    @property
    def channels(self) -> Sequence[Channel]:
        return tuple(reading.channel for reading in self._readings)

    @property
    def unavailable(self) -> Sequence[Channel]:
        return self._refused

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        for index, reading in enumerate(self._readings):
            before = time.monotonic()
            values[index] = _try_value(reading.call)[0]
            times[index] = 0.5 * (before + time.monotonic())

    def process_memory_bytes(self, pid: int) -> int | None:
        """Memory of a process on the GPU (bytes); None if it is unknown.

        It is unknown if NVML sees other process ids, as in a container, and on a Jetson, whose GPU has no own memory.
        """
        try:
            held = [int(p.usedGpuMemory) for p in self._processes() if p.pid == pid and p.usedGpuMemory is not None]
        except Exception:  # noqa: BLE001 - the library is optional, so its error class is not imported here
            return None
        return sum(held) if held else None


def _try_value(call: Callable[[], float]) -> tuple[float, str | None]:
    """The value, or NaN and the reason; NVML's bindings raise a separate class for each error."""
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 - the library is optional, so that its error class has no name here
        return math.nan, str(error)


def find(roots: Roots) -> list[Sensor]:
    """Find the GPUs of this machine; a captured tree has none.

    Raises:
        UnavailableError: there is a driver, but its library is not installed or fails.
    """
    if not roots.is_live or not (roots.dev / "nvidiactl").exists():
        return []
    try:
        import pynvml
    except ImportError:
        raise UnavailableError(
            "there is an NVIDIA driver, but its Python binding is not installed",
            remedy="pip install 'edgeprof[nvidia]'",
        ) from None
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise UnavailableError(f"NVML does not start: {error}", remedy="nvidia-smi shows details.") from None
    return [gpu(pynvml, handle, f"gpu{index}") for index, handle in enumerate(handles)]


def gpu(nvml: Any, handle: Any, name: str) -> Sensor:
    """Make the sensor of a GPU, with the channels that have a plausible value.

    Args:
        nvml: The module ``pynvml``.
        handle: NVML's handle of the device.
        name: Name of the channels.
    """
    model, _ = _try_text(lambda: nvml.nvmlDeviceGetName(handle))
    bus, problem = _try_text(lambda: nvml.nvmlDeviceGetPciInfo(handle).busId)
    chip = "" if problem else f"pci {bus.lower()[-12:]}"  # NVML writes the domain with eight digits
    looks = _LOOK if any(part in model for part in _PART_TIME) else None
    note = "the sensor observes 25 of every 100 ms" if looks else ""
    limit, _ = _try_value(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) * 1e-3)
    most = 2 * limit if limit > 0 else 2000.0
    readings: list[_Reading] = []
    refused: list[Channel] = []

    def offer(quantity: Quantity, call: Callable[[], float], **facts: Any) -> None:
        value, reason = _try_value(call)
        low, high = facts.setdefault("plausible", (0.0, math.inf))
        if reason is None and not low <= value <= high:
            reason = f"it reads {value:g}, which is impossible"
        kind: Kind = facts.pop("kind", "gauge")
        channel = Channel(
            NAME,
            name,
            quantity,
            kind=kind,
            scope="gpu",
            location=model,
            chip=chip,
            available=reason is None,
            reason=reason,
            **facts,
        )
        if reason is None:
            readings.append(_Reading(channel, call))
        else:
            refused.append(channel)

    offer(
        "energy",
        lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3,
        kind="counter",
        role="part",
        provenance="counter",
        resolution=1e-3,
        gain_limit=0.05,
        update_interval_s=0.1,
        part_time=looks,
        note=note,
    )
    call, filtering, what = _power_reader(nvml, handle, model)
    offer(
        "power",
        call,
        role="part",
        gain_limit=0.05,
        update_interval_s=0.1,
        filter=filtering,
        part_time=looks,
        plausible=(0.0, most),
        note="; ".join(filter(None, (what, note))),
    )
    offer("utilization", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100.0, plausible=(0.0, 1.0))
    offer("memory", lambda: float(nvml.nvmlDeviceGetMemoryInfo(handle).used), plausible=(0.0, 1e13))
    offer("temperature", lambda: float(nvml.nvmlDeviceGetTemperature(handle, 0)), plausible=(-55.0, 150.0))
    offer("frequency", lambda: nvml.nvmlDeviceGetClockInfo(handle, 1) * 1e6, plausible=(0.0, 1e10))
    offer(
        "count",
        lambda: float((nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & _SLOWDOWN).bit_count()),
        note="number of reasons that reduce the clock now: heat, power brake",
    )
    mask, reason = _try_value(lambda: float(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))
    if reason is None and mask >= 0:
        channel = Channel(
            NAME,
            name + "-throttle-reasons",
            "count",
            kind="gauge",
            scope="gpu",
            location=model,
            chip=chip,
            note="NVML's mask of the reasons for the present clock",
        )
        readings.append(
            _Reading(channel, lambda: float(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & _HELD_DOWN))
        )
    return Gpu(readings, refused, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))


def _power_reader(nvml: Any, handle: Any, model: str) -> tuple[Callable[[], float], Filter, str]:
    """The function that reads power, the filter of its readings, and the filter in words."""

    def field(number: int) -> Callable[[], float]:
        def call() -> float:
            (answer,) = nvml.nvmlDeviceGetFieldValues(handle, [number])
            if answer.nvmlReturn != 0 or answer.value.uiVal == _SENTINEL:
                raise ValueError("the driver does not report this power")
            return float(answer.value.uiVal * 1e-3)

        return call

    second = Filter("block", length_s=1.0)
    for number, filtering, what in (
        (_POWER_INSTANT, INSTANTANEOUS, "instantaneous"),
        (_POWER_AVERAGE, second, "1 s average"),
    ):
        if _try_value(field(number))[1] is None:
            return field(number), filtering, what
    architecture, _ = _try_value(lambda: nvml.nvmlDeviceGetArchitecture(handle))
    averaged = architecture >= _ARCH_AMPERE and not any(part in model for part in _GA100)

    def usage() -> float:
        milliwatts = nvml.nvmlDeviceGetPowerUsage(handle)
        return math.nan if milliwatts == _SENTINEL else milliwatts * 1e-3

    return usage, second if averaged else INSTANTANEOUS, "1 s average" if averaged else "instantaneous"


def _try_text(call: Callable[[], Any]) -> tuple[str, str | None]:
    try:
        text = call()
    except Exception as error:  # noqa: BLE001 - see _value
        return "NVIDIA GPU", str(error)
    return text.decode() if isinstance(text, bytes) else str(text), None


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
