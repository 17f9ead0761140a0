"""What a well-behaved worker returns to the conductor."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgeprof.errors import InputError, VariantError
from edgeprof.worker.scenario import SCENARIOS, Phase, Scenario

BOTH = pytest.mark.parametrize("isolated", [True, False], ids=["worker", "no-isolation"])


@BOTH
def test_load_reports_what_was_loaded(toy, isolated):
    with toy("sleep:0.001", isolated=isolated, batch=3) as worker:
        loaded = worker.load()
    assert [spec.name for spec in loaded.inputs] == ["x", "ids"]
    assert loaded.inputs[0].shape == ("batch", 4)  # dynamic stays dynamic ...
    assert loaded.shapes == {"x": (3, 4), "ids": (2,)}  # ... and this is what is fed
    assert (loaded.version, loaded.devices) == ("1.2", ["cpu", "toybox"])
    assert loaded.problems == []
    assert loaded.load_s >= 0
    assert loaded.first_inference_s >= 0.001
    assert loaded.base_rss_bytes is not None
    assert loaded.rss_bytes >= loaded.base_rss_bytes > 2**20


def test_the_model_runs_in_another_process_and_not_isolated_in_this_one(toy):
    with toy() as worker:
        worker.load()
        assert worker.pid != os.getpid()
        assert os.getpgid(worker.pid) == worker.pid  # a terminal's Ctrl-C does not reach it
    with toy(isolated=False) as worker:
        worker.load()
        assert worker.pid == os.getpid()


@BOTH
def test_every_scenario_gives_a_window_on_the_shared_clock(toy, isolated):
    with toy("sleep:0.002", isolated=isolated) as worker:
        worker.load()
        worker.warm_up(0.05, 1.0)
        for name in SCENARIOS:
            before = time.monotonic()
            run = worker.window(Scenario(name, rate_hz=50.0, streams=2, batch=2), 0.2)
            after = time.monotonic()
            assert before <= run.span.start_s < run.span.end_s <= after, name
            assert run.calls == len(run.latencies) + sum(run.waking) >= 1, name
            assert run.span.count == 2 * run.calls, name
            assert min(run.latencies) >= 0.002, name
            assert 0 <= run.cpu_s < after - before, name
            assert (run.target_hz is None) == (name not in ("server", "periodic"))


@BOTH
def test_a_window_starts_at_the_phase_that_was_asked_for(toy, isolated):
    with toy("sleep:0.002", isolated=isolated) as worker:
        worker.load()
        worker.warm_up(0.05, 1.0)
        starts = [worker.window(Scenario(), 0.05, phase=Phase(0.1, 0.4)).span.start_s for _ in range(3)]
    assert max((start_s - 0.1) % 0.4 for start_s in starts) < 0.3  # a busy machine wakes it up late, never early


def test_warm_up_ends_when_latency_is_steady(toy):
    with toy("sleep:0.002") as worker:
        worker.load()
        warm = worker.warm_up(0.1, 20.0)
    assert warm.inferences >= 10
    assert warm.seconds >= 0.1
    assert 0.002 <= warm.latency_s < 0.5
    assert warm.reached == (warm.reason is None)


def test_warm_up_that_is_too_short_for_ten_inferences_says_so(toy):
    with toy("sleep:0.05") as worker:
        worker.load()
        warm = worker.warm_up(0.0, 0.12)
    assert not warm.reached
    assert "inferences fit into 0.12 s" in warm.reason


@BOTH
def test_infer_returns_the_outputs_of_these_inputs(toy, isolated):
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4), "ids": np.array([5, -6])}
    with toy("run:echo", isolated=isolated) as worker:
        worker.load()
        out = worker.infer(feeds)
    assert set(out) == {"x", "ids"}
    for name, array in feeds.items():
        np.testing.assert_array_equal(out[name], array)
        assert out[name].dtype == array.dtype


def test_inputs_that_do_not_fit_the_model_are_named(toy):
    with toy() as worker:
        worker.load()
        with pytest.raises(VariantError, match=r"the input x"):
            worker.infer({"x": np.zeros((2, 5), np.float32), "ids": np.zeros(2, np.int64)})
        assert worker.window(Scenario(), 0.01).calls >= 1  # and the worker still works


def test_inputs_come_from_an_npz(toy, tmp_path: Path):
    np.savez(tmp_path / "in.npz", x=np.ones((7, 4), np.float32), ids=np.zeros(2, np.int64))
    with toy(inputs=tmp_path / "in.npz") as worker:
        assert worker.load().shapes["x"] == (7, 4)


def test_inputs_saved_without_names_go_in_order(toy, tmp_path: Path):
    np.savez(tmp_path / "in.npz", np.ones((7, 4), np.float32), np.zeros(2, np.int64))
    with toy(inputs=tmp_path / "in.npz") as worker:
        assert worker.load().shapes["x"] == (7, 4)


def test_a_single_array_goes_to_the_only_input_and_else_is_refused(toy, tmp_path: Path):
    np.save(tmp_path / "in.npy", np.ones((7, 4), np.float32))
    with toy(inputs=tmp_path / "in.npy") as worker, pytest.raises(VariantError, match="input"):
        worker.load()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", None])
def test_inputs_that_cannot_be_read_are_named(toy, tmp_path: Path, content):
    path = tmp_path / "in.npz"
    if content is not None:
        path.write_bytes(content)
    with toy(inputs=path) as worker, pytest.raises(VariantError, match=r"in\.npz cannot be read"):
        worker.load()


def test_nan_outputs_are_a_problem_that_is_told_and_not_a_failure(toy):
    with toy("run:nan") as worker:
        problems = worker.load().problems
    assert problems == [("nan_output", "output 'y' holds 1 NaN and 1 infinite of 4 values")]


def test_memory_and_cpu_time_are_those_of_the_worker(toy):
    with toy("sleep:0.001") as worker:
        worker.load()
        clock = (~worker.pid << 3) | 2  # that of another process, as clock_getcpuclockid(3) computes it
        cpu = time.clock_gettime(clock)
        run = worker.window(Scenario(), 0.1)
        memory = worker.memory()
        assert time.clock_gettime(clock) - cpu >= run.cpu_s > 0
    assert memory.peak_rss >= memory.rss > 2**20
    assert memory.gpu_peak == 12345


def test_unknown_device_memory_is_none(toy):
    with toy("run:echo") as worker:
        worker.load()
        assert worker.memory().gpu_peak is None


def test_a_runtime_that_is_not_concurrent_refuses_streams(toy):
    with toy(runtime="SerialRuntime") as worker:
        worker.load()
        with pytest.raises(VariantError, match="serial cannot run 4 streams at once"):
            worker.window(Scenario("multi-stream", streams=4), 0.05)


def test_scenarios_are_checked_before_anything_runs(toy):
    with toy() as worker:
        worker.load()
        with pytest.raises(InputError) as caught:
            worker.window(Scenario("single-steam"), 0.05)
        assert "single-stream" in caught.value.remedy
        with pytest.raises(InputError, match="periodic needs a rate"):
            worker.window(Scenario("periodic"), 0.05)


def test_poisson_windows_differ_within_a_worker_and_agree_between_workers(toy):
    due = []
    for _ in range(2):
        with toy("sleep:0.0001") as worker:
            worker.load()
            scenario = Scenario("server", rate_hz=300.0)
            due.append([worker.window(scenario, 0.2).target_hz for _ in range(3)])
    assert due[0] == due[1]
    assert len(set(due[0])) > 1


def test_an_application_finds_no_arguments_of_ours(toy):
    with toy("run:complain_of_arguments") as worker:
        worker.load()
        assert set(worker.last_words.splitlines()) == {"arguments: []"}


def test_no_room_for_temporary_files_is_one_sentence(toy, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(InputError, match="No space left on device") as caught:
        toy().load()
    assert "TMPDIR" in caught.value.remedy


def test_threads_are_passed_on_to_libraries_that_read_the_environment(toy, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with toy(threads=3) as worker:
        worker.load()
        environ = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=3" in environ


def test_what_the_model_prints_is_kept_and_bounded(toy):
    with toy("run:chatter:20000") as worker:
        worker.load()
        worker.infer({"x": np.zeros((1, 4), np.float32), "ids": np.zeros(2, np.int64)})
        words = worker.last_words
    assert words.endswith("line 19999 " + "x" * 100)
    assert len(words) <= 4096


def test_nothing_is_left_behind(toy):
    def descriptors() -> set[str]:
        return {path.name for path in Path("/proc/self/fd").iterdir()}

    with toy() as worker:  # opens everything that is opened only once
        worker.load()
    before = descriptors()
    with toy() as worker:
        worker.load()
        pid = worker.pid
    assert descriptors() == before
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)  # the process is not even a zombie
    worker.close()  # twice does no harm


def test_worker_python_and_no_isolation_exclude_each_other(toy):
    with toy(isolated=False, python="python3") as worker, pytest.raises(InputError, match="--no-isolation"):
        worker.load()
