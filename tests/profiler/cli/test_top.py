"""``edgeprof top`` in a real pseudo-terminal, piped, and as JSON, on virtual boards."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeprof.energy.online import production
from edgeprof.energy.online.production import ModelInProduction, Production
from edgeprof.errors import UnavailableError
from edgeprof.simulation.layouts import build
from tests.clocks import turn_clock
from tests.processes import ended

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def board(tmp_path: Path) -> Path:
    layout = build("jetson-orin-nano", tmp_path / "board")
    for rail in layout.rails.values():
        rail.current.write_text("1000\n")
        rail.voltage.write_text("5000\n")
    return tmp_path / "board"


def top(board: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeprof", "top", "--sysfs-root", str(board), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Screen:
    """A terminal with the program in it."""

    def __init__(self, master: int) -> None:
        self.master, self.text = master, ""

    def wait_for(self, pattern: str, seconds: float = 30.0) -> re.Match[str]:
        """Read until the pattern was shown."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.text, re.DOTALL)):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not shown: {self.text[-2000:]!r}"
            if select.select([self.master], [], [], left)[0]:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
        return match

    def press(self, key: str) -> None:
        self.text = ""
        os.write(self.master, key.encode())


@contextlib.contextmanager
def screen(board: Path, *flags: str) -> Iterator[tuple[Screen, subprocess.Popen[bytes]]]:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "edgeprof", "top", *flags]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30", "LANG": "C.UTF-8"}
    environ["EDGEPROF_SYSFS_ROOT"] = str(board)
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environ,
        start_new_session=True,
        # Ctrl-C reaches it as a signal; this process has no other thread that could hold a lock.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY),  # noqa: PLW1509 - see above
    )
    os.close(slave)
    try:
        with ended(process):
            yield Screen(master), process
    finally:
        os.close(master)


def test_the_space_bar_marks_a_window_and_q_gives_the_terminal_back(board: Path) -> None:
    with screen(board, "--every", "0.1") as (terminal, process):
        terminal.wait_for(r"\x1b\[\?1049h.*VDD_IN.*5\.00 W.*space: mark · q: quit")
        first = terminal.wait_for(r"since mark +(\d+\.\d+) ± \d.*? in (\d+\.\d) s.*since mark.*in (?!\2)\d+\.\d s")
        assert float(first[1]) >= 0
        terminal.press(" ")
        terminal.wait_for(r"since mark .* in 0\.[0-4] s")
        terminal.press("q")
        terminal.wait_for(r"\x1b\[\?25h\x1b\[\?1049l")
        assert process.wait(30) == 0


@pytest.mark.parametrize("flags", [(), ("--every", "1")])
def test_ctrl_c_gives_the_terminal_back_too(board: Path, flags: tuple[str, ...]) -> None:
    with screen(board, *flags) as (terminal, process):
        terminal.wait_for("q: quit")
        terminal.press("\x03")
        terminal.wait_for(r"\x1b\[\?25h\x1b\[\?1049l")
        assert process.wait(30) == 130


def test_the_first_frame_shows_what_the_rails_measure(board: Path) -> None:
    with screen(board) as (terminal, _process):
        (frame,) = terminal.wait_for(r"\x1b\[\?1049h(.*?)\x1b\[J").groups()
        assert re.search(r"VDD_IN.*5\.00 W", frame)
        assert re.search(r"VDD_SOC.*5\.00 W.*inside VDD_IN", frame)
        terminal.press("q")


def test_without_flags_it_needs_no_click_and_says_the_same(board: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "EDGEPROF_SYSFS_ROOT": str(board), "COLUMNS": "100"}

    def printed(*command: str) -> list[str]:
        command = (sys.executable, *command)
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
        return [re.sub(r"(?<=itself |. mark ).*| +[\d.]+ m?J(?= since)", "", line) for line in done.stdout.splitlines()]

    code = "import sys; from edgeprof.cli import entry; entry.run(['top']); print('click' in sys.modules)"
    *lines, click = printed("-c", code)
    assert click == "False"
    assert lines == printed("-m", "edgeprof", "top", "--every", "2")
    environ["EDGEPROF_SYSFS_ROOT"] = str(tmp_path / "nowhere")
    command = [sys.executable, "-m", "edgeprof", "top"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, env={**environ, "COLUMNS": "300"})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"edgeprof: --sysfs-root {tmp_path / 'nowhere'} is not a directory")


def test_a_pipe_gets_one_plain_frame(board: Path) -> None:
    done = top(board)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    (total,) = [line for line in lines if line.startswith(" VDD_IN")]
    (part,) = [line for line in lines if line.startswith("   VDD_SOC")]
    assert "5.00 W" in total
    assert "inside VDD_IN" in part


def test_the_page_on_sensors_shows_what_is_printed(board: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/sensors.md").read_text(encoding="utf-8")
    shown = re.search(r"edgeprof top --once\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    environ = {**os.environ, "EDGEPROF_SYSFS_ROOT": str(board), "COLUMNS": "100"}
    command = [sys.executable, "-m", "edgeprof", "top", "--once"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout

    def rows(text: str) -> list[tuple[str, ...]]:
        return re.findall(r"^( +VDD\w+) +[█-▏]+ +[\d.]+ m?W +(\w.*)$", text, re.MULTILINE)

    assert len(rows(printed)) == 3
    assert rows(shown[1]) == rows(printed)
    for words in ("NVIDIA Jetson Orin Nano   25W", "J since start", "edgeprof itself", "since mark  "):
        assert words in shown[1]
        assert words in printed


def test_json_has_the_same_numbers_in_si_units(board: Path) -> None:
    frame = json.loads(top(board, "--json", "--once").stdout)
    assert frame["schema"] == "edgeprof.top/1"
    assert frame["total"]["power_w"] == 5.0
    assert {rail["channel"]: rail["parent"] for rail in frame["rails"]}["VDD_SOC"] == "VDD_IN"
    assert frame["self"]["rss_bytes"] > 0


def test_a_machine_without_a_sensor_says_so_and_shows_no_zero(tmp_path: Path) -> None:
    done = top(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no total" in done.stdout
    assert "nothing measures a total" in done.stdout
    assert not re.search(r"\b0(\.0+)? ?[JW]\b", done.stdout)


def test_a_wrong_interval_is_one_sentence(board: Path) -> None:
    done = top(board, "--every", "0")
    assert done.returncode == 2
    assert done.stderr.startswith("edgeprof: --every 0 is out of range")


def test_a_rails_name_cannot_steer_the_terminal(board: Path) -> None:
    (label,) = list(board.rglob("in1_label"))[:1]
    label.write_text("VDD\x1b[2J\x1b]0;owned\x07\n")
    with screen(board) as (terminal, _process):
        shown = terminal.wait_for(r"VDD.*q: quit")
        assert "\x1b[2J" not in shown[0]
        assert "\x1b]0" not in shown[0]
        terminal.press("q")


def test_it_loads_no_library_that_sensors_do_not_need(board: Path) -> None:
    """numpy alone needs twice the memory of everything else."""
    code = (
        "import sys\n"
        "from edgeprof.cli import main\n"
        f"main.run(['top', '--once', '--sysfs-root', {str(board)!r}])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'numpy', 'msgspec', 'edgeprof_exporters'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_models_in_production_are_those_that_a_daemon_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {
        "model": "yolov8s",
        "variant": "int8",
        "runtime": "",
        "inferences": 100,
        "with_energy": 90,
        "energy_j": 9.0,
    }
    clock = itertools.count(1000.0)
    monkeypatch.setattr(production, "usual_path", lambda: None)
    monkeypatch.setattr(production, "ask", lambda *_: {"models": [dict(counts)]})
    turn_clock(monkeypatch, monotonic=lambda: next(clock))
    looked = Production()
    assert looked.models() == []  # one look gives no rate
    counts |= {"inferences": 115, "with_energy": 100, "energy_j": 12.0}
    assert looked.models() == [ModelInProduction("yolov8s int8", 15.0, pytest.approx(0.3))]
    counts |= {"inferences": 120, "with_energy": 2, "energy_j": 12.0}  # the daemon was started again
    assert looked.models() == [ModelInProduction("yolov8s int8", 5.0, None)]


def test_without_a_daemon_there_are_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def nobody() -> None:
        asked.append(1)
        raise UnavailableError("no daemon")

    monkeypatch.setattr(production, "usual_path", nobody)
    looked = Production()
    assert [looked.models(), looked.models()] == [[], []]
    assert asked == [1]  # it is not looked for at every frame
