"""The state: whole or not there, whatever is cut off; and believed only when no older than the last scrape."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from edgeprof_exporters import state as module
from edgeprof_exporters.state import Copy, StateFile

if TYPE_CHECKING:
    from pathlib import Path


def test_a_clean_state_is_resumed_once(tmp_path: Path) -> None:
    StateFile(tmp_path / "s", None).save({"n": 1}, clean=True)
    assert StateFile(tmp_path / "s", None).load() == ({"n": 1}, True)
    assert StateFile(tmp_path / "s", None).load() == (None, False)  # that daemon was killed: it is too old now


def test_after_a_kill_the_copy_is_newer_than_the_file(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "s", tmp_path / "c")
    state.save({"n": 1}, clean=False)
    for number in range(2, 6):
        state.save_runtime({"n": number})
    assert StateFile(tmp_path / "s", tmp_path / "c").load() == ({"n": 5}, True)


def test_after_a_reboot_a_copy_is_not_believed_and_a_clean_state_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateFile(tmp_path / "s", tmp_path / "c")
    state.save_runtime({"n": 1})
    StateFile(tmp_path / "t", None).save({"n": 2}, clean=True)
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    assert StateFile(tmp_path / "s", tmp_path / "c").load() == (None, False)
    assert StateFile(tmp_path / "t", None).load() == ({"n": 2}, False)


def test_an_orderly_end_leaves_no_copy_behind(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "s", tmp_path / "c")
    state.save_runtime({"n": 1})
    state.save({"n": 2}, clean=True)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_disk_that_is_full_at_the_end_costs_no_counter_over_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    state = StateFile(tmp_path / "s", tmp_path / "c")
    state.save({"n": 1}, clean=False)
    (tmp_path / "s.new").mkdir()  # as if full
    state.save({"n": 2}, clean=False)
    state.save({"n": 3}, clean=True)
    assert caplog.messages == ["the state cannot be kept"]
    later = StateFile(tmp_path / "s", tmp_path / "c")
    assert later.load() == ({"n": 3}, True)
    (tmp_path / "s.new").rmdir()
    state.save({"n": 4}, clean=True)
    assert caplog.messages[1:] == ["the state is kept again"]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_copy_that_is_cut_or_damaged_anywhere_gives_the_other_one_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PLACE", 4096)
    path = tmp_path / "c"
    state = StateFile(tmp_path / "s", path)
    state.save_runtime({"n": 1})
    state.save_runtime({"n": 2})
    whole = path.read_bytes()
    dice = random.Random(0)
    for _ in range(200):
        at = dice.randrange(len(whole))
        damaged = dice.choice([whole[:at], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]])
        path.write_bytes(damaged)
        found = Copy(path).load()
        assert found is None or found["state"] in ({"n": 1}, {"n": 2})


def test_a_file_that_is_cut_anywhere_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    StateFile(path, None).save({"n": 1}, clean=True)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert StateFile(path, None).load() == (None, False)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema": "edgeprof.exporter-state/1"}', b"\xff" * 100])
def test_a_file_that_is_no_state_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "s").write_bytes(content)
    assert StateFile(tmp_path / "s", None).load() == (None, False)
    (record,) = caplog.records
    assert "cannot be read" in record.message
    assert record.fields["file"] == str(tmp_path / "s")


def test_kill_9_during_writes_leaves_a_whole_state(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeprof_exporters.state import StateFile\n"
        "state = StateFile(Path(sys.argv[1]) / 's', Path(sys.argv[1]) / 'c'); n = 0\n"
        "while True:\n"
        "    n += 1; state.save_runtime({'n': n, 'x': 'y' * 50_000}); print(n, flush=True)\n"
        "    state.save({'n': n, 'x': 'y' * 50_000}, clean=False)\n"
    )
    for turn in range(3):
        folder = tmp_path / str(turn)
        folder.mkdir()
        child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.02 + turn * 0.013)
        child.kill()
        said = child.stdout.read().split()
        child.stdout.close()
        child.wait()
        found, same = StateFile(folder / "s", folder / "c").load()
        assert same
        assert found is not None
        assert found["n"] >= (int(said[-1]) if said else 1)  # never older than what was answered


def test_a_full_disk_is_logged_once_and_leaves_the_old_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = StateFile(tmp_path / "s", None)
    state.save({"n": 1}, clean=True)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(3):
            state.save({"n": 2}, clean=False)
    assert [record.message for record in caplog.records].count("the state cannot be kept") == 1
    assert StateFile(tmp_path / "s", None).load() == ({"n": 1}, True)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
