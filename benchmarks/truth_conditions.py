"""The conditions of the coverage table: sensors, loads and protocols, in groups."""

# ruff: noqa: ARG001, ARG005 - every function that makes sensors takes a generator and the power
from __future__ import annotations

from dataclasses import replace

from truth_plant import Bench
from truth_sensors import Block, Counter, Ina3221, stated_tau, with_clock

DEFAULT = Bench(window_s=5.0, idle_s=5.0)
QUICK = Bench(windows=3, window_s=1.0, idle_s=1.0)
SHORT = Bench()


def one(kind, **settings):
    """Return a single sensor that measures all of the power."""
    return lambda rng, power: ([kind(**settings)], [power])


def agx(noise_v):
    """Return three rails of an AGX Orin with shunts of 2 mΩ: half of the power and two quarters."""

    def make(rng, power):
        settings = {"shunt": 2e-3, "old": True, "noise_v": noise_v}
        rails = [
            Ina3221(pos=0, volts=19.0, name="VDD_GPU_SOC", **settings),
            Ina3221(pos=1, volts=19.0, name="VDD_CPU_CV", **settings),
            Ina3221(pos=2, volts=5.0, name="VIN_SYS_5V0", **settings),
        ]
        return with_clock(rails, rng), [power.share(part) for part in (0.5, 0.25, 0.25)]

    return make


def cpu_and_gpu(rng, power):
    """Return RAPL and NVML together: the first variant works on the CPU, the second on the GPU."""
    package = Counter(gain_limit=0.05)
    board = Counter(refresh=0.1, step=1e-3, wrap=None, sensor="nvml", name="gpu-0", gain_limit=0.05)
    return [package, board], [power.share([0.85, 0.25, 0.5]), power.share([0.15, 0.75, 0.5])]


def preset():
    """Typical use: the two presets on the common sensors."""
    for name, bench in (("default", DEFAULT), ("quick", QUICK)):
        for old in (True, False):
            kernel = "5.10" if old else "5.15"
            yield f"{name}: orin {kernel} burst100", one(Ina3221, old=old), replace(bench, scales=(1.0, 0.97))
        for load in ("const", "inf5", "inf700"):
            yield f"{name}: orin 5.10 {load}", one(Ina3221, old=True), replace(bench, loads=(load, load))
        for hz in (20, 30):
            frames = replace(bench, loads=("inf5", "inf5"), frame_hz=float(hz))
            yield f"{name}: orin 5.10 camera {hz} Hz", one(Ina3221, old=True), frames
        for load in ("burst100", "inf700"):
            same = replace(bench, loads=(load, load))
            yield f"{name}: ina238 {load}", one(Block), same
            yield f"{name}: nvml 100 ms {load}", one(Counter, refresh=0.1, step=1e-3, wrap=None, sensor="nvml"), same
            yield f"{name}: rapl {load}", one(Counter), same
        yield f"{name}: tau 3.4 s (1.1 ms)", one(Ina3221, old=True, ct=1100e-6), bench


def tau():
    """The time constant is at its limits, or differs from the one that the driver's settings give."""
    for name, bench in (("default", DEFAULT), ("W=1", replace(DEFAULT, window_s=1.0, idle_s=1.0))):
        for clock in (0.9, 1.0, 1.1):
            yield f"orin 5.10 clock x{clock}, {name}", one(Ina3221, old=True, clock=clock), bench
        yield f"orin 5.15 true 204 us, {name}", one(Ina3221, ct=204e-6, clock=1.0), bench
        yield f"orin 5.15 true 140 us, {name}", one(Ina3221, clock=1.0), bench

        def nano(rng, power):
            return [stated_tau(Ina3221(n=128, ct=1100e-6, old=True, clock=1.0), 64 * 6 * 1.1e-3)], [power]

        yield f"nano stated 0.42 s, true 0.84 s, {name}", nano, bench


def wave():
    """Loads on a stock Orin of kernel 5.10."""
    orin = one(Ina3221, old=True)
    names = ("const", "inf5", "burst100", "burst100lock", "inf700", "spike")
    for load in (*names, "sq13.7", "sq71.3", "sq333", "sq1711", "sq5000"):
        yield f"orin {load}", orin, replace(SHORT, loads=(load, load))
    yield "orin drift +4%", orin, replace(SHORT, drift=0.04)
    yield "orin 1/f 5%", orin, replace(SHORT, loads=("const", "const"), pink=0.05)
    yield "orin windows 1%", orin, replace(SHORT, spread=0.01)
    yield "orin idle tail 0.5W", orin, replace(SHORT, tail_w=0.5)


def sensor():
    """Various averages, conversion times and numbers of channels."""
    for old in (True, False):
        for n in (1, 4, 16, 64, 128, 512, 1024):
            for ct, ch in ((140e-6, 3), (1100e-6, 3), (8244e-6, 1)):
                if n * ct * 2 * ch > 8 or (not old and (ct, ch) != (140e-6, 3)):
                    continue
                kernel = "5.10" if old else "5.15"
                yield f"ina n={n} ct={1e6 * ct:.0f}us ch={ch} {kernel}", one(Ina3221, n=n, ct=ct, ch=ch, old=old), SHORT


def fast():
    """Little or no averaging."""
    for n, ct in ((1, 1100e-6), (1, 140e-6), (1, 8244e-6), (16, 140e-6)):
        for load in ("burst100", "burst100lock", "inf5", "spike"):
            settings = one(Ina3221, n=n, ct=ct, old=True)
            yield f"ina n={n} ct={1e6 * ct:.0f}us {load}", settings, replace(SHORT, loads=(load, load))


def periodic():
    """Inferences at the fixed rate of a camera."""
    for n, ct in ((1, 1100e-6), (16, 140e-6), (512, 140e-6)):
        for hz in (20, 25, 30, 50, 100):
            bench = replace(SHORT, loads=("inf5", "inf5"), frame_hz=float(hz))
            yield f"ina n={n} ct={1e6 * ct:.0f}us camera {hz} Hz", one(Ina3221, n=n, ct=ct, old=True), bench


def counter():
    """Counters and block averages."""
    for load in ("const", "burst100", "inf700"):
        bench = replace(SHORT, loads=(load, load))
        yield f"rapl {load}", one(Counter), bench
        yield f"nvml 100 ms {load}", one(Counter, refresh=0.1, step=1e-3, wrap=None, sensor="nvml"), bench
        yield f"ina238 {load}", one(Block), bench
    faster = one(Counter, refresh=0.02, declared=0.1, step=1e-3, wrap=None, sensor="nvml")
    yield "nvml 20 ms, declared 100 ms, burst100", faster, SHORT
    part = one(Counter, refresh=0.1, step=1e-3, wrap=None, sensor="nvml", look=0.025)
    yield "nvml 25 of 100 ms, burst100", part, SHORT
    yield "rapl + nvml, CPU against GPU", cpu_and_gpu, DEFAULT


def rails():
    """The sum of three coarse rails."""
    for noise in (0.0, 15e-6, 40e-6):
        for load in ("const", "burst100"):
            bench = replace(SHORT, loads=(load, load), idle_w=8.0)
            yield f"agx noise {1e6 * noise:.0f} uV {load}, 9 W busy", agx(noise), bench
            heavy = replace(
                DEFAULT, loads=(load, load), idle_w=8.0, scales=(2.0, 1.8) if load != "const" else (1.3, 1.2)
            )
            yield f"agx noise {1e6 * noise:.0f} uV {load}, 14-25 W busy", agx(noise), heavy


def quantisation():
    """Steady levels, drawn anew for each run."""
    for shunt, volts in ((5e-3, 5.0), (2e-3, 19.0)):
        for noise in (0.0, 60e-6, 200e-6):
            bench = replace(SHORT, loads=("const", "const"), scales=(1.0, 0.93), idle_range_w=(3.0, 6.0))
            name = f"steady {1e3 * shunt:.0f} mOhm {volts:g} V noise {1e6 * noise:.0f} uV"
            yield name, one(Ina3221, old=True, shunt=shunt, volts=volts, noise_v=noise), bench


def spread():
    """Windows that differ by 2 % and are correlated."""
    for windows in (3, 5, 10):
        for correlation in (0.0, 0.5, 0.9):
            bench = Bench(
                loads=("const", "const"),
                windows=windows,
                window_s=1.0,
                idle_s=1.0,
                spread=0.02,
                correlation=correlation,
            )
            yield f"rapl 1 %, windows 2 %, AR {correlation} K={windows}", one(Counter, gain_limit=0.01), bench


def limits():
    """Errors at the limits of the data sheet (where no interval can hold), and a rail that sags."""
    yield "orin, errors within limits", one(Ina3221, old=True), DEFAULT
    yield "orin, errors at limits", one(Ina3221, old=True, edge=True), DEFAULT
    for sag in (0.0, 0.01, 0.03, 0.06):
        exact = one(Ina3221, old=True, sag=sag, gain=1.0, offset=0.0, clock=1.0)
        yield f"orin sag {1e3 * sag:.0f} mOhm", exact, DEFAULT


GROUPS = {
    group.__name__: group
    for group in (preset, tau, wave, sensor, fast, periodic, counter, rails, quantisation, spread, limits)
}
