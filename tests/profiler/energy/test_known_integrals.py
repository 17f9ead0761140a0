"""Both integrators, that of windows and the daemon's running sum, are compared with the same known integrals."""

from __future__ import annotations

import bisect
from dataclasses import replace

import numpy as np
import pytest

from edgeprof.energy.integrate import window_energy
from edgeprof.energy.online.attribution import Attributor, Share
from edgeprof.energy.online.running_sum import History, Meter, Total
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.worker.span import CALL, Span
from tests.profiler.energy.known_integrals import LOADS, SENSORS, Load, Reading

pytestmark = pytest.mark.slow

BEGIN, END = 1000.0, 1600.0


def channel_of(sensor: Reading) -> Channel:
    kind = Filter("exponential", tau_s=sensor.tau_s) if sensor.tau_s else Filter()
    return Channel("ina3221", "VDD_IN", "power", filter=kind, resolution=sensor.step_w or None)


def attributed(load: Load, sensor: Reading, channel: Channel, end: float = END) -> list[Share]:
    """Return what the daemon attributes to each inference, settled once per second as the housekeeping does."""
    meter = Meter(channel)
    history = History(keep_s=end - BEGIN)
    total, attributor = Total([meter], history), Attributor()
    waiting = [Span(CALL, start, start + load.busy_s, 1, key=("m", "v", "r")) for start in load.starts(BEGIN, end)]
    settled: list[Share] = []
    due, ended = BEGIN, 0
    for at, watts in sensor.rows(load, BEGIN, end):
        meter.add(at, watts)
        total.advance(meter)
        if at >= due:
            due = at + 1.0
            before, ended = ended, bisect.bisect_right(waiting, at, key=lambda span: span.end_s)
            attributor.extend(waiting[before:ended])
            settled += attributor.settle(history.copy_since(attributor.earliest), at)
    attributor.extend(waiting[ended:])
    settled += attributor.settle(history.copy_since(attributor.earliest), end + 5, all_of_them=True)
    return settled


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=SENSORS)
@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_the_daemon_gives_inferences_their_joules_however_short_they_are(load: Load, sensor: Reading) -> None:
    windows = attributed(load, sensor, channel_of(sensor))
    assert len(windows) == len(load.starts(BEGIN, END))
    assert np.mean([window.is_whole for window in windows[5:-5]]) == 1
    joules = [window.joules for window in windows]
    # Three standard errors, and half a percent for details between two readings.
    error = abs(np.mean(joules) - load.joules)
    assert error <= 3 * np.std(joules) / len(joules) ** 0.5 + 0.005 * load.joules


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=SENSORS)
@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_the_windows_of_a_bench_have_the_joules_of_the_same_loads(load: Load, sensor: Reading) -> None:
    quick = replace(sensor, rate_hz=100.0)
    times, watts = zip(*quick.rows(load, BEGIN, END), strict=True)
    starts = load.starts(BEGIN, END)[1:-1]
    measured = window_energy(times, watts, starts[0], starts[-1], channel_of(quick), edges="interpolated")
    truth = (len(starts) - 1) * (load.joules + load.idle_w * (load.every_s - load.busy_s))
    assert measured.joules == pytest.approx(truth, rel=0.003)


def test_without_quiet_time_nearby_short_inferences_have_no_figure_and_long_ones_have() -> None:
    """At 10 Hz, inferences of 60 ms in each 100 ms cannot be distinguished from the pauses."""
    sensor = SENSORS["unfiltered"]
    short = attributed(Load(0.06, 0.1), sensor, channel_of(sensor), BEGIN + 120)
    assert not any(window.is_whole for window in short[20:-20])
    long = attributed(Load(3.95, 4.0), sensor, channel_of(sensor))
    assert all(window.is_whole for window in long[2:-2])


@pytest.mark.parametrize("load", [Load(2.5, 6.01), Load(0.2, 1.03)], ids=lambda load: load.name)
def test_a_sensor_that_stands_still_while_inferences_come_and_go_gives_no_figure(load: Load) -> None:
    """The sensor freezes after 200 s; before that, and for a load that really is constant, there are figures."""
    sensor, frozen_from = SENSORS["0.43 s, 40 mW"], BEGIN + 200

    class Frozen(Reading):
        def rows(self, load: Load, begin: float, end: float, seed: int = 1) -> list[tuple[float, float]]:
            rows = super().rows(load, begin, end, seed)
            last = [watts for at, watts in rows if at <= frozen_from][-1]
            return [(at, watts if at <= frozen_from else last) for at, watts in rows]

    channel = channel_of(sensor)
    shares = attributed(load, Frozen(sensor.tau_s, sensor.step_w, sensor.rate_hz), channel)
    before = [share.is_whole for share in shares if share.span.end_s < frozen_from - 5]
    after = [share.is_whole for share in shares if share.span.start_s > frozen_from + 75]
    assert np.mean(before[2:]) == 1
    assert np.mean(after) == 0
    alike = attributed(Load(load.busy_s, load.every_s, busy_w=10.0, idle_w=2.0), sensor, channel)
    assert np.mean([share.is_whole for share in alike[5:-5]]) == 1


def test_what_a_counter_shows_late_belongs_to_what_ran_before() -> None:
    """NVML's counter changes every 100 ms, so half of a burst's energy can appear after its end."""
    channel = Channel("nvml", "gpu0", "energy", kind="counter", update_interval_s=0.1)
    load, energy = Load(0.2, 2.03), 0.0
    meter, history, attributor = Meter(channel), History(keep_s=600.0), Attributor()
    total = Total([meter], history)
    starts = load.starts(BEGIN, BEGIN + 300)
    shown = before = 0.0
    for tick in range(30_000):
        at = BEGIN + tick / 100
        busy = any(start <= at < start + load.busy_s for start in starts[max(0, int((at - BEGIN) / 2.03) - 1) :][:3])
        energy += 0.01 * (load.busy_w if busy else load.idle_w)
        if at - before >= 0.1:
            before, shown = at, energy
        if tick % 7 == 0:
            meter.add(at, shown)
            total.advance(meter)
    attributor.extend([Span(CALL, start, start + load.busy_s, 1, key=("m", "v", "r")) for start in starts])
    settled = attributor.settle(history.copy_since(attributor.earliest), BEGIN + 400)
    assert np.mean([window.joules for window in settled]) == pytest.approx(load.joules, rel=0.02)
