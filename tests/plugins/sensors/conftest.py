"""Trees of named boards for the sensors to read."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from edgeprof.roots import Roots
from edgeprof.simulation.layouts import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeprof.simulation.tree import Layout

    Tree = Callable[..., tuple[Layout, Roots]]


@pytest.fixture(autouse=True)
def no_boards_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path_factory.mktemp("config")))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """``tree(board, **oddities)`` → its layout and its roots."""

    def make(board: str, **oddities: object) -> tuple[Layout, Roots]:
        layout = build(board, tmp_path / "sys", **oddities)
        return layout, Roots.resolve(layout.directory, environ={})

    return make


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``deny(ending)``: files whose path ends so cannot be opened, as for a user who is not root."""

    def arrange(ending: str) -> None:
        opened = os.open

        def refuse(path: str | os.PathLike[str], flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if os.fspath(path).endswith(ending):
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return opened(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", refuse)

    return arrange
