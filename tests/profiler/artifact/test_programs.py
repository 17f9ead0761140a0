"""The files that a Python program names belong to its model: other weights make another model."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

import pytest

from edgeprof.artifact import recognise

if TYPE_CHECKING:
    from pathlib import Path

#: What a program may say about its weights, and where they are then.
WAYS = {
    'torch.load("net.pt")': "net.pt",
    'load_file("net.safetensors")': "net.safetensors",
    'Path(__file__).parent / "trained" / "net.npz"': "trained/net.npz",
    'os.path.join(HERE, "trained", "net.pth")': "trained/net.pth",
    'open("../net.bin", "rb")': "../net.bin",
}


def program(folder: Path, line: str, name: str = "net.py") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(
        textwrap.dedent(f"""
        import os, numpy, torch
        from pathlib import Path

        HERE = os.path.dirname(__file__)

        def make():
            return {line}
    """)
    )
    return path


@pytest.mark.parametrize("line", WAYS)
def test_weights_that_a_program_names_are_part_of_its_checksum(line: str, tmp_path: Path) -> None:
    path = program(tmp_path / "code", line)
    alone = recognise(f"{path}:make")
    assert alone.files == (path,)
    weights = path.parent / WAYS[line]
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(b"first")
    first = recognise(f"{path}:make")
    assert [os.path.realpath(file) for file in first.files] == [str(path), os.path.realpath(weights)]
    weights.write_bytes(b"other")
    assert len({alone.sha256, first.sha256, recognise(f"{path}:make").sha256}) == 3
    assert first.size_bytes is None


def test_modules_beside_a_program_and_the_weights_that_they_name_count_too(tmp_path: Path) -> None:
    path = program(tmp_path, "layers.Net()", "net.py")
    path.write_text("import layers\nfrom parts.head import Head\n" + path.read_text())
    (tmp_path / "layers.py").write_text("import net\nWEIGHTS = 'layers.pt'\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "head.py").write_text("class Head: ...\n")
    (tmp_path / "layers.pt").write_bytes(b"first")
    (tmp_path / "unrelated.pt").write_bytes(b"no part of it")
    artifact = recognise(f"{path}:make")
    assert [file.name for file in artifact.files] == ["net.py", "layers.pt", "layers.py", "head.py"]
    (tmp_path / "unrelated.pt").write_bytes(b"changed")
    assert recognise(f"{path}:make").sha256 == artifact.sha256
    (tmp_path / "layers.pt").write_bytes(b"other")
    assert recognise(f"{path}:make").sha256 != artifact.sha256


def test_names_of_folders_devices_and_nonsense_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    long = "x" * 5000 + ".pt"
    chain = " / ".join(["here"] + [f'"{k}"' for k in range(3000)] + ['"net.pt"'])
    path = tmp_path / "net.py"
    path.write_text(f'NAMES = ["folder.pt", "loop.pt", "/proc/self/x.bin", "{long}", "a\\0b.pt"]\n')
    assert recognise(f"{path}:NAMES").files == (path,)
    path.write_text(f"NAMES = 1\ndef make(here): return {chain}\n")
    assert recognise(f"{path}:make").files == (path,)
