"""The versions of a board's file: chosen by what its pip takes and by what the libraries in the wheels need."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.test_docs import ROOT
from tests.docs.tool import load

pytest.importorskip("elftools", reason="pyelftools reads wheels")
boards = load("boards")
NANO = boards.BOARDS[0]
ORIN = boards.BOARDS[2]
FILES = [board for board in boards.BOARDS if board.file]


def resolver(index: dict[str, list[str]]):
    """pip over an index of distribution → versions, newest first; requirements are of distributions alone."""

    def resolve(requirements, limits):
        chosen = []
        for name in (Requirement(r).name for r in requirements):
            specs = [Requirement(limit).specifier for limit in limits if Requirement(limit).name == name]
            fitting = [v for v in index.get(name, []) if all(v in spec for spec in specs)]
            if not fitting:
                return None
            chosen.append((name, fitting[0], f"https://index/{name}-{fitting[0]}-x.whl"))
        return chosen

    return resolve


def needs(table: dict[str, tuple[int, ...]]):
    return lambda url: {"GLIBC": table["-".join(url.split("/")[-1].split("-")[:2])]}


def test_an_older_release_is_taken_where_the_newest_needs_a_newer_glibc() -> None:
    table = {"core-1.0": (2, 17), "lite-2.1": (2, 34), "lite-2.0": (2, 27)}
    choice = boards.choose(
        NANO, {"core": ["core"], "litert": ["lite"]}, resolver({"core": ["1.0"], "lite": ["2.1", "2.0"]}), needs(table)
    )
    assert choice.versions == {"core": "1.0", "lite": "2.0"}
    assert choice.refused == {"lite 2.1": "GLIBC 2.34"}
    assert choice.missing == []


def test_an_extra_of_which_nothing_loads_leaves_the_others_alone() -> None:
    table = {"core-1.0": (2, 17), "lite-2.1": (2, 34), "onnx-3.0": (2, 27)}
    choice = boards.choose(
        NANO,
        {"core": ["core"], "litert": ["lite"], "onnx": ["onnx"]},
        resolver({"core": ["1.0"], "lite": ["2.1"], "onnx": ["3.0"]}),
        needs(table),
    )
    assert choice.versions == {"core": "1.0", "onnx": "3.0"}
    assert choice.missing == ["litert"]


@pytest.mark.parametrize(
    ("wanted", "board", "lack"),
    [
        ({"GLIBC": (2, 27), "GLIBCXX": (3, 4, 25)}, NANO, None),
        ({"GLIBC": (2, 28)}, NANO, "GLIBC 2.28"),
        ({"GLIBC": (2, 9)}, NANO, None),
        ({"GLIBC": (2, 2, 5)}, NANO, None),
        ({"GLIBC": (2, 17), "GLIBCXX": (3, 4, 30)}, NANO, "GLIBCXX 3.4.30"),
        ({"GLIBC": (2, 34), "GLIBCXX": (3, 4, 30)}, ORIN, None),
        ({}, NANO, None),
    ],
)
def test_what_a_board_lacks(wanted, board, lack) -> None:
    assert boards.too_new(wanted, board) == lack


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf here")
def test_the_symbols_of_a_real_library_are_those_that_readelf_tells(tmp_path: Path) -> None:
    import msgspec._core

    library = Path(msgspec._core.__file__)
    told = subprocess.run(["readelf", "-V", str(library)], capture_output=True, text=True, check=True).stdout
    versions = [tuple(map(int, v.split("."))) for v in re.findall(r"Name: GLIBC_([\d.]+)", told)]
    wheel = tmp_path / "a-1-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.write(library, "a/_core.cpython-311-x86_64-linux-gnu.so")
        file.writestr("a/readme.so.txt", "no library at all")
    assert boards.needs_of_wheel(wheel)["GLIBC"] == max(versions)


@pytest.mark.parametrize("board", FILES, ids=lambda board: board.file)
def test_a_boards_file_pins_what_every_installation_needs_and_the_extras_that_it_names(board) -> None:
    text = boards.path_of(board).read_text("utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", text, re.MULTILINE))
    extras = re.search(r"^# Extras: (.*)\.$", text, re.MULTILINE)[1].split(", ")
    for extra, requirements in boards.requirements(board).items():
        if extra not in ("core", *extras):
            continue
        for requirement in map(Requirement, requirements):
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier
    assert boards.text_of(board, boards.Choice()).splitlines()[0] == text.splitlines()[0]


def test_every_board_of_the_page_has_its_file_or_a_reason() -> None:
    assert {board.file for board in FILES} == {p.stem for p in boards.FOLDER.glob("*.txt")} - {"tested"}
    page = (ROOT / "docs/install.md").read_text("utf-8")
    assert [board.file for board in FILES if f"constraints/{board.file}.txt" not in page] == []


def test_the_litert_bounds_of_a_remedy_are_those_of_the_files() -> None:
    """edgeprof.installation names a release that loads on the board."""
    from edgeprof import installation

    for name in ("jetpack-5", "jetpack-6"):
        text = (boards.FOLDER / f"{name}.txt").read_text("utf-8")
        pinned = re.search(r"^ai-edge-litert==(.*)$", text, re.MULTILINE)[1]
        board = next(b for b in FILES if b.file == name)
        requirement, reason = installation._fitting_litert("ai-edge-litert>=1.0", (2, board.glibc))
        assert reason is None
        assert pinned in Requirement(requirement).specifier
    assert "litert" in (boards.FOLDER / "jetpack-4.txt").read_text("utf-8").partition("Not to be had there: ")[2]
    assert installation._fitting_litert("ai-edge-litert>=1.0", (2, 27))[1] is not None
