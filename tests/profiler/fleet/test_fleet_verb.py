"""``edgeprof fleet`` with three virtual boards: one result for each job, whatever fails, and one table."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shlex
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from edgeprof.cli.main import run
from edgeprof.fleet.store import fleet_store
from edgeprof.launch import lock
from edgeprof.roots import Roots
from tests import models
from tests.profiler.cli.in_process import verb
from tests.profiler.fleet.boards import SHORT


@pytest.fixture
def fleet(desk, capfd):
    return verb(capfd, "fleet")


@pytest.fixture(scope="module")
def measured(desk):
    """The model, measured once on every board."""
    assert run(["fleet", "bench", str(desk.model), *SHORT, "-q", "-o", str(desk.folder / "table.json")]) == 0
    return json.loads((desk.folder / "table.json").read_text())


def jobs() -> list[tuple[str, str]]:
    return [(device, result.id) for device, result in fleet_store().jobs()]


def started(boards, name: str) -> list[dict[str, object]]:
    """Return the log of the device's lock: each measurement that a fleet began on it."""
    path = boards.folder / name / "data/door/started.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_board_is_measured_once_and_grouped_by_what_its_joules_cover(measured, boards) -> None:
    rows = [row for group in measured["groups"] for row in group["rows"]]
    assert sorted(row["device"] for row in rows) == ["nano-1", "nano-2", "pi5-1"]
    assert {group["provenance"] for group in measured["groups"]} == {"simulated"}
    together = [{row["device"] for row in group["rows"]} for group in measured["groups"]]
    assert {"nano-1", "nano-2"} in together  # the module's rail
    assert {"pi5-1"} in together  # the PMIC's rails
    assert "different kinds" in measured["sentence"]
    assert all(len(started(boards, name)) == 1 for name in boards.names)


def test_asked_again_a_device_answers_with_what_it_has(fleet, desk, boards, measured) -> None:
    before = sorted(jobs())
    done = fleet("bench", desk.model, *SHORT, "--json")
    devices = json.loads(done.stdout)["devices"]
    assert [device["state"] for device in devices] == ["there"] * 3
    assert sorted(jobs()) == before
    assert all(len(started(boards, name)) == 1 for name in boards.names)


def test_results_that_this_machine_lost_are_fetched(fleet, desk, measured, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    done = fleet("fetch", "--on", "kind:nano")
    assert sorted(done.stdout.splitlines()) == ["nano-1: 1 fetched", "nano-2: 1 fetched"]
    assert sorted(device for device, _ in jobs()) == ["nano-1", "nano-2"]
    assert fleet("fetch", "--on", "nano-1").stdout == "nano-1: 0 fetched\n"


def test_a_full_disk_ends_a_fetch_in_a_sentence_and_nothing_is_lost(fleet, measured, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=False).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        filler = tmp_path / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(1 << 20))
        printed = fleet("fetch", "--on", "kind:nano", code=3).stderr
        assert printed.count("database or disk is full") == 2
        assert "Free some space" in printed
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", tmp_path], check=True)
        assert sorted(fleet("fetch", "--on", "kind:nano").stdout.split()[::3]) == ["nano-1:", "nano-2:"]
        assert len(jobs()) == 2
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_status_is_a_row_for_each_device_and_says_which_is_missing(fleet, desk, boards, measured, tmp_path) -> None:
    inventory = boards.inventory(tmp_path / "inventory.toml", '[[devices]]\nname = "gone-1"\n')
    with lock.measuring(Roots.resolve(boards.folder / "nano-1/sysfs", None, {}), "bench of anna"):
        done = fleet("status", "--inventory", inventory, code=3)
    nano, *_, gone = (line for line in done.stdout.splitlines() if "-1" in line and ":" not in line.split()[0])
    assert "NVIDIA Jetson Orin Nano" in nano
    assert "gone-1" in gone
    assert "its name cannot be resolved" in done.stdout


def test_a_busy_device_says_who_measures_and_the_others_go_on(fleet, desk, boards, measured, monkeypatch) -> None:
    monkeypatch.setenv("EDGEPROF_LOCK_DIR", str(boards.folder / "nano-1"))
    with lock.measuring(Roots.resolve(boards.folder / "nano-1/sysfs", None, {}), "bench of anna"):
        monkeypatch.delenv(lock.TOKEN)
        done = fleet("bench", desk.model, *SHORT, "--repeat", 2, "--wait", 0, "--on", "nano-1", code=75)
    assert "another measurement is running on this device" in done.stderr
    assert "bench of anna" in done.stderr


def test_a_bench_that_is_killed_on_its_device_is_measured_again_and_stored_once(fleet, desk, boards, measured) -> None:
    before = jobs()
    running = boards.folder / "nano-2/data/door/running.json"
    first = json.loads(running.read_text())["pid"]

    def kill() -> None:
        """Kill the bench as soon as it holds the device."""
        while (now := json.loads(running.read_text())["pid"]) == first:
            stop.wait(0.01)
        os.kill(now, signal.SIGKILL)

    stop = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        fleet("bench", desk.model, *SHORT, "--repeat", 3, "--on", "nano-2")
    finally:
        killer.join()
    assert len(jobs()) == len(before) + 1
    assert [line["key"] for line in started(boards, "nano-2")[-2:]] == [started(boards, "nano-2")[-1]["key"]] * 2


def test_a_board_under_another_ones_name_is_refused_and_the_others_go_on(fleet, desk, boards, tmp_path) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text(
        '[[devices]]\nname = "a"\nssh = "nano-1"\nboard = "Raspberry Pi 5"\n'
        '[[devices]]\nname = "b"\nssh = "nano-2"\npower_mode = "99W"\n'
    )
    done = fleet("bench", desk.model, "--inventory", path, code=3)
    assert "a: this is a NVIDIA Jetson Orin Nano, and the inventory says Raspberry Pi 5" in done.stderr
    assert "b: the device is in the power mode" in done.stderr
    assert fleet("bench", desk.model, "--inventory", path, "--on", "a", code=78).stdout == ""
    shown = " ".join(fleet("status", "--inventory", path, code=3).stdout.split())
    assert "this is a NVIDIA Jetson Orin Nano, and the inventory says Raspberry Pi 5" in shown
    assert "b the device is in the power mode" in shown
    (row,) = json.loads(fleet("status", "--inventory", path, "--on", "a", "--json", code=78).stdout)["devices"]
    assert (row["board"], row["exit"]) == ("NVIDIA Jetson Orin Nano", 78)


def test_a_device_is_added_with_the_board_that_it_is(fleet, desk, tmp_path) -> None:
    path = tmp_path / "inventory.toml"
    done = fleet("add", "lab-nano", "192.0.2.7", "--ssh", "nano-1", "--kind", "nano", "--inventory", path)
    assert "NVIDIA Jetson Orin Nano" in done.stdout
    assert 'board = "NVIDIA Jetson Orin Nano"' in path.read_text()
    assert "machine = " in path.read_text()
    assert "two devices have the" in fleet("add", "other", "--ssh", "nano-1", "--inventory", path, code=2).stderr


def test_what_cannot_be_added_is_refused_before_the_device_is_asked(fleet, tmp_path, monkeypatch) -> None:
    """The ssh of this test would leave a file if it were called."""
    trace, program = tmp_path / "asked", tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(trace))}\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("EDGEPROF_SSH", str(program))
    broken, there = tmp_path / "broken.toml", tmp_path / "inventory.toml"
    broken.write_text("[[devices")
    there.write_text('[[devices]]\nname = "a"\n')
    for name, path in (("a\tb", there), ("a", there), ("b", broken), ("b", tmp_path / "no/inventory.toml")):
        done = fleet("add", name, "192.0.2.7", "--inventory", path, code=2)
        assert (done.stdout, trace.exists()) == ("", False)
        assert len(done.stderr.splitlines()) <= 2
    done = fleet("add", "b", "192.0.2.7", "--inventory", there, code=2)
    assert done.stderr.startswith("b: ")  # a lone device is named too
    assert trace.exists()


def test_a_report_of_an_inventory_shows_its_devices_alone(fleet, measured, boards, tmp_path) -> None:
    path = tmp_path / "one.toml"
    path.write_text('[[devices]]\nname = "pi5-1"\n')
    answer = json.loads(fleet("report", "--inventory", path, "--json").stdout)
    assert {row["device"] for group in answer["groups"] for row in group["rows"]} == {"pi5-1"}
    assert "there is no inventory" in fleet("report", "--inventory", tmp_path / "absent.toml", code=2).stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--on", "nano-9"), "nano-9"),
        (("--worker-python", "/bin/sh"), "--worker-python"),
        (("--threads", "many"), "--threads 'many'"),
        (("--threads",), "--threads has no value"),
        (("absent.onnx",), "absent.onnx"),
        (("--dataset", "labels.csv"), "labels.csv is no .npz"),
        (("-o", "table.txt"), ".txt"),
        (("--inventory", "/nonexistent/inventory.toml"), "there is no inventory"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_device_is_asked(fleet, desk, words, part) -> None:
    assert part in fleet("bench", desk.model, *words, code=2).stderr


def test_the_table_is_written_as_csv_and_as_a_page(fleet, measured, tmp_path) -> None:
    page, table = tmp_path / "fleet.html", tmp_path / "fleet.csv"
    fleet("report", "-o", page, "-o", table, "--on", "nano-1,pi5-1")
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert {row["fleet_device"] for row in rows} == {"nano-1", "pi5-1"}
    assert all(row["joules_comparable_with"].startswith("simulated") for row in rows)
    assert "different kinds" in page.read_text()
    assert "<script" not in page.read_text()


def test_a_study_is_made_here_and_measured_there(fleet, desk, boards, tmp_path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        f'model = "{desk.model}"\n[recipes]\nexplicit = ["fp16"]\n[protocol]\nwindows = 2\nwindow = 0.2\n'
        "idle = 0.2\nwarmup = 0.1\n"
    )
    done = fleet("sweep", study, "--on", "nano-1", "-o", tmp_path / "table.json")
    (group,) = json.loads((tmp_path / "table.json").read_text())["groups"]
    assert [row["variant"] for row in group["rows"]] == ["affine baseline", "affine fp16"]
    assert "nano-1" in done.stdout
    assert Path(tmp_path / "study.study/variants").is_dir()


@pytest.mark.timeout(300)  # two searches, each in a database of its own
def test_a_search_follows_each_devices_own_measurements_and_measures_nothing_twice(
    fleet, desk, boards, tmp_path
) -> None:
    pytest.importorskip("optuna")
    study = tmp_path / "study.toml"
    study.write_text(
        f'model = "{desk.model}"\n[protocol]\nwindows = 3\nwindow = 0.2\nidle = 0.2\nwarmup = 0.1\n'
        '[search]\nwith = "{kind}"\nkind = ["bf16", "fp16"]\ntrials = 3\n'
    )
    before = {name: len(started(boards, name)) for name in ("nano-1", "pi5-1")}
    done = fleet("sweep", study, "--on", "nano-1,pi5-1", "--json", code=3)  # bf16 cannot be made of an ONNX file
    answer = json.loads(done.stdout)
    rows = [row for group in answer["table"]["groups"] for row in group["rows"]]
    for name, count in before.items():
        variants = [row["variant"] for row in rows if row["device"] == name]
        assert variants == ["affine baseline", "affine fp16", "affine bf16"]
        assert len(variants) == len(set(variants))
        measured_here = [line for line in answer["devices"] if line["device"] == name and line["state"] == "measured"]
        assert len(started(boards, name)) - count == len(measured_here) >= 1
        assert (tmp_path / f"study.study/search-{name}.db").exists()
    counts = {name: len(started(boards, name)) for name in before}
    again = json.loads(fleet("sweep", study, "--on", "nano-1,pi5-1", "--json", code=3).stdout)
    assert {line["state"] for line in again["devices"]} == {"there"}
    assert counts == {name: len(started(boards, name)) for name in before}
    there = {(row["device"], row["variant"]) for group in again["table"]["groups"] for row in group["rows"]}
    assert there == {(row["device"], row["variant"]) for row in rows}


def test_a_choice_is_made_among_the_devices_of_the_fleet(fleet, measured, tmp_path, capfd) -> None:
    asked = tmp_path / "requirements.toml"
    asked.write_text("[product]\nrate = 1\n[devices.pi5-1]\nprice = 80\n")
    run(["choose", str(asked), "--fleet", "--json"])
    choice = json.loads(capfd.readouterr().out)
    rows = {row["hostname"]: row for group in choice["groups"] for row in group["rows"]}
    assert set(rows) >= {"nano-1", "nano-2", "pi5-1"}
    assert (rows["pi5-1"]["price"], rows["nano-1"]["price"]) == (80, None)
    everything = [row for group in choice["groups"] for row in group["rows"]]
    remedies = {check["remedy"] for row in everything for check in row["checks"] if check["remedy"]}
    commands = {remedy for remedy in remedies if remedy.startswith("edgeprof fleet bench affine.onnx --on nano-1 ")}
    assert commands  # the desk measures what is missing, by the file's name at the desk
    assert not any("data/door" in remedy for remedy in remedies)


def test_a_choice_among_a_fleet_that_has_measured_nothing_says_what_to_do(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    asked = tmp_path / "requirements.toml"
    asked.write_text("[product]\nrate = 1\n")
    assert run(["choose", str(asked), "--fleet"]) == 2
    assert "edgeprof fleet bench MODEL" in capfd.readouterr().err


def test_a_bench_that_refuses_to_measure_says_so_at_once(fleet, desk, boards, tmp_path) -> None:
    boards.add("bare-1", "generic-unknown")
    boards.names.remove("bare-1")
    path = tmp_path / "inventory.toml"
    path.write_text('[[devices]]\nname = "bare-1"\n')
    done = fleet("bench", desk.model, *SHORT, "--strict", "--inventory", path, code=1)
    assert "nothing measures power here" in done.stderr
    assert "trying again" not in done.stderr


def test_a_model_that_cannot_be_run_there_costs_its_own_row_alone(fleet, desk, boards, tmp_path) -> None:
    odd = models.onnx_affine(tmp_path / "odd.onnx", operator="Magic")
    done = fleet("bench", desk.model, odd, *SHORT, "--on", "nano-1", "--json", code=3)
    answer = json.loads(done.stdout)
    (group,) = answer["table"]["groups"]
    assert [row["status"] == "failed" for row in group["rows"]] == [False, True]
    assert answer["devices"][0]["state"] == "measured"
