"""No command loses what it has to say without an error: a full disk behind stdout, behind stderr, and behind files."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeprof.cli.verbs import VERBS
from edgeprof.results.document import to_json
from edgeprof.results.store import Store
from tests.fuzzing import readers
from tests.profiler.cli import forked
from tests.profiler.results import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL = "/dev/full"
NO_SPACE = "edgeprof: cannot write to stdout: No space left on device"
QUICK = "--windows 2 --window 0.1 --idle 0 --warmup 0.05 --timeout 20 -q"
#: What the commands import when they run.
IMPORTED = (
    "benchmark.conductor", "cli.bench", "cli.choose", "cli.doctor", "cli.sensors", "cli.sweep", "diagnosis.evidence",
    "fleet.store", "reporters.console", "reporters.csv_rows", "reporters.html_page", "reporters.picture",
    "simulation.live", "study.conductor", "verdicts.choose",
)  # fmt: skip
#: Verb → words with which it prints to stdout and succeeds, without a sensor or a library of models.
PRINTING = {
    "bench": [f"bench app.py:steady {QUICK}", f"bench app.py:steady {QUICK} --json"],
    "calibrate": ["calibrate --list", "calibrate --list --json"],
    "choose": ["choose requirements.toml one.json", "choose requirements.toml one.json --json"],
    "compare": ["compare one.json many.json", "compare one.json many.json --json"],
    "completion": ["completion bash"],
    "compress": ["compress app.py:steady --list", "compress app.py:steady --list --json"],
    "dashboards": ["dashboards targets inventory.toml"],
    "diagnose": ["diagnose app.py:steady", "diagnose app.py:steady --json"],
    "doctor": ["doctor", "doctor --json"],
    "exporter": ["exporter install --dry-run --root root"],
    "fleet": ["fleet report --json", "fleet report"],
    "gate": ["gate one.json --max-j 1", "gate one.json --max-j 1 --json"],
    "history": ["history", "history --json"],
    "plot": ["plot many.json -o plot.svg"],
    "plugins": ["plugins list", "plugins list --json"],
    "report": ["report one.json -o page.html", "report one.json -o page.html --json"],
    "run": ["run --json --idle 0 -- true"],
    "sensors": ["sensors", "sensors --json"],
    "sweep": ["sweep study.toml --plan"],
    "top": ["top --once", "top --once --json"],
}
#: What it prints goes to stderr.
SPEAKING = {"simulate": ["simulate jetson-orin-nano --dir board --duration 0.1"]}
#: Command that writes to a file on a full disk → a word that it prints all the same.
WRITING = {
    f"bench app.py:steady {QUICK} -o full.json -o there.csv": "steady",
    "choose requirements.toml one.json -o full.json": "baseline",
    "dashboards targets inventory.toml -o full.json": "",
    "gate one.json --max-j 1 --junit full.json": "pass",
    "history -o full.html": "",
    "plot many.json -o full.svg": "",
    "report one.json -o full.html": "",
    "report one.json -o full.jsonl": "",
    "run --idle 0 -o full.json -- true": "exit 0",
    "run --idle 0 --json -o full.json -- true": '"exit_code": 0',
}
pytestmark = [
    pytest.mark.skipif(not Path(FULL).exists(), reason="no /dev/full here"),
    pytest.mark.usefixtures("forked_workers"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an application and files to read, on a device without any sensor."""
    folder: Path = tmp_path_factory.mktemp("full")
    for module in IMPORTED:  # once, instead of in each fork
        importlib.import_module(f"edgeprof.{module}")
    (folder / "app.py").write_text("import time\ndef steady(): time.sleep(0.002)\n")
    (folder / "sys").mkdir()
    (folder / "requirements.toml").write_text('[product]\nrate = 15\nlatency_p99 = "1s"\n')
    (folder / "inventory.toml").write_text('[[devices]]\nname = "a"\naddress = "10.0.0.7:28283"\nssh = "a@b"\n')
    (folder / "study.toml").write_text('model = "net.onnx"\n[recipes]\nexplicit = ["fp16"]\n')
    for name, result in (("one", samples.one()), ("many", samples.many())):
        (folder / f"{name}.json").write_text(to_json(result))
    (folder / "net.onnx").write_bytes(readers.onnx())
    (folder / "weights.bin").write_bytes(bytes(16))
    Store(folder / "data").save(samples.one())
    Store(folder / "data/fleet").save_job(samples.one(), "0" * 64, "a")
    for suffix in ("html", "json", "jsonl", "svg"):
        (folder / f"full.{suffix}").symlink_to(FULL)
    return folder


@pytest.fixture
def command(place: Path) -> Callable[..., forked.Done]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EDGEPROF", "LC_", "LANG", "GITHUB"))}
    environ = {
        **kept,
        "EDGEPROF_SYSFS_ROOT": str(place / "sys"),
        "EDGEPROF_DATA_DIR": str(place / "data"),
        "EDGEPROF_PLUGINS": "python,system,dashboards,exporter,compressors",
    }

    def run(words: str, **streams: object) -> forked.Done:
        return forked.run(*words.split(), folder=place, environ=environ, **streams)  # type: ignore[arg-type]

    return run


def test_every_verb_is_tried():
    assert PRINTING.keys() | SPEAKING.keys() == VERBS.keys()


@pytest.mark.parametrize("words", [words for ways in PRINTING.values() for words in ways])
@pytest.mark.parametrize("unbuffered", [False, True], ids=["buffered", "unbuffered"])
def test_a_full_stdout_is_one_sentence_and_exit_2(command, words, unbuffered):
    done = command(words, stdout=FULL, unbuffered=unbuffered)
    assert done.stderr.splitlines()[-1] == NO_SPACE, done.stderr
    assert "Traceback" not in done.stderr
    assert done.code == 2


@pytest.mark.parametrize("words", [ways[0] for ways in (PRINTING | SPEAKING).values()])
def test_a_full_stderr_changes_neither_the_exit_code_nor_stdout(command, words):
    done, usual = command(words, stderr=FULL), command(words)
    assert done.code == usual.code
    assert done.stdout or not usual.stdout


@pytest.mark.parametrize(("words", "printed"), WRITING.items())
def test_a_file_that_cannot_be_written_is_one_sentence_and_costs_nothing_else(command, place, words, printed):
    done = command(words)
    assert done.code == 2
    assert "full." in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert printed in done.stdout + done.stderr
    if "there.csv" in words:
        assert "steady" in (place / "there.csv").read_text()


@contextlib.contextmanager
def files_no_longer_than(limit: int) -> Iterator[None]:
    """Within this context no file can grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_behind_another_file_is_not_blamed_on_stdout(command):
    with files_no_longer_than(200):
        done = command("simulate jetson-orin-nano --dir little --duration 0.1 -q")
    assert done.code == 2
    assert done.stderr.splitlines()[-1] == "edgeprof: cannot write a file: File too large"


def test_a_line_that_does_not_fit_leaves_the_lines_before_it(command, place):
    """A result that was cut off would make the whole file of results unreadable."""
    assert command("report one.json -o runs.jsonl").code == 0
    before = (place / "runs.jsonl").read_bytes()
    with files_no_longer_than(len(before) + 100):
        done = command("report many.json -o runs.jsonl")
    assert done.code == 2
    assert (place / "runs.jsonl").read_bytes() == before
