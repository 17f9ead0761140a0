"""Which trees are read: flags override the environment; for a captured board, everything is read from its tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import InputError
from edgeprof.roots import SIMULATION_MARKER, Roots

if TYPE_CHECKING:
    from pathlib import Path


def test_without_flags_it_is_the_machine_itself() -> None:
    roots = Roots.resolve(environ={})
    assert roots == Roots()
    assert roots.is_live
    assert not roots.is_simulated


def test_a_flag_goes_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    environ = {"EDGEPROF_SYSFS_ROOT": str(tmp_path / "a")}
    assert Roots.resolve(environ=environ).sysfs == tmp_path / "a"
    assert Roots.resolve(tmp_path / "b", environ=environ).sysfs == tmp_path / "b"


def test_a_captured_tree_brings_its_own_proc_etc_and_dev(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    roots = Roots.resolve(tmp_path, environ={})
    assert (roots.procfs, roots.root, roots.dev) == (tmp_path / "proc", tmp_path / "root", tmp_path / "root/dev")
    assert not roots.is_live


def test_without_proc_in_the_tree_the_machines_own_is_read(tmp_path: Path) -> None:
    assert Roots.resolve(tmp_path, environ={}).procfs == Roots().procfs


def test_a_tree_with_the_marker_is_simulated(tmp_path: Path) -> None:
    (tmp_path / SIMULATION_MARKER).write_text("{}")
    assert Roots.resolve(tmp_path, environ={}).is_simulated


@pytest.mark.parametrize("flag", ["--sysfs-root", "--procfs-root"])
def test_a_root_that_is_no_directory_is_named_with_its_flag(tmp_path: Path, flag: str) -> None:
    missing = tmp_path / "missing"
    sysfs, procfs = (missing, None) if flag == "--sysfs-root" else (None, missing)
    with pytest.raises(InputError) as caught:
        Roots.resolve(sysfs, procfs, environ={})
    assert caught.value.message == f"{flag} {missing} is not a directory"
