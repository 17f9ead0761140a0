"""Write the table of wheels in docs/install.md: which release of each library a board's pip would install.

python tools/wheels.py asks the index that pip uses, once for each library, and chooses as pip does: by the tags of the
wheels and the Python that each release requires. --check only compares. A tag can be wrong: the tags of LiteRT's wheels
name an older glibc than the libraries need (docs/install.md).
"""

from __future__ import annotations

import itertools
import json
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PAGE = Path(__file__).parent.parent / "docs/install.md"
BEGIN, END = "<!-- wheels: begin -->", "<!-- wheels: end -->"
#: Extra → its libraries that are not pure Python; ``core`` is what every installation needs.
LIBRARIES = {
    "core": ("msgspec", "numpy", "psutil"),
    "onnx": ("onnxruntime",),
    "litert": ("ai-edge-litert",),
    "torch": ("torch",),
    "exporter": ("bcrypt", "pyyaml"),
    "onnx-compress": ("onnx",),
    "plot": ("resvg-py",),
}


@dataclass(frozen=True)
class Board:
    """What pip's choice of a wheel depends on.

    Attributes:
        name: The name in the table.
        arch: The machine as a wheel's tag names it, such as ``aarch64``.
        glibc: The minor version of its glibc 2.x.
        python: The minor version of the Python 3.x that edgeprof runs with there.
        libstdcxx: The last part of the newest GLIBCXX_3.4.x of its libstdc++.
        file: The name of its file in constraints/; empty if it has none (tools/boards.py).
    """

    name: str
    arch: str
    glibc: int
    python: int
    libstdcxx: int
    file: str = ""

    def tags(self) -> frozenset[Tag]:
        """Every tag that this board's pip accepts."""
        platforms = [f"manylinux_2_{minor}_{self.arch}" for minor in range(self.glibc, 4, -1)]
        platforms += [f"{old}_{self.arch}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
        version = (3, self.python)
        return frozenset(
            itertools.chain(
                cpython_tags(version, platforms=platforms),
                compatible_tags(version, f"cp3{self.python}", platforms),
            )
        )


BOARDS = (
    Board("JetPack 4 (glibc 2.27), Python 3.11", "aarch64", 27, 11, 25, "jetpack-4"),
    Board("JetPack 5 (2.31), 3.11", "aarch64", 31, 11, 28, "jetpack-5"),
    Board("JetPack 6 (2.35), 3.10", "aarch64", 35, 10, 30, "jetpack-6"),
    Board("JetPack 7 (2.39), 3.12", "aarch64", 39, 12, 33, "jetpack-7"),
    Board("Raspberry Pi OS 12 (2.36), 3.11", "aarch64", 36, 11, 30, "raspberry-pi-os-12"),
    Board("Raspberry Pi OS 13 (2.41), 3.13", "aarch64", 41, 13, 33, "raspberry-pi-os-13"),
    Board("32 bit, 12 (2.36), 3.11", "armv7l", 36, 11, 30),
    Board("PC, Debian 12 (2.36), 3.11", "x86_64", 36, 11, 30, "debian-12"),
    Board("PC, Debian 13 (2.41), 3.13", "x86_64", 41, 13, 33, "debian-13"),
    Board("PC, Ubuntu 22.04 (2.35), 3.10", "x86_64", 35, 10, 30, "ubuntu-22.04"),
    Board("PC, Ubuntu 24.04 (2.39), 3.12", "x86_64", 39, 12, 33, "ubuntu-24.04"),
)


def newest(files: Iterable[Mapping[str, Any]], board: Board) -> Version | None:
    """Return the newest release that has a wheel for the board; None if there is none.

    Args:
        files: The entries of the index's JSON (PEP 691): ``filename``, ``requires-python``, ``yanked``.
        board: The board.
    """
    taken = board.tags()
    python = Version(f"3.{board.python}.9")
    fitting = []
    for file in files:
        try:
            _, version, _, tags = parse_wheel_filename(file["filename"])
            wanted = SpecifierSet(file.get("requires-python") or "")
        except (InvalidWheelFilename, InvalidSpecifier):  # a source distribution, or a file that pip ignores too
            continue
        if not version.is_prerelease and not file.get("yanked") and tags & taken and python in wanted:
            fitting.append(version)
    return max(fitting, default=None)


def table(listings: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the table in Markdown.

    Args:
        listings: Library → its files on the index.
    """
    names = [(extra, name) for extra, libraries in LIBRARIES.items() for name in libraries]
    lines = ["| board | " + " | ".join(f"{name} (`{extra}`)" for extra, name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for board in BOARDS:
        cells = [str(newest(listings[name], board) or "**none**") for _, name in names]
        lines.append(f"| {board.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def listing(name: str) -> list[dict[str, Any]]:
    """Return the files of a library on pip's index."""
    from pip._internal.configuration import Configuration  # noqa: PLC0415 - pip's own, which tests do without
    from pip._internal.models.index import PyPI  # noqa: PLC0415

    configuration = Configuration(isolated=False)
    configuration.load()
    values = dict(configuration.items())
    index = values.get(":env:.index-url") or values.get("global.index-url") or PyPI.simple_url
    request = urllib.request.Request(  # noqa: S310 - the address is pip's own
        f"{str(index).rstrip('/')}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return list(json.load(answer)["files"])


def main() -> int:
    text = PAGE.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    created = table({name: listing(name) for libraries in LIBRARIES.values() for name in libraries})
    wanted = f"{head}{BEGIN}\n\n{created}\n\n{END}{tail}"
    if "--check" in sys.argv:
        if wanted != text:
            print("docs/install.md is out of date; run: python tools/wheels.py", file=sys.stderr)
        return wanted != text
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
