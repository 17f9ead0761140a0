"""A pipeline on a virtual board whose power differs between its stages: the joules of each stage are known."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.benchmark.stages import beyond_source, differences
from edgeprof.plugins import PluginHost
from edgeprof.reasons import Code
from edgeprof.reporters import console, csv_rows, html_page, markdown
from edgeprof.results import document, schema
from tests.profiler.benchmark import virtual_device
from tests.profiler.benchmark.staged_app import POWER, SECONDS
from tests.profiler.benchmark.virtual_device import VirtualDevice
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Measure = Callable[..., schema.Result]

APP = Path(__file__).parent / "staged_app.py"


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measure]:
    folder = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROF_DATA_DIR", str(folder / "data"))
        host = PluginHost.from_environment()
        roots = virtual_device.use(VirtualDevice(POWER["idle"]), patch, folder)

        def run(attribute: str, **settings: object) -> schema.Result:
            request = BenchRequest(
                models=[ModelRequest(f"{APP}:{attribute}", attribute)], warmup_s=0.5, isolated=False, **settings
            )
            return bench(request, host, roots, Watcher())

        yield run


@pytest.fixture(scope="module")
def result(measure: Measure) -> schema.Result:
    return measure("pipeline", windows=4, window_s=8.0, idle_s=2.0)


def test_each_stage_has_the_joules_of_its_own_power(result):
    (variant,) = result.variants
    assert [stage.name for stage in variant.stages] == list(SECONDS)
    for stage in variant.stages:
        assert stage.method == "repeat"
        assert stage.calls_per_frame == 1.0
        assert stage.separable
        assert stage.seconds.p50 == pytest.approx(SECONDS[stage.name], rel=0.01)
        energy = stage.energy_j_per_call
        assert (energy.provenance, energy.rail) == ("simulated", "VDD_IN")
        for figure, watts in ((energy.gross, POWER[stage.name]), (energy.net, POWER[stage.name] - POWER["idle"])):
            assert figure.value == pytest.approx(watts * SECONDS[stage.name], rel=0.02)


def test_stages_and_rest_make_a_frame(result):
    (variant,) = result.variants
    frame = variant.energy_j_per_inference.gross
    rest = variant.pipeline.rest
    parts = [stage.energy_j_per_call.gross.windows for stage in variant.stages]
    for whole, left, *stages in zip(frame.windows, rest.windows, *parts, strict=True):
        assert left + sum(stages) == pytest.approx(whole)
    assert abs(rest.value) < 0.02 * max(frame.windows)
    assert variant.unit == "frame"
    assert variant.pipeline.frames == 5


def test_every_window_replays_the_same_frames(result):
    for workload in result.variants[0].workloads[:1]:
        assert all(window.inferences % 5 == 0 for window in workload.windows)


def test_every_report_shows_the_stages(result):
    assert document.from_json(document.to_json(result)) == result
    for text in (console.render(result), markdown.render([result]), html_page.render([result])):
        assert "detect" in text
        assert "5 frames of its own source" in text
    assert "A frame by stage" in html_page.render([result])
    rows = list(csv.DictReader(io.StringIO(csv_rows.render([result]))))
    assert [(row["workload"], row["unit"]) for row in rows] == [
        ("frame", "frame"),
        *((name, "call") for name in SECONDS),
    ]


def test_a_stage_that_returns_something_else_each_time_has_no_joules_and_says_why(measure):
    result = measure("tracker", windows=2, window_s=1.0, idle_s=1.0, scenario="periodic", rate_hz=40.0)
    (variant,) = result.variants
    decode, track = variant.stages
    assert (decode.method, track.method, track.energy_j_per_call) == ("repeat", "time-share", None)
    assert "returns something else when it is called again" in track.reason
    assert "not_repeatable" in {reason.code for reason in variant.reasons}
    assert variant.pipeline.rest is None
    # At a fixed rate, additional windows without pauses separate the stages.
    assert [workload.name for workload in variant.workloads] == ["frame", "frame back to back", "decode"]
    assert variant.workloads[0].dropped is not None


def test_several_rates_take_turns_and_the_one_that_saturates_is_named(measure):
    result = measure(
        "pipeline", windows=2, window_s=1.0, idle_s=1.0, scenario="periodic", rate_hz=4.0, further=[(1000.0, 1)]
    )
    (variant,) = result.variants
    slow, fast, between = variant.workloads[:3]
    assert [slow.name, fast.name, between.name] == ["frame at 4.00/s", "frame at 1000/s", "frame back to back"]
    assert [(one.rate_hz, one.streams) for one in (slow, fast, between)] == [(4.0, 1), (1000.0, 1), (None, None)]
    (saturation,) = variant.loads.saturation
    assert (saturation.streams, saturation.kept_hz, saturation.saturated_hz) == (1, 4.0, 1000.0)
    assert saturation.achieved_per_s <= 1 + 1 / sum(SECONDS.values())
    # A window is a whole loop of the clip at that rate, including the idle time after its last frame.
    assert [(one.inferences, one.end_s - one.start_s >= 5 / 4.0) for one in slow.windows] == [(5, True)] * 2
    assert "saturated" not in {reason.code for reason in variant.reasons}
    assert "4.00/s is kept, and 1000/s saturates it" in console.render(result).replace("\n  ", " ")
    assert document.from_json(document.to_json(result)) == result


seconds_seen = st.lists(st.floats(-0.01, 0.05), min_size=1, max_size=6)


@given(
    in_place_s=st.lists(st.floats(1e-6, 0.05), min_size=1, max_size=6), alone_s=st.floats(1e-6, 0.05), s=seconds_seen
)
def test_no_stage_is_said_to_take_less_than_no_time(in_place_s, alone_s, s):
    """The difference of two windows may be negative, which shows how far windows differ and is not a call's time."""
    stage = schema.Stage(name="draw", calls_per_frame=1.0, alone_s=alone_s)
    told = [reason.message for reason in differences(stage, s, in_place_s)]
    assert all(re.fullmatch(r"draw takes [\d.]+ \S+ in place and [\d.]+ \S+ (alone|repeated): .*", one) for one in told)
    assert [one for one in told if " repeated: " in one] == [] or min(s) > 0


def test_a_stage_that_takes_another_time_repeated_in_each_window_is_named():
    stage = schema.Stage(name="draw", calls_per_frame=1.0)
    in_place_s = [0.002, 0.0021, 0.0019, 0.002, 0.002]
    (reason,) = differences(stage, [0.001, 0.0011, 0.0009, 0.001, 0.001], in_place_s)
    assert reason.code == Code.STAGE_DIFFERS
    assert "2.00 ms in place and 1.00 ms repeated" in reason.message
    # The same mean from windows that differ by more than that from one another, or from one pair of windows.
    assert list(differences(stage, [0.0001, 0.0015, 0.0001, 0.0015, 0.0001], in_place_s)) == []
    assert list(differences(stage, [0.001], in_place_s[:1])) == []


def test_a_rate_that_the_source_cannot_give_is_one_sentence():
    facts = {"source": "clip.mp4", "rate_hz": 29.97}
    (reason,) = beyond_source(facts, [5.0, 60.0])
    assert reason.message == "clip.mp4 gives 30.0 frames a second, and was replayed at 60.0"
    assert list(beyond_source(facts, [5.0, 30.0])) == []
    assert list(beyond_source({**facts, "rate_hz": None}, [60.0])) == []
    assert list(beyond_source(facts, [])) == []
