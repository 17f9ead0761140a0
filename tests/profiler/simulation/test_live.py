"""Live boards are always readable, agree with their own record of joules, and are never mistaken for hardware."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.errors import InputError
from edgeprof.roots import SIMULATION_MARKER, Roots
from edgeprof.simulation.board_specs import BOARDS
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.source import Load
from edgeprof.simulation.truth import Truth
from edgeprof.simulation.waveform import constant, parse

if TYPE_CHECKING:
    from pathlib import Path

PLAYABLE = [name for name, spec in BOARDS.items() if spec.chips or name in {"raspberry-pi-5", "x86-rapl"}]


def by_hand(live: LiveBoard, seconds: float, tick: float = 0.005):
    """Run a board on a manual clock: begin at 100 s, yield each time after its step, and finish."""
    live.begin(100.0)
    for number in range(1, round(seconds / tick) + 1):
        live.step(100.0 + number * tick)
        yield 100.0 + number * tick
    live.finish(100.0 + seconds)
    live.stop()


def number(path: Path) -> int:
    return int(path.read_bytes())


def watts(live: LiveBoard, rail: str) -> float:
    files = live.layout.rails[rail]
    return number(files.voltage) * number(files.current) * 1e-6


def test_kept_descriptors_read_a_whole_number_every_time_while_the_board_plays(tmp_path) -> None:
    """Another thread steps the board without a pause, which is the fastest possible updating."""
    live = LiveBoard("jetson-nano", tmp_path, parse("sine:2W,9W,3s"))
    live.begin(0.0)
    files = live.layout.rails["POM_5V_IN"]
    descriptors = [os.open(path, os.O_RDONLY) for path in (files.voltage, files.current, files.power, files.pair)]
    shapes = [
        re.compile(rb"\d{4} *\n"),
        re.compile(rb"\d{3,4} *\n"),
        re.compile(rb"\d{4} *\n"),
        re.compile(rb"\d{4} \d{3,4} *\n"),
    ]
    done = threading.Event()

    def play() -> None:
        for step in range(1, 6000):
            live.step(step * 0.005)
        done.set()

    thread = threading.Thread(target=play)
    thread.start()
    reads, seen = 0, set()
    while not done.is_set():
        for descriptor, shape in zip(descriptors, shapes, strict=True):
            text = os.pread(descriptor, 64, 0)
            assert shape.fullmatch(text), text
            reads += 1
        seen.add(os.pread(descriptors[1], 64, 0))
    thread.join()
    for descriptor in descriptors:
        os.close(descriptor)
    live.finish(30.0)
    live.stop()
    assert reads > 1000
    assert len(seen) > 5


@pytest.mark.parametrize("board", PLAYABLE)
def test_every_board_starts_plays_and_stops_clean(board: str, tmp_path) -> None:
    before = threading.active_count()
    with LiveBoard(board, tmp_path) as live:
        assert live.rails
    assert live.failure is None
    assert threading.active_count() == before
    assert Roots.resolve(tmp_path, environ={}).is_simulated
    summary = json.loads((tmp_path / "truth.json").read_text())
    assert set(summary["joules"]) == set(live.rails)
    live.stop()  # a second call has no effect


@pytest.mark.parametrize("board", PLAYABLE)
def test_parts_never_hold_more_than_the_rail_they_are_inside(board: str, tmp_path) -> None:
    live = LiveBoard(board, tmp_path, constant(30.0))
    for _ in by_hand(live, 1.0):
        pass
    for name, files in live.layout.rails.items():
        if files.inside is not None:
            assert live.energy(100, 101, name) <= live.energy(100, 101, files.inside)
    if live.totals:
        assert live.energy(100, 101) == pytest.approx(30.0)


def test_simple_integration_of_what_the_files_say_gives_the_true_joules(tmp_path) -> None:
    """Behind a filter of 0.43 s, over a stretch with equal readings at its ends, they agree within the 40 mW step."""
    live = LiveBoard("jetson-orin-nano", tmp_path, parse("square:2W,12W,400ms"))
    times, values = [], []
    for now in by_hand(live, 10.0):
        times.append(now)
        values.append(watts(live, "VDD_IN"))
    # From 4 s on it has settled; 5.6 s are 14 whole periods.
    times, values = np.array(times), np.array(values)
    inside = (times >= 104.0) & (times <= 109.6)
    joules = np.trapezoid(values[inside], times[inside])
    assert joules == pytest.approx(live.energy(104.0, 109.6), rel=0.003)
    assert live.energy(104.0, 109.6) == pytest.approx(7.0 * 5.6)


def test_a_burst_is_blurred_as_the_stock_orin_blurs_it(tmp_path) -> None:
    """11 % of a 100 ms burst's extra energy is in its own window; the correction by tau recovers the rest."""
    live = LiveBoard("jetson-orin-nano", tmp_path, parse("burst:4W,14W,100ms,4s"))
    values = {round(now, 3): watts(live, "VDD_IN") for now in by_hand(live, 4.2)}
    times = np.arange(103.9, 104.0001, 0.005)
    readings = np.array([values[round(t, 3)] for t in times])
    extra = np.trapezoid(readings - 4.0, times)
    assert extra / 1.0 == pytest.approx(0.11, abs=0.03)
    corrected = extra + 512 * 0.84e-3 * (readings[-1] - readings[0])
    assert corrected == pytest.approx(1.0, abs=0.06)


def test_a_rapl_counter_differs_by_the_true_joules_and_steps_by_61_uj(tmp_path) -> None:
    live = LiveBoard("x86-rapl", tmp_path, parse("ramp:5W,45W,700ms"))
    counts = {round(now, 3): number(live.layout.rails["package-0"].energy) for now in by_hand(live, 2.0)}
    measured = (counts[101.5] - counts[100.5]) * 1e-6
    assert measured == pytest.approx(live.energy(100.5, 101.5, "package-0"), abs=1e-3 * 45)
    values = list(counts.values())
    assert values == sorted(values)


def test_a_sum_board_plays_rails_that_add_up_and_the_fed_rail_stays_inside(tmp_path) -> None:
    live = LiveBoard("jetson-agx-orin", tmp_path, constant(24.0))
    for _ in by_hand(live, 1.0):
        pass
    rails = "VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"
    assert live.totals == rails
    assert sum(live.energy(100, 101, rail) for rail in rails) == pytest.approx(24.0)
    assert sum(watts(live, rail) for rail in rails) == pytest.approx(24.0, abs=0.19 * 2 + 0.05)


def test_load_moves_the_rails_between_idle_and_full(tmp_path) -> None:
    """Idle for 2 s, then all cores busy; the noise is off, so that the ends are exact."""
    load = Load(lambda now: 4 * max(0.0, now - 102.0), cores=4, noise=0.0)
    live = LiveBoard("jetson-orin-nano", tmp_path, load)
    seen = {round(now, 3): watts(live, "VDD_IN") for now in by_hand(live, 6.0)}
    assert seen[102.0] == pytest.approx(4.6, abs=0.03)
    assert seen[106.0] == pytest.approx(14.0, abs=0.03)
    assert live.energy(100, 102) == pytest.approx(4.6 * 2)
    assert live.energy(103, 106) == pytest.approx(14.0 * 3)
    zone = live.layout.zones["cpu-thermal"]
    assert number(zone) > 48500  # it has warmed up


def test_the_machines_own_load_is_followed(tmp_path) -> None:
    """Burn CPU time on all cores for a moment: the level must rise above idle."""
    with LiveBoard("jetson-orin-nano", tmp_path) as live:
        idle = live.layout.rails["VDD_IN"].idle_w
        deadline, most = time.monotonic() + 20, 0.0
        while most < idle + 0.5 and time.monotonic() < deadline:
            sum(range(100_000))
            most = max(most, watts(live, "VDD_IN"))
    assert most > idle + 0.5


def test_the_written_truth_is_the_boards_own(tmp_path) -> None:
    for name, source in (
        ("load", Load(lambda now: now * 2 % 1.3, cores=2, seed=3)),
        ("script", parse("sine:2W,9W,300ms")),
    ):
        live = LiveBoard("jetson-xavier-nx", tmp_path / name, source)
        for _ in by_hand(live, 2.0):
            pass
        truth = Truth(tmp_path / name)
        for start, end in ((100.0, 102.0), (100.333, 100.441), (101.0, 101.0)):
            for rail in (None, *live.rails):
                assert truth.energy(start, end, rail) == pytest.approx(live.energy(start, end, rail), abs=1e-5)
        with pytest.raises(InputError, match="VDD_INN"):
            truth.energy(100, 101, "VDD_INN")
        with pytest.raises(InputError, match="begins"):
            truth.energy(99, 101)
        summary = json.loads((tmp_path / name / "truth.json").read_text())
        assert summary["total_joules"] == pytest.approx(live.energy(100, 102), abs=1e-5)
        assert summary["seconds"] == pytest.approx(2.0)


def test_the_truth_of_a_load_is_not_invented_beyond_its_record(tmp_path) -> None:
    live = LiveBoard("jetson-xavier-nx", tmp_path, Load(lambda now: now, cores=2))
    for _ in by_hand(live, 1.0):
        pass
    with pytest.raises(InputError, match="not known until"):
        Truth(tmp_path).energy(100, 105)


def test_one_seed_plays_one_board(tmp_path) -> None:
    joules = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        live = LiveBoard("jetson-nano", tmp_path / name, Load(lambda now: 0.0, cores=1, seed=seed))
        for _ in by_hand(live, 1.0):
            pass
        joules.append(live.energy(100, 101))
    assert joules[0] == joules[1] != joules[2]


def test_rails_may_each_have_a_waveform_and_the_others_stay_idle(tmp_path) -> None:
    live = LiveBoard("jetson-orin-nano", tmp_path, {"VDD_IN": parse("ramp:5W,9W,1s")})
    for _ in by_hand(live, 1.0):
        pass
    assert live.energy(100, 101) == pytest.approx(7.0)
    assert live.energy(100, 101, "VDD_SOC") == pytest.approx(1.4)
    with pytest.raises(InputError) as caught:
        LiveBoard("jetson-orin-nano", tmp_path / "other", {"VDD_INN": constant(1.0)})
    assert "VDD_IN" in (caught.value.remedy or "")


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(InputError, match="not empty"):
        LiveBoard("jetson-nano", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_players_cannot_have_one_tree_but_it_can_be_played_again(tmp_path) -> None:
    with LiveBoard("jetson-nano", tmp_path, constant(2.0)), pytest.raises(InputError, match="another"):
        LiveBoard("jetson-nano", tmp_path, constant(3.0))
    with LiveBoard("jetson-nano", tmp_path, constant(3.0)) as live:
        assert watts(live, "POM_5V_IN") == pytest.approx(3.0, abs=0.021)


def test_an_unknown_board_is_answered_with_the_nearest_and_makes_nothing(tmp_path) -> None:
    with pytest.raises(InputError) as caught:
        LiveBoard("jetson-orin-nanno", tmp_path / "tree")
    assert "jetson-orin-nano" in (caught.value.remedy or "")
    assert not (tmp_path / "tree").exists()


def test_a_board_without_power_sensor_says_so(tmp_path) -> None:
    with pytest.raises(InputError, match="no power sensor"):
        LiveBoard("jetson-nano-2gb", tmp_path)
    assert (tmp_path / SIMULATION_MARKER).exists()


def test_the_pi5s_text_moves_with_its_power_and_keeps_its_form(tmp_path) -> None:
    live = LiveBoard("raspberry-pi-5", tmp_path, parse("square:2W,20W,4s"))
    path = live.layout.rails["VDD_CORE"].text
    line = re.compile(r"\s+\w+_[AV] (current|volt)\(\d+\)=\d+\.\d{8}[AV]\s*")
    texts = {round(now, 3): path.read_text() for now in by_hand(live, 4.0, 0.05)}
    sums = {}
    for now, text in texts.items():
        lines = [entry for entry in text.splitlines() if entry.strip()]
        assert len(lines) == 26
        assert all(line.fullmatch(entry) for entry in lines)
        found = {m[1]: float(m[2]) for entry in lines if (m := re.match(r"\s*(\w+) \w+\(\d+\)=([\d.]+)", entry))}
        sums[now] = sum(found[f"{name}_A"] * found[f"{name}_V"] for name in live.rails)
    assert sums[101.0] == pytest.approx(2.0, abs=0.05)
    assert sums[103.5] == pytest.approx(20.0, abs=0.05)
