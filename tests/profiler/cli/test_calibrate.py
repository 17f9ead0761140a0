"""``edgeprof calibrate`` on virtual boards, whose true joules a meter shows on a deliberately wrong scale.

The tests run in virtual time, in which nothing is late; the meter's link and the load are tested in real time.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from edgeprof import hookimpl
from edgeprof.calibration import conductor as calibrate
from edgeprof.calibration.burner import Burner
from edgeprof.cli.main import run
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost, PluginInfo
from edgeprof.roots import Roots
from edgeprof.sensing import corrections
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sensor import Channel, Sensor
from edgeprof.simulation.layouts import build
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.source import Source
from edgeprof.simulation.waveform import Pieces, parse
from tests.profiler.virtual import START_S, VirtualTime

GAIN, OFFSET_W = 1.10, 0.80
BOARD = "jetson-orin-nano"


@pytest.fixture
def environment(tmp_path, monkeypatch) -> dict[str, str]:
    names = {
        "EDGEPROF_DATA_DIR": str(tmp_path / "data"),
        "EDGEPROF_CONFIG": str(tmp_path / "config"),
        "NO_COLOR": "1",
    }
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **names}


@pytest.fixture
def edgeprof(environment, capfd):
    """The command in this process: ``(exit code, stdout, stderr)``."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


class Knob(Source):
    """A power level that a test sets, with its exact integral from the beginning to now."""

    def __init__(self) -> None:
        self._at, self._joules, self._level = 0.0, 0.0, 0.0

    def begin(self, time: float) -> None:
        self._at = time

    def turn(self, level: float, now: float) -> None:
        self._joules += self._level * (now - self._at)
        self._at, self._level = now, level

    def level(self, time: float) -> float:
        return self._level

    def integral(self, time: float) -> float:
        return self._joules + self._level * (time - self._at)


class Turned:
    """A burner that sets the knob, like a load on a machine that nobody else uses."""

    def __init__(self, knob: Knob, now) -> None:
        self.knob, self.now = knob, now

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def set(self, share: float) -> None:
        self.knob.turn(2.0 + 12.0 * share, self.now())


class TruthMeter(Sensor):
    """A meter at the wall that shows the board's true joules on a wrong scale."""

    name = "truth"
    channels = (Channel("truth", "truth", "energy", kind="counter", scope="wall", gain_limit=0.001),)

    def __init__(self, board: LiveBoard, now) -> None:
        self.board, self.now = board, now

    def read(self, values, times) -> None:
        joules = sum(self.board._rails[name].joules(self.now()) for name in self.board.totals)
        values[0] = GAIN * joules + OFFSET_W * (self.now() - START_S)


class ConstantMeter(Sensor):
    """A meter that shows 5 W, whatever the board does."""

    name = "constant"
    channels = (Channel("constant", "constant", "power", scope="wall"),)

    def read(self, values, times) -> None:
        values[0] = 5.0


def host_with(meter: Sensor) -> PluginHost:
    """Return a host with the board's sensors and the given meter."""
    module = ModuleType("meters")
    module.register_sensors = hookimpl(lambda register: register(meter.name, lambda roots: [meter]))
    module.register_sensors.__name__ = "register_sensors"
    host = PluginHost(only=["ina3221"])
    host.register(module, PluginInfo("meters", "meters", "1.0"))
    return host


@pytest.fixture
def turned(tmp_path, monkeypatch):
    """A board in virtual time whose load the calibration turns."""
    knob = Knob()
    board = LiveBoard(BOARD, tmp_path / "tree", knob)
    with VirtualTime(board) as clock:
        monkeypatch.setattr(calibrate, "Burner", lambda: Turned(knob, clock.now))
        yield board, clock


def test_a_calibration_is_found_kept_applied_shown_and_forgotten(edgeprof, turned, monkeypatch) -> None:
    """The meter is 10 % and 0.8 W above the board."""
    board, clock = turned
    monkeypatch.setattr(PluginHost, "from_environment", lambda **_: host_with(TruthMeter(board, clock.now)))
    monkeypatch.setattr(calibrate, "MonotonicClock", lambda: clock)
    tree = ["--sysfs-root", str(board.directory)]
    code, out, err = edgeprof("calibrate", "--against", "truth", "--json", *tree)
    assert code == 0, err
    assert "load 40%" in err
    made = json.loads(out)
    assert made["rail"] == "VDD_IN"
    (entry,) = made["entries"]
    line = entry["line"]
    assert line["gain"] == pytest.approx(GAIN, abs=max(0.001, 3 * line["u_gain"]))
    assert line["offset_w"] == pytest.approx(OFFSET_W, abs=max(0.01, 3 * line["u_offset_w"]))
    assert line["u_gain"] < 0.005
    assert line["covariance_w"] < 0
    assert (line["meter_limit"], line["covers"], line["levels"]) == (0.001, "wall", 6)
    worst = max(abs(level["after"] - level["meter_w"]) for level in made["levels"])
    assert worst < 0.03 < 0.5 < min(abs(level["before"] - level["meter_w"]) for level in made["levels"])
    # Applied: every command shows the corrected value and what it now covers.
    shown = json.loads(edgeprof("sensors", "--json", "--sensor", "ina3221", *tree)[1])
    assert shown["headline"]["covers"] == "wall"
    channel = next(c for c in shown["channels"] if c["channel"] == "VDD_IN" and c["quantity"] == "power")
    volts, amperes = (
        next(c["value"] for c in shown["channels"] if c["channel"] == "VDD_IN" and c["quantity"] == quantity)
        for quantity in ("voltage", "current")
    )
    assert channel["value"] == pytest.approx(line["gain"] * volts * amperes + line["offset_w"])
    assert channel["calibration"]["gain"] == line["gain"]
    assert "calibrated" in edgeprof("sensors", *tree)[1]
    # Listed, and forgotten by the end of its name.
    assert f"gain {line['gain']:.4f}" in edgeprof("calibrate", "--list")[1]
    code, _, err = edgeprof("calibrate", "--forget", "VDD_INN")
    assert code == 2
    assert "Did you mean" in err
    assert "VDD_IN" in edgeprof("calibrate", "--forget", "VDD_IN")[1]
    assert "nothing is calibrated" in edgeprof("calibrate", "--list")[1]


def test_a_line_that_cannot_be_stored_is_shown_all_the_same(edgeprof, turned, monkeypatch, tmp_path) -> None:
    board, clock = turned
    monkeypatch.setattr(PluginHost, "from_environment", lambda **_: host_with(TruthMeter(board, clock.now)))
    monkeypatch.setattr(calibrate, "MonotonicClock", lambda: clock)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(corrections, "replace_file", full)
    code, out, err = edgeprof("calibrate", "--against", "truth", "--sysfs-root", str(board.directory))
    assert code == 2
    assert "gain 1.1" in out
    assert "stored" not in out
    path = tmp_path / "data" / corrections.FILE
    assert err.splitlines()[-2] == f"edgeprof: {path} cannot be written: No space left on device"


def test_a_bench_quotes_calibrated_joules_with_the_lines_uncertainty(edgeprof, tmp_path, monkeypatch) -> None:
    """The sensor shows the constant 9 W correctly, and a stored line corrects them to 10.7 W."""
    monkeypatch.setattr("edgeprof.sensing.prepare.CHARACTERISE_S", 0.1)
    from edgeprof.sensing.corrections import Calibrations, Entry
    from edgeprof.sensing.sensor import Calibration

    line = Calibration(
        1.1, 0.8, 0.004, 0.03, -0.0001, 4.0, 14.0, 6, "2026-01-01T00:00:00+00:00", "truth", 0.001, "wall"
    )
    Calibrations(tmp_path / "data").put(Entry("simulated jetson-orin-nano", "ina3221", "VDD_IN", line=line))
    with LiveBoard("jetson-orin-nano", tmp_path / "tree", {"VDD_IN": parse("constant:9W")}) as board:
        (tmp_path / "nap.py").write_text("import time\n\ndef nap():\n    time.sleep(0.01)\n")
        out = tmp_path / "result.json"
        code, _, err = edgeprof(
            *["bench", f"{tmp_path}/nap.py:nap", "--sysfs-root", board.directory, "-o", out, "-q"],
            *["--windows", "3", "--window", "0.5", "--idle", "0.3", "--warmup", "0.1"],
            *["--scenario", "periodic", "--rate", "20"],  # a busy machine then cannot change what an inference costs
        )
    assert code == 0, err
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


#: Six levels of 4 s, repeated: a load that the calibration does not control.
STAIRS = Pieces([(4.0, watts, watts) for watts in (4.0, 8.0, 12.0, 14.0, 10.0, 6.0)], repeat=True)


@pytest.fixture
def recorded(environment, tmp_path, monkeypatch):
    """A board whose power follows STAIRS in virtual time, and the record that a meter's program writes of it."""
    unix = 1763727000.0
    record = tmp_path / "log.csv"
    record.write_text("time,watts\n")
    board = LiveBoard(BOARD, tmp_path / "tree", {"VDD_IN": STAIRS})
    before = START_S

    def write(now: float) -> None:
        nonlocal before
        if now - before >= 0.1:
            watts, middle = board.energy(before, now) / (now - before), (before + now) / 2
            before = now
            with record.open("a") as file:
                file.write(f"{unix + middle - START_S:.6f},{0.95 * watts + 0.2:.5f}\n")

    with VirtualTime(board, write) as clock:
        monkeypatch.setattr(calibrate, "time", SimpleNamespace(time=lambda: unix + clock.now() - START_S))
        yield board, clock, record


def test_a_record_may_be_empty_as_long_as_its_program_keeps_its_lines_to_itself(recorded) -> None:
    """It is refused only if it has not caught up half a minute after the last level."""
    board, clock, record = recorded
    held_back = record.with_name("held-back.csv")
    held_back.touch()
    host, roots = PluginHost(only=["ina3221"]), Roots.resolve(board.directory)
    with pytest.raises(InputError, match=r"held-back\.csv is empty"):
        calibrate.against(str(held_back), host, roots, levels=5, hold_s=1.0, load=False, clock=clock)
    assert clock.now() > START_S + 20 * 1.0 + 30


def test_levels_are_taken_as_they_come_from_a_record_that_another_program_writes(recorded) -> None:
    board, clock, record = recorded
    found = calibrate.against(
        str(record), PluginHost(only=["ina3221"]), Roots.resolve(board.directory), levels=5, hold_s=1.0, load=False,
        accuracy=0.005, clock=clock,
    )  # fmt: skip
    assert found.line.gain == pytest.approx(0.95, abs=max(0.01, 3 * found.line.u_gain))
    assert found.line.offset_w == pytest.approx(0.2, abs=max(0.1, 3 * found.line.u_offset_w))


@pytest.mark.parametrize("declared", [0.43, 0.20])
def test_a_filter_is_measured_by_steps_and_held_against_the_registers(environment, turned, declared) -> None:
    """The board averages over 0.43 s; if its driver's files give half of that, this is a contradiction."""
    board, clock = turned
    if declared != 0.43:
        samples = board.layout.rails["VDD_IN"].directory / "samples"
        board._obey_settings = lambda: None  # the chip goes on as before: it is the driver that is wrong
        samples.write_text("256\n")
    roots = Roots.resolve(board.directory)
    host = PluginHost(only=["ina3221"])
    found = {one.channel.name: one for one in calibrate.step_response(host, roots, steps=2, clock=clock)}
    one = found["VDD_IN"]
    assert one.fitted is not None
    assert one.fitted.tau_s == pytest.approx(0.43, rel=0.03)
    assert (one.contradiction is None) == (declared == 0.43)
    again = discover(host, roots).topology.by_key()["ina3221", "VDD_IN", "power"]
    assert again.filter.tau_s == one.fitted.tau_s
    assert again.filter.tau_limit == pytest.approx(3**0.5 * one.fitted.u_s / one.fitted.tau_s)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "x", "--list"], "one of --against"),
        (["--against", "no-such.csv"], "is not a file"),
        (["--against", "TREE/finished.csv"], "and edgeprof has no readings of its own from then"),
        (["--against", "TREE/other.csv"], "has no columns time and watts"),
        (["--against", "/dev/null-meter"], "said nothing"),
        (["--against", "meter:tcp:x"], "tcp:HOST:PORT"),
        (["--against", "x", "--levels", "4"], "too few"),
        (["--against", "x", "--accuracy", "5"], "--accuracy"),
        (["--against", "x", "--covers", "house"], "house"),
        (["--filter", "--sensor", "thermal"], "exponential filter"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(edgeprof, tmp_path, monkeypatch, arguments, words) -> None:
    monkeypatch.setattr("edgeprof_plugins.sensors.meter.FIRST_S", 0.2)
    build(BOARD, tmp_path / "tree")
    (tmp_path / "tree/finished.csv").write_text("time,watts\n1763727000.25,12.5\n")
    (tmp_path / "tree/other.csv").write_text("hours,volts\n1,5\n")
    arguments = [argument.replace("TREE", str(tmp_path / "tree")) for argument in arguments]
    code, out, err = edgeprof("calibrate", *arguments, "--sysfs-root", tmp_path / "tree")
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_a_meter_that_sees_something_else_makes_no_line(edgeprof, turned) -> None:
    board, clock = turned
    host, roots = host_with(ConstantMeter()), Roots.resolve(board.directory)
    with pytest.raises(InputError, match="does not rise"):
        calibrate.against("constant", host, roots, levels=5, hold_s=1.0, clock=clock)
    assert "nothing is calibrated" in edgeprof("calibrate", "--list")[1]


def test_a_meter_may_be_a_program_of_its_own(tmp_path) -> None:
    program = f'{sys.executable} -c "import time\nwhile True: print(5.0, flush=True); time.sleep(0.02)"'
    roots = Roots.resolve(build(BOARD, tmp_path / "tree").directory)
    for address in (f"command:{program}", f"meter:command:{program}"):
        (sensor,), channel = calibrate.meter_of(address, PluginHost(only=["meter"]), roots)
        assert (channel.sensor, channel.quantity) == ("meter", "power")
        assert sensor.read_once()["meter/power"] == 5.0


def test_a_broken_file_of_calibrations_is_not_passed_over(edgeprof, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "calibrations.json").write_text("{")
    code, _, err = edgeprof("sensors")
    assert code == 2
    assert "calibrations.json" in err
    assert "--forget all" in err
    assert edgeprof("calibrate", "--forget", "all")[0] == 0
    assert edgeprof("sensors")[0] == 0


def test_a_burner_burns_its_share_and_ends_with_whoever_started_it() -> None:
    """It uses at most its share of one core, and no process is left when its parent is killed."""
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
        "import os, signal\nfrom edgeprof.calibration.burner import Burner\n"
        "burner = Burner(1).__enter__()\nburner.set(1.0)\n"
        "print(burner._children[0].pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    left = int(done.stdout)
    end = time.monotonic() + 10
    while psutil.pid_exists(left) and psutil.Process(left).status() != "zombie" and time.monotonic() < end:
        time.sleep(0.05)
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == "zombie"
