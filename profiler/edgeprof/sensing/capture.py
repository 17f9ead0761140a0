"""Copy what edgeprof reads of /sys, /proc and /etc, as a tree for ``--sysfs-root``.

There is no list of these files: the copy contains the files that were opened or listed while edgeprof was watched, so
that sensors of plugins are captured too. It also contains the other files of each chip, which may show what edgeprof
overlooks.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgeprof.roots import Roots
    from edgeprof.sensing.redaction import Redactor

#: The folder that an archive unpacks to.
FOLDER = "edgeprof-bundle"
#: The most bytes of a file that edgeprof reads, and of a file beside it.
_MOST_READ, _MOST_BESIDE = 256 << 10, 4 << 10
#: In these directories the files beside one that was read belong to the same chip or zone.
_CHIPS = ("/hwmon/", "/powercap/", "/intel-rapl", "/power_supply/", "/thermal_zone", "/iio:device", "/devfreq/")
#: The only files that are copied from a running machine's /; of /proc, processes, mounts and networks are left out.
_OF_ROOT = (
    "etc/nv_tegra_release",
    "etc/nvpmodel.conf",
    "etc/os-release",
    "usr/lib/os-release",
    "usr/local/cuda/version.json",
    "var/lib/nvpmodel",
)
_NOT_OF_PROC = frozenset({"self", "thread-self", "mounts", "net", "cmdline", "kallsyms", "kcore", "keys"})
_MOST_LINKS = 40

_EVENTS = frozenset({"open", "os.listdir", "os.scandir"})
_watchers: list[list[str]] = []
_is_listening = False


def _note_path(event: str, arguments: tuple[Any, ...]) -> None:
    if _watchers and event in _EVENTS and arguments and isinstance(arguments[0], str | os.PathLike):
        path = os.fspath(arguments[0])
        if isinstance(path, str):
            for paths in _watchers:
                paths.append(path)


@contextmanager
def opened_paths() -> Iterator[list[str]]:
    """The paths of the files and directories that this process opens or lists within the block.

    Python can add an audit hook and never remove one; outside of the block it does nothing.
    """
    global _is_listening  # noqa: PLW0603 - the hook is the process's, once
    if not _is_listening:
        sys.addaudithook(_note_path)
        _is_listening = True
    paths: list[str] = []
    _watchers.append(paths)
    try:
        yield paths
    finally:
        _watchers.remove(paths)


@dataclass
class Tree:
    """Files, links and directories by their path in the tree.

    Attributes:
        files: Contents.
        links: Relative targets of symbolic links.
        directories: Directories, which may be empty.
        unreadable: Files that are there and cannot be read, with the reason.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)

    def redacted(self, redactor: Redactor) -> Tree:
        """A copy of the tree with names, serial numbers and addresses replaced in contents, paths and links."""
        clean = redactor.path
        return Tree(
            {clean(path): redactor.content(PurePosixPath(path).name, data) for path, data in self.files.items()},
            {clean(path): clean(target) for path, target in self.links.items()},
            {clean(path) for path in self.directories},
            {clean(path): redactor.text(reason) for path, reason in self.unreadable.items()},
        )

    def archive(self) -> bytes:
        """The tree as a gzipped tar that unpacks to ``FOLDER``; times and owners are left out."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path in sorted(self.directories):
                _add_entry(archive, path, tarfile.DIRTYPE, mode=0o755)
            for path, data in sorted(self.files.items()):
                _add_entry(archive, path, tarfile.REGTYPE, data, mode=0o644)
            for path in sorted(self.unreadable):
                _add_entry(archive, path, tarfile.REGTYPE, mode=0)
            for path, target in sorted(self.links.items()):
                _add_entry(archive, path, tarfile.SYMTYPE, link=target, mode=0o777)
        return buffer.getvalue()


def _add_entry(
    archive: tarfile.TarFile, path: str, kind: bytes, data: bytes = b"", *, mode: int, link: str = ""
) -> None:
    entry = tarfile.TarInfo(f"{FOLDER}/{path}")
    entry.type, entry.size, entry.mode, entry.linkname = kind, len(data), mode, link
    archive.addfile(entry, io.BytesIO(data))


def capture_tree(roots: Roots, paths: Iterable[str]) -> Tree:
    """Copy these paths into a tree, as far as they lie below the roots.

    Args:
        roots: Where the trees are.
        paths: Files and directories, absolute or as the roots spell them.
    """
    copy = _Copy(roots)
    for path in dict.fromkeys(paths):
        copy.add(Path(path))
    return copy.tree


class _Copy:
    def __init__(self, roots: Roots) -> None:
        self.tree = Tree()
        self._live = roots.is_live
        tops = {"proc": roots.procfs, "": roots.sysfs, "root": roots.root}
        # What is opened below a root may be spelled with or without the links that lead to it.
        self._roots = [
            (prefix, Path(spelled(top)))
            for spelled in (os.path.abspath, os.path.realpath)
            for prefix, top in tops.items()
        ]

    def add(self, path: Path) -> None:
        real = self._follow(Path(os.path.abspath(path)))  # noqa: PTH100 - links are followed, and kept, one by one
        if real is None:
            return
        if real.is_dir():
            self._add_directory(real)
            return
        self._add_file(real, _MOST_READ)
        if _is_of_a_chip(real):
            self._add_directory(real.parent, with_files=True)

    def _place(self, path: Path) -> str | None:
        """Where a path is in the copy; None where it is outside of what may be copied."""
        for prefix, top in self._roots:
            if path != top and path.is_relative_to(top):
                inside = path.relative_to(top)
                first = inside.parts[0]
                if prefix == "proc" and (first in _NOT_OF_PROC or first.isdecimal()):
                    return None
                if prefix == "root" and self._live and not str(inside).startswith(_OF_ROOT):
                    return None
                return str(PurePosixPath(prefix, *inside.parts))
        return None

    def _follow(self, path: Path, links: int = 0) -> Path | None:
        """The path without symbolic links, each of which is copied on the way; None where it leads nowhere."""
        if self._place(path) is None or links > _MOST_LINKS:
            return None
        top = next(top for _, top in self._roots if path.is_relative_to(top))
        current = top
        parts = path.relative_to(top).parts
        for number, part in enumerate(parts):
            following = current / part
            if following.is_symlink():
                target = Path(os.path.normpath(current / following.readlink()))
                if self._place(target) is not None:
                    self._link(following, target)
                    return self._follow(target.joinpath(*parts[number + 1 :]), links + 1)
            current = following
        return current if current.exists() else None

    def _link(self, path: Path, target: Path) -> None:
        place, goal = self._place(path), self._place(target)
        if place is not None and goal is not None:
            self.tree.links[place] = os.path.relpath(goal, PurePosixPath(place).parent)

    def _add_directory(self, path: Path, *, with_files: bool = False) -> None:
        place = self._place(path)
        if place is None:
            return
        self.tree.directories.add(place)
        if place.split("/")[0] == "proc" and not with_files:
            return  # its listing names processes
        for entry in _sorted_entries(path):
            if entry.is_symlink():
                target = self._follow(entry)
                if target is not None and target.is_dir() and (goal := self._place(target)) is not None:
                    self.tree.directories.add(goal)
            elif entry.is_dir():
                if (goal := self._place(entry)) is not None:
                    self.tree.directories.add(goal)
            elif with_files:
                self._add_file(entry, _MOST_BESIDE)

    def _add_file(self, path: Path, most: int) -> None:
        place = self._place(path)
        if place is None or place in self.tree.files or not path.is_file():
            return
        try:
            if not path.stat().st_mode & 0o444:
                return  # it can be written only: a button
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                self.tree.files[place] = os.pread(descriptor, most, 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.tree.unreadable[place] = error.strerror or type(error).__name__


def _sorted_entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _is_of_a_chip(path: Path) -> bool:
    return any(word in f"{path.parent}/" for word in _CHIPS)
