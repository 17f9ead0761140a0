"""What no emulated chip can show: slow and blocking reads, errors on command, and the files of JetPack 4.

The trees are the fixtures' own, seen through FUSE, which gives each file a latency and an errno while they are read.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from edgeprof.plugins import PluginHost
from edgeprof.sensing.device.throttle import describe_difference, read_counters
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sampler import Sampler
from edgeprof.simulation.tree import set_power


def find(tree, *only: str):
    return discover(PluginHost(only=only or ("ina3221", "hwmon", "jetson", "thermal")), tree.roots)


def sample(found, seconds: float, during=None, rate_hz: float = 100.0):
    sampler = Sampler(found.sensors, rate_hz, found.topology.by_key())
    begin = time.monotonic()
    sampler.start()
    if during is not None:
        during(begin)
    time.sleep(max(0.0, begin + seconds - time.monotonic()))
    sampler.stop()
    return sampler


def wait_for(condition, seconds: float = 30.0) -> None:
    """On a busy machine what takes half a second may take ten."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def stats(sampler, name: str, quantity: str = "power"):
    (found,) = [s for s in sampler.stats() if s.key[1:] == (name, quantity)]
    return found


def test_an_open_file_gives_a_fresh_value_at_each_read(slow_tree) -> None:
    """As sysfs does; else nothing below would mean anything."""
    tree = slow_tree("jetson-nano")
    current = tree.layout.rails["POM_5V_IN"].current
    descriptor = os.open(tree.mount / current.relative_to(tree.layout.directory), os.O_RDONLY)
    seen = []
    for value in ("320", "1000", "8"):
        tree.set({current: {"text": value + "\n"}})
        seen.append(os.pread(descriptor, 32, 0))
    os.close(descriptor)
    assert seen == [b"320\n", b"1000\n", b"8\n"]


def test_jetpack_4_is_read_through_the_coherent_pair(slow_tree) -> None:
    """One read of ui_input per rail; in_power and in_current may fail for all that matters."""
    tree = slow_tree("jetson-nano")
    set_power(tree.layout, "POM_5V_IN", 4.4)
    tree.set({"*/in_current*_input": {"errno": "EACCES"}, "*/in_power*_input": {"errno": "EACCES"}})
    found = find(tree, "ina3221")
    assert [c.name for c in found.topology.headline.channels] == ["POM_5V_IN"]
    (sensor,) = found.sensors
    assert sensor.read_once()["POM_5V_IN/power"] == pytest.approx(4.4, abs=0.021)


def test_jetpack_4_without_the_pair_multiplies_volts_and_amperes(slow_tree) -> None:
    tree = slow_tree("jetson-nano")
    set_power(tree.layout, "POM_5V_CPU", 1.2)
    tree.set({"*/ui_input_*": {"errno": "EINVAL"}})
    (sensor,) = find(tree, "ina3221").sensors
    assert sensor.read_once()["POM_5V_CPU/power"] == pytest.approx(1.2, abs=0.021)


def test_i2c_latency_is_inside_the_time_stamp_and_leaves_the_rate_alone(slow_tree) -> None:
    """0.5 ms a read, as on a 100 kHz bus: six reads a row, and 50 rows a second are well within reach."""
    tree = slow_tree("jetson-orin-nano")
    tree.set({"*_input": {"delay_s": 0.0005}})
    found = find(tree, "ina3221")
    with Sampler(found.sensors, 50.0, found.topology.by_key()) as sampler:
        wait_for(lambda: stats(sampler, "VDD_IN").samples > 60)
    channel = next(c for c in found.topology.channels if c.name == "VDD_IN" and c.quantity == "power")
    later = next(c for c in found.topology.channels if c.name == "VDD_SOC" and c.quantity == "power")
    first, last = sampler.trace.series(channel.key).times, sampler.trace.series(later.key).times
    # The third rail is read two transfers of each of two rails later, and says so.
    gaps = sorted(b - a for a, b in zip(first, last, strict=False))
    assert gaps[len(gaps) // 2] > 0.002
    # Readings fall anywhere in their periods, and what else the machine does may cost some of them.
    seen = stats(sampler, "VDD_IN")
    assert (seen.samples + seen.missed) / (first[-1] - first[0]) == pytest.approx(50, rel=0.1)
    assert first[-1] - first[0] < 10 * 60 / 50


def test_a_driver_that_blocks_delays_nobody_else(slow_tree) -> None:
    """Kernel 5.10 waits up to 430 ms for a conversion; the GPU's files beside it keep their rhythm."""
    tree = slow_tree("jetson-xavier-nx")
    found = find(tree, "ina3221", "jetson")
    assert any(sensor.slow for sensor in found.sensors if sensor.name == "ina3221")
    tree.set({"*/hwmon*/*_input": {"delay_s": 0.2}})
    sampler = sample(found, 3.0)
    load = [s for s in sampler.stats() if s.key[0] == "jetson" and s.key[2] == "utilization"]
    assert load
    for entry in load:
        assert entry.samples >= 20  # of 30 at 10 Hz
        assert entry.max_gap_s < 0.6
    blocked = stats(sampler, "VDD_IN")
    assert 1 <= blocked.samples <= 6  # six reads of 0.2 s a row


def test_a_source_that_starts_to_block_is_moved_out_of_the_way(slow_tree) -> None:
    """It looked quick when it was found; the others may lose a row or two and no more."""
    tree = slow_tree("jetson-agx-orin")
    found = find(tree, "ina3221", "jetson")
    chip = tree.layout.rails["VDDQ_VDD2_1V8AO"].directory.relative_to(tree.layout.directory)
    sampler = sample(found, 4.0, lambda _: tree.set({f"{chip}/*_input": {"delay_s": 0.15}}))
    assert stats(sampler, "VDD_GPU_SOC").samples > 200
    assert stats(sampler, "VDD_GPU_SOC").max_gap_s < 1.0
    assert 3 <= stats(sampler, "VDDQ_VDD2_1V8AO").samples < 40


def test_an_error_in_the_middle_of_a_run_is_a_gap_of_that_rail_alone(slow_tree) -> None:
    tree = slow_tree("jetson-orin-nano")
    set_power(tree.layout, "VDD_IN", 6.0)
    found = find(tree, "ina3221")
    with Sampler(found.sensors, 100.0, found.topology.by_key()) as sampler:
        wait_for(lambda: stats(sampler, "VDD_SOC").samples > 20)
        tree.set({tree.layout.rails["VDD_SOC"].current: {"errno": "EIO"}})
        wait_for(lambda: stats(sampler, "VDD_SOC").failed > 5)
        began = time.monotonic()
        wait_for(lambda: stats(sampler, "VDD_SOC").failed > 60)
        ended = time.monotonic()
        tree.set({})
        good = stats(sampler, "VDD_SOC").samples
        wait_for(lambda: stats(sampler, "VDD_SOC").samples > good + 20)
    broken, whole = stats(sampler, "VDD_SOC"), stats(sampler, "VDD_IN")
    assert whole.failed == 0
    assert whole.max_gap_s < ended - began < broken.max_gap_s
    assert broken.reason
    key = next(c.key for c in found.topology.channels if c.name == "VDD_SOC" and c.quantity == "power")
    series = sampler.trace.series(key)
    inside = [v for t, v in zip(series.times, series.values, strict=True) if began < t < ended]
    assert inside
    assert all(value != value for value in inside)  # NaN: nothing is invented


def test_a_zone_that_is_powered_off_says_so_and_the_others_are_read(slow_tree) -> None:
    """cv0-thermal and its like answer EAGAIN while their part is off."""
    tree = slow_tree("jetson-orin-nano")
    tree.set({tree.layout.zones["gpu-thermal"]: {"errno": "EAGAIN"}})
    found = find(tree, "thermal")
    reasons = {c.name: c.reason for c in found.topology.channels if c.quantity == "temperature" and not c.available}
    assert "powered off" in reasons["gpu-thermal"]
    available = {c.name for c in found.topology.channels if c.quantity == "temperature" and c.available}
    assert "cpu-thermal" in available


def test_gpu_load_is_tenths_of_a_percent_and_may_take_its_time(slow_tree) -> None:
    tree = slow_tree("jetson-orin-nano")
    tree.set({tree.layout.gpu_load: {"text": "373\n", "delay_s": 0.0003}})
    (sensor,) = find(tree, "jetson").sensors
    values = sensor.read_once()
    assert [v for k, v in values.items() if k.endswith("/utilization")] == [pytest.approx(0.373)]


def test_over_current_events_of_a_run_are_counted_by_their_difference(slow_tree) -> None:
    """The counter stood at 7 before; what happened is what was added."""
    tree = slow_tree("jetson-orin-nano")
    tree.set({"*/oc3_event_cnt": {"text": "7\n"}})
    before = read_counters(tree.roots)
    tree.set({"*/oc3_event_cnt": {"text": "9\n"}})
    (happened,) = describe_difference(before, read_counters(tree.roots))
    assert "instantaneous over-current" in happened
    assert "2" in happened


def test_permission_denied_is_named_with_its_remedy(slow_tree) -> None:
    """Stock JetPack 4 keeps its power files to root."""
    tree = slow_tree("jetson-nano")
    tree.set({"*/ui_input_*": {"errno": "EACCES"}, "*/in_*_input": {"errno": "EACCES"}})
    found = find(tree, "ina3221")
    power = [c for c in found.topology.channels if c.quantity == "power"]
    assert [c.available for c in power] == [False, False, False]
    assert all("not readable" in c.reason and "chmod" in (c.remedy or "") for c in power)
    assert found.topology.headline.reason


@pytest.mark.parametrize("seed", [1])
def test_a_tree_that_breaks_and_mends_at_random_crashes_nothing_and_invents_nothing(slow_tree, seed: int) -> None:
    """Errors, silence, nonsense and delays on any file, changing under a running sampler."""
    chance = random.Random(seed)
    tree = slow_tree("jetson-agx-orin")
    for name, watts in (("VDD_GPU_SOC", 19.0), ("VDD_CPU_CV", 3.8), ("VIN_SYS_5V0", 5.0)):
        set_power(tree.layout, name, watts)
    files = [path for rail in tree.layout.rails.values() for path in (rail.voltage, rail.current)]
    files += [*tree.layout.zones.values(), tree.layout.gpu_load]
    trouble = [{"errno": name} for name in ("EIO", "ENODATA", "EAGAIN", "ENODEV", "EINVAL", "ENOENT", "ETIMEDOUT")]
    trouble += [{"text": text} for text in ("", "\n", "none\n", "9" * 40 + "\n", "-\n")] + [{"delay_s": 0.03}]
    found = find(tree)

    def break_things(begin: float) -> None:
        while time.monotonic() < begin + 3.0:
            tree.set({path: chance.choice(trouble) for path in chance.sample(files, chance.randrange(len(files)))})
            time.sleep(0.1)
        tree.set({})

    sampler = sample(found, 5.5, break_things)
    truth = {"VDD_GPU_SOC": 19.0, "VDD_CPU_CV": 3.8, "VIN_SYS_5V0": 5.0}
    for channel in found.topology.channels:
        if channel.quantity == "power" and channel.name in truth:
            series = sampler.trace.series(channel.key)
            read = {round(value, 6) for value in series.values if value == value}
            assert read == {truth[channel.name]}
            assert series.values[-1] == series.values[-1]  # it came back
            entry = stats(sampler, channel.name)
            assert entry.failed > 0
            assert entry.max_gap_s > 0.05
