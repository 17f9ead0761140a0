"""The store: results are found again, whatever happens to the process, the disk or the clock."""

from __future__ import annotations

import multiprocessing
import multiprocessing.resource_tracker
import os
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from edgeprof.errors import InputError
from edgeprof.results.store import Store, StoreError, data_dir
from tests.profiler.results import samples


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


def at(minute, tail="k3f", **changes):
    result = samples.one()
    result.id = f"20261121-14{minute:02d}-{tail}"
    result.created = f"2026-11-21T14:{minute:02d}:03.512+00:00"
    for key, value in changes.items():
        setattr(result, key, value)
    return result


@pytest.mark.parametrize("kind", samples.ALL)
def test_every_kind_of_result_comes_back_equal(store, kind):
    result = samples.ALL[kind]()
    store.save(result)
    assert store.find(result.id) == result


def test_a_result_is_found_by_id_beginning_tail_and_last(store):
    old, new = at(12), at(40, "x7p")
    store.save(new)
    store.save(old)  # order of saving does not matter: order of measuring does
    assert store.find(old.id).id == old.id
    assert store.find("20261121-1440").id == new.id
    assert store.find("k3f").id == old.id
    assert store.find("last").id == new.id
    assert store.find("last~1").id == old.id


@pytest.mark.parametrize("value", ["NULL", "5", "0.5", "''"])
def test_a_damaged_text_of_a_result_is_one_sentence(store, tmp_path, value):
    store.save(at(12))
    with sqlite3.connect(tmp_path / "data" / "results.sqlite3") as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'results'")
    with sqlite3.connect(tmp_path / "data" / "results.sqlite3") as db:
        db.execute(f"UPDATE results SET json = {value}")
    for read in (lambda: store.find("last"), store.newest):
        with pytest.raises(InputError, match="stored result"):
            read()


def test_times_with_different_offsets_sort_as_moments(store):
    morning = at(12, created="2026-11-21T09:12:00-05:00")  # 14:12 UTC
    noon = at(40, "x7p", created="2026-11-21T14:40:00+02:00")  # 12:40 UTC
    store.save(morning)
    store.save(noon)
    assert store.find("last").id == morning.id


def test_an_ambiguous_word_names_the_candidates(store):
    store.save(at(12))
    store.save(at(13, "k3g"))
    with pytest.raises(InputError, match="fits 2") as caught:
        store.find("k3")
    assert "20261121-1412-k3f" in caught.value.remedy
    assert "20261121-1413-k3g" in caught.value.remedy


def test_an_unknown_id_names_the_newest(store):
    store.save(at(12))
    with pytest.raises(InputError, match="no stored result") as caught:
        store.find("zzz")
    assert "20261121-1412-k3f" in caught.value.remedy


def test_before_the_first_run_there_is_nothing_and_nothing_is_created(store):
    assert store.history() == []
    assert store.newest() == []
    with pytest.raises(InputError, match="nothing is stored"):
        store.find("last")
    assert not store.directory.exists()


def test_saving_again_replaces_the_run(store):
    partial = at(12, interrupted=True)
    store.save(partial)
    whole = at(12, variants=samples.study().variants)
    store.save(whole)
    assert store.find("last") == whole
    assert [e.variant for e in store.history()] == [v.name for v in whole.variants]


def test_another_run_of_the_same_id_is_not_overwritten(store):
    store.save(at(12))
    with pytest.raises(StoreError, match="already holds another"):
        store.save(at(12, created="2026-11-21T14:12:59+00:00"))


def test_history_lists_newest_first_and_limits_results_not_variants(store):
    store.save(at(12, variants=samples.study().variants))
    store.save(at(40, "x7p"))
    entries = store.history(limit=1)
    assert [(e.id, e.variant) for e in entries] == [("20261121-1440-x7p", "baseline")]
    assert len(store.history()) == 4
    assert entries[0].energy_j == pytest.approx(0.01234)
    assert entries[0].provenance == "measured"
    assert entries[0].model == "resnet8"


def test_history_of_one_model(store):
    store.save(at(12))
    other = at(40, "x7p")
    other.variants[0].model.name = "mnist"
    store.save(other)
    assert [e.id for e in store.history(model="mnist")] == [other.id]
    assert store.models() == ["mnist", "resnet8"]


def test_unknown_numbers_stay_none(store):
    store.save(samples.no_sensor())
    (entry,) = store.history()
    assert entry.energy_j is None
    assert entry.provenance == "none"


def test_newest_is_one_for_each_model_variant_runtime_and_scenario(store):
    store.save(at(12, variants=samples.study().variants))
    again = at(40, "x7p")
    again.variants[0].inferences = 7
    store.save(again)
    offline = at(50, "off")
    offline.protocol.scenario = "offline"
    store.save(offline)
    newest = {(n.variant.name, n.result.protocol.scenario): n for n in store.newest()}
    assert newest["baseline", "single-stream"].variant.inferences == 7
    assert newest["baseline", "single-stream"].result.id == again.id
    assert newest["int8-static", "single-stream"].result.id == "20261121-1412-k3f"
    assert newest["baseline", "offline"].result.id == offline.id
    assert len(newest) == 4


def _save_some(directory, process):
    for n in range(8):
        Store(directory).save(at(n, f"p{process}x"))


@pytest.fixture(scope="module")
def resource_tracker() -> None:
    """Start the resource tracker, which multiprocessing starts once together with its first process."""
    multiprocessing.resource_tracker.ensure_running()


@pytest.mark.slow
@pytest.mark.usefixtures("resource_tracker")
def test_writers_in_several_processes_lose_nothing(store):
    """Three processes store eight results each at the same time, and all of them are found."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_save_some, args=(store.directory, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert len(store.history(limit=None)) == 24


def test_a_process_killed_in_the_middle_of_writing_leaves_the_store_whole(store):
    """It is killed between the deletion of the old and the insertion of the new result; the old one is still there."""
    store.save(at(12))
    script = """
        import os, sys
        from pathlib import Path
        from edgeprof.results import rows, store
        from tests.profiler.results import samples
        rows._model_columns = lambda result, variant: os.kill(os.getpid(), 9)
        store.Store(Path(sys.argv[1])).save(samples.one())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(store.directory)], check=False)
    assert done.returncode == -9
    assert store.find("last") == at(12)
    store.save(at(13))
    assert store.find("last").id == "20261121-1413-k3f"


def test_a_full_disk_is_one_clear_error(store, monkeypatch):
    store.save(at(12))
    connect = Store._connect

    def small(self, uri):
        db = connect(self, uri)
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    monkeypatch.setattr(Store, "_connect", small)
    with pytest.raises(StoreError, match="full") as caught:
        store.save(samples.many())
    assert "EDGEPROF_DATA_DIR" in caught.value.remedy
    monkeypatch.undo()
    assert store.find("last") == at(12)


def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be kept") as caught:
        Store(tmp_path / "file" / "data").save(at(12))
    assert "EDGEPROF_DATA_DIR" in caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_directory_refuses_writing_but_is_read(store):
    store.save(at(12))
    for path in (*store.directory.iterdir(), store.directory):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert store.find("last") == at(12)
        with pytest.raises(StoreError, match="readonly"):
            store.save(at(13))
    finally:
        store.directory.chmod(0o755)


def test_a_file_that_is_no_database_is_named(store):
    store.directory.mkdir()
    store.path.write_text("not a database " * 200)
    with pytest.raises(StoreError, match="not a database") as caught:
        store.history()
    assert "Move" in caught.value.remedy


def test_a_store_of_a_newer_edgeprof_is_refused_untouched(store):
    store.save(at(12))
    with sqlite3.connect(store.path) as db:
        db.execute("INSERT INTO schema_version VALUES (99, 'later')")
    db.close()
    with pytest.raises(StoreError, match="newer edgeprof"):
        store.history()
    with pytest.raises(StoreError, match="newer edgeprof"):
        store.save(at(13))


def test_a_held_lock_is_one_clear_error(store, monkeypatch):
    store.save(at(12))
    monkeypatch.setattr("edgeprof.results.store.BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreError, match="locked") as caught:
            store.save(at(13))
    finally:
        other.close()
    assert "try again" in caught.value.remedy


def test_the_directory_is_the_environments_choice(tmp_path):
    assert data_dir({"EDGEPROF_DATA_DIR": str(tmp_path)}) == tmp_path
    assert data_dir({}).name == "edgeprof"


def test_a_job_has_one_result_however_often_it_arrives(store):
    first, second = at(12), at(13, "abc")
    assert store.save_job(first, "1" * 64, "nano-1") == first
    assert store.save_job(second, "1" * 64, "nano-1") == first
    assert store.jobs() == [("nano-1", first)]
    assert store.job_keys() == {"1" * 64}


def test_two_devices_may_give_their_results_one_id(store):
    """An id is unique only on its device; a fleet's store must not lose a result because of that."""
    ours, theirs = at(12), at(12)
    store.save_job(ours, "1" * 64, "nano-1")
    kept = store.save_job(theirs, "2" * 64, "pi5-1")
    assert kept.id != ours.id
    assert {device: result.id for device, result in store.jobs()} == {"nano-1": ours.id, "pi5-1": kept.id}
    assert store.find(kept.id) == kept


def test_a_store_of_an_earlier_edgeprof_has_no_jobs_and_takes_some(store):
    store.save(at(12))
    with sqlite3.connect(store.path) as db:
        for table in ("jobs", "names", "tags"):
            db.execute(f"DROP TABLE {table}")
        db.execute("DELETE FROM schema_version WHERE version >= 2")
    db.close()
    assert store.jobs() == []
    assert store.job_keys() == set()
    store.save_job(at(13, "abc"), "1" * 64, "nano-1")
    assert len(store.jobs()) == 1
    assert len(store.all()) == 2
