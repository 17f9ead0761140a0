"""The table of wheels chooses as pip does."""

from __future__ import annotations

import re

import pytest
from packaging.version import Version

from tests.docs.test_docs import ROOT
from tests.docs.tool import load

wheels = load("wheels")
NANO, ORIN, PI32, PC = (wheels.BOARDS[n] for n in (0, 2, 6, 7))


def file(name: str, requires: str | None = None, *, yanked: bool = False) -> dict:
    return {"filename": name, "requires-python": requires, "yanked": yanked}


@pytest.mark.parametrize(
    ("files", "board", "version"),
    [
        ([file("a-1.0-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl")], NANO, "1.0"),
        ([file("a-1.0-cp311-cp311-manylinux_2_28_aarch64.whl")], NANO, None),
        ([file("a-1.0-cp311-cp311-manylinux2014_aarch64.whl")], NANO, "1.0"),
        ([file("a-1.0-cp39-abi3-manylinux_2_28_aarch64.whl")], ORIN, "1.0"),
        ([file("a-1.0-cp311-cp311-manylinux_2_28_aarch64.whl")], ORIN, None),
        ([file("a-1.0-py3-none-any.whl"), file("a-2.0-py3-none-any.whl", ">=3.12")], PC, "1.0"),
        ([file("a-1.0-py3-none-any.whl"), file("a-2.0-py3-none-any.whl", yanked=True)], PC, "1.0"),
        ([file("a-1.0-py3-none-any.whl"), file("a-2.0rc1-py3-none-any.whl")], PC, "1.0"),
        ([file("a-1.9-py3-none-any.whl"), file("a-1.10-py3-none-any.whl")], PC, "1.10"),
        ([file("a-1.0.tar.gz"), file("a-broken.whl")], PC, None),
        ([file("a-1.0-cp311-cp311-manylinux_2_17_x86_64.whl")], PI32, None),
        ([file("a-1.0-cp311-cp311-musllinux_1_2_x86_64.whl")], PC, None),
    ],
)
def test_the_newest_release_with_a_wheel_for_the_board(files: list[dict], board: object, version: str | None) -> None:
    assert wheels.newest(files, board) == (Version(version) if version else None)


def test_the_table_of_the_page_has_every_board_and_library() -> None:
    text = (ROOT / "docs/install.md").read_text("utf-8")
    shown = text.partition(wheels.BEGIN)[2].partition(wheels.END)[0].strip().splitlines()
    libraries = [name for names in wheels.LIBRARIES.values() for name in names]
    assert [cell.split()[0] for cell in shown[0].strip("| ").split("|")[1:]] == libraries
    assert [line.strip("| ").split("|")[0].strip() for line in shown[2:]] == [board.name for board in wheels.BOARDS]
    cells = [cell.strip() for line in shown[2:] for cell in line.strip("| ").split("|")[1:]]
    assert all(re.fullmatch(r"\d[\w.+]*|\*\*none\*\*", cell) for cell in cells)
