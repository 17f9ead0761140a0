"""``edgeprof simulate``: alone, around a command, and its errors for wrong input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from edgeprof.cli.main import run
from edgeprof.simulation.truth import Truth
from tests.processes import ended


def edgeprof(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from edgeprof.cli.entry import main; main()", *arguments]


def test_a_waveform_is_played_for_the_time_asked_and_its_truth_is_there(tmp_path, capfd) -> None:
    code = run(
        ["simulate", "jetson-orin-nano", "--dir", str(tmp_path / "b"), "--waveform", "constant:5W", "--duration", "0.3"]
    )
    assert code == 0
    summary = json.loads((tmp_path / "b/truth.json").read_text())
    assert summary["total_joules"] == pytest.approx(5 * summary["seconds"])
    assert summary["seconds"] >= 0.3
    truth = Truth(tmp_path / "b")
    assert truth.energy(summary["start"], summary["end"]) == pytest.approx(summary["total_joules"])
    out, err = capfd.readouterr()
    assert out == ""
    assert "virtual" in err
    assert "5.000 W on average" in err


def test_a_command_sees_the_tree_and_its_exit_code_is_ours(tmp_path, capfd) -> None:
    look = (
        "import os, pathlib, sys; root = pathlib.Path(os.environ['EDGEPROF_SYSFS_ROOT']); "
        "print((root / 'edgeprof-simulation.json').exists()); sys.exit(7)"
    )
    assert run(["simulate", "x86-rapl", "-q", "--", sys.executable, "-c", look]) == 7
    out, err = capfd.readouterr()
    assert out == "True\n"
    assert err == ""


def test_a_command_that_dies_by_a_signal_gives_128_and_its_number() -> None:
    die = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run(["simulate", "x86-rapl", "-q", "--", sys.executable, "-c", die]) == 137


def test_the_rails_may_follow_the_command_alone(tmp_path) -> None:
    """The command burns CPU time for half a second, so that the power is above idle whatever else the machine does."""
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    nap = "import time; time.sleep(0.5)"
    means = []
    for name, code in (("burn", burn), ("nap", nap)):
        place = tmp_path / name
        command = ["simulate", "jetson-orin-nano", "-q", "--dir", str(place), "--follow", "command", "--"]
        assert run([*command, sys.executable, "-c", code]) == 0
        means.append(json.loads((place / "truth.json").read_text())["mean_watts"])
    assert means[1] == pytest.approx(4.6, abs=1.0)
    assert means[0] > means[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_clean_with_the_truth_written(tmp_path, number: signal.Signals, code: int) -> None:
    command = edgeprof("simulate", "jetson-nano", "--dir", str(tmp_path / "b"))
    with ended(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as process:
        assert "Jetson Nano" in process.stderr.readline()  # it plays
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    assert json.loads((tmp_path / "b/truth.json").read_text())["board"] == "jetson-nano"


def test_sigterm_is_handed_on_to_the_command(tmp_path) -> None:
    wait = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); "
        "print('up', flush=True); signal.pause()"
    )
    command = edgeprof("simulate", "jetson-nano", "-q", "--", sys.executable, "-c", wait)
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout.readline() == "up\n"
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["jetson-orin-nanno", "--dir", "{tmp}/b"], "Did you mean jetson-orin"),
        (["jetson-nano"], "--dir DIR is needed"),
        (["jetson-nano", "--dir", "{tmp}/b", "--waveform", "square:1W"], "square:1W,10W,20ms"),
        (["jetson-nano", "--dir", "{tmp}/b", "--waveform", "{tmp}/none.csv"], "none.csv"),
        (["jetson-nano", "--dir", "{tmp}/file"], "cannot be used"),
        (["jetson-nano", "--dir", "{tmp}"], "not empty"),
        (["jetson-nano", "--dir", "{tmp}/b", "--duration", "0"], "not above 0"),
        (["jetson-nano", "--dir", "{tmp}/b", "--follow", "1", "--waveform", "constant:1W"], "exclude"),
        (["jetson-nano", "--dir", "{tmp}/b", "--follow", "me"], "--follow me is neither"),
        (["jetson-nano", "--dir", "{tmp}/b", "--follow", "4194305"], "no process 4194305"),
        (["jetson-nano", "--dir", "{tmp}/b", "--follow", "command"], "needs a command"),
        (["jetson-nano", "--duration", "1", "--", "true"], "exclude"),
        (["jetson-nano", "--", "{tmp}/no-such-program"], "cannot be run"),
        (["jetson-nano-2gb", "--dir", "{tmp}/b"], "no power sensor"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_2(tmp_path, capfd, arguments: list[str], says: str) -> None:
    (tmp_path / "file").write_text("")
    assert run(["simulate", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 2
    err = capfd.readouterr().err
    assert says in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_one_sentence(tmp_path, capfd) -> None:
    tmp_path.chmod(0o500)
    assert run(["simulate", "jetson-nano", "--dir", str(tmp_path / "b")]) == 2
    assert "Permission denied" in capfd.readouterr().err


def test_the_virtual_microcontroller_stands_around_a_command(tmp_path, capfd) -> None:
    look = (
        "import pathlib, sys; place = pathlib.Path(sys.argv[1]); "
        "print((place / 'mcu').is_char_device(), (place / 'meter').is_fifo())"
    )
    place = tmp_path / "board"
    assert run(["simulate", "mcu", "--dir", str(place), "--", sys.executable, "-c", look, str(place)]) == 0
    out, err = capfd.readouterr()
    assert out == "True True\n"
    assert "truth: 0.01 s and 0.0008 J an inference" in err
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["mcu"], "--dir DIR is needed"),
        (["mcu", "--dir", "b", "--waveform", "constant:1W"], "--waveform has no meaning for the board mcu"),
        (["x86-rapl", "--dir", "b", "--fault", "reset"], "--fault has no meaning for the board x86-rapl"),
        (["mcu", "--dir", "b", "--fault", "rest"], "Did you mean reset?"),
        (["mcu", "--dir", "b", "--power", "much"], "--power much is not two numbers"),
        (["mcu", "--dir", "b", "--model", "ic99"], "no model of MLPerf Tiny is named 'ic99'"),
    ],
)
def test_what_cannot_be_played_is_a_sentence(flags, word, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["simulate", *flags]) == 2
    assert word in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
