"""Boards whose files are slow or fail on command."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.roots import Roots
from edgeprof.simulation.layouts import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeprof.simulation.tree import Layout


def absent() -> str | None:
    """Why nothing can be mounted here, or None."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse that this user may open"
    if importlib.util.find_spec("mfusepy") is None:
        return "mfusepy is not installed (pip install mfusepy)"
    found = subprocess.run([sys.executable, "-c", "import mfusepy"], capture_output=True, text=True, check=False)
    if found.returncode:
        return "mfusepy finds no libfuse3 (sudo apt-get install fuse3)"
    return None


class SlowTree:
    """A mounted board.

    Attributes:
        layout: The static tree behind it; its paths are below ``layout.directory``.
        mount: Where it is seen.
    """

    def __init__(self, board: str, place: Path, **oddities: object) -> None:
        self.layout: Layout = build(board, place / "tree", **oddities)
        self.mount = place / "mount"
        self.mount.mkdir()
        self._rules = place / "rules.json"
        self._rules.write_text("{}")
        server = Path(__file__).with_name("server.py")
        command = [sys.executable, str(server), str(self.layout.directory), str(self._rules), str(self.mount)]
        self._log = (place / "log").open("w+")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while not os.path.ismount(self.mount):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                text = self._log.read()
                self.close()
                pytest.skip(f"nothing can be mounted here: {text.strip()[-300:]}")
            time.sleep(0.01)

    @property
    def roots(self) -> Roots:
        return Roots(sysfs=self.mount, procfs=self.mount / "proc", root=self.mount / "root")

    def set(self, rules: dict[Path | str, dict[str, Any]]) -> None:
        """From now on: path in the static tree (or a pattern) → delay_s, errno, text."""
        top = self.layout.directory
        named = {str(key.relative_to(top) if isinstance(key, Path) else key): rule for key, rule in rules.items()}
        fresh = self._rules.with_suffix(".new")
        fresh.write_text(json.dumps(named))
        fresh.replace(self._rules)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if os.path.ismount(self.mount):
            subprocess.run(["umount", "-l", str(self.mount)], check=False)
        self._log.close()


@pytest.fixture
def slow_tree(tmp_path: Path) -> Iterator[Callable[..., SlowTree]]:
    reason = absent()
    if reason is not None:
        pytest.skip(reason)
    made: list[SlowTree] = []

    def make(board: str, **oddities: object) -> SlowTree:
        place = tmp_path / f"{board}-{len(made)}"
        place.mkdir()
        made.append(SlowTree(board, place, **oddities))
        return made[-1]

    yield make
    for tree in made:
        tree.close()
