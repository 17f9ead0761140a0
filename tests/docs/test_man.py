"""The man pages say what --help says; the Debian package installs and goes without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from edgeprof.cli import main as cli
from edgeprof.cli.verbs import VERBS
from tests.docs.test_docs import ROOT
from tests.docs.tool import load

if TYPE_CHECKING:
    from pathlib import Path

man = load("man")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["man.py", str(folder)])
        man.main()
    return folder


def test_every_verb_has_a_page_with_all_of_its_options(pages: Path) -> None:
    assert len(list(pages.iterdir())) == len(VERBS) + 1
    for verb in VERBS:
        text = (pages / f"edgeprof-{verb}.1").read_text("utf-8").replace("\\-", "-")
        command = cli.cli.get_command(click.Context(cli.cli), verb)
        assert command is not None
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        flags = [flag for option in options for flag in option.opts]
        assert [flag for flag in [*flags, "-h, --help"] if flag not in text] == []


def test_the_pages_leave_help_as_it_is(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.exists()
    assert cli.run(["sensors", "--help"]) == 0
    assert "-h, --help" in capsys.readouterr().out


def test_no_text_is_taken_for_a_request_of_troff() -> None:
    assert man.roff(".SH no\n'br no\nC:\\x -o") == "\\&.SH no\n\\&'br no\nC:\\ex \\-o"


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_troff_finds_nothing_to_complain_about(pages: Path) -> None:
    for name in ("edgeprof.1", "edgeprof-bench.1"):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", str(pages / name)], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        assert "User Commands" in done.stdout


@pytest.mark.skipif(not os.environ.get("EDGEPROF_DEB"), reason="needs root and a package: make test-deb")
@pytest.mark.timeout(900)
def test_the_package_installs_works_and_is_removed(tmp_path: Path) -> None:
    """The package of ``make deb``, in a copy of this system or of the Debian in EDGEPROF_DEB_ROOT."""
    (package,) = (ROOT / "build").glob("edgeprof_*.deb")
    below = os.environ.get("EDGEPROF_DEB_ROOT") or "/"
    model = ROOT / "examples/demo/digits.onnx"
    done = subprocess.run(
        ["unshare", "--mount", str(ROOT / "tests/docs/deb.sh"), str(package), str(model), str(tmp_path), below],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "edgeprof, version" in done.stdout
    assert "p50" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith(("left:", "missing:"))] == []
