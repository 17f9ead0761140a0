"""Models of real sensors by their data sheets: how each reads a known power, with errors drawn within its limits.

The models do not use edgeprof's analysis; only the channels that they declare are edgeprof's.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

from edgeprof.sensing.sensor import Channel, Filter, PartTime
from edgeprof_plugins.sensors.ina3221_timing import timing

if TYPE_CHECKING:
    from truth_plant import Power

SHUNT_STEP_V, BUS_STEP_V, OFFSET_V = 40e-6, 8e-3, 80e-6
GAIN_LIMIT = math.hypot(0.0025, 0.01)


class Ina3221:
    """One channel of an INA3221 (SBOS576): conversions in turn, a running exponential average, 40 µV and 8 mV steps.

    Args:
        n: Number of averaged samples.
        ct: Conversion time, s.
        ch: Number of enabled channels; ``pos`` is the position of this one among them.
        shunt: Shunt resistance, Ω; ``volts`` is the voltage of the bus.
        old: Whether the kernel is older than 5.14, which reports the conversion time exactly.
        gain, offset, clock: The errors of the part; drawn if None.
        noise_v: Noise of a conversion, V.
        sag: Resistance before the rail, Ω, through which its voltage sags with the current.
        edge: Whether errors lie exactly at their limits instead of within them.
    """

    def __init__(
        self, n=512, ct=140e-6, ch=3, pos=0, shunt=5e-3, volts=5.0, old=False, gain=None, offset=None, clock=None,
        noise_v=15e-6, sag=0.0, edge=False, name="VDD_IN", location="i2c 1-0040",
    ):  # fmt: skip
        self.n, self.ct, self.ch, self.pos, self.shunt, self.volts = n, ct, ch, pos, shunt, volts
        self.noise_v, self.sag, self.edge = noise_v, sag, edge
        self.given = (gain, offset, clock)
        self.seen = np.empty(0), np.empty(0)  # volts and amperes, as its driver gives them
        release = "5.10.104-tegra" if old else "5.15.148-tegra"
        told = timing(n, round(2e3 * ch * ct * (n if old else 1)), ch, release)
        watts_per_volt = round(volts / BUS_STEP_V) * BUS_STEP_V / shunt
        self.channel = Channel(
            "ina3221", name, "power", resolution=SHUNT_STEP_V * watts_per_volt, gain_limit=GAIN_LIMIT,
            offset_limit=OFFSET_V * watts_per_volt, update_interval_s=told.cycle_s, filter=told.filter,
            location=f"{location} channel {pos + 1}",
        )  # fmt: skip

    def draw(self, rng):
        def within(limit):
            return limit * rng.choice((-1, 1)) if self.edge else rng.uniform(-limit, limit)

        gain, offset, clock = self.given
        self.gain = (1 + within(0.01)) * (1 + within(0.0025)) * (1 + within(0.0025)) if gain is None else gain
        self.offset = within(OFFSET_V) if offset is None else offset
        self.clock = 1 + within(0.10) if clock is None else clock

    def amperes(self, power):
        """Return current (A) and voltage (V) of the rail at a power (W)."""
        if not self.sag:
            return power / self.volts, None
        current = (self.volts - np.sqrt(np.maximum(self.volts**2 - 4 * self.sag * power, 0))) / (2 * self.sag)
        return current, self.volts - self.sag * current

    def series(self, power: Power, times, rng, read_s=1.1e-3):
        """Return times and watts as read from the driver's files."""
        ct = self.ct * self.clock
        cycle = 2 * self.ch * ct
        count = int(power.end / cycle) + 2
        begins = rng.uniform(0, cycle) - cycle + np.arange(count) * cycle + 2 * self.pos * ct
        mean = (power.energy(np.clip(begins + ct, 0, None)) - power.energy(np.clip(begins, 0, None))) / ct
        if begins[0] < 0:
            mean[0] = mean[1]
        current, bus = self.amperes(mean)
        shunt_v = current * self.shunt * self.gain + self.offset + rng.normal(0, self.noise_v or 1e-12, count)
        register = running_average(shunt_v, self.n)
        seen = np.clip(np.floor((times - (begins[0] + ct)) / cycle).astype(int), 0, count - 1)
        codes = np.clip(np.round(register[seen] / SHUNT_STEP_V), -4096, 4095)
        milliamperes = np.round(codes * 40000 / round(self.shunt * 1e6))
        millivolts = round(self.volts / BUS_STEP_V) * 8
        if bus is not None:
            seen = np.clip(np.floor((times - (begins[0] + 2 * ct)) / cycle).astype(int), 0, count - 1)
            millivolts = np.round(running_average(bus, self.n)[seen] / BUS_STEP_V) * 8
        self.seen = np.broadcast_to(millivolts * 1e-3, milliamperes.shape), milliamperes * 1e-3
        # The time stamp is the middle of two reads, and the current is read second.
        return times - 0.25 * read_s, millivolts * milliamperes * 1e-6


def running_average(values, n):
    if n <= 1:
        return values
    filtered, _ = lfilter([1 / n], [1, -(1 - 1 / n)], values, zi=[(1 - 1 / n) * values[0]])
    return filtered


class Counter:
    """An energy counter (RAPL, NVML); ``look`` is the part of each refresh interval that it sees (s), None for all."""

    def __init__(
        self, refresh=1e-3, step=2.0**-14, gain_limit=0.05, wrap=262143.32885, name="package-0", sensor="rapl",
        declared=None, look=None, gain=None,
    ):  # fmt: skip
        self.refresh, self.step, self.limit, self.wrap, self.look, self.given = (
            refresh,
            step,
            gain_limit,
            wrap,
            look,
            gain,
        )
        self.channel = Channel(
            sensor, name, "energy", kind="counter", provenance="counter", resolution=step, gain_limit=gain_limit,
            update_interval_s=declared or refresh, wrap=wrap,
            part_time=PartTime(look, refresh) if look else None,
        )  # fmt: skip

    def draw(self, rng):
        self.gain = 1 + rng.uniform(-self.limit, self.limit) if self.given is None else self.given

    def series(self, power: Power, times, rng):
        ticks = rng.uniform(0, self.refresh) + np.arange(-1, int(power.end / self.refresh) + 2) * self.refresh
        at = np.clip(ticks, 0, None)
        joules = power.energy(at)
        if self.look:
            joules = np.cumsum((joules - power.energy(np.clip(at - self.look, 0, None))) / self.look * self.refresh)
        seen = np.clip(np.floor((times - ticks[0]) / self.refresh).astype(int), 0, ticks.size - 1)
        values = np.floor((joules[seen] * self.gain + rng.uniform(0, self.wrap or 1e5)) / self.step) * self.step
        return times, values % self.wrap if self.wrap else values


class Block:
    """An INA238: the mean of the 50 ms before each tick of its own clock, whose period is up to 10 % off."""

    def __init__(self, refresh=16 * 1052e-6 * 3, step=2e-3, gain_limit=0.01005, name="VIN"):
        self.refresh, self.step, self.limit = refresh, step, gain_limit
        self.channel = Channel(
            "hwmon", name, "power", resolution=step, gain_limit=gain_limit, update_interval_s=refresh,
            filter=Filter("block", length_s=refresh),
        )  # fmt: skip

    def draw(self, rng):
        self.gain, self.clock = 1 + rng.uniform(-self.limit, self.limit), 1 + rng.uniform(-0.1, 0.1)

    def series(self, power: Power, times, rng):
        length = self.refresh * self.clock
        first = rng.uniform(0, length)
        ends = np.floor((times - first) / length) * length + first
        mean = (power.energy(np.clip(ends, 0, None)) - power.energy(np.clip(ends - length, 0, None))) / length
        return times, np.round(mean * self.gain / self.step) * self.step


def with_clock(sensors, rng):
    """Give the channels of one chip the same clock and the same offset, because they share a converter."""
    clock, offset = 1 + rng.uniform(-0.1, 0.1), rng.uniform(-OFFSET_V, OFFSET_V)
    for sensor in sensors:
        sensor.given = (sensor.given[0], offset, clock)
    return sensors


def stated_tau(sensor: Ina3221, tau_s: float) -> Ina3221:
    """Return the sensor with a driver whose settings give ``tau_s`` instead of the true time constant."""
    sensor.channel = replace(sensor.channel, filter=replace(sensor.channel.filter, tau_s=tau_s))
    return sensor
