"""``edgeprof calibrate`` on virtual boards, whose true joules a meter says on a scale that is off on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from edgeprof import calibrate
from edgeprof.cli.main import run
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.source import Source
from edgeprof.simulation.waveform import Pieces, parse
from edgeprof.workload.burner import Burner

METER = Path(__file__).with_name("truth_meter.py")
GAIN, OFFSET_W = 1.10, 0.80


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return {
        **os.environ,
        "EDGEPROF_DATA_DIR": str(tmp_path / "data"),
        "EDGEPROF_CONFIG": str(tmp_path / "config"),
        "NO_COLOR": "1",
    }


def edgeprof(environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeprof", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


#: Six levels of 4 s, over and over: a load that comes as it comes.
STAIRS = Pieces([(4.0, watts, watts) for watts in (4.0, 8.0, 12.0, 14.0, 10.0, 6.0)], repeat=True)


def address(board, gain=GAIN, offset=OFFSET_W) -> str:
    return f"meter:command:{sys.executable} {METER} {board.directory} {gain} {offset}"


class Knob(Source):
    """A level that is turned by hand, with its exact integral."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at, self._joules, self._level = 0.0, 0.0, 0.0

    def begin(self, time: float) -> None:
        self._at = time

    def turn(self, level: float) -> None:
        now = time.monotonic()
        with self._lock:
            self._joules += self._level * (now - self._at)
            self._at, self._level = now, level

    def level(self, time: float) -> float:
        return self._level

    def integral(self, time: float) -> float:
        with self._lock:
            return self._joules + self._level * (time - self._at)


class Turned:
    """A burner that turns the knob: what a load would do on a machine that nobody else uses."""

    def __init__(self, knob: Knob) -> None:
        self.knob = knob

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def set(self, share: float) -> None:
        self.knob.turn(2.0 + 12.0 * share)


@pytest.fixture
def knob(monkeypatch) -> Knob:
    made = Knob()
    monkeypatch.setattr(calibrate, "Burner", lambda: Turned(made))
    return made


@pytest.fixture
def board(tmp_path, knob):
    with LiveBoard("jetson-orin-nano", tmp_path / "tree", knob) as live:
        yield live


def test_a_calibration_is_found_kept_applied_shown_and_forgotten(environment, board, monkeypatch, capsys) -> None:
    """The meter is 10 % and 0.8 W above the board."""
    tree = ["--sysfs-root", str(board.directory)]
    for name in ("EDGEPROF_DATA_DIR", "EDGEPROF_CONFIG"):
        monkeypatch.setenv(name, environment[name])
    assert run(["calibrate", "--against", address(board), "--hold", "2", "--levels", "6", "--json", *tree]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["rail"] == "VDD_IN"
    (entry,) = made["entries"]
    line = entry["line"]
    assert abs(line["gain"] - GAIN) < max(0.02, 3 * line["u_gain"])
    assert abs(line["offset_w"] - OFFSET_W) < max(0.3, 3 * line["u_offset_w"])
    assert line["covariance_w"] < 0
    assert (line["meter_limit"], line["covers"]) == (0.001, "wall")
    assert line["levels"] in {5, 6}  # on a machine that is too busy a hold may be lost
    worst = max(abs(level["after"] - level["meter_w"]) for level in made["levels"])
    assert worst < min(abs(level["before"] - level["meter_w"]) for level in made["levels"])
    # Applied: everything that reads sees the corrected value, and says what it now covers.
    shown = json.loads(edgeprof(environment, "sensors", "--json", *tree).stdout)
    assert shown["headline"]["covers"] == "wall"
    channel = next(c for c in shown["channels"] if c["channel"] == "VDD_IN" and c["quantity"] == "power")
    volts, amperes = (
        next(c["value"] for c in shown["channels"] if c["channel"] == "VDD_IN" and c["quantity"] == quantity)
        for quantity in ("voltage", "current")
    )
    assert channel["value"] == pytest.approx(line["gain"] * volts * amperes + line["offset_w"], rel=0.2)
    assert channel["calibration"]["gain"] == line["gain"]
    assert "calibrated" in edgeprof(environment, "sensors", *tree).stdout
    # Listed, and forgotten by the end of its name.
    assert f"gain {line['gain']:.4f}" in edgeprof(environment, "calibrate", "--list").stdout
    wrong = edgeprof(environment, "calibrate", "--forget", "VDD_INN")
    assert wrong.returncode == 2
    assert "Did you mean" in wrong.stderr
    assert "VDD_IN" in edgeprof(environment, "calibrate", "--forget", "VDD_IN").stdout
    assert "nothing is calibrated" in edgeprof(environment, "calibrate", "--list").stdout


def test_a_bench_quotes_calibrated_joules_with_the_lines_uncertainty(environment, tmp_path) -> None:
    """A constant 9 W that the sensor shows as they are, and a kept line that makes 10.7 W of them."""
    from edgeprof.sensing.calibration import Calibrations, Entry
    from edgeprof.sensing.sensor import Calibration

    line = Calibration(
        1.1, 0.8, 0.004, 0.03, -0.0001, 4.0, 14.0, 6, "2026-01-01T00:00:00+00:00", "truth", 0.001, "wall"
    )
    Calibrations(tmp_path / "data").put(Entry("simulated jetson-orin-nano", "ina3221", "VDD_IN", line=line))
    with LiveBoard("jetson-orin-nano", tmp_path / "tree", {"VDD_IN": parse("constant:9W")}) as board:
        (tmp_path / "nap.py").write_text("import time\n\ndef nap():\n    time.sleep(0.01)\n")
        out = tmp_path / "result.json"
        done = edgeprof(
            environment,
            *["bench", f"{tmp_path}/nap.py:nap", "--sysfs-root", str(board.directory), "-o", str(out), "-q"],
            *["--windows", "3", "--window", "0.5", "--idle", "0.3", "--warmup", "0.1"],
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    (variant,) = result["variants"]
    assert variant["power_w"]["mean"] == pytest.approx(1.1 * 9 + 0.8, rel=0.01)
    energy = variant["energy_j_per_inference"]
    assert energy["covers"] == "wall"
    budget, per = energy["gross"]["budget"], energy["gross"]["value"] / (1.1 * 9 + 0.8)
    gain = (0.004 * (9.0 - line.pivot_w)) ** 2 + (0.001 / 3**0.5 * 10.7) ** 2
    assert budget["gain"] == pytest.approx(gain**0.5 * per, rel=0.05)
    assert budget["offset"] == pytest.approx(line.u_level_w * per, rel=0.05)
    use = next(s for s in result["sensors"] if s["channel"] == "VDD_IN" and s["quantity"] == "power")
    assert use["calibration"]["against"] == "truth"


def test_levels_are_taken_as_they_come_from_a_record_that_another_program_writes(environment, tmp_path) -> None:
    record = tmp_path / "log.csv"
    with LiveBoard("jetson-orin-nano", tmp_path / "tree", {"VDD_IN": STAIRS}) as board:
        writer = subprocess.Popen([sys.executable, METER, board.directory, "0.95", "0.2", record])
        try:
            while not record.exists():
                threading.Event().wait(0.05)
            done = edgeprof(
                environment,
                *["calibrate", "--against", str(record), "--no-load", "--hold", "1", "--levels", "5", "--json"],
                *["--sysfs-root", str(board.directory), "--accuracy", "0.5%"],
            )
        finally:
            writer.kill()
            writer.wait()
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)["line"]
    assert line["gain"] == pytest.approx(0.95, abs=max(0.03, 3 * line["u_gain"]))


@pytest.mark.parametrize("declared", [0.43, 0.20])
def test_a_filter_is_measured_by_steps_and_held_against_the_registers(tmp_path, monkeypatch, knob, declared) -> None:
    """A board that averages over 0.43 s; where its driver's files say half of that, that is a contradiction."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    with LiveBoard("jetson-orin-nano", tmp_path / "tree", knob) as board:
        if declared != 0.43:
            samples = board.layout.rails["VDD_IN"].directory / "samples"
            board._obey = lambda: None  # the chip goes on as before: it is the driver that is wrong
            samples.write_text("256\n")
        roots = Roots.resolve(board.directory)
        host = PluginHost(only=["ina3221"])
        found = {one.channel.name: one for one in calibrate.step_response(host, roots, steps=2)}
        one = found["VDD_IN"]
        assert one.found is not None
        assert one.found.tau_s == pytest.approx(0.43, rel=0.12)
        assert (one.contradiction is None) == (declared == 0.43)
        again = discover(host, roots).topology.by_key()["ina3221", "VDD_IN", "power"]
        assert again.filter.tau_s == one.found.tau_s
        assert again.filter.tau_limit == pytest.approx(3**0.5 * one.found.u_s / one.found.tau_s)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "x", "--list"], "one of --against"),
        (["--against", "no-such.csv"], "is not a file"),
        (["--against", "/dev/null-meter"], "said nothing"),
        (["--against", "meter:tcp:x"], "tcp:HOST:PORT"),
        (["--against", "x", "--levels", "4"], "too few"),
        (["--against", "x", "--accuracy", "5"], "--accuracy"),
        (["--against", "x", "--covers", "house"], "house"),
        (["--filter", "--sensor", "thermal"], "exponential filter"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(environment, board, arguments, words) -> None:
    done = edgeprof(environment, "calibrate", *arguments, "--sysfs-root", str(board.directory))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_meter_that_sees_something_else_makes_no_line(environment, tmp_path) -> None:
    with LiveBoard("jetson-orin-nano", tmp_path / "tree", {"VDD_IN": STAIRS}) as board:
        constant = f'{sys.executable} -c "import time\nwhile True: print(5.0, flush=True); time.sleep(0.05)"'
        done = edgeprof(
            environment,
            *["calibrate", "--against", f"meter:command:{constant}", "--no-load", "--hold", "0.6", "--levels", "5"],
            *["--sysfs-root", str(board.directory)],
        )
    assert done.returncode == 2
    assert "does not rise" in done.stderr
    assert "nothing is calibrated" in edgeprof(environment, "calibrate", "--list").stdout


def test_a_broken_file_of_calibrations_is_not_passed_over(environment, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "calibrations.json").write_text("{")
    done = edgeprof(environment, "sensors")
    assert done.returncode == 2
    assert "calibrations.json" in done.stderr
    assert "--forget all" in done.stderr
    assert edgeprof(environment, "calibrate", "--forget", "all").returncode == 0
    assert edgeprof(environment, "sensors").returncode == 0


def test_a_burner_burns_its_share_and_ends_with_whoever_started_it() -> None:
    """The share of one core while nobody else wants it, so at most that; and none is left when its parent is killed."""
    with Burner(1) as burner:
        child = psutil.Process(burner._children[0].pid)
        used = []
        for share in (0.0, 0.4):
            burner.set(share)
            time.sleep(0.3)
            before = child.cpu_times().user
            time.sleep(1.0)
            used.append(child.cpu_times().user - before)
    assert used[0] <= 0.02
    assert 0.05 < used[1] < 0.6
    assert not child.is_running()
    program = (
        "import os, signal\nfrom edgeprof.workload.burner import Burner\n"
        "burner = Burner(1).__enter__()\nburner.set(1.0)\n"
        "print(burner._children[0].pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    left = int(done.stdout)
    end = time.monotonic() + 10
    while psutil.pid_exists(left) and psutil.Process(left).status() != "zombie" and time.monotonic() < end:
        time.sleep(0.05)
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == "zombie"
