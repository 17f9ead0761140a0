"""Any command, run to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from edgeprof.errors import InputError
from edgeprof.launch import command
from edgeprof.launch.command import run_command


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_the_exit_code_is_the_commands():
    assert run_command(python("raise SystemExit(7)")).exit_code == 7


def test_a_signal_is_told_as_a_shell_tells_it():
    assert run_command(python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")).exit_code == 128 + 15


def test_memory_of_children_counts_together():
    child = "import time; block = bytearray(80 * 2**20); time.sleep(0.6)"
    both = (
        f"import subprocess, sys; c = [sys.executable, '-S', '-c', {child!r}]; "
        "[p.wait() for p in [subprocess.Popen(c), subprocess.Popen(c)]]"
    )
    peak = run_command(python(both)).peak_rss
    assert peak is not None
    assert peak > 150 * 2**20


def test_cpu_time_is_the_commands_and_its_window_holds_it():
    run = run_command(python("x = 0\nfor i in range(3_000_000): x += i"))
    assert run.cpu_s > 0.02
    assert run.end_s > run.start_s


def test_a_command_that_does_not_exist_is_bad_input():
    with pytest.raises(InputError, match="cannot run no-such-command-here: No such file"):
        run_command(["no-such-command-here"])


def test_an_interrupt_reaches_the_command_and_not_us():
    handler = "signal.signal(signal.SIGINT, lambda *a: sys.exit(42))"
    code = f"import os, signal, sys\n{handler}\nos.kill(0, signal.SIGINT)\nsignal.pause()"
    # In its own process group, so that the interrupt does not reach the test runner.
    outer = (
        "import os, sys; os.setpgrp(); from edgeprof.launch.command import run_command; "
        f"sys.exit(run_command([sys.executable, '-S', '-c', {code!r}]).exit_code)"
    )
    assert run_command([sys.executable, "-c", outer]).exit_code == 42


def test_a_sigterm_while_the_command_starts_reaches_it(monkeypatch):
    start = subprocess.Popen

    def interrupted(argv, **options):
        process = start(argv, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(command.subprocess, "Popen", interrupted)
    code = "import signal; signal.pause()"
    assert run_command([sys.executable, "-c", code]).exit_code == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN])
def test_a_signal_reaches_the_command_which_decides_and_we_wait_for_its_end(number, monkeypatch):
    start = subprocess.Popen
    heard = f"import signal, sys\nsignal.signal({int(number)}, lambda *a: sys.exit(42))\n"
    heard += "print('up', flush=True)\nsignal.pause()"

    def signalled(argv, **options):
        process = start(argv, **{**options, "stdout": subprocess.PIPE}, text=True)
        with process.stdout:
            assert process.stdout.readline() == "up\n"
        os.kill(os.getpid(), number)
        return process

    monkeypatch.setattr(command.subprocess, "Popen", signalled)
    assert run_command([sys.executable, "-c", heard]).exit_code == 42


def test_a_signal_between_runs_ends_the_waiting_and_not_us():
    with command.SignalRelay() as relay:
        os.kill(os.getpid(), signal.SIGHUP)
        assert relay.ended.wait(10)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
