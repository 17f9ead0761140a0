"""The start of the command: it is quick if nothing must be parsed, and its text is always the same as click's."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest

from edgeprof import __version__
from edgeprof.cli import entry, main, verbs

HEAVY = {"numpy", "psutil", "msgspec", "pluggy", "sqlite3", "asyncio", "onnxruntime", "torch"}


def modules_after(*argv: str, **environ: str) -> set[str]:
    """Return the top-level modules that ``edgeprof ARGV`` imports."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from edgeprof.cli import entry\n"
        "try: entry.run(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "imported = sorted({name.partition('.')[0] for name in set(sys.modules) - before})\n"
        "import json\n"
        "print(json.dumps(imported), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True, env={**os.environ, **environ}
    )
    assert done.stdout
    return set(json.loads(done.stderr))


@pytest.mark.parametrize("columns", ["80", "100", "200"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_quick_help_is_the_text_that_click_would_print(
    columns: str, flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert entry.run([flag]) == 0
    quick = capsys.readouterr().out
    assert main.run([flag]) == 0
    assert quick == capsys.readouterr().out


def test_help_wraps_on_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert entry.run(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_quick_version_is_the_text_that_click_would_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["--version"]) == 0
    quick = capsys.readouterr().out
    assert main.run(["--version"]) == 0
    assert quick == capsys.readouterr().out == f"edgeprof, version {__version__}\n"


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_imports_nothing_but_edgeprof_itself(flag: str) -> None:
    assert modules_after(flag) <= {"__future__", "edgeprof"}


def test_completion_of_verbs_imports_no_verb() -> None:
    imported = modules_after(_EDGEPROF_COMPLETE="bash_complete", COMP_WORDS="edgeprof be", COMP_CWORD="1")
    assert "click" in imported
    assert not imported & HEAVY


def test_every_verb_of_the_help_exists_and_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in entry.VERBS:
        assert main.run([verb, "--help"]) == 0, verb
        assert f"Usage: edgeprof {verb}" in capsys.readouterr().out


def test_no_output_that_is_asked_for_is_dropped() -> None:
    """Of an option that is not repeatable, click takes the last value and says nothing of the others."""
    for verb in sorted(entry.VERBS.keys() - verbs.BUNDLED.keys()):
        command = importlib.import_module(f"edgeprof.cli.{verb}").command
        for option in command.params:
            if "-o" in option.opts and option.type.file_okay:
                assert option.multiple, verb


@pytest.mark.parametrize("verb", sorted(entry.VERBS))
def test_a_verbs_help_imports_nothing_heavy(verb: str) -> None:
    """``exporter`` and ``dashboards`` come from a plugin, so the plugins are searched."""
    assert not modules_after(verb, "--help") & (HEAVY - {"pluggy"})


def test_stored_results_are_compared_and_reported_without_numpy() -> None:
    """A month of a fleet's results takes as long to report as numpy to import."""
    modules = ("verdicts.choose", "reporters.fleet", "reporters.html_page", "reporters.csv_rows", "results.store")
    code = f"import sys, {', '.join(f'edgeprof.{name}' for name in modules)}; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_unknown_verb_gets_the_nearest_one_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["bensh"]) == 2
    err = capsys.readouterr().err
    assert "no command is named 'bensh'" in err
    assert "Did you mean bench?" in err


def test_python_dash_m_edgeprof_works() -> None:
    done = subprocess.run([sys.executable, "-m", "edgeprof", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"edgeprof, version {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == 0
    assert f"_EDGEPROF_COMPLETE={shell}_complete" in capsys.readouterr().out
