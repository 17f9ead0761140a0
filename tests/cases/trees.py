"""Trees of machines that others own, and a player that moves their counters: ``../shared/cases/sensors``."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeprof.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = Path(__file__).resolve().parents[2].parent / "shared/cases/sensors"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases/sensors is not there")
#: How often the counters move, in seconds; a real RAPL counter moves every millisecond.
_STEP_S = 0.005


class Case:
    """A copy of a case's tree.

    Args:
        name: The directory of the case.
        directory: Where the copy goes.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.tree = directory / "tree"
        copy_tree(CASES / name / "tree", self.tree)
        live = CASES / name / "live.json"
        self.watts: dict[str, float] = json.loads(live.read_text())["watts"] if live.exists() else {}
        self.roots = Roots.resolve(self.tree, environ={})
        self._offset: dict[Path, float] = {}

    @property
    def arguments(self) -> list[str]:
        """What makes a verb read this tree."""
        return ["--sysfs-root", str(self.tree)]

    def file(self, ending: str) -> Path:
        """The one real file whose path ends so."""
        (path,) = [p for p in (self.tree / "devices").rglob(Path(ending).name) if str(p).endswith(f"/{ending}")]
        return path

    def set_counter(self, ending: str, microjoules: float) -> None:
        """Let a counter that is played go on from this value."""
        self._offset[self.file(ending)] = microjoules

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Move the counters, each at its power, while the block runs."""
        files = {self.file(ending): watts for ending, watts in self.watts.items()}
        values = {path: float(path.read_text()) for path in files}
        stop = threading.Event()

        def play() -> None:
            last = time.monotonic()
            while not stop.wait(_STEP_S):
                now = time.monotonic()
                for path, watts in files.items():
                    values[path] = self._offset.pop(path, values[path]) + watts * (now - last) * 1e6
                    descriptor = os.open(path, os.O_WRONLY)
                    os.pwrite(descriptor, b"%-15d\n" % int(values[path]), 0)
                    os.close(descriptor)
                last = now

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree; a link that was kept as a file with its target as text becomes a link again."""
    shutil.copytree(source, target, symlinks=True)
    for path in sorted(target.rglob("*")):
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file() and path.stat().st_size < 1000 and path.read_bytes().startswith(b"../"):
            text = path.read_text().rstrip("\n")
            path.unlink()
            path.symlink_to(text)
