"""Only the owner can read the files that edgeprof stores."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from edgeprof.results.store import Store
from tests.profiler.results import samples

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def an_open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_new_data_directory_and_its_store_are_closed_to_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "share" / "edgeprof")
    store.save(samples.one())
    assert mode(store.directory) == 0o700
    assert all(mode(path) == 0o600 for path in store.directory.iterdir() if path.is_file())


def test_a_store_that_others_could_read_is_closed_and_its_shared_directory_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Store(tmp_path).save(samples.one())
    Store(tmp_path).path.chmod(0o644)
    Store(tmp_path).save(samples.one())
    assert mode(Store(tmp_path).path) == 0o600
    assert mode(tmp_path) == 0o755
