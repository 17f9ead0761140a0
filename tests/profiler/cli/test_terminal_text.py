"""Names of files, stored results and exceptions are shown on a terminal, but their control sequences have no effect."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TITLE = "\x1b]0;PWN\x07"
CLEAR = "\x1b[2J"
NAME = f"bad{TITLE}{CLEAR}\x9b31m\u202e\r"
QUICK = ["--windows", "2", "--window", "0.1", "--idle", "0", "--warmup", "0.05", "--timeout", "20"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files have names with control sequences."""
    folder = tmp_path_factory.mktemp("names")
    (folder / f"{NAME}.onnx").write_bytes(b"x")
    (folder / f"{NAME}.toml").write_text("[")
    (folder / f"{NAME}.json").write_text('{"schema": "edgeprof.result/1"}')
    program = f"import time\ndef steady(): time.sleep(0.002)\ndef bad(): raise ValueError({NAME!r})\n"
    (folder / "app.py").write_text(program)
    (folder / f"{NAME}.py").write_text(program)
    (folder / f"{NAME}dir").mkdir()
    return folder


def on_a_terminal(place: Path, *words: str) -> bytes:
    """Return what reaches the terminal from stdout and stderr together."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDGEPROF")}
    environment.update(EDGEPROF_DATA_DIR=str(place / "data"), EDGEPROF_PLUGINS="python,system", TERM="xterm")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "edgeprof", *words],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = bytearray()
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the last process has closed its end
                break
            shown += block
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
