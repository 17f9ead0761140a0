"""The device's lock: only one measurement runs at a time, whoever starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import BusyError
from edgeprof.launch import lock
from edgeprof.roots import Roots
from tests.processes import ended

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from edgeprof.launch.lock import measuring
from edgeprof.roots import Roots
with measuring(Roots(sysfs=Path(sys.argv[1])), "bench model.onnx"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    monkeypatch.setenv(lock.FOLDER, str(tmp_path))
    sysfs = tmp_path / "sys"
    sysfs.mkdir()
    return Roots(sysfs=sysfs)


def start_holder(roots: Roots) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(roots.sysfs)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_second_measurement_is_told_who_measures_since_when_and_what(roots: Roots) -> None:
    with ended(start_holder(roots)) as process:
        assert process.stdout.readline() == "held\n"
        says = rf"process {process.pid}\) since \d\d:\d\d: bench model.onnx"
        with pytest.raises(BusyError, match=says) as caught, lock.measuring(roots, "bench other.onnx"):
            pass
        assert caught.value.exit_code == 75
        who = lock.holder(roots)
        assert who is not None
        assert (who.pid, who.what) == (process.pid, "bench model.onnx")
        process.stdin.close()
    assert lock.holder(roots) is None
    with lock.measuring(roots, "bench other.onnx"):
        pass


def test_the_lock_of_a_killed_holder_is_free(roots: Roots) -> None:
    with ended(start_holder(roots)) as process:
        process.stdout.readline()
        process.kill()
        process.wait()
        assert lock.holder(roots) is None
        with lock.measuring(roots, "bench"):
            pass


def test_a_holder_may_measure_inside_its_own_measurement(roots: Roots) -> None:
    with lock.measuring(roots, "sweep study.toml"), lock.measuring(roots, "bench model.onnx"):
        assert lock.holder(roots) is None  # nobody else
    assert json.loads(lock.lock_path(roots).read_text() or "{}") == {}


def test_the_lock_is_held_until_the_last_of_several_measurements_ends_in_whatever_order(roots: Roots) -> None:
    first, second = lock.measuring(roots, "record"), lock.measuring(roots, "record")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert "record" in lock.lock_path(roots).read_text()
    second.__exit__(None, None, None)
    assert lock.lock_path(roots).read_text() == ""


def test_a_fork_that_lives_on_does_not_keep_the_lock(roots: Roots) -> None:
    read, write = os.pipe()
    with lock.measuring(roots, "record"):
        child = os.fork()
        if child == 0:  # holds the same open file until the parent says that it may end
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    with ended(start_holder(roots)) as process:
        assert process.stdout.readline() == "held\n"
        process.stdin.close()
    os.close(write)
    os.close(read)
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_of_the_holder_may_measure(roots: Roots) -> None:
    with lock.measuring(roots, "sweep study.toml"), ended(start_holder(roots)) as process:
        assert process.stdout.readline() == "held\n"
        process.stdin.close()
        assert process.wait() == 0


def test_a_process_that_replaces_the_holder_goes_on_holding_it(roots: Roots) -> None:
    replace = HOLD.replace(
        'print("held", flush=True)\n    sys.stdin.read()',
        "import os; os.execv(sys.executable, [sys.executable, '-c', 'print(\"held\", flush=True); input()'])",
    )
    command = [sys.executable, "-c", replace, str(roots.sysfs)]
    with ended(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout.readline() == "held\n"
        assert lock.holder(roots) is not None
        process.communicate("\n")


def test_two_boards_do_not_exclude_each_other(roots: Roots, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with ended(start_holder(roots)) as process:
        process.stdout.readline()
        with lock.measuring(Roots(sysfs=other), "bench"):
            pass
        process.stdin.close()


def test_one_board_has_one_lock_by_whatever_path_it_is_reached(roots: Roots, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(roots.sysfs)
    assert lock.lock_path(Roots(sysfs=link)) == lock.lock_path(roots)


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", '{"pid": "x", "since": "y"}', "[" * 4000])
def test_a_lock_file_that_says_nothing_useful_still_excludes(roots: Roots, text: str) -> None:
    with ended(start_holder(roots)) as process:
        process.stdout.readline()
        lock.lock_path(roots).write_text(text)
        with pytest.raises(BusyError, match="another measurement is running"), lock.measuring(roots, "bench"):
            pass
        process.stdin.close()


def test_a_lock_file_that_is_something_else_is_refused_with_a_remedy(roots: Roots) -> None:
    os.mkfifo(lock.lock_path(roots))
    with pytest.raises(BusyError, match="cannot be opened") as caught, lock.measuring(roots, "bench"):
        pass
    assert lock.FOLDER in caught.value.remedy


def test_a_folder_for_lock_files_that_does_not_exist_is_to_be_made(
    roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lock.FOLDER, str(tmp_path / "no such"))
    with pytest.raises(BusyError, match="cannot be opened") as caught, lock.measuring(roots, "bench"):
        pass
    assert f"mkdir -p '{tmp_path / 'no such'}'" in caught.value.remedy


def test_everybody_can_use_the_file(roots: Roots) -> None:
    before = os.umask(0o077)
    try:
        with lock.measuring(roots, "bench"):
            assert lock.lock_path(roots).stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def call(roots: Roots, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would in another terminal, without the holder's token."""
    environ = {name: value for name, value in os.environ.items() if name != lock.TOKEN}
    environ["EDGEPROF_DATA_DIR"] = str(tmp_path / "data")
    command = [sys.executable, "-m", "edgeprof", *arguments, "--sysfs-root", str(roots.sysfs)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_a_bench_beside_another_measurement_ends_with_75_and_measures_nothing(
    roots: Roots, tmp_path: Path, onnx_model: Path
) -> None:
    with lock.measuring(roots, "bench first.onnx"):
        done = call(roots, tmp_path, "bench", str(onnx_model), "--quick", "--input", "x=1x4")
    assert done.returncode == 75, done.stderr
    assert "another measurement is running on this device" in done.stderr
    assert "bench first.onnx" in done.stderr
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").glob("*.db"))


def test_run_measures_beside_another_measurement_and_says_so(roots: Roots, tmp_path: Path) -> None:
    with lock.measuring(roots, "bench first.onnx"):
        environ = {name: value for name, value in os.environ.items() if name != lock.TOKEN}
        command = [sys.executable, "-m", "edgeprof", "run", "--json", "--idle", "0", "--sysfs-root", str(roots.sysfs)]
        done = subprocess.run([*command, "--", "true"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reasons = json.loads(done.stdout)["reasons"]
    assert ["bench first.onnx" in reason["message"] for reason in reasons if reason["code"] == "shared_device"] == [
        True
    ]
