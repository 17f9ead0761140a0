"""README.md's commands: all are accepted by the command line, and those that this machine can run are run."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import click
import pytest

import edgeprof
from edgeprof.cli import main as cli
from tests.docs.test_docs import ROOT
from tests.docs.test_pages import folder, run

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["folder"]  # a fixture

TEXT = (ROOT / "README.md").read_text("utf-8")
USE = re.search(r"^## Use\n(.*?)\n^Any code", TEXT, re.DOTALL | re.MULTILINE)[1]
COMMANDS = [line.partition("  #")[0].strip() for line in USE.splitlines() if line.strip()]
#: Commands that need hardware, another machine, a model that is not here, or no end; their pages' tests run such.
ELSEWHERE = {
    "edgeprof bench model.tflite": "docs/quickstart.md's commands judge accuracy; LiteRT is not everywhere",
    "edgeprof calibrate": "a meter",
    "edgeprof doctor": "every runtime of this machine in turn: tests/profiler/cli/test_doctor.py",
    "edgeprof choose": "stored results of devices: tests/profiler/cli/test_choose_verb.py",
    "edgeprof fleet": "other machines: make test-fleet",
    "edgeprof compress": "tests/profiler/cli/test_compress_verb.py",
    "edgeprof sweep": "a study's file: tests/profiler/study",
    "edgeprof bench mcu:": "a microcontroller",
    "edgeprof bench model.gguf": "a language model",
    "edgeprof bench app.py": "an application of the reader's: tests/examples/test_applications.py",
    "edgeprof exporter": "it does not end: tests/exporters",
}


def is_elsewhere(command: str) -> bool:
    return command.startswith(tuple(ELSEWHERE))


def test_every_line_is_a_command() -> None:
    assert len(COMMANDS) > 15
    assert all(command.startswith("edgeprof ") for command in COMMANDS)
    assert [start for start in ELSEWHERE if not any(command.startswith(start) for command in COMMANDS)] == []


@pytest.mark.parametrize("line", COMMANDS)
def test_its_flags_exist(line: str) -> None:
    command: click.Command | None = cli.cli
    words = shlex.split(line)[1:]
    context = cli.cli.make_context("edgeprof", [], resilient_parsing=True)  # with its settings, which commands keep
    while isinstance(command, click.Group) and words:
        command = command.get_command(context, words[0])
        assert command is not None, f"{line}: {words[0]} is no verb"
        words = words[1:]
    flags = {flag for option in command.params if isinstance(option, click.Option) for flag in option.opts}
    own = words[: words.index("--")] if "--" in words else words
    assert [word for word in own if word.startswith("-") and word not in flags] == []


@pytest.mark.timeout(660)  # a dozen commands, each of which starts Python
def test_what_can_run_here_runs_as_printed(folder: Path) -> None:
    pytest.importorskip("onnx")
    for name, source in (("model.onnx", "digits.onnx"), ("model-int8.onnx", "digits-int8.onnx")):
        shutil.copy(ROOT / "examples/demo" / source, folder / name)
    (folder / "bin/python").symlink_to(sys.executable)  # Debian has python3 alone
    (folder / "detect.py").write_text("sum(range(10**6))\n")
    prepare = "export EDGEPROF_PLUGINS=$EDGEPROF_PLUGINS,dashboards\n"
    prepare += "edgeprof bench model.onnx -o before.json -o after.json -o result.json\n"
    # Windows of 0.1 s on a busy machine: a regression that the gate finds in them is none of this test.
    typed = [f"{line} || [ $? = 1 ]" if " gate " in line else line for line in COMMANDS if not is_elsewhere(line)]
    said = run(folder, prepare + "\n".join(typed), timeout_s=600)
    assert (folder / "report.html").exists()
    assert (folder / "monitoring").is_dir()
    assert "model-int8" in said


def test_the_code_of_three_lines_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)[1]
    monkeypatch.setenv("EDGEPROF_PLUGINS", "system")
    monkeypatch.setenv("EDGEPROF_LOCK_DIR", str(folder))
    seen: list[list[int]] = []
    printed: list[object] = []
    exec(code, {"edgeprof": edgeprof, "frames": [1, 2], "detect": seen.append, "print": printed.append})
    assert seen == [[1, 2]]
    assert len(printed) == 1
