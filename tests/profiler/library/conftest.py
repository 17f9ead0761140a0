"""Fixtures: a virtual board that runs in real time and is characterised once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import constant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WATTS = 6.0


@pytest.fixture(scope="module")  # a board that plays takes time from the tests of the process
def playing_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree of an Orin Nano whose module always draws 6 W, with a data directory beside it."""
    folder = tmp_path_factory.mktemp("library")
    with LiveBoard("jetson-orin-nano", folder / "board", constant(WATTS)):
        yield folder


@pytest.fixture
def board(playing_board: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The board's tree; its sensors were characterised once, and the results are cached."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(playing_board / "data"))
    return playing_board / "board"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing measures power."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "bare").mkdir()
    return tmp_path / "bare"
