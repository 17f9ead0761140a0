"""record() and measure() on a virtual board of known power, sampled in a separate process."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

import edgeprof
from edgeprof.benchmark.command import measure_command
from edgeprof.cli.run import sentence
from edgeprof.errors import BusyError, EdgeprofError, InputError
from edgeprof.launch.lock import lock_path
from edgeprof.library import recorder
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from tests.profiler.library.conftest import WATTS

if TYPE_CHECKING:
    from pathlib import Path


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_joules_per_unit_are_the_boards_power_times_the_time_of_a_unit(board) -> None:
    before = children()
    with edgeprof.record(sysfs_root=board) as recording:
        recording.idle(0.5)
        for _ in range(3):
            with recording.span("detect", count=10, unit="frame"):
                time.sleep(0.4)
        live = recording.quote("detect")
    quote = recording.quote("detect")
    assert quote.value == pytest.approx(WATTS * quote.seconds / 30, rel=0.02)
    assert live.value == pytest.approx(quote.value, rel=0.02)
    assert (quote.unit, quote.count, quote.provenance, quote.rail) == ("frame", 30, "simulated", "VDD_IN")
    assert quote.uncertainty is not None
    assert quote.uncertainty > 0
    assert "gain" in quote.budget
    assert str(quote).endswith("mJ/frame, simulated, VDD_IN")
    assert json.loads(json.dumps(quote.to_dict()))["energy_j_per_unit"]["gross"]["value"] == quote.value
    # There was no work beyond idling: the net energy cannot be distinguished from zero, and the reason is given.
    assert quote.net.value is None
    assert "net_uncertain" in {reason.code for reason in quote.reasons}
    assert children() == before


def test_a_caller_that_holds_the_interpreter_lock_does_not_stop_the_sampling(board) -> None:
    hold = ctypes.PyDLL(None).usleep  # PyDLL keeps the lock: no other thread of this process runs
    with edgeprof.record(sysfs_root=board) as recording, recording.span("hog"):
        hold(900_000)
    quote = recording.quote("hog")
    assert quote.value == pytest.approx(WATTS * quote.seconds, rel=0.02)
    assert "gaps" not in {reason.code for reason in quote.reasons}
    span = recording.spans("hog")[0]
    times = recording.series(recording.topology.headline.channels[0]).times
    inside = [t for t in times if span.start_s < t < span.end_s]
    assert len(inside) > 20


def test_nested_spans_each_have_their_own_time_and_threads_say_what_ran_beside_them(board) -> None:
    with edgeprof.record(sysfs_root=board) as recording:
        with recording.span("outer"):
            time.sleep(0.2)
            with recording.span("inner", count=4, unit="step"):
                time.sleep(0.3)

        def work() -> None:
            with recording.span("left"):
                time.sleep(0.4)

        thread = threading.Thread(target=work)
        with recording.span("right"):
            thread.start()
            time.sleep(0.4)
            thread.join()
    outer, inner, right = (recording.quote(name) for name in ("outer", "inner", "right"))
    assert outer.value == pytest.approx(WATTS * outer.seconds, rel=0.02)
    assert inner.value == pytest.approx(WATTS * inner.seconds / 4, rel=0.02)
    assert "concurrent" not in {reason.code for reason in (*outer.reasons, *inner.reasons)}
    (beside,) = [reason for reason in right.reasons if reason.code == "concurrent"]
    assert beside.message.startswith("left ran beside it")


def test_spans_of_one_key_at_once_in_two_threads_have_the_devices_joules_once(board) -> None:
    with edgeprof.record(sysfs_root=board) as recording:
        gate = threading.Barrier(2)

        def work() -> None:
            with recording.span("serve", count=5, unit="request"):
                gate.wait()
                time.sleep(0.4)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    quote = recording.quote("serve")
    assert quote.count == 10
    assert quote.value == pytest.approx(WATTS * 0.4 / 10, rel=0.1)


def test_every_call_of_a_measured_function_is_in_its_quote(board) -> None:
    @edgeprof.measure(unit="frame", count=2)
    def detect() -> None:
        time.sleep(0.3)

    with edgeprof.record(sysfs_root=board):
        for _ in range(3):
            detect()
        quote = detect.quote()
    assert (quote.count, quote.unit, len(detect.spans())) == (6, "frame", 3)
    assert quote.value == pytest.approx(WATTS * quote.seconds / 6, rel=0.02)


def test_a_few_calls_too_short_for_the_sensor_have_no_joules_and_the_remedy_speaks_of_the_library(board) -> None:
    with edgeprof.record(sysfs_root=board) as recording:
        for _ in range(3):
            time.sleep(0.05)
            with recording.span("blink"):
                time.sleep(0.001)
    quote = recording.quote()
    assert quote.value is None
    assert str(quote).startswith("no joules per call: ")
    assert any("count=" in (reason.remedy or "") for reason in quote.reasons)


def test_without_a_sensor_there_is_no_joule_but_a_reason(bare) -> None:
    with edgeprof.record(sysfs_root=bare) as recording, recording.span("work"):
        pass
    quote = recording.quote("work")
    assert (quote.value, quote.uncertainty, quote.provenance, quote.rail, quote.budget) == (
        None,
        None,
        "none",
        None,
        {},
    )
    assert [reason.code for reason in quote.reasons] == ["no_sensor"]
    assert "edgeprof doctor" in (quote.reasons[0].remedy or "")


def test_a_stated_wattage_gives_an_estimate_that_says_so(bare) -> None:
    with edgeprof.measure("sum", count=10, unit="sum", sysfs_root=bare, estimate_power_w=5.0) as measured:
        spent = time.process_time()
        sum(range(3_000_000))
        spent = time.process_time() - spent
    quote = measured.quote()
    assert quote.provenance == "estimated"
    assert quote.value == pytest.approx(5.0 * spent / 10, rel=0.2)


def test_a_measured_block_has_a_recording_of_its_own_with_idles(board) -> None:
    before = children()
    with edgeprof.measure("block", unit="item", idle_s=0.3, sysfs_root=board) as measured:
        time.sleep(0.3)
        measured.count = 3
    quote = measured.quote()
    assert quote.count == 3
    assert quote.value == pytest.approx(WATTS * quote.seconds / 3, rel=0.02)
    assert "no_idle" not in {reason.code for reason in quote.reasons}
    assert children() == before


def test_a_measured_method_is_bound_and_keeps_its_name() -> None:
    class Model:
        @edgeprof.measure(unit="frame")
        def detect(self, value: int) -> int:
            """Twice."""
            return 2 * value

    assert Model.detect.__doc__ == "Twice."
    assert Model.detect.__name__ == "detect"
    with pytest.raises(RuntimeError, match="was not called yet"):
        Model.detect.quote()


def test_what_does_no_work_when_it_is_called_is_refused() -> None:
    async def later() -> None: ...

    with pytest.raises(TypeError, match="async or a generator"):
        edgeprof.measure()(later)


def test_work_that_raises_is_not_recorded(bare) -> None:
    with edgeprof.record(sysfs_root=bare) as recording:
        with pytest.raises(ZeroDivisionError), recording.span("work"):
            1 / 0  # noqa: B018
        with pytest.raises(InputError, match="no span is named 'work'"):
            recording.quote("work")


def test_a_sensor_or_root_that_does_not_exist_is_said_when_the_recording_starts(bare, board) -> None:
    before = children()
    with pytest.raises(InputError, match="nosuch"):
        edgeprof.record(sysfs_root=board, sensors=["nosuch"]).start()
    with pytest.raises(EdgeprofError, match="NO_RAIL"):
        edgeprof.record(sysfs_root=board, rail="NO_RAIL").start()
    with pytest.raises(InputError, match="not a directory"):
        edgeprof.record(sysfs_root=bare / "missing")
    assert children() == before
    assert recorder._active == []


def test_a_recording_holds_the_devices_lock_as_a_bench_does(bare: Path) -> None:
    path = lock_path(Roots(sysfs=bare))
    first, second = edgeprof.record(sysfs_root=bare), edgeprof.record(sysfs_root=bare)
    first.start()
    second.start()  # of the same process, beside the first
    first.stop()
    assert "edgeprof.record in " in json.loads(path.read_text())["what"]
    second.stop()
    assert path.read_text() == ""


def test_a_recording_beside_another_programs_measurement_is_refused_before_anything_is_sampled(bare: Path) -> None:
    path = lock_path(Roots(sysfs=bare))
    path.touch()
    before = children()
    with path.open("rb") as other:  # as another program opens it
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another measurement is running"):
            edgeprof.record(sysfs_root=bare).start()
    assert children() == before


def test_a_fork_leaves_the_recording_to_the_process_that_made_it(board) -> None:
    with edgeprof.record(sysfs_root=board) as recording:
        with recording.span("work"):
            time.sleep(0.3)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                recording.quote("work")
            except EdgeprofError as error:
                status = 0 if "forked" in error.message else 2
            recording.stop()
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with recording.span("work"):
            time.sleep(0.3)
        assert recording.quote("work").value == pytest.approx(WATTS * 0.3, rel=0.1)


PROGRAM = """
import os, signal, subprocess, sys
import edgeprof, psutil
recording = edgeprof.record(sysfs_root=sys.argv[1])
recording.start()
children = [str(child.pid) for child in psutil.Process().children()]
# What the program starts and leaves running must not keep the sampler alive.
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False, **quiet)
print(",".join(children), psutil.Process().children()[-1].pid, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_the_sampling_process_ends_with_its_parent_however_that_ends(board: Path, end: str) -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM, str(board), end], check=False, capture_output=True, text=True)
    samplers, sleeper = run.stdout.split()
    psutil.Process(int(sleeper)).kill()
    _, alive = psutil.wait_procs(
        [psutil.Process(int(pid)) for pid in samplers.split(",") if psutil.pid_exists(int(pid))], 10
    )
    assert not alive
    assert "Traceback" not in run.stderr


def test_the_stages_of_a_recording_have_their_times_and_say_why_they_have_no_joules_yet(board) -> None:
    with edgeprof.record(sysfs_root=board) as recording:
        for _ in range(3):
            with edgeprof.stage("frame"):
                with edgeprof.stage("detect"):
                    time.sleep(0.02)
                with edgeprof.stage("detect"):
                    time.sleep(0.02)
        report = recording.stages()
    by_name = {stage.name: stage for stage in report.stages}
    assert by_name["detect"].calls == 6
    assert by_name["detect"].calls_per_frame == 2.0
    assert by_name["detect"].seconds.p50 >= 0.02
    assert by_name["detect"].energy_j_per_call is None
    assert "half a minute of stages is needed" in by_name["detect"].reason
    assert recording.stages() == report


def test_a_command_tells_the_stages_that_it_marks(board) -> None:
    program = "import edgeprof\nfor _ in range(9):\n    with edgeprof.stage('detect'): pass"
    roots = Roots.resolve(board)
    outcome = measure_command([sys.executable, "-c", program], PluginHost.from_environment(), roots, idle_s=0.0)
    assert [(stage.name, stage.calls) for stage in outcome.stages] == [("detect", 9)]
    assert outcome.as_json()["stages"][0]["calls"] == 9
    assert "detect  9 calls" in sentence(outcome)


def test_a_program_that_is_killed_keeps_the_stages_that_had_ended_and_says_so(board) -> None:
    program = """
import edgeprof, os, signal
for number in range(9):
    with edgeprof.stage("detect"):
        if number == 8:
            os.kill(os.getpid(), signal.SIGKILL)
"""
    roots = Roots.resolve(board)
    outcome = measure_command([sys.executable, "-c", program], PluginHost.from_environment(), roots, idle_s=0.0)
    assert [(stage.name, stage.calls) for stage in outcome.stages] == [("detect", 8)]
    assert "ended by signal 9: stages that had begun then are not counted" in " ".join(sentence(outcome).split())


PHASES = """
import time
print("loading the model")
time.sleep(0.4)
print("nothing of note")
print("running", end="")
print(" 3 frames")
time.sleep(0.6)
"""


def test_the_phases_that_a_program_prints_have_their_joules(board, capfd) -> None:
    argv = [sys.executable, "-c", PHASES]
    pattern = re.compile("^(loading|running)")
    outcome = measure_command(argv, PluginHost.from_environment(), Roots.resolve(board), idle_s=0.0, phases=pattern)
    assert capfd.readouterr().out == "loading the model\nnothing of note\nrunning 3 frames\n"
    loading, running = outcome.phases
    assert [quote.key[-1] for quote in outcome.phases] == ["loading", "running"]
    assert loading.seconds == pytest.approx(0.4, abs=0.3)
    assert running.seconds >= 0.6
    assert running.value == pytest.approx(WATTS * running.seconds, rel=0.1)
    assert [phase["key"] for phase in outcome.as_json()["phases"]] == [["phase", "loading"], ["phase", "running"]]
    assert "running: 1 × " in sentence(outcome)


def test_a_program_that_prints_no_phase_says_so(bare) -> None:
    argv = [sys.executable, "-c", "print('hello')"]
    outcome = measure_command(
        argv, PluginHost.from_environment(), Roots.resolve(bare), idle_s=0.0, phases=re.compile("nothing")
    )
    assert outcome.phases == []
    assert "no line of the output matched --phases nothing" in {reason.message for reason in outcome.quote.reasons}
