"""Names of files, stored results and exceptions are shown on a terminal, but their control sequences have no effect."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import pty
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING

import pytest

from tests.profiler.cli import forked

if TYPE_CHECKING:
    from pathlib import Path

TITLE = "\x1b]0;PWN\x07"
CLEAR = "\x1b[2J"
NAME = f"bad{TITLE}{CLEAR}\x9b31m\u202e\r"
#: What the commands import when they run.
IMPORTED = (
    "benchmark.conductor", "cli.bench", "cli.compress", "cli.diagnose", "cli.report", "cli.sweep", "results.store",
    "diagnosis.evidence", "reporters.console", "reporters.html_page", "reporters.picture", "study.conductor",
    "compression.conductor", "benchmark.command", "launch.choose", "sensing.prepare",
)  # fmt: skip
QUICK = ["--windows", "2", "--window", "0.1", "--idle", "0", "--warmup", "0.05", "--timeout", "20"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files have names with control sequences."""
    folder = tmp_path_factory.mktemp("names")
    for module in IMPORTED:  # once, instead of in each fork
        importlib.import_module(f"edgeprof.{module}")
    (folder / f"{NAME}.onnx").write_bytes(b"x")
    (folder / f"{NAME}.toml").write_text("[")
    (folder / f"{NAME}.json").write_text('{"schema": "edgeprof.result/1"}')
    program = f"import time\ndef steady(): time.sleep(0.002)\ndef bad(): raise ValueError({NAME!r})\n"
    (folder / "app.py").write_text(program)
    (folder / f"{NAME}.py").write_text(program)
    (folder / f"{NAME}dir").mkdir()
    return folder


def on_a_terminal(place: Path, *words: str) -> bytes:
    """Return what reaches the terminal from the stdout and stderr of ``edgeprof WORDS…`` together, in a fork."""
    ours, theirs = pty.openpty()
    shown = bytearray()
    reader = threading.Thread(target=read_all, args=(ours, shown))
    reader.start()
    name = os.ttyname(theirs)
    forked.run(*words, folder=place, environ=surroundings(place), stdout=name, stderr=name)
    os.close(theirs)
    reader.join()
    os.close(ours)
    return bytes(shown)


def surroundings(place: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("EDGEPROF")}
    return {**kept, "EDGEPROF_DATA_DIR": str(place / "data"), "EDGEPROF_PLUGINS": "python,system", "TERM": "xterm"}


def read_all(terminal: int, shown: bytearray, keys: bytes = b"") -> None:
    """Read until the last process has closed its end; type ``keys`` when a command waits for them."""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            return
        if keys and (b"q: quit" in shown or b"listening" in shown):
            os.write(terminal, keys)
            keys = b""


def run_on_a_terminal(place: Path, *command: str, keys: bytes = b"", **variables: str) -> bytes:
    """Return what reaches the terminal from a command.

    Args:
        place: The working directory.
        command: The command.
        keys: What is typed, see ``read_all``.
        variables: Environment variables.
    """
    ours, theirs = pty.openpty()
    shown = bytearray()
    with subprocess.Popen(
        command,
        cwd=place,
        env={**surroundings(place), **variables},
        stdin=theirs if keys else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY)) if keys else None,  # noqa: PLW1509 - no other thread
    ) as process:
        os.close(theirs)
        read_all(ours, shown, keys)
        process.wait(timeout=60)
    os.close(ours)
    return bytes(shown)


@pytest.mark.parametrize(
    "words",
    [
        ["bench", f"{NAME}.onnx"],
        ["bench", f"{NAME}x.onnx"],
        ["bench", f"{NAME}dir"],
        ["bench", f"{NAME}.py:bad", *QUICK],
        ["bench", "app.py:bad", *QUICK],
        ["bench", f"app.py:{NAME}"],
        ["bench", "app.py:steady", "--runtime", NAME],
        ["bench", "app.py:steady", "-o", f"{NAME}/x.json"],
        ["diagnose", f"{NAME}.onnx"],
        ["compress", f"{NAME}.onnx", "--with", "prune"],
        ["sweep", f"{NAME}.toml"],
        ["run", "--", NAME],
        ["sensors", "--sysfs-root", f"{NAME}.json"],
        ["compare", f"{NAME}.json", f"{NAME}.json"],
        ["gate", f"{NAME}.json", "--max-j", "1"],
        ["report", f"{NAME}.json", "-o", f"{NAME}.html"],
        ["history", "--model", NAME],
        [NAME],
        ["bench", f"--{NAME}"],
    ],
    ids=lambda words: " ".join(words).encode("ascii", "replace").decode().translate({27: "?", 7: "?", 13: "?"})[:40],
)
def test_no_name_steers_the_terminal(place: Path, words: list[str]) -> None:
    check(on_a_terminal(place, *words))


def test_no_name_from_the_store_steers_the_terminal(place: Path) -> None:
    check(on_a_terminal(place, "bench", f"{NAME}.py:steady", *QUICK, "--name", NAME, "-o", f"{NAME}1.html"))
    for words in (["history"], ["history", "--model", "nothing"], ["report", "-o", f"{NAME}2.html"]):
        check(on_a_terminal(place, *words))


def check(shown: bytes) -> None:
    assert shown
    text = shown.decode("utf-8", "replace").replace("\x1b[K", "")
    for unwanted in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\u202e"):
        assert unwanted not in text, text


#: What libraries, models and child processes print past Python's streams; each way prints a word of its own.
PRINTS = r"""
import ctypes, logging, os, subprocess, sys, warnings
from edgeprof.cli import streams
from edgeprof.cli.relay import relayed
from edgeprof.compression.isolation import apart

EVIL = "\x1b]0;PWN\x07\x1b[2J\x9b31m\u202e"

def in_c(word):
    libc = ctypes.CDLL(None)
    libc.puts((word + EVIL).encode())
    libc.fflush(None)

def halves(word):  # of U+009B in UTF-8, which a terminal would put together
    os.write(2, word.encode() + b"\xc2")
    os.write(2, b"\x9b2J\n")

def long(word):
    os.write(2, word.encode() + b"x" * 70000 + b"\xc2")
    os.write(2, b"\x9b2J\n")

def child(word):
    subprocess.run([sys.executable, "-c", f"import os; os.write(2, {(word + EVIL).encode()!r})"], check=True)

def leaver(word):
    os.write(2, (word + EVIL).encode())
    os._exit(3)

def compressor(work):
    def inside(word):
        try:
            apart(lambda: work(word), label="prune", limit_s=60.0)
        except Exception as error:
            print(error, file=sys.stderr)
    return inside

WAYS = {
    "print": lambda word: print(word + EVIL),
    "stderr": lambda word: print(word + EVIL, file=sys.stderr),
    "original stdout": lambda word: print(word + EVIL, file=sys.__stdout__, flush=True),
    "original stderr": lambda word: print(word + EVIL, file=sys.__stderr__, flush=True),
    "descriptor 1": lambda word: os.write(1, (word + EVIL).encode()),
    "descriptor 2": lambda word: os.write(2, (word + EVIL + "\r" + EVIL + "\r").encode()),
    "C": in_c, "halves": halves, "long line": long, "child": child,
    "warning": lambda word: warnings.warn(word + EVIL),
    "log": lambda word: logging.getLogger("library").error(word + EVIL),
    "latin-1": lambda word: os.write(2, word.encode() + b"\x9b31m\x84\n"),
}
WAYS |= {f"compressor's {name}": compressor(way) for name, way in WAYS.items()}
WAYS |= {"compressor that leaves": compressor(leaver)}

streams.mend()
with relayed():
    for number, way in enumerate(WAYS.values()):
        way(f"word{number}.")
print(len(WAYS))
sys.exit(streams.finish(0))
"""


def test_nothing_that_a_library_or_a_child_prints_steers_the_terminal(place: Path) -> None:
    shown = run_on_a_terminal(place, sys.executable, "-c", PRINTS)
    check(shown)
    count = int(shown.split()[-1])
    assert count == 27
    for number in range(count):
        assert f"word{number}.".encode() in shown, number


def test_what_a_library_prints_to_stdout_spoils_no_json(place: Path) -> None:
    (place / "chatty.py").write_text(r"import os; model = lambda: [os.write(1, b'a library\n'), print('a model')]")
    environment = {**os.environ, "EDGEPROF_DATA_DIR": str(place / "data"), "EDGEPROF_PLUGINS": "python,system"}
    words = ["bench", "chatty.py:model", "--no-isolation", "--json", *QUICK]
    done = subprocess.run(
        [sys.executable, "-m", "edgeprof", *words], cwd=place, env=environment, capture_output=True, check=True
    )
    assert json.loads(done.stdout)["variants"]
    assert b"a library" in done.stderr


#: A plugin whose sensor writes to descriptors 1 and 2, as a library in C does: at import, when it is found, when read.
LOUD = r"""
import os
from edgeprof import hookimpl
from edgeprof.sensing.sensor import Channel, Sensor

def write(word):
    for number in (1, 2):
        os.write(number, (word + str(number) + "\x1b]0;PWN\x07\x1b[2J\x9b31m\u202e\n").encode())

write("imported")

class Loud(Sensor):
    name = "loud"
    channels = (Channel("loud", "VDD_IN", "power", scope="board", role="total", gain_limit=0.01),)

    def read(self, values, times):
        write("read")
        values[0] = 5.0

@hookimpl
def register_sensors(register):
    register("loud", lambda roots: write("made") or [Loud()])
"""


@pytest.fixture(scope="module")
def loud(place: Path) -> Path:
    info = place / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgeprof]\nloud = loud\n")
    (place / "loud.py").write_text(LOUD)
    return place


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["run", "--idle", "0.1", "--", "printf", TITLE], b""),
        (["run", "--idle", "0", "--phases", "x", "--", "printf", TITLE], b""),
        (["simulate", "jetson-orin-nano", "--", sys.executable, "-c", f"print({TITLE!r})"], b""),
        (["sensors"], b""),
        (["top"], b"q"),
        (["bench", "app.py:steady", *QUICK], b""),
        (["exporter", "--web.listen-address", "127.0.0.1:0"], b"\x03"),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else "",
)
def test_no_library_of_a_sensor_steers_the_terminal(loud: Path, words: list[str], keys: bytes) -> None:
    variables = {"PYTHONPATH": str(loud), "EDGEPROF_PLUGINS": "python,loud,exporter", "HOME": str(loud)}
    shown = run_on_a_terminal(loud, sys.executable, "-m", "edgeprof", *words, keys=keys, **variables)
    if "--" in words:  # the terminal is the command's, whose output is passed on as it is
        assert TITLE.encode() in shown
        shown = shown.replace(TITLE.encode(), b"")
    for sequence in (b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?25l"):  # top's own
        shown = shown.replace(sequence, b"")
    if words[0] != "simulate":  # it reads no sensor
        assert b"imported2" in shown
        assert b"read2" in shown
    check(shown)
