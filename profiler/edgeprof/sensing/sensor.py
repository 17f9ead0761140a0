"""The contract of a sensor: its channels with their uncertainties, and one call that fills a row of readings.

A sensor source is one file with one factory ``(roots) -> list of Sensor`` (see ``register_sensors``). Values are SI
base units at the moment they leave the sensor: watts, joules, volts, amperes, celsius, hertz, ratios (0 to 1), bytes.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    from edgeprof.provenance import Provenance

Quantity = Literal[
    "power", "energy", "voltage", "current", "temperature", "frequency", "utilization", "memory", "fan", "count"
]
Kind = Literal["gauge", "counter"]
Role = Literal["total", "part"]

UNITS: dict[Quantity, str] = {
    "power": "W",
    "energy": "J",
    "voltage": "V",
    "current": "A",
    "temperature": "°C",
    "frequency": "Hz",
    "utilization": "1",
    "memory": "B",
    "fan": "1",
    "count": "1",
}


@dataclass(frozen=True)
class Filter:
    """The time over which a power reading is averaged, and how.

    Attributes:
        kind: ``instantaneous``; ``block``: the mean over the ``length_s`` before the reading; ``exponential``: a
            running average with time constant ``tau_s`` (INA3221 with samples > 1: its datasheet, SBOS576, §7.4.1).
        tau_s: Time constant of an exponential filter, seconds.
        length_s: Length of a block average, seconds.
        tau_limit: Half-width of the relative error of ``tau_s`` (0.1 is ±10 %), taken as rectangular; None: the
            tolerance of a converter's clock is assumed.
    """

    kind: Literal["instantaneous", "block", "exponential"] = "instantaneous"
    tau_s: float | None = None
    length_s: float | None = None
    tau_limit: float | None = None


INSTANTANEOUS = Filter()


@dataclass(frozen=True)
class PartTime:
    """A sensor that measures only during a part of each period (Yang et al., SC24: A100 and H100, 25 of 100 ms).

    Attributes:
        look_s: For how long it measures in each period, in seconds.
        period_s: The length of a period, in seconds.
    """

    look_s: float
    period_s: float


@dataclass(frozen=True)
class Calibration:
    """The calibration of a channel against a meter: true watts = ``gain`` × watts of the channel + ``offset_w``.

    Attributes:
        gain: The gain of the line.
        offset_w: The offset of the line, in W.
        u_gain: The standard uncertainty of the gain, widened by Student's t so that twice it covers 95 %.
        u_offset_w: The standard uncertainty of the offset, likewise, in W.
        covariance_w: The covariance of gain and offset, in W.
        low_w: The lowest uncorrected power of the channel that was compared, in W.
        high_w: The highest one, in W.
        levels: The number of compared levels.
        date: The date in ISO 8601.
        against: The name of the meter.
        meter_limit: The half-width of the meter's own relative error, rectangular; None if unknown.
        covers: What the meter covered, such as ``wall``, if that is more than the channel's own scope.
    """

    gain: float
    offset_w: float
    u_gain: float
    u_offset_w: float
    covariance_w: float
    low_w: float
    high_w: float
    levels: int
    date: str
    against: str
    meter_limit: float | None = None
    covers: str | None = None

    def raw(self, watts: float) -> float:
        """The uncorrected power of the channel (W) for a corrected power (W)."""
        return (watts - self.offset_w) / self.gain

    @property
    def pivot_w(self) -> float:
        """The raw power (W) at which the errors of the line's gain and level are uncorrelated."""
        return -self.covariance_w / self.u_gain**2 if self.u_gain else 0.0

    @property
    def u_level_w(self) -> float:
        """The standard uncertainty of the line at the pivot, in W."""
        return math.sqrt(max(0.0, self.u_offset_w**2 - (self.pivot_w * self.u_gain) ** 2))

    def u_at(self, watts: float) -> float:
        """The standard uncertainty (W) of a corrected power, with covariance and the meter's error (GUM 5.2.2)."""
        gain_error = self.u_gain * (self.raw(watts) - self.pivot_w)
        return math.hypot(gain_error, self.u_level_w, (self.meter_limit or 0.0) / math.sqrt(3) * watts)


@dataclass(frozen=True)
class Channel:
    """One thing that a sensor reads.

    Attributes:
        sensor: The source, such as ``ina3221``.
        name: The rail or zone, such as ``VDD_IN``. ``(sensor, name, quantity)`` is unique on a device.
        quantity: The quantity that is read, which determines the unit (``UNITS``).
        kind: ``gauge``, or ``counter`` for a running total (energy, throttle events).
        scope: What the reading covers: ``wall``, ``board``, ``module``, ``soc``, ``package``, ``cpu``, ``gpu``,
            ``memory``, ``system``, ``accelerator`` or ``unknown``.
        role: ``total`` (it is the whole of its scope), ``part`` (it is inside or beside others), or None (not
            applicable).
        parent: The channel that already contains this one; such a channel is never added to it.
        provenance: ``counter``, ``measured``, ``estimated`` or ``simulated``.
        resolution: The smallest step, in the unit; None if unknown.
        gain_limit: Half-width of the relative gain error (0.01 is ±1 %), taken as rectangular.
        offset_limit: Half-width of the additive error, in the unit (of a counter: of its rate, in W), taken as
            rectangular.
        update_interval_s: The interval (s) at which new values appear; None if unknown (characterisation measures it).
        filter: How a power reading is averaged.
        wrap: For a counter: the value at which it starts again from 0, in the unit.
        part_time: The part of each period in which it measures, if it does not measure all the time.
        calibration: The calibration that corrected the values; it replaces ``gain_limit`` and ``offset_limit``.
        plausible: Lowest and highest value that can be true, in the unit; other values are refused.
        location: Where it is, for people: ``i2c 1-0040 channel 1``.
        chip: The place of its chip or device, the same for all channels of the chip: ``i2c 1-0040``,
            ``pci 0000:03:00.0``. The same place means the same chip, whatever the names are; empty if unknown.
        input: The input of that chip, from 1; None if the chip has only one input, or if it is unknown.
        label: The label that the driver gives it; None if it gives none.
        additive: Whether it overlaps with no other additive channel of the machine, so that they may be added up. None
            leaves that to ``role`` and ``scope``: a part of a package, a memory, a GPU or an accelerator that is
            inside no other channel is additive.
        limit_w: The most power (W) that can flow there, by design; None if unknown (``sensing.limits`` then assumes a
            generous limit). A counter that rises faster than this is refused.
        note: What readers of the values must know, such as ``constant, skip``.
        available: Whether a plausible value was read when it was probed.
        reason: Why it is not available.
        remedy: What the user can do about that, if anything.
    """

    sensor: str
    name: str
    quantity: Quantity
    kind: Kind = "gauge"
    scope: str = "unknown"
    role: Role | None = None
    parent: str | None = None
    provenance: Provenance = "measured"
    resolution: float | None = None
    gain_limit: float | None = None
    offset_limit: float | None = None
    update_interval_s: float | None = None
    filter: Filter = INSTANTANEOUS
    wrap: float | None = None
    part_time: PartTime | None = None
    calibration: Calibration | None = None
    plausible: tuple[float, float] = (-math.inf, math.inf)
    location: str = ""
    chip: str = ""
    input: int | None = None
    label: str | None = None
    additive: bool | None = None
    limit_w: float | None = None
    note: str = ""
    available: bool = True
    reason: str | None = None
    remedy: str | None = None

    @property
    def unit(self) -> str:
        return UNITS[self.quantity]

    @property
    def key(self) -> tuple[str, str, Quantity]:
        return (self.sensor, self.name, self.quantity)

    @property
    def tells_joules(self) -> bool:
        """Whether joules can be computed from the channel: it is a power, or a counter of energy."""
        return self.quantity == "power" or (self.quantity == "energy" and self.kind == "counter")


class Sensor(ABC):
    """A source of readings: one chip, one library, one directory of files.

    Life cycle: the factory probes and constructs the sensor, and ``channels`` lists its channels. ``open`` is called in
    the thread that will sample, then ``read`` at the sampling rate, and ``close`` at the end. A sensor may be opened
    again after ``close``, also in another thread: a source that fails is reopened, and a slow one moves to its own
    thread. No sensor is read from two threads at the same time.
    """

    #: The source's name, as registered.
    name: str
    #: Whether a read may block for long or take more than a few milliseconds; the sensor then gets its own thread.
    slow: bool = False

    @property
    @abstractmethod
    def channels(self) -> Sequence[Channel]:
        """The channels that can be read, in the order of the row; they do not change while the sensor is open."""

    @property
    def unavailable(self) -> Sequence[Channel]:
        """Channels that exist but cannot be read (``available`` False, with the reason); shown once, never sampled."""
        return ()

    def open(self) -> None:  # noqa: B027 - most sensors need it, some do not
        """Open files and handles and keep them open.

        Raises:
            UnavailableError: the source went away since it was probed.
        """

    @abstractmethod
    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        """Fill one row: ``values[i]`` in SI units for ``channels[i]``, NaN where this reading failed.

        ``times[i]`` is the monotonic time (s) of the reading; a sensor whose reads are all quick may leave it NaN, and
        the sampler uses the middle of the call. The method must not allocate more than parsing needs, and must not
        raise if one channel fails: EIO on one rail must not affect the others.
        """

    def close(self) -> None:  # noqa: B027 - see open
        """Close files and handles; safe to call twice."""

    def process_memory_bytes(self, pid: int) -> int | None:  # noqa: ARG002 - for devices with a memory of their own
        """Return the memory of this device that a process uses, in bytes; None if the source does not know it."""
        return None

    def read_once(self) -> dict[str, float | None]:
        """Open, read one row and close, for ``edgeprof sensors``; return channel name/quantity → value or None."""
        count = len(self.channels)
        values, times = [math.nan] * count, [math.nan] * count
        self.open()
        try:
            self.read(cast("MutableSequence[float]", values), times)
        finally:
            self.close()
        return {
            f"{channel.name}/{channel.quantity}": None if math.isnan(value) else value
            for channel, value in zip(self.channels, values, strict=True)
        }


class WrappedSensor(Sensor):
    """A sensor that another one stands for: it answers everything as the wrapped sensor does.

    Subclasses override what they change.

    Args:
        sensor: The wrapped sensor.
    """

    def __init__(self, sensor: Sensor) -> None:
        self.wrapped = sensor
        self.name = sensor.name
        self.slow = sensor.slow

    @property
    def channels(self) -> Sequence[Channel]:
        return self.wrapped.channels

    @property
    def unavailable(self) -> Sequence[Channel]:
        return self.wrapped.unavailable

    def open(self) -> None:
        self.wrapped.open()

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        self.wrapped.read(values, times)

    def close(self) -> None:
        self.wrapped.close()

    def process_memory_bytes(self, pid: int) -> int | None:
        return self.wrapped.process_memory_bytes(pid)


@dataclass
class Reading:
    """A channel's value at a time; what ``sensors`` and the exporter show."""

    channel: Channel
    value: float | None
    time: float = field(default_factory=time.monotonic)
