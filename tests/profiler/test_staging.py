"""Stages that a program marks: what is written to the ring, how it is read, and what is reported."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgeprof import staging
from edgeprof.energy.online.stage_timeline import Ran, Timeline
from edgeprof.energy.stage_figures import report_stages
from edgeprof.stage_rings import StageRings, StageSpan, StageWatch
from edgeprof.staging import stage
from tests.profiler.energy.test_recording import recorded

EXAMPLE = Path(__file__).parents[2] / "examples" / "c"


@pytest.fixture
def rings(tmp_path, monkeypatch):
    monkeypatch.setenv(staging.VARIABLE, "")
    staging.attach(str(tmp_path))
    reader = StageRings(tmp_path)
    yield reader
    staging.detach(str(tmp_path))
    reader.close()


def names(spans):
    return [span.key[0] for span in spans]


def run_program(source: str, folder: Path, **options: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, staging.VARIABLE: str(folder)}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)], env=environment, **options)


def test_each_stage_that_ends_is_one_record_with_its_names_and_times(rings):
    with stage("detect", model="yolov8s", variant="int8", runtime="tensorrt"):
        pass

    @stage("draw")
    def draw() -> int:
        return 3

    assert draw() == 3
    detect, drawn = sorted(rings.poll(), key=lambda span: span.start_s)
    assert detect.key == ("detect", "yolov8s", "int8", "tensorrt")
    assert drawn.key == ("draw", "", "", "")
    assert detect.start_s <= detect.end_s <= drawn.start_s
    assert rings.poll() == []
    assert (rings.lost, rings.damaged) == (0, 0)


def test_a_stage_that_raises_was_there_all_the_same(rings):
    with pytest.raises(KeyError), stage("detect"):
        raise KeyError
    assert names(rings.poll()) == ["detect"]
    assert staging.open_stages() == []


def test_a_full_ring_loses_the_oldest_and_counts_them(rings):
    for _ in range(staging.SLOTS + 10):
        with stage("decode"):
            pass
    assert len(rings.poll()) == staging.SLOTS
    assert rings.lost == 10


def test_names_beyond_the_table_are_counted_under_other(rings):
    for number in range(80):
        with stage(f"frame {number}"):
            pass
    spans = rings.poll()
    assert names(spans).count(staging.OTHER) == 80 - 63
    (reason,) = [r for r in report_stages(recorded(), spans, rings).reasons if r.code == "stages_renamed"]
    assert "more than 63 names of stages" in reason.message


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 200])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="stage"):
        stage(name)


def test_a_killed_program_loses_what_had_not_ended(tmp_path):
    program = run_program(
        """
        import sys, time
        from edgeprof.staging import stage
        for _ in range(5):
            with stage("decode"):
                pass
        with stage("detect"):
            print("there", flush=True)
            time.sleep(60)
        """,
        tmp_path,
        stdout=subprocess.PIPE,
    )
    assert program.stdout.readline() == b"there\n"
    program.send_signal(signal.SIGKILL)
    program.communicate()
    reader = StageRings(tmp_path)
    assert names(reader.poll()) == ["decode"] * 5
    assert (reader.lost, reader.unfinished) == (0, [])
    reader.drop_dead()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", ["with stage('decode'): pass", "pass"])
def test_a_stage_that_never_ends_is_named_when_its_program_does(tmp_path, before):
    program = run_program(
        f"""
        from edgeprof.staging import stage
        {before}
        stage("detect").__enter__()
        """,
        tmp_path,
    )
    assert program.wait(20) == 0
    reader = StageRings(tmp_path)
    spans = reader.poll()
    reader.close()
    (reason,) = [r for r in report_stages(recorded(), spans, reader).reasons if r.code == "stages_unfinished"]
    assert reason.message == "1 stages had begun and never ended, and are not counted: detect"


def test_a_child_of_a_fork_has_a_ring_of_its_own(tmp_path):
    program = run_program(
        """
        import os
        from edgeprof.staging import stage
        with stage("decode"):
            pass
        child = os.fork()
        with stage("detect" if child else "draw"):
            pass
        if child:
            os.waitpid(child, 0)
        """,
        tmp_path,
    )
    assert program.wait(20) == 0
    reader = StageRings(tmp_path)
    assert sorted(names(reader.poll())) == ["decode", "detect", "draw"]
    reader.close()


def test_a_file_that_is_no_ring_is_left_alone(tmp_path):
    (tmp_path / "1-a.stages").write_bytes(b"short")
    (tmp_path / "2-b.stages").write_bytes(b"x" * 300_000)
    reader = StageRings(tmp_path)
    assert reader.poll() == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler is installed here")
def test_a_program_in_c_writes_the_same_ring(tmp_path):
    program = tmp_path / "stages"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-std=c11", "-pthread"]
    subprocess.run(["gcc", *flags, EXAMPLE / "stages.c", "-o", program], check=True)
    watch = StageWatch(is_own=False)
    with watch:
        subprocess.run([program, "30"], check=True)
    assert sorted(names(watch.spans)) == ["decode"] * 30 + ["detect"] * 30
    assert all(span.start_s < span.end_s for span in watch.spans)
    assert not watch.rings.folder.exists()


def span(name: str, start: float, end: float, thread: int = 1) -> StageSpan:
    return StageSpan((name, "", "", ""), start, end, (1, thread))


def test_a_stage_within_another_has_its_time_alone():
    timeline = Timeline()
    timeline.add([Ran("frame", 0.0, 10.0), Ran("detect", 2.0, 5.0), Ran("crop", 3.0, 4.0), Ran("draw", 9.0, 10.0)])
    timeline.advance(20.0)
    assert timeline.own_s == {"frame": 6.0, "detect": 2.0, "crop": 1.0, "draw": 1.0}
    assert timeline.seconds("detect", 3.5) == 1.0


def test_stages_of_two_threads_share_the_time_in_which_both_run():
    timeline = Timeline()
    timeline.add([Ran("a", 0.0, 4.0, 1), Ran("b", 2.0, 6.0, 2)])
    timeline.advance(3.0)
    timeline.advance(20.0)
    assert timeline.own_s == pytest.approx({"a": 4.0, "b": 4.0})
    assert timeline.shared_s == pytest.approx({"a": 3.0, "b": 3.0})


def test_what_comes_after_its_time_was_settled_is_counted_as_late():
    timeline = Timeline()
    timeline.advance(5.0)
    timeline.add([Ran("a", 3.0, 7.0)])
    timeline.advance(10.0)
    assert timeline.own_s == {"a": 2.0}
    assert timeline.late_s == 2.0


def test_stages_that_cross_are_named():
    report = report_stages(recorded(), [span("decode", 10.0, 12.0), span("detect", 11.0, 13.0)])
    assert report.reasons[0].code == "stages_cross"
    assert "decode and detect overlap in one thread" in report.reasons[0].message


def test_calls_are_counted_per_frame_where_a_stage_is_the_frame():
    spans = [span("frame", t, t + 0.9) for t in range(10, 20)]
    spans += [span("embed", t + k / 4, t + k / 4 + 0.1) for t in range(10, 20) for k in (0, 1)]
    by_name = {stage.name: stage for stage in report_stages(recorded(), spans).stages}
    assert by_name["embed"].calls_per_frame == 2.0
    assert by_name["embed"].calls == 20
    assert by_name["embed"].seconds.p50 == pytest.approx(0.1)
    assert by_name["frame"].seconds.mean == pytest.approx(0.9)


def test_the_power_of_each_stage_comes_from_the_readings():
    """A sensor without a filter, and input that varies: 8 W during one stage, 5 W during the other, otherwise 3 W."""
    spans = []
    for number in range(200):
        start = 10.0 + 0.3 * number
        middle = start + 0.05 + 0.05 * (number % 3)
        spans += [span("detect", start, middle), span("draw", middle, middle + 0.03 + 0.03 * (number % 2))]
    edges = [(s.start_s, s.end_s, 8.0 if s.key[0] == "detect" else 5.0) for s in spans]

    def watts(time_s: float) -> float:
        index = min(len(edges) - 2, max(0, 2 * int((time_s - 10.0) / 0.3)))
        return next((w for a, b, w in edges[index : index + 2] if a <= time_s < b), 3.0)

    stages = {stage.name: stage for stage in report_stages(recorded(watts), spans).stages}
    for name, power in (("detect", 8.0), ("draw", 5.0)):
        assert stages[name].method == "regression"
        assert stages[name].separable
        energy = stages[name].energy_j_per_call
        assert energy.net.value == pytest.approx((power - 3.0) * stages[name].seconds.mean, rel=0.05)
        assert energy.gross.value == pytest.approx(power * stages[name].seconds.mean, rel=0.05)


def test_stages_that_always_run_together_are_not_separable():
    spans = [s for t in range(10, 80) for s in (span("a", t, t + 0.3, 1), span("b", t, t + 0.3, 2))]
    report = report_stages(recorded(lambda t: 8.0 if t % 1 < 0.3 else 3.0), spans)
    for together in report.stages:
        assert not together.separable
        assert together.energy_j_per_call.net.value is None
        assert "not separable" in together.reason
    assert {reason.code for reason in report.reasons} == {"not_separable"}
