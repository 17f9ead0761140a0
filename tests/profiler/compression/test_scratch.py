"""Folders for unfinished work: abandoned ones are removed, and those in use are not."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

import pytest

from edgeprof.compression.scratch import scratch

if TYPE_CHECKING:
    from pathlib import Path


def _killed(place: Path) -> None:
    with scratch("work", place) as folder:
        (folder / "half").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_killed, args=(tmp_path,))
    child.start()
    child.join()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".edgeprof-work-")
    other = tmp_path / ".edgeprof-graph-1"
    other.mkdir()
    with scratch("work", tmp_path) as first, scratch("work", tmp_path) as second:
        assert {*tmp_path.iterdir()} == {first, second, other}
    assert list(tmp_path.iterdir()) == [other]


def test_what_only_bears_the_name_stays(tmp_path: Path) -> None:
    file, link, theirs = (tmp_path / f".edgeprof-work-{name}" for name in ("file", "link", "theirs"))
    file.write_text("mine")
    (tmp_path / "kept").mkdir()
    link.symlink_to(tmp_path / "kept", target_is_directory=True)
    theirs.mkdir()
    if os.geteuid() == 0:
        os.chown(theirs, 12345, 12345)
    else:
        theirs.chmod(0)
    with scratch("work", tmp_path):
        pass
    assert {*tmp_path.iterdir()} == {file, link, theirs, tmp_path / "kept"}


def test_it_goes_when_its_user_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch("work", tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
