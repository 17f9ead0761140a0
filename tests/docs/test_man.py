"""The man pages say what --help says; the Debian package installs and goes without a trace (EDGEPROF_DEB=1, root)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgeprof.cli import main as cli
from edgeprof.cli.verbs import VERBS
from tests.docs.test_docs import ROOT
from tests.docs.tool import load

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
        assert [flag for option in options for flag in option.opts if flag not in text] == []


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


@pytest.mark.skipif(
    not os.environ.get("EDGEPROF_DEB"), reason="installs a Debian: EDGEPROF_DEB=1, as root (make test-deb)"
)
def test_the_package_installs_works_and_is_removed(tmp_path: Path) -> None:
    """In a Debian of its own, which EDGEPROF_DEB_ROOT may bring; the package is that of ``make deb``."""
    (package,) = (ROOT / "build").glob("edgeprof_*.deb")
    root = Path(os.environ.get("EDGEPROF_DEB_ROOT") or tmp_path / "root")
    if not root.exists():
        release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text("utf-8"), re.MULTILINE)
        assert release is not None
        subprocess.run(["debootstrap", "--variant=minbase", "--include=python3", release[1], str(root)], check=True)
    shutil.copy(package, root / "tmp/edgeprof.deb")
    shutil.copy(ROOT / "examples/demo/digits.onnx", root / "tmp/digits.onnx")

    def inside(*argv: str) -> str:
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        done = subprocess.run(["chroot", str(root), *argv], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    inside("dpkg", "-i", "/tmp/edgeprof.deb")
    assert "edgeprof" in inside("edgeprof", "--version")
    assert "p50" in inside(
        "edgeprof", "bench", "/tmp/digits.onnx", "--windows", "2", "--window", "0.2", "--idle", "0.2", "-q"
    )
    assert "listen" in inside("edgeprof", "exporter", "--help")
    assert (
        (root / "usr/lib/systemd/system/edgeprof-exporter.service")
        .read_text("utf-8")
        .count("/opt/edgeprof/bin/edgeprof")
    )
    assert (root / "usr/share/bash-completion/completions/edgeprof").exists()
    inside("dpkg", "--purge", "edgeprof")
    left = [path for place in ("opt", "etc", "usr") for path in (root / place).rglob("*edgeprof*")]
    assert left == []
