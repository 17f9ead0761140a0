"""Integration error: a window's joules against the true integral, by waveform, window length, rate and kind of sensor.

There is a table for each of two cases:

1. Work that begins and ends with the window (4 W without work, 17 W with it), as in a benchmark. Errors come from the
   kinks of a filtered curve and from the straight line between two readings.
2. A continuous waveform that is cut anywhere, as in a monitor. The error is limited by how well the rate resolves the
   waveform.

The sensors are models of real parts (``edgeprof.simulation.chip``): an instantaneous reading; an INA3221 at 512
averages (τ = 0.43 s, 40 mW steps); a 100 ms block average; counters that refresh every 1 ms (RAPL) and 100 ms (NVML).
No real time passes: sampling times are drawn from a seeded generator, with a jitter of 0.1 ms.

Targets: at most 0.1 % for windows of 1 s where the rate resolves the waveform; behind the filter, for bursts from
20 ms, at most 0.5 % beyond what the sensor's own step allows (τ · step / √6 a window).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from paired import about, machine, parser, table, write

from edgeprof.energy.integrate import window_energy
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.sensing.trace import Series, deduplicate
from edgeprof.simulation import waveform
from edgeprof.simulation.chip import BlockAverage, EnergyCounter, Ina3221

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprof.simulation.waveform import Waveform

IDLE, BUSY = 4.0, 17.0
JITTER = 1e-4
STEP = 0.04
TAU = 512 * 840e-6


@dataclass(frozen=True)
class Part:
    """A sensor: its name, the channel that edgeprof sees, and how it reads a waveform at given times."""

    name: str
    channel: Channel
    rate_hz: float
    read: Callable[[Waveform, np.ndarray], list[float]]


def instantaneous(wave: Waveform, times: np.ndarray) -> list[float]:
    return [wave.power(t) for t in times]


def converter(make: Callable[[float, float], Any], value: str, factor: float = 1.0):
    """Return a function that gives the readings of a simulated part that has settled at the waveform's first power."""

    def read(wave: Waveform, times: np.ndarray) -> list[float]:
        part = make(float(times[0]), wave.power(float(times[0])))
        values = []
        for t in times:
            part.advance(float(t), wave.energy)
            values.append(getattr(part, value) * factor)
        return values

    return read


def ina(start: float, watts: float) -> Ina3221:
    return Ina3221(shunt_ohm=0.005, volts=5.0, start=start - 840e-6, watts=watts)


def counter(refresh: float, step: float):
    return converter(
        lambda start, _: EnergyCounter(step_j=step, wrap_uj=2**40, refresh_s=refresh, start=start - refresh * 1.37),
        "microjoules",
        1e-6,
    )


POWER = Channel("part", "RAIL", "power")
FILTERED = Channel(
    "ina3221", "RAIL", "power", resolution=STEP, update_interval_s=840e-6, filter=Filter("exponential", tau_s=TAU)
)
BLOCK = Channel(
    "part", "RAIL", "power", resolution=1e-3, update_interval_s=0.1, filter=Filter("block", length_s=0.1)
)  # fmt: skip


def joule_counter(refresh: float, step: float) -> Channel:
    return Channel("part", "RAIL", "energy", kind="counter", update_interval_s=refresh, resolution=step)


PARTS = [
    Part("instantaneous, 100 Hz", POWER, 100, instantaneous),
    Part("instantaneous, 1 kHz", POWER, 1000, instantaneous),
    Part("INA3221 τ 0.43 s, 100 Hz", FILTERED, 100, converter(ina, "watts")),
    Part(
        "block 100 ms, 100 Hz", BLOCK, 100,
        converter(lambda s, w: BlockAverage(refresh_s=0.1, step_w=1e-3, start=s - 0.137, watts=w), "watts"),
    ),
    Part("counter 1 ms, 100 Hz", joule_counter(1e-3, 61e-6), 100, counter(1e-3, 61e-6)),
    Part("counter 100 ms, 100 Hz", joule_counter(0.1, 1e-3), 100, counter(0.1, 1e-3)),
]  # fmt: skip

RUNNING = [
    ("square 1–10 W, 200 ms", waveform.square(1, 10, 0.2)),
    ("square 1–10 W, 20 ms", waveform.square(1, 10, 0.02)),
    ("ramp 1–10 W, 2 s", waveform.ramp(1, 10, 2)),
    ("burst 4–17 W, 100 ms of 500 ms", waveform.burst(4, 17, 0.1, 0.5)),
]


def measure(part: Part, wave: Waveform, start: float, end: float, begin: float, rng, edges: str) -> tuple[float, float]:
    """Return the relative error of the window's joules, and the standard uncertainty that edgeprof states for it."""
    count = int((end + 1.2 - begin) * part.rate_hz)
    times = begin + rng.uniform(0, 1 / part.rate_hz) + np.arange(count) / part.rate_hz
    times = np.sort(times + rng.normal(0, min(JITTER, 0.1 / part.rate_hz), count))
    values = part.read(wave, times)
    series = deduplicate(Series(times.tolist(), values), part.channel, 1 / part.rate_hz)
    found = window_energy(series.times, series.values, start, end, part.channel, edges=edges)
    truth = wave.between(start, end)
    if found.joules is None:
        return math.nan, math.nan
    u = math.hypot(found.u_sync, found.u_resolution, found.u_filter)
    return found.joules / truth - 1, u / truth


def summary(errors: list[tuple[float, float]]) -> dict[str, Any]:
    values = [error for error, _ in errors if not math.isnan(error)]
    if not values:  # the sensor is too slow for such a window, and edgeprof reports that
        return {"told": 0, "mean": None, "sd": None, "rms": None, "stated": None}
    return {
        "told": len(values) / len(errors),
        "mean": statistics.fmean(values),
        "sd": statistics.pstdev(values),
        "rms": math.sqrt(statistics.fmean(v * v for v in values)),
        "stated": statistics.fmean(u for _, u in errors if not math.isnan(u)),
    }


def windows_of_work(rounds: int, rng) -> list[dict[str, Any]]:
    results = []
    for part in PARTS:
        for length in (0.02, 0.05, 0.1, 0.5, 1.0, 5.0):
            errors = []
            for _ in range(rounds):
                start = 3 + rng.uniform(0, 0.2)
                wave = waveform.Pieces([(start, IDLE, IDLE), (length, BUSY, BUSY), (9, IDLE, IDLE)], repeat=False)
                errors.append(measure(part, wave, start, start + length, 1.0, rng, "steady"))
            allowed = TAU * STEP / math.sqrt(6) / (BUSY * length) if part.channel is FILTERED else 0.0
            results.append({"part": part.name, "window_s": length, "allowed": allowed, **summary(errors)})
    return results


def running(rounds: int, rng) -> list[dict[str, Any]]:
    results = []
    for part in PARTS:
        for name, wave in RUNNING:
            for length in (0.1, 1.0, 5.0):
                errors = []
                for _ in range(rounds):
                    start = 4 + rng.uniform(0, 2)
                    errors.append(measure(part, wave, start, start + length, 0.5, rng, "interpolated"))
                results.append({"part": part.name, "waveform": name, "window_s": length, **summary(errors)})
    return results


def percent(value: float | None) -> str:
    return "refused" if value is None else f"{100 * value:+.3f} %"


def size(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3f} %"


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, help="windows per cell (default 60; 4 with --smoke)")
    command.add_argument("--seed", type=int, default=1)
    flags = command.parse_args()
    rounds = flags.rounds or (4 if flags.smoke else 60)
    rng, facts = np.random.default_rng(flags.seed), machine()
    work, waves = windows_of_work(rounds, rng), running(rounds, rng)
    print(f"Integration error over {rounds} windows each; {about(facts)}\n")
    print(f"Work that begins and ends with the window, {IDLE:g} W → {BUSY:g} W:\n")
    head = ["sensor", "window", "mean error", "sd", "stated u (k = 1)", "the step's share"]
    rows = [
        [r["part"], f"{r['window_s']:g} s", percent(r["mean"]), size(r["sd"]), size(r["stated"]),
         size(r["allowed"]) if r["allowed"] else "–"]
        for r in work
    ]  # fmt: skip
    print(table(head, rows))
    print("\nA running waveform, cut anywhere (root mean square of the error):\n")
    lengths = sorted({r["window_s"] for r in waves})
    cells = {(r["part"], r["waveform"], r["window_s"]): size(r["rms"]) for r in waves}
    rows = [
        [part.name, name, *(cells[part.name, name, length] for length in lengths)]
        for part in PARTS
        for name, _ in RUNNING
    ]
    print(table(["sensor", "waveform", *(f"{length:g} s" for length in lengths)], rows))
    write(flags.json, {"machine": facts, "rounds": rounds, "work": work, "running": waves})


if __name__ == "__main__":
    main()
