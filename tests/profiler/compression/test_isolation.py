"""Work in a separate process: what it returns, and the error if it raises, crashes or does not end."""

from __future__ import annotations

import copyreg
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from edgeprof.compression import answers
from edgeprof.compression.isolation import apart, user_code
from edgeprof.compression.progress import report, shown_by
from edgeprof.errors import InputError, VariantError
from edgeprof.worker import sandbox

HERE = Path(__file__).name


def run(work, limit_s: float = 60.0):
    return apart(work, label="prune", limit_s=limit_s)


def test_the_result_and_the_progress_come_back_and_prints_do_not_reach_stdout(capfd):
    def work() -> tuple[int, dict[str, float]]:
        print("a factory that prints")
        os.write(1, b"from C\n")
        report("half", 0.5)
        return os.getpid(), {"reached": 0.5}

    seen = []
    with shown_by(lambda *one: seen.append(one)):
        pid, facts = run(work)
    assert pid != os.getpid()
    assert facts == {"reached": 0.5}
    assert seen == [("half", 0.5)]
    out, error = capfd.readouterr()
    assert out == ""
    assert "a factory that prints" in error
    assert "from C" in error


def test_an_error_arrives_whole():
    def work() -> None:
        raise VariantError("the loss is no number", remedy="lr=1e-4", code="diverged")

    with pytest.raises(VariantError, match="the loss is no number") as caught:
        run(work)
    assert (caught.value.remedy, caught.value.code) == ("lr=1e-4", "diverged")


def test_an_error_arrives_whole_although_a_library_has_said_how_errors_are_pickled(monkeypatch):
    """As tblib does, which Dask imports: ``unpickle_exception_with_attrs`` of its own would make the error."""
    monkeypatch.setitem(copyreg.dispatch_table, InputError, lambda error: (print, (str(error),)))

    def work() -> None:
        raise InputError("no channels can be taken out", remedy="prune")

    with pytest.raises(InputError, match="no channels can be taken out") as caught:
        run(work)
    assert caught.value.remedy == "prune"


def test_any_other_error_is_raised_here_too():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
@pytest.mark.parametrize(
    ("crash", "words"),
    [(lambda: ctypes.string_at(0), "crashed with SIGSEGV"), (lambda: os._exit(7), "exit status 7")],
    ids=["segfault", "os._exit"],
)
def test_a_process_that_dies_is_a_variant_that_crashed(crash, words, inside):
    def work() -> None:
        if inside:
            with user_code("net.py:make"):
                crash()
        crash()

    with pytest.raises(VariantError, match=words) as caught:
        run(work)
    assert caught.value.code == "crashed"
    assert caught.value.message.startswith("net.py:make" if inside else "prune")
    assert ("SIGSEGV" not in words) or HERE in caught.value.message


def test_one_killed_for_want_of_memory_says_so():
    with pytest.raises(VariantError, match="want of memory"):
        run(lambda: os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.parametrize(
    "loop",
    [lambda: threading.Event().wait(), lambda: next(filter(None, iter(int, 1)))],
    ids=["waits", "spins in C with the interpreter's lock"],
)
def test_user_code_that_does_not_end_is_told_with_its_line(loop):
    def work() -> None:
        with user_code("net.py:make()"):
            loop()

    with pytest.raises(VariantError, match=rf"net\.py:make\(\) did not end within 0\.1 s .*{HERE}, line \d+") as caught:
        run(work, limit_s=0.1)
    assert caught.value.code == "timeout"
    assert "--timeout" in caught.value.remedy


def test_only_user_code_is_limited():
    def work() -> str:
        with user_code("net.py:make"):
            pass
        threading.Event().wait(0.3)
        return "trained"

    assert run(work, limit_s=0.1) == "trained"


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(
    ("raises", "words"),
    [(lambda: {}["weights"], r"KeyError: 'weights'"), (lambda: sys.exit("no GPU"), r"SystemExit: no GPU")],
)
def test_what_user_code_raises_is_one_sentence_with_its_line(raises, words, isolated):
    def work() -> None:
        with user_code("net.py:make()"):
            raises()

    line = raises.__code__.co_firstlineno
    with pytest.raises(InputError, match=rf"net\.py:make\(\) failed: {words} \(.*{HERE}, line {line}\)$"):
        run(work) if isolated else work()


def test_a_program_that_ends_elsewhere_is_a_failed_variant():
    with pytest.raises(VariantError, match=rf"prune ended with sys\.exit\(3\) \(.*{HERE}"):
        run(lambda: sys.exit(3))


def test_whoever_stops_waiting_leaves_no_process_behind():
    def work() -> None:
        report(str(os.getpid()), 0.1)
        threading.Event().wait()

    pids = []

    def interrupted(text: str, _: float) -> None:
        pids.append(int(text))
        raise KeyboardInterrupt

    with shown_by(interrupted), pytest.raises(KeyboardInterrupt):
        run(work)
    assert not psutil.pid_exists(pids[0])


def test_it_dies_with_a_parent_that_is_killed():
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:  # a parent that is killed while its child works
        try:
            with shown_by(lambda text, _: os.write(write, text.encode())):
                apart(lambda: (report(str(os.getpid()), 0.0), threading.Event().wait()), label="prune", limit_s=60.0)
        finally:
            os._exit(0)
    child = psutil.Process(int(os.read(read, 20)))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert child.wait(10) is None or not child.is_running()
    os.close(read)
    os.close(write)


class _Evil:
    def __reduce__(self):
        return os.mkdir, (self.path,)

    def __init__(self, path: Path) -> None:
        self.path = str(path)


@pytest.mark.parametrize(
    "answer",
    [
        lambda path: pickle.dumps(("made", _Evil(path))),
        lambda path: pickle.dumps(("made", subprocess.Popen)),
        lambda path: pickle.dumps(("raised", _Evil(path))),
        lambda path: pickle.dumps(("raised", "no exception")),
        lambda path: pickle.dumps(("progress", 3)),
        lambda path: pickle.dumps(("surprise", None)),
        lambda path: pickle.dumps("made"),
        lambda path: b"\xff",
        lambda path: b"",
    ],
)
def test_an_answer_that_is_code_or_none_costs_that_model_only_and_runs_nothing(tmp_path: Path, monkeypatch, answer):
    monkeypatch.setattr(answers, "send_answer", lambda pipe, kind, content: pipe.send_bytes(answer(tmp_path / "ran")))
    with pytest.raises(VariantError, match="what came is no answer") as caught:
        run(lambda: None)
    assert caught.value.code == "crashed"
    assert not (tmp_path / "ran").exists()


def test_an_answer_without_an_end_is_not_kept(monkeypatch):
    monkeypatch.setattr(answers, "LONGEST", 1000)
    with pytest.raises(VariantError, match="what came is no answer"):
        run(lambda: bytes(10_000))


def test_an_error_of_a_library_arrives_by_its_name():
    class OddLibraryError(Exception):
        pass

    def work() -> None:
        raise OddLibraryError("opset 99")

    with pytest.raises(Exception, match="opset 99") as caught:
        run(work)
    assert type(caught.value).__name__ == "OddLibraryError"


@pytest.mark.skipif(sandbox.why_not() is not None, reason="this kernel cannot confine a process")
def test_a_confined_fork_has_none_of_its_parents_files_to_write_to(tmp_path: Path):
    with (tmp_path / "store").open("w") as store, (tmp_path / "data").open("w+") as made, sandbox.asked_for():
        made.close()
        with (tmp_path / "data").open() as data:

            def work() -> bool:
                os.fstat(data.fileno())
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.write(store.fileno(), b"x")
                return True

            assert run(work)
    assert (tmp_path / "store").read_text() == ""
