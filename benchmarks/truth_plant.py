"""A load whose energy is known exactly: piecewise constant power, a bench's windows and idles, and reading times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeprof.worker.span import BLOCK, WINDOW, Span, idle_span


class Plant:
    """Piecewise constant power over time, in pieces (s, W); its integral is exact."""

    def __init__(self) -> None:
        self.ends: list[float] = [0.0]
        self.watts: list[float] = []
        self.owners: list[int] = []  # the variant that works in each piece; -1 without work
        self.owner = -1

    def add(self, seconds: float, watts: float) -> None:
        if seconds > 0:
            self.ends.append(self.ends[-1] + seconds)
            self.watts.append(watts)
            self.owners.append(self.owner)

    @property
    def now(self) -> float:
        return self.ends[-1]

    def frozen(self) -> Power:
        return Power(np.asarray(self.ends), np.asarray(self.watts), np.asarray(self.owners))


class Power:
    """A finished plant."""

    def __init__(self, ends: np.ndarray, watts: np.ndarray, owners: np.ndarray) -> None:
        self.ends, self.watts, self.owners = ends, watts, owners
        self.joules = np.concatenate(([0.0], np.cumsum(np.diff(ends) * watts)))

    @property
    def end(self) -> float:
        return float(self.ends[-1])

    def energy(self, times) -> np.ndarray:
        return np.interp(times, self.ends, self.joules)

    def power(self, times) -> np.ndarray:
        return self.watts[np.clip(np.searchsorted(self.ends, times, side="right") - 1, 0, self.watts.size - 1)]

    def share(self, fractions) -> Power:
        """Return the power of one rail: one fraction for all owners, or one for each (the last for idle)."""
        factor = np.asarray(fractions)[self.owners] if np.ndim(fractions) else fractions
        return Power(self.ends, self.watts * factor, self.owners)


@dataclass(frozen=True)
class Inference:
    """The power of one inference: its mean pieces (s, W), and the relative scatter of the length of each piece."""

    pieces: tuple[tuple[float, float], ...]
    jitter: float = 0.0

    def draw(self, rng, scale: float):
        for seconds, watts in self.pieces:
            length = seconds * max(0.2, 1 + self.jitter * rng.normal()) if self.jitter else seconds
            yield length, watts * scale


LOADS = {
    "const": Inference(((0.010, 17.0),)),
    "inf5": Inference(((0.003, 20.0), (0.002, 10.0)), 0.05),
    "burst100": Inference(((0.030, 17.0), (0.070, 6.0)), 0.03),
    "burst100lock": Inference(((0.030, 17.0), (0.070, 6.0))),
    "inf700": Inference(((0.1, 7.0), (0.45, 19.0), (0.15, 9.0)), 0.05),
}


class _Spikes(Inference):
    """20 ms at 8 W; every fifth inference contains 33 W for one to three milliseconds."""

    def draw(self, rng, scale: float):
        if rng.random() >= 0.2:
            return [(0.020, 8 * scale)]
        spike = rng.uniform(0.001, 0.003)
        before = rng.uniform(0, 0.020 - spike)
        return [(before, 8 * scale), (spike, 33 * scale), (0.020 - before - spike, 8 * scale)]


LOADS["spike"] = _Spikes(((0.020, 8.0 + 0.2 * 0.002 / 0.020 * 25.0),))


def load(name: str) -> Inference:
    if name.startswith("sq"):
        half = float(name[2:]) * 1e-3 / 2
        return Inference(((half, 16.0), (half, 6.0)))
    return LOADS[name]


@dataclass(frozen=True)
class Bench:
    """A bench to simulate. Powers are in W, times in s.

    Attributes:
        loads: One load for each variant.
        scales: A factor for the power of each variant.
        settle_s: The time between the end of work and an idle.
        pause_s: The time between two windows at idle power, in addition to the 20 to 60 ms that messages take.
        frame_hz: The rate of a camera; None runs inferences back to back.
        spread, correlation: Standard deviation of a window's level, and its correlation from window to window.
        drift: How much the power rises as the device warms up (time constant 20 s).
        pink: Relative standard deviation of 1/f noise.
        tail_w: How far above its level the idle power begins (time constant 3 s).
    """

    loads: tuple[str, ...] = ("burst100", "burst100")
    scales: tuple[float, ...] = (1.0, 0.9)
    windows: int = 5
    window_s: float = 2.0
    idle_s: float = 2.0
    idle_w: float = 4.0
    warmup_s: float = 1.5
    settle_s: float | None = None
    pause_s: float | None = None
    frame_hz: float | None = None
    spread: float = 0.0
    correlation: float = 0.0
    drift: float = 0.0
    pink: float = 0.0
    tail_w: float = 0.0
    idle_range_w: tuple[float, float] | None = None

    @property
    def has_process_mean(self) -> bool:
        """Whether the expected joules per inference are known in advance."""
        return not (self.drift or self.pink or self.frame_hz or self.correlation or self.tail_w)

    def process_joules(self, variant: int) -> float:
        return self.scales[variant] * math.fsum(s * w for s, w in load(self.loads[variant]).pieces)

    def process_seconds(self, variant: int) -> float:
        return math.fsum(s for s, _ in load(self.loads[variant]).pieces)


@dataclass
class Played:
    """What happened: the power, each variant's windows, the idles, and everything that ran."""

    power: Power
    windows: list[list[Span]]
    idles: list[Span]
    busy: list[Span]


class _Player:
    def __init__(self, bench: Bench, rng) -> None:
        self.bench, self.rng, self.plant = bench, rng, Plant()
        self.heat_s = 0.0
        self.noise = pink(rng, 1 << 15) if bench.pink else None

    def put(self, seconds: float, watts: float, busy: bool = True) -> None:
        factor = 1 + self.bench.drift * (1 - math.exp(-self.heat_s / 20.0)) if self.bench.drift else 1.0
        self.heat_s = self.heat_s + seconds if busy else max(0.0, self.heat_s - 0.5 * seconds)
        if self.noise is None or not busy:
            self.plant.add(seconds, watts * factor)
            return
        left = seconds
        while left > 1e-9:
            step = min(left, 0.005)
            at = int(self.plant.now / 0.005) % self.noise.size
            self.plant.add(step, watts * factor * (1 + self.bench.pink * self.noise[at]))
            left -= step

    def rest(self, seconds: float) -> None:
        if not self.bench.tail_w:
            self.put(seconds, self.bench.idle_w, busy=False)
            return
        for at in np.arange(0, seconds, 0.05):
            watts = self.bench.idle_w + self.bench.tail_w * math.exp(-at / 3.0)
            self.put(min(0.05, seconds - at), watts, busy=False)

    def window(self, variant: int, level: float) -> Span:
        bench, plant = self.bench, self.plant
        inference, scale = load(bench.loads[variant]), bench.scales[variant] * level
        start, count = plant.now, 0
        plant.owner = variant
        while plant.now < start + bench.window_s - (1e-9 if bench.frame_hz else 0.0):
            for seconds, watts in inference.draw(self.rng, scale):
                self.put(seconds, watts)
            count += 1
            if bench.frame_hz:
                self.put(start + count / bench.frame_hz - plant.now, bench.idle_w)
        plant.owner = -1
        return Span(WINDOW, start, plant.now, count)

    def warm_up(self) -> None:
        end = self.plant.now + self.bench.warmup_s
        while self.plant.now < end:
            for seconds, watts in load(self.bench.loads[0]).draw(self.rng, self.bench.scales[0]):
                self.put(seconds, watts)


def play(bench: Bench, rng, settle_s: float, pause_s: float) -> Played:
    """Simulate a bench: warm-up, idle, windows in ABBA order, idle.

    Args:
        settle_s: The time between work and an idle (s), if ``bench`` has none.
        pause_s: The time between windows (s), if ``bench`` has none.
    """
    settle_s = settle_s if bench.settle_s is None else bench.settle_s
    pause_s = pause_s if bench.pause_s is None else bench.pause_s
    player = _Player(bench, rng)
    plant = player.plant
    plant.add(rng.uniform(0.3, 0.5), bench.idle_w)
    idles: list[Span] = []
    begin = plant.now
    player.warm_up()
    busy = [Span(BLOCK, begin, plant.now)]

    def idle() -> None:
        start = plant.now + settle_s
        player.rest(settle_s + bench.idle_s)
        idles.append(idle_span(start, plant.now))

    idle()
    variants = len(bench.loads)
    windows: list[list[Span]] = [[] for _ in range(variants)]
    state = [rng.normal() for _ in range(variants)]
    for k in range(bench.windows):
        for v in range(variants) if k % 2 == 0 else range(variants - 1, -1, -1):
            plant.add(pause_s + rng.uniform(0.02, 0.06), bench.idle_w)
            if k:
                state[v] = bench.correlation * state[v] + math.sqrt(1 - bench.correlation**2) * rng.normal()
            windows[v].append(player.window(v, 1 + bench.spread * state[v]))
            busy.append(windows[v][-1])
    idle()
    player.rest(0.4)
    return Played(plant.frozen(), windows, idles, busy)


def pink(rng, size: int) -> np.ndarray:
    """Return noise whose power density falls with 1/f; its mean is 0 and its standard deviation 1."""
    frequency = np.fft.rfftfreq(size)
    frequency[0] = frequency[1]
    phases = np.exp(1j * rng.uniform(0, 2 * np.pi, frequency.size))
    noise = np.fft.irfft(rng.normal(size=frequency.size) / np.sqrt(frequency) * phases, size)
    return (noise - noise.mean()) / noise.std()


def read_times(rng, end: float, period: float, *, missed: float = 0.003) -> np.ndarray:
    """Return the times at which a sensor is read (s).

    Each deadline lies at a random place in its period and is met late; some are lost, and sometimes reading stalls.

    Args:
        missed: The share of lost deadlines.
    """
    n = int((end - 0.05) / period)
    due = 0.02 + rng.uniform(0, period, n) + np.arange(n) * period
    late = rng.exponential(60e-6, n) + (rng.random(n) < 0.02) * rng.exponential(1.5e-3, n)
    times = due + np.minimum(late, 0.9 * period)
    keep = rng.random(n) > missed
    for _ in range(rng.poisson(end / 20)):
        stall = rng.uniform(0, end)
        keep &= ~((due > stall) & (due < stall + rng.uniform(0.01, 0.06)))
    times = np.sort(times[keep])
    return times[np.concatenate(([True], np.diff(times) > 1e-5))]
