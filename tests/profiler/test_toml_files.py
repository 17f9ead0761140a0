"""Reading TOML: each file that cannot be read gives one sentence and a remedy."""

from __future__ import annotations

import os

import pytest

from edgeprof import toml_files
from edgeprof.errors import InputError


def refused(path, **more) -> InputError:
    with pytest.raises(InputError) as caught:
        toml_files.read(path, **more)
    assert caught.value.remedy
    return caught.value


def test_a_missing_file_names_the_one_that_was_perhaps_meant(tmp_path) -> None:
    (tmp_path / "inventory.toml").write_text("")
    assert refused(tmp_path / "inventry.toml").remedy == f"Did you mean {tmp_path}/inventory.toml?"
    assert refused(tmp_path / "study.toml").remedy == "Check its name and its folder."
    assert refused(tmp_path / "absent/study.toml").remedy == "Check its name and its folder."
    assert refused(tmp_path / "study.toml", remedy="Give a study.").remedy == "Give a study."


def test_a_folder_and_a_file_of_somebody_else_are_told_apart(tmp_path) -> None:
    assert "is a folder" in (refused(tmp_path).remedy or "")
    path = tmp_path / "locked.toml"
    path.write_text("")
    path.chmod(0)
    if not os.access(path, os.R_OK):  # root may read everything
        assert "a user who may read it" in (refused(path).remedy or "")


def test_names_that_no_file_can_have_are_refused(tmp_path) -> None:
    refused(tmp_path / ("x" * 5000))
    refused(tmp_path / "a\0b")
