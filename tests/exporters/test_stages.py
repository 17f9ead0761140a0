"""Stages in the daemon: their series, and that they say what ``edgeprof.record`` says of the same run."""

from __future__ import annotations

import json
import math
import random

import pytest

from edgeprof.energy.recording import Recording
from edgeprof.energy.stage_figures import report_stages
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sampler import Sampler
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import Pieces
from edgeprof.stage_rings import StageSpan
from edgeprof.staging import Ring
from edgeprof_exporters import stages as daemon
from edgeprof_exporters.stages import OTHER, Stages
from tests.profiler.virtual import START_S, VirtualTime

#: Seconds and watts of each stage, and watts between frames.
STAGES = {"detect": (0.030, 11.0), "embed": (0.025, 7.0)}
IDLE_W, SECONDS = 3.0, 80.0


def key(stage: str) -> tuple[str, str, str, str]:
    return (stage, "yolov8s", "int8", "tensorrt")


def frames() -> tuple[list[StageSpan], list[tuple[float, float, float]]]:
    """Frames at 12 a second, some without a face: when each stage ran, and the power as pieces of a waveform."""
    chance = random.Random(1)
    spans, pieces, now = [], [(1.0, IDLE_W, IDLE_W)], 1.0
    while now < SECONDS - 5:
        due = now + 1 / 12
        for stage, (length, watts) in STAGES.items():
            calls = chance.randrange(3) if stage == "embed" else 1
            for _ in range(calls):
                spans.append(StageSpan(key(stage), START_S + now, START_S + now + length, (1, 1)))
                pieces.append((length, watts, watts))
                now += length
        if due > now:
            pieces.append((due - now, IDLE_W, IDLE_W))
            now = due
    return spans, pieces


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run on a virtual Orin Nano, as a recording has it: its spans and its readings."""
    folder = tmp_path_factory.mktemp("stages")
    spans, pieces = frames()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROF_DATA_DIR", str(folder / "data"))
        live = LiveBoard("jetson-orin-nano", folder / "board", {"VDD_IN": Pieces(pieces, repeat=False)})
        with VirtualTime(live) as clock:
            found = discover(PluginHost(only=["ina3221"]), Roots.resolve(folder / "board"))
            sampler = Sampler(found.sensors, None, found.topology.by_key(), clock=clock)
            recording = Recording(found.topology, sampler, clock=clock)
            with recording:
                recording.hold(SECONDS)
    return spans, recording


def test_the_daemon_and_a_recording_say_the_same_of_one_run(run):
    spans, recording = run
    report = {stage.name.split()[0]: stage for stage in report_stages(recording, spans).stages}
    (channel,) = recording.topology.headline.channels
    stages = Stages(None)
    read = recording.trace.readings(channel.key)
    rows = [row for row in zip(read.times, read.values, strict=True) if math.isfinite(row[1])]
    stages.take(spans[:1], spans[0].end_s)
    stages.take(spans[1:], spans[0].end_s)
    for time_s, value in rows:
        stages.hear(channel, time_s, value)
    stages.fit(START_S + SECONDS, [channel])
    for stage, (length, watts) in STAGES.items():
        tally = stages.tallies[key(stage)]
        gross = tally.joules / tally.count
        assert gross == pytest.approx(report[stage].energy_j_per_call.gross.value, rel=0.02)
        assert gross == pytest.approx(length * watts, rel=0.04)
        assert tally.seconds == pytest.approx(tally.count * length, rel=1e-6)
        assert (tally.waiting, tally.without) == (0, 0)


def test_stages_that_cannot_be_told_apart_wait_and_then_count_as_without_energy(monkeypatch):
    stages = Stages(None)
    spans = [StageSpan(key("detect"), t, t + 0.5, (1, 1)) for t in range(100, 110)]
    stages.take(spans, 110.0)
    stages.fit(115.0, [])
    tally = stages.tallies[key("detect")]
    assert (tally.count, tally.waiting, tally.without, tally.joules) == (10, 10, 0, 0.0)
    stages.fit(115.0 + daemon.PATIENCE_S + 1, [])
    assert (tally.waiting, tally.without) == (0, 10)


def test_calls_whose_time_is_not_settled_wait_for_the_next_fit(run):
    """Joules over the calls that have them are the joules of a call, while the stages go on."""
    spans, recording = run
    (channel,) = recording.topology.headline.channels
    stages = Stages(None)
    now = START_S + 60.0
    stages.take(spans[:1], spans[0].end_s)
    stages.take([span for span in spans[1:] if span.end_s < now], spans[0].end_s)
    read = recording.trace.readings(channel.key)
    for time_s, value in zip(read.times, read.values, strict=True):
        if math.isfinite(value) and time_s < now:
            stages.hear(channel, time_s, value)
    stages.fit(now, [channel])
    for stage, (length, watts) in STAGES.items():
        tally = stages.tallies[key(stage)]
        waiting = sum(now - daemon.SETTLE_S < span.end_s < now for span in spans if span.key == key(stage))
        assert tally.waiting == waiting > 0
        assert tally.known == tally.count - waiting
        assert tally.joules / tally.known == pytest.approx(length * watts, rel=0.04)


def test_stages_that_are_too_many_are_counted_under_other():
    stages = Stages(None, most_series=2)
    stages.take([StageSpan((name, "", "", ""), 1.0, 1.1, (1, 1)) for name in "abcd"], 2.0)
    assert {name[0]: tally.count for name, tally in stages.tallies.items()} == {"a": 1, "b": 1, "other": 2}
    assert OTHER in stages.tallies


def test_the_rings_of_a_folder_are_counted_and_resumed(tmp_path):
    ring = Ring(str(tmp_path))
    for _ in range(3):
        ring.write(ring.identify(key("detect")), 1_000_000_000, 1_020_000_000)
    stages = Stages(tmp_path)
    stages.poll(5.0, [])
    ring.close()
    later = Stages(None)
    later.resume(json.loads(json.dumps(stages.state())))
    stages.close()
    assert later.tallies[key("detect")].count == 3
    assert later.tallies[key("detect")].seconds == pytest.approx(0.06)
    for state in ([["a", "", "", "", -1, 0, 0, 0]], [["a", "", "", "", 1, 0, math.nan, 0]], [[1]]):
        with pytest.raises((ValueError, TypeError)):
            Stages(None).resume(state)
