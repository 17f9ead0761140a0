"""Whatever a model does to its process affects only that variant, and is reported."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from edgeprof.errors import VariantError
from edgeprof.installation import install_command
from edgeprof.worker.scenario import Scenario
from tests.processes import ended

pytestmark = pytest.mark.usefixtures("settled")
HERE = Path(__file__).parent


def fails(worker) -> VariantError:
    def load_and_run() -> None:
        worker.load()
        worker.window(Scenario(), 0.5)

    with pytest.raises(VariantError) as caught:
        load_and_run()
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(("toy ", "toy:"))
    return caught.value


@pytest.mark.parametrize(
    ("when", "doing"),
    [
        ("load", "during loading"),
        ("run", "during its first inference"),
        ("call", "during a window of the scenario single-stream"),
    ],
)
def test_a_segfault_is_told_with_the_signal_the_moment_and_the_python_stack(toy, when, doing):
    error = fails(toy(f"{when}:segfault"))
    assert error.code == "crashed"
    assert "SIGSEGV" in error.message
    assert error.message.endswith(doing)
    assert "about to read address 1" in error.last_words
    assert "in segfault" in error.last_words  # faulthandler's
    assert "worker.py" not in error.last_words  # our own frames say nothing about the model


def test_an_abort_is_a_crash(toy):
    error = fails(toy("run:abort"))
    assert error.code == "crashed"
    assert "SIGABRT" in error.message
    assert "std::runtime_error" in error.last_words


def test_an_abort_over_bad_alloc_is_out_of_memory(toy):
    assert fails(toy("run:bad_alloc")).code == "out_of_memory"


def test_a_library_that_says_that_it_has_no_memory_is_out_of_memory(toy):
    error = fails(toy("load:refuse_for_memory"))
    assert error.code == "out_of_memory"
    assert error.remedy == "Use a smaller batch or variant, or give it more memory."


@pytest.mark.parametrize("what", ["hang", "hang_in_c"])
def test_a_hang_is_ended_and_its_place_told(toy, what):
    worker = toy(f"run:{what}", timeout_s=3.0)
    error = fails(worker)
    assert error.code == "timeout"
    assert "within 3 s" in error.message
    assert f"{what} (toy_runtime.py:" in error.message
    assert "--timeout" in error.remedy


def test_a_hang_while_closing_holds_nobody_up(toy, monkeypatch):
    monkeypatch.setattr("edgeprof.launch.process.GRACE_S", 0.2)
    worker = toy("close:hang_in_c")
    worker.load()
    pid = worker.pid
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_stray_kill_is_not_called_out_of_memory_for_certain(toy, monkeypatch):
    monkeypatch.setattr("edgeprof.launch.process._oom_kills", lambda: 4)
    error = fails(toy("run:kill"))
    assert error.code == "crashed"
    assert "SIGKILL, perhaps for want of memory" in error.message


def test_a_kill_that_the_kernel_counts_as_oom_is_out_of_memory(toy, monkeypatch):
    counts = iter([4, 5])
    monkeypatch.setattr("edgeprof.launch.process._oom_kills", lambda: next(counts))
    error = fails(toy("run:kill"))
    assert error.code == "out_of_memory"
    assert "killed by the kernel" in error.message


def test_a_memory_limit_is_out_of_memory_for_that_variant(toy):
    error = fails(toy("run:devour:4000", memory_limit_bytes=400 * 2**20))
    assert error.code == "out_of_memory"
    assert "smaller batch" in error.remedy


def test_a_memory_limit_that_suffices_changes_nothing(toy):
    worker = toy("sleep:0.001", memory_limit_bytes=2**30)
    worker.load()
    assert worker.window(Scenario(), 0.02).calls >= 1


def test_leaving_the_process_is_a_crash_with_its_status(toy):
    error = fails(toy("run:leave"))
    assert error.code == "crashed"
    assert "exit status 7" in error.message


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("streams", [1, 3])
def test_an_exception_is_told_in_one_line_and_the_worker_lives_on(toy, isolated, streams):
    worker = toy("call:complain:out of toys", isolated=isolated)
    worker.load()
    with pytest.raises(VariantError, match="ValueError: out of toys") as caught:
        worker.window(Scenario("multi-stream", streams=streams), 0.5)
    assert caught.value.code == "runtime_error"
    assert "in complain" in caught.value.last_words
    assert "worker.py" not in caught.value.last_words
    assert worker.memory().rss > 0


def test_sys_exit_in_a_model_is_an_error_of_the_model(toy):
    error = fails(toy("run:exit_politely"))
    assert (error.code, error.message) == ("runtime_error", "toy: SystemExit: the model has had enough")


def test_a_runtimes_own_refusal_keeps_its_sentence_and_remedy(toy):
    error = fails(toy("load:refuse"))
    assert (error.code, error.message, error.remedy) == ("load_failed", "toy: the toy is broken", "Buy another.")


def test_an_exception_in_loading_is_load_failed(toy):
    assert fails(toy("load:complain:bad file")).code == "load_failed"


def test_a_runtime_whose_library_is_absent_says_how_to_get_it(toy):
    error = fails(toy(runtime="AbsentRuntime"))
    assert (error.code, error.remedy) == ("load_failed", install_command(["toys"]))


def test_a_runtime_class_that_does_not_exist_is_load_failed(toy):
    assert fails(toy(runtime="NoSuchRuntime")).code == "load_failed"


def test_outputs_without_names_are_bad_output(toy):
    assert fails(toy("run:list")).code == "bad_output"


def test_a_dead_worker_says_so_when_asked_again(toy):
    worker = toy("run:segfault")
    fails(worker)
    with pytest.raises(VariantError, match="is gone") as caught:
        worker.window(Scenario(), 0.1)
    assert "about to read address 1" in caught.value.last_words


def test_asking_before_loading_is_an_error(toy):
    with pytest.raises(VariantError, match="not loaded"):
        toy().window(Scenario(), 0.1)


def test_what_the_model_has_started_ends_with_it(toy, tmp_path: Path):
    worker = toy(f"load:offspring:{tmp_path / 'pid'}")
    worker.load()
    watch = os.pidfd_open(int((tmp_path / "pid").read_text()))
    worker.close()
    assert select.select([watch], [], [], 20)[0]
    os.close(watch)


def test_ctrl_c_in_the_parent_leaves_the_worker_to_close_which_does_not_wait_for_it(toy):
    worker = toy("sleep:0.01")
    worker.load()
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    pid = worker.pid
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        worker.window(Scenario(), 50.0)
    with pytest.raises(VariantError, match="interrupted"):
        worker.memory()
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("target", ["sleep:0.01", "run:hang_in_c"], ids=["idle", "in C with the interpreter lock"])
def test_a_worker_dies_with_its_parent_however_that_dies(target):
    script = textwrap.dedent(
        """
        import sys, threading
        from pathlib import Path
        from edgeprof.worker.runtime import LoadOptions
        from edgeprof.launch.supervisor import Worker, WorkerSpec
        worker = Worker(WorkerSpec(Path(sys.argv[1]), "ToyRuntime", sys.argv[2], LoadOptions("cpu", None, 1, {}, {})))
        asking = threading.Thread(target=worker.load)
        asking.start()
        if sys.argv[2].startswith("sleep"):
            asking.join()
        while worker.pid == __import__("os").getpid():
            pass
        print(worker.pid, flush=True)
        sys.stdin.read()
        """
    )
    with ended(
        subprocess.Popen(
            [sys.executable, "-c", script, str(HERE / "toy_runtime.py"), target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    ) as parent:
        watch = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        assert select.select([watch], [], [], 20)[0], "the worker has survived its parent"
        os.close(watch)
