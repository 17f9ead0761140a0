"""Write constraints/BOARD.txt: for each board, the newest versions whose wheels install there and whose libraries load.

python tools/boards.py [BOARD...] resolves edgeprof's extras with pip as the board's pip would, reads from each wheel
which glibc and libstdc++ its libraries need (a wheel's tag may promise less), and chooses an older release where they
need a newer one than the board has. --check only asks pip whether the versions in the files can still be installed.

pip evaluates environment markers for the machine that runs this tool; the additional lines that this may give are
harmless.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import tomli
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).parent))

from wheels import BOARDS, Board

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "constraints"
CACHE = ROOT / "build/wheel-needs.json"
#: The extras that a board's file covers. Each is resolved separately, so that a failure does not affect the others.
EXTRAS = ("exporter", "onnx", "litert", "onnx-compress", "plot", "search")
#: Prefixes of the symbol versions of glibc and libstdc++, the two libraries that come with the system, not in a wheel.
SETS = ("GLIBC", "GLIBCXX")

#: Prefix → the newest version that a file needs, for example ``GLIBC`` → (2, 34).
Needs = dict[str, tuple[int, ...]]


def needs_of(file: IO[bytes]) -> Needs:
    """Return which glibc and libstdc++ an ELF file needs; empty if the file is not an ELF file."""
    needs: Needs = {}
    try:
        sections = [s for s in ELFFile(file).iter_sections() if isinstance(s, GNUVerNeedSection)]
        names = [wanted.name for s in sections for _, versions in s.iter_versions() for wanted in versions]
    except ELFError:
        return {}
    for name in names:
        prefix, _, version = name.partition("_")
        if prefix in SETS and version[:1].isdigit():
            needs[prefix] = max(needs.get(prefix, ()), tuple(map(int, version.split("."))))
    return needs


def needs_of_wheel(path: Path) -> Needs:
    """Return the newest glibc and libstdc++ that any library in a wheel needs."""
    needs: Needs = {}
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if ".so" not in Path(name).name:
                continue
            with tempfile.TemporaryFile() as file:
                file.write(wheel.read(name))
                file.seek(0)
                for prefix, version in needs_of(file).items():
                    needs[prefix] = max(needs.get(prefix, ()), version)
    return needs


def too_new(needs: Mapping[str, tuple[int, ...]], board: Board) -> str | None:
    """Return what is too new for a board, such as ``GLIBC 2.34``; None if the board has everything."""
    has = {"GLIBC": (2, board.glibc), "GLIBCXX": (3, 4, board.libstdcxx)}
    lacking = [f"{name} {'.'.join(map(str, version))}" for name, version in needs.items() if version > has[name]]
    return ", ".join(sorted(lacking)) or None


@dataclass
class Choice:
    """The versions for a board.

    Attributes:
        versions: Distribution → version.
        refused: A release, such as ``ai-edge-litert 2.3.0`` → what it needs that the board lacks.
        missing: The extras that cannot be installed on the board in any version.
    """

    versions: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


#: (requirements, constraints) → the wheels that pip would install, as (name, version, URL); None if it finds none.
Resolve = Callable[[list[str], list[str]], "list[tuple[str, str, str]] | None"]


def choose(board: Board, extras: Mapping[str, list[str]], resolve: Resolve, needs: Callable[[str], Needs]) -> Choice:
    """The newest versions that install on a board and load there.

    Args:
        board: The board.
        extras: Extra → its requirements; the first is ``core``, which every installation needs.
        resolve: See ``Resolve``.
        needs: Returns what a wheel's libraries need, given the wheel's URL.
    """
    choice = Choice()
    limits: list[str] = []

    def fitting(wanted: list[str]) -> dict[str, str] | None:
        while (wheels := resolve(wanted, limits)) is not None:
            lacking = {(name, version): too_new(needs(url), board) for name, version, url in wheels}
            newer = {wheel: lack for wheel, lack in lacking.items() if lack}
            if not newer:
                return {name: version for name, version, _ in wheels}
            choice.refused |= {f"{name} {version}": lack for (name, version), lack in newer.items()}
            limits.extend(f"{name}<{version}" for name, version in newer)
        return None

    whole = fitting([line for lines in extras.values() for line in lines])
    if whole is not None:
        choice.versions = whole
        return choice
    taken: list[str] = []
    for extra, lines in extras.items():  # one at a time, with the limits found so far
        versions = fitting([*taken, *lines])
        if versions is None:
            choice.missing.append(extra)
        else:
            taken += lines
            choice.versions = versions
    return choice


def pip_resolver(board: Board) -> Resolve:
    """Return a ``Resolve`` that calls pip's own resolver for the board's tags and Python version."""
    platforms = [f"manylinux_2_{minor}_{board.arch}" for minor in range(board.glibc, 4, -1)]
    platforms += [f"manylinux2014_{board.arch}", f"linux_{board.arch}"]
    target = [flag for platform in platforms for flag in ("--platform", platform)]

    def resolve(requirements: list[str], limits: list[str]) -> list[tuple[str, str, str]] | None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "limits.txt").write_text("\n".join(limits))
            report = Path(folder) / "report.json"
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--dry-run"),
                    *("--ignore-installed", "--only-binary=:all:", "--python-version", f"3.{board.python}"),
                    *("--target", folder, "--report", str(report), "-c", f"{folder}/limits.txt", *target),
                    *requirements,
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                if "No matching distribution" not in done.stderr and "ResolutionImpossible" not in done.stderr:
                    raise SystemExit(f"pip cannot resolve for {board.name}:\n{done.stderr[-2000:]}")
                return None
            created = json.loads(report.read_text("utf-8"))["install"]
        return [
            (canonicalize_name(item["metadata"]["name"]), item["metadata"]["version"], item["download_info"]["url"])
            for item in created
        ]

    return resolve


def cached_needs(url: str) -> Needs:
    """Return what a wheel on an index needs; each wheel is downloaded once, and only the answer is cached."""
    name = url.rsplit("/", 1)[-1]
    if name.endswith("-any.whl"):
        return {}
    cache = json.loads(CACHE.read_text("utf-8")) if CACHE.exists() else {}
    if name not in cache:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            urllib.request.urlretrieve(url, path)  # noqa: S310 - the address is pip's own
            cache[name] = needs_of_wheel(path)
        CACHE.parent.mkdir(exist_ok=True)
        half = CACHE.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(cache, indent=1), encoding="utf-8")
        half.replace(CACHE)
    return {prefix: tuple(version) for prefix, version in cache[name].items()}


def requirements(board: Board) -> dict[str, list[str]]:
    """Return, for ``core`` and each of EXTRAS, what pyproject.toml requires for the board's Python."""
    project = tomli.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    given = {"core": project["dependencies"], **{name: project["optional-dependencies"][name] for name in EXTRAS}}
    there = {"python_version": f"3.{board.python}", "python_full_version": f"3.{board.python}.0"}
    needed: dict[str, list[str]] = {}
    for extra, lines in given.items():
        parsed = [Requirement(line) for line in lines]
        needed[extra] = [f"{r.name}{r.specifier}" for r in parsed if r.marker is None or r.marker.evaluate(there)]
    return needed


def text_of(board: Board, choice: Choice) -> str:
    """Return the text of a board's constraints file."""
    here = [name for name in requirements(board) if name not in choice.missing]
    example = ",".join(name for name in here if name in ("exporter", "onnx", "litert"))
    lines = [
        f"# edgeprof on {board.name}, {board.arch}: the newest versions whose wheels install there and",
        f"# whose libraries need no newer glibc than 2.{board.glibc} and no newer libstdc++ than that of",
        f"# GLIBCXX_3.4.{board.libstdcxx}.",
        "#",
        f"#   pip install '.[{example}]' -c constraints/{board.file}.txt",
        "#",
        f"# Extras: {', '.join(here[1:]) or 'none'}.",
    ]
    if choice.missing:
        lines.append(f"# Not to be had there: {', '.join(choice.missing)}.")
    lines += [f"# Passed over: {name} needs {lack}." for name, lack in choice.refused.items()]
    lines.append("# Read from the wheels, on no such board; tools/boards.py writes this file.")
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in sorted(choice.versions.items()))]) + "\n"


def path_of(board: Board) -> Path:
    return FOLDER / f"{board.file}.txt"


def check(boards: Iterable[Board]) -> Iterator[str]:
    """Yield one sentence for each board whose file pip can no longer install there."""
    for board in boards:
        lines = path_of(board).read_text("utf-8").splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        if pip_resolver(board)(pins, []) is None:
            yield f"{path_of(board).name}: pip finds no wheel for some of it"


def main() -> int:
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    boards = [board for board in BOARDS if board.file and (not names or board.file in names)]
    if "--check" in sys.argv:
        problems = list(check(boards))
        print("\n".join(problems) or f"{len(boards)} boards: what their files name can be installed")
        return bool(problems)
    for board in boards:
        choice = choose(board, requirements(board), pip_resolver(board), cached_needs)
        path_of(board).write_text(text_of(board, choice), encoding="utf-8")
        print(
            f"{path_of(board).name}: {len(choice.versions)} versions; missing: {choice.missing}; {choice.refused}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
