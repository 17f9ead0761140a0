"""Read the entry points of the group ``edgeprof`` from the metadata of installed distributions.

importlib.metadata can do this too, but imports the packages email, csv and zipfile, which are a tenth of the memory
and a fifth of the start of ``edgeprof top``. Form of the files: PyPA specifications, "Entry points"
and "Recording installed projects".
"""

from __future__ import annotations

import functools
import importlib
import operator
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from zipfile import ZipFile

    #: Returns the content of one file of a metadata directory.
    _Reader = Callable[[str], bytes]

GROUP = "edgeprof"
_FILE, _SUFFIXES = "entry_points.txt", (".dist-info", ".egg-info")


class Distribution(NamedTuple):
    """The distribution that an entry point belongs to."""

    name: str
    version: str


class EntryPoint(NamedTuple):
    """A plugin's name and its object, ``module`` or ``module:attribute``."""

    name: str
    value: str
    distribution: str
    version: str

    @property
    def dist(self) -> Distribution:
        return Distribution(self.distribution, self.version)

    def load(self) -> Any:
        """Import the module, and return it or its attribute.

        Raises:
            ImportError, AttributeError: the module or the attribute does not exist.
        """
        module, _, attribute = self.value.partition("[")[0].partition(":")  # extras, as in "a:b [c]", are ignored
        target: Any = importlib.import_module(module.strip())
        return operator.attrgetter(attribute.strip())(target) if attribute.strip() else target


def installed(broken: Callable[[str, str], None] = lambda _name, _reason: None) -> Iterator[EntryPoint]:
    """The entry points of all distributions on ``sys.path``, without loading any.

    Args:
        broken: Called with the name of a distribution whose entry points cannot be read, and the reason.
    """
    seen: set[str] = set()
    for place in dict.fromkeys(sys.path):
        for directory, read in _archived(place) if Path(place).is_file() else _unpacked(place):
            try:
                pairs = list(_parse_group(read(_FILE)))
                name, version = _name_and_version(read) if pairs else ("", "")
            except (OSError, KeyError, ValueError) as error:
                broken(directory, f"its entry points cannot be read: {type(error).__name__}: {error}")
                continue
            normal = name.lower().replace("_", "-")
            if pairs and normal not in seen:  # the first on sys.path is the one that imports find
                seen.add(normal)
                yield from (EntryPoint(*pair, name, version) for pair in pairs)


def _unpacked(place: str) -> Iterator[tuple[str, _Reader]]:
    """The metadata directories in a folder that have entry points, each with a function that reads its files."""
    try:
        names = sorted(name for name in os.listdir(place) if name.endswith(_SUFFIXES))  # noqa: PTH208 - there are hundreds
    except OSError:
        return
    for name in names:
        if os.path.isfile(f"{place}/{name}/{_FILE}"):  # noqa: PTH113
            yield name, functools.partial(_read_file, Path(place, name))


def _archived(place: str) -> Iterator[tuple[str, _Reader]]:
    """The same of a ZIP archive; other files on ``sys.path`` have none."""
    import zipfile  # noqa: PLC0415 - hardly anybody has one

    if zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                directory, _, file = name.partition("/")
                if file == _FILE and directory.endswith(_SUFFIXES):
                    yield directory, functools.partial(_read_member, archive, directory)


def _read_file(directory: Path, file: str) -> bytes:
    return (directory / file).read_bytes()


def _read_member(archive: ZipFile, directory: str, file: str) -> bytes:
    return archive.read(f"{directory}/{file}")


def _name_and_version(read: _Reader) -> tuple[str, str]:
    """Name and version of a distribution from its core metadata: ``METADATA``, or ``PKG-INFO`` of an egg."""
    try:
        content = read("METADATA")
    except (OSError, KeyError):
        content = read("PKG-INFO")
    headers: dict[str, str] = {}
    for line in content.partition(b"\n\n")[0].decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        headers.setdefault(key.strip().lower(), value.strip())
    return headers.get("name") or "?", headers.get("version") or "?"


def _parse_group(content: bytes) -> Iterator[tuple[str, str]]:
    """The names and objects in the section of our group.

    Raises:
        ValueError: the content is not UTF-8 text, or a line of the section is not ``name = object``.
    """
    section = ""
    for line in map(str.strip, content.decode("utf-8").splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif section == GROUP and line and not line.startswith(("#", ";")):
            name, equals, value = (part.strip() for part in line.partition("="))
            if not (name and equals and value):
                raise ValueError(f"{line!r} is not name = module")
            yield name, value
