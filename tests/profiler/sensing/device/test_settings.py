"""Settings of the device that a run changes are restored, however the run ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edgeprof.errors import UnavailableError
from edgeprof.sensing.device import guard
from edgeprof.sensing.device.settings import Settings, restore_settings

CHANGING = """
import os, sys, time
from pathlib import Path
from edgeprof.sensing.device.settings import Settings
with Settings(Path(sys.argv[1])) as settings:
    settings.write(Path(sys.argv[2]), "16")
    print(settings._guard.pid, flush=True)
    {then}
"""


def start(tmp_path, then: str) -> tuple[subprocess.Popen[str], int]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHANGING.format(then=then), tmp_path / "restore", tmp_path / "samples"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    guard = int(child.stdout.readline())
    return child, guard


def wait_for(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.fixture(autouse=True)
def samples(tmp_path) -> Path:
    path = tmp_path / "samples"
    path.write_text("512\n")
    return path


@pytest.mark.parametrize("then", ["pass", "raise SystemExit(3)", "raise KeyboardInterrupt", "1/0"])
def test_an_end_of_any_kind_puts_it_back(tmp_path, samples, then: str) -> None:
    child, _ = start(tmp_path, then)
    child.wait(30)
    child.stdout.close()
    assert samples.read_text().strip() == "512"
    assert list((tmp_path / "restore").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV])
def test_a_signal_of_any_kind_puts_it_back(tmp_path, samples, number: int) -> None:
    """A signal to the whole process group, as from Ctrl-C, does not reach the guard."""
    # Many short sleeps: a signal that arrives just before a sleep begins is handled when that sleep ends.
    child, _ = start(tmp_path, "for _ in range(6000): time.sleep(0.01)")
    assert samples.read_text() == "16"
    os.killpg(child.pid, number)
    child.wait(30)
    child.stdout.close()
    assert wait_for(lambda: samples.read_text().strip() == "512")
    assert wait_for(lambda: list((tmp_path / "restore").iterdir()) == [])


def test_killed_together_with_its_guard_the_next_start_puts_it_back(tmp_path, samples) -> None:
    child, guard = start(tmp_path, "time.sleep(60)")
    assert restore_settings(tmp_path / "restore") == []
    assert samples.read_text() == "16"  # a living run keeps its settings
    dying = psutil.Process(guard)
    dying.kill()
    child.kill()
    child.wait(30)
    child.stdout.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        dying.wait(30)  # it holds the journal's lock until it has ended
    assert samples.read_text() == "16"
    assert restore_settings(tmp_path / "restore") == []
    assert samples.read_text().strip() == "512"
    assert list((tmp_path / "restore").iterdir()) == []


def test_a_file_of_the_kernel_is_left_as_a_reboot_made_it(tmp_path, samples) -> None:
    journal = tmp_path / "restore" / "1.json"
    journal.parent.mkdir()
    journal.write_text(json.dumps({"boot": "another", "changes": [{"file": str(samples), "value": "1"}]}))
    assert restore_settings(journal.parent) == []
    assert samples.read_text() == "512\n"
    assert not journal.exists()


def test_what_cannot_be_put_back_is_said_and_tried_again(tmp_path, samples) -> None:
    journal = tmp_path / "restore" / "1.json"
    journal.parent.mkdir()
    missing = tmp_path / "gone" / "file"
    changes = [{"file": str(missing), "value": "1"}, {"file": str(samples), "value": "64"}, {"command": ["false"]}]
    journal.write_text(json.dumps({"boot": guard.boot_id(), "changes": changes}))
    problems = restore_settings(journal.parent)
    assert len(problems) == 2
    assert "No such file" in " ".join(problems)
    assert "status 1" in " ".join(problems)
    assert samples.read_text() == "64"
    assert json.loads(journal.read_text())["changes"] == [changes[0], changes[2]]
    missing.parent.mkdir()
    missing.write_text("0")
    restore_settings(journal.parent)
    assert missing.read_text() == "1"


def test_a_limit_that_stands_in_the_way_of_another_goes_in_the_end(tmp_path) -> None:
    """The order of the changes does not matter: what failed is tried again after the others."""
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text("new")
    made = f"test -e {second}.done || {{ touch {second}.done; exit 1; }}; echo old > {first}"
    journal = tmp_path / "restore" / "1.json"
    journal.parent.mkdir()
    changes = [{"file": str(second), "value": "old"}, {"command": ["sh", "-c", made]}]
    journal.write_text(json.dumps({"changes": changes}))
    assert restore_settings(journal.parent) == []
    assert (first.read_text().strip(), second.read_text()) == ("old", "old")


def test_a_journal_that_was_cut_off_is_dropped(tmp_path) -> None:
    (tmp_path / "restore").mkdir()
    (tmp_path / "restore" / "1.json").write_text('{"changes": [{"fi')
    assert restore_settings(tmp_path / "restore") == []
    assert list((tmp_path / "restore").iterdir()) == []


def test_what_may_not_be_changed_is_an_error_with_sudo_in_it(tmp_path) -> None:
    directory = tmp_path / "restore"
    with Settings(directory) as settings:
        with pytest.raises(UnavailableError, match="cannot be read"):
            settings.write(tmp_path / "none", "1")
        with pytest.raises(UnavailableError, match="cannot be set to"):
            settings.write(Path("/proc/version"), "1")
