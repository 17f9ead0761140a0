"""Result files are written completely or not at all; everything that is not a result gets a clear sentence."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import pytest

from edgeprof.errors import InputError
from edgeprof.results import document, files
from edgeprof.results.store import Store
from tests.profiler.results import samples


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    files.write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")

    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_device_is_one_clear_sentence():
    full = files.Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(InputError, match="cannot write /dev/full: No space left") as caught:
        files.write(full, "text")
    assert "another disk" in caught.value.remedy


def test_permissions_follow_the_umask_and_an_existing_file(tmp_path):
    path = tmp_path / "a.json"
    mask = os.umask(0o027)
    try:
        files.write(path, "1")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    files.write(path, "2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path):
    real = tmp_path / "real.json"
    real.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    files.write(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_missing_directory_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match="No such file") as caught:
        files.write(tmp_path / "no" / "x.json", "")
    assert caught.value.remedy == f"Make its directory first: mkdir -p {tmp_path / 'no'}"


def test_a_directory_cannot_be_the_output(tmp_path):
    with pytest.raises(InputError, match="directory"):
        files.check_writable(tmp_path)


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(InputError, match="Read-only file system"):
        files.check_writable(tmp_path / "x.json")


def test_appending_closes_a_torn_line_first(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"torn')
    files.append(path, "{}\n")
    files.append(path, "[]\n")
    assert path.read_text() == '{"torn\n{}\n[]\n'


@pytest.mark.parametrize("kind", samples.ALL)
def test_a_written_result_is_read_back_equal(tmp_path, kind):
    result = samples.ALL[kind]()
    path = tmp_path / "r.json"
    files.write(path, document.to_json(result))
    assert files.read_one(str(path)) == result


def test_of_a_file_of_many_lines_all_are_read_and_one_means_the_last(tmp_path):
    path = tmp_path / "runs.jsonl"
    first, second = samples.one(), samples.study()
    second.id = "20261121-1500-abc"
    files.append(path, document.to_json(first, indent=-1) + "\n")
    files.append(path, document.to_json(second, indent=-1) + "\n")
    assert files.read(str(path)) == [first, second]
    assert files.read_one(str(path)) == second


def test_a_bad_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(document.to_json(samples.one(), indent=-1) + '\n{"schema": \n')
    with pytest.raises(InputError, match=r"runs\.jsonl line 2 is cut off"):
        files.read(str(path))


def test_a_word_that_is_no_file_is_looked_up_in_the_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "data")
    result = samples.one()
    store.save(result)
    assert files.read_one("k3f", store) == result
    assert files.read_one("last", store) == result


def test_a_path_that_does_not_exist_is_called_a_file_and_not_an_id(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*missing\.json"):
        files.read(str(tmp_path / "missing.json"), Store(tmp_path))


def test_a_directory_is_no_result(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        files.read(str(tmp_path))
