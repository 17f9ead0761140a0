"""``edgeprof doctor`` reports what works and what does not, and never fails itself."""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from edgeprof import hookimpl
from edgeprof.cli import doctor_checks as checks
from edgeprof.cli import udev
from edgeprof.cli.main import run
from edgeprof.errors import InputError, UnavailableError
from edgeprof.installation import install_command
from edgeprof.plugins import PluginHost, PluginInfo, points_of
from edgeprof.roots import Roots
from edgeprof.sensing.sensor import Channel, Sensor
from edgeprof.simulation.layouts import build
from edgeprof.worker.runtime import Availability
from edgeprof_plugins.runtimes import smallest


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """A machine without any problem."""
    files = {
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "performance\n",
        "proc/meminfo": "MemTotal:       4000000 kB\nMemAvailable:   3000000 kB\n",
        "proc/loadavg": "0.01 0.02 0.03 1/100 4242\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Roots(sysfs=tmp_path / "sys", procfs=tmp_path / "proc", dev=tmp_path / "dev", root=tmp_path)


class Rail(Sensor):
    name = "lamp"

    def __init__(self, *channels: Channel, refused: tuple[Channel, ...] = ()) -> None:
        self._channels, self._refused = channels, refused

    @property
    def channels(self):
        return self._channels

    @property
    def unavailable(self):
        return self._refused

    def read(self, values, times) -> None:
        values[:] = [7.0] * len(self._channels)


def host_with(**hooks) -> PluginHost:
    """Return a host with one plugin that has these hooks."""
    module = ModuleType("plug")
    for name, hook in hooks.items():
        hook.__name__ = name
        setattr(module, name, hookimpl(hook))
    host = PluginHost(entry_points=[])
    host.register(module, PluginInfo("plug", "plug-dist", "1.0"))
    return host


def named(found: list[checks.Check], name: str) -> checks.Check:
    (check,) = [check for check in found if check.name == name]
    return check


def test_a_healthy_machine_is_told_so(roots: Roots) -> None:
    found = checks.examine(PluginHost(entry_points=[]), roots)
    for name in ("python", "clock source", "governor", "memory", "competing load", "data directory"):
        assert named(found, name).status == "ok", name


@pytest.mark.parametrize(
    ("file", "content", "check", "word"),
    [
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n", "clock source", "hpet"),
        ("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "schedutil\n", "governor", "schedutil"),
        ("proc/meminfo", "MemTotal: 2000000 kB\nMemAvailable: 100000 kB\n", "memory", "97 MiB"),
        ("proc/loadavg", "64.0 1 1 1/1 1\n", "competing load", "64.00"),
    ],
)
def test_what_spoils_numbers_is_a_warning_with_a_remedy(
    file: str, content: str, check: str, word: str, roots: Roots, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(content, encoding="utf-8")
    found = named(checks.examine(PluginHost(entry_points=[]), roots), check)
    assert found.status == "warn"
    assert word in found.detail
    assert found.remedy


def test_an_empty_machine_has_absences_and_no_failure(tmp_path: Path) -> None:
    """Absent hardware is not a failure."""
    empty = Roots(sysfs=tmp_path, procfs=tmp_path, dev=tmp_path, root=tmp_path)
    found = checks.examine(PluginHost(entry_points=[]), empty)
    assert not [check for check in found if check.status == "fail"]
    assert named(found, "joules").status == "absent"
    assert named(found, "joules").remedy


def test_a_failed_plugin_a_failed_source_and_a_failed_runtime_are_each_one_line(roots: Roots) -> None:
    def broken_source(roots: Roots):
        raise OSError("the bus is gone")

    def broken_runtime():
        raise ImportError("libnothing.so.1")

    host = host_with(
        register_sensors=lambda register: register("bus", broken_source),
        register_runtimes=lambda register: register("nothing", broken_runtime),
    )
    host.plugins.append(PluginInfo("sick", "sick-dist", "1.0", status="failed", reason="SyntaxError: no"))
    found = checks.examine(host, roots)
    for name, word in (
        ("plugin sick", "SyntaxError"),
        ("sensor bus", "bus is gone"),
        ("runtime nothing", "libnothing"),
    ):
        assert named(found, name).status == "fail"
        assert word in named(found, name).detail


def test_a_channel_that_can_be_mended_is_a_failure_and_one_that_cannot_is_absent(roots: Roots) -> None:
    mend = Channel("lamp", "locked", "power", available=False, reason="root only", remedy="sudo it")
    nothing = Channel("lamp", "unwired", "power", available=False, reason="disabled by the board")
    sensor = Rail(Channel("lamp", "bulb", "power"), refused=(mend, nothing))
    host = host_with(register_sensors=lambda register: register("lamp", lambda roots: [sensor]))
    found = [check for check in checks.examine(host, roots) if check.name == "sensor lamp"]
    assert [(check.status, check.detail, check.remedy) for check in found] == [
        ("ok", "bulb", None),
        ("fail", "locked: root only", "sudo it"),
        ("absent", "unwired: disabled by the board", None),
    ]


def test_a_runtime_that_is_not_installed_is_absent_with_the_command_that_adds_it(roots: Roots) -> None:
    class Missing:
        def availability(self) -> Availability:
            return Availability(None, "toy is not installed", "pip install toy")

    host = host_with(register_runtimes=lambda register: register("toy", Missing))
    assert named(checks.examine(host, roots), "runtime toy") == (
        "runtime toy",
        "absent",
        "toy is not installed",
        install_command(["toy"]),
    )


def test_an_interpreter_is_asked_what_it_can_run() -> None:
    (found,) = checks._interpreters([Path(sys.executable)], ["onnxruntime", "torch"])
    assert found.name == sys.executable
    assert found.status in {"ok", "absent"}
    assert found.detail.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_an_interpreter_that_does_not_answer_is_a_warning(tmp_path: Path) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    (found,) = checks._interpreters([broken], ["torch"])
    assert found.status == "warn"


def test_a_data_directory_that_cannot_be_written_is_a_failure(
    roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "file" / "data"))
    found = named(checks.examine(PluginHost(entry_points=[]), roots), "data directory")
    assert found.status == "fail"
    assert "EDGEPROF_DATA_DIR" in (found.remedy or "")


def test_json_is_what_the_contract_says_and_nothing_else(capsys: pytest.CaptureFixture[str], roots: Roots) -> None:
    assert run(["doctor", "--json", "--sysfs-root", str(roots.sysfs), "--procfs-root", str(roots.procfs)]) == 0
    (rows,) = json.loads(capsys.readouterr().out).values()
    assert rows
    assert all(set(row) == {"name", "status", "detail", "remedy"} for row in rows)
    assert {row["status"] for row in rows} <= {"ok", "warn", "absent", "fail"}
    assert all(row["detail"] for row in rows)
    assert all(row["remedy"] for row in rows if row["status"] == "fail")


def test_strict_exits_1_where_something_failed(
    capsys: pytest.CaptureFixture[str], roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROF_PLUGINS", "nosuchplugin")
    argv = ["doctor", "--sysfs-root", str(roots.sysfs), "--procfs-root", str(roots.procfs)]
    assert run(argv) == 0
    assert run([*argv, "--strict"]) == 1
    assert "nosuchplugin" in capsys.readouterr().out


def test_a_plugin_that_fails_to_add_its_verbs_is_told(
    capsys: pytest.CaptureFixture[str], roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(cli) -> None:
        raise OSError("no verbs today")

    host = host_with(register_commands=broken)
    monkeypatch.setattr(PluginHost, "from_environment", lambda **_: host)
    assert run(["doctor", "--sysfs-root", str(roots.sysfs), "--procfs-root", str(roots.procfs)]) == 0
    assert "no verbs today" in capsys.readouterr().out


RULE = 'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/sh -c \'chgrp edgeprof /sys%p/e && chmod 0440 /sys%p/e\'"'


def test_the_udev_rules_are_those_of_the_plugins() -> None:
    host = PluginHost()
    content = udev.text(host.udev_rules())
    assert "powercap" in content
    assert f"chgrp {udev.GROUP} " in content


@pytest.mark.parametrize("rule", ['MODE="0664"', 'RUN+="chmod 0444 x"', 'RUN+="chmod o+r x"', "RUN+='chmod a+r x'"])
def test_a_rule_that_would_open_a_counter_to_everybody_is_refused(rule: str) -> None:
    with pytest.raises(InputError, match="lets everybody read"):
        udev.text({"sly": rule})


def test_installing_writes_the_rule_and_runs_the_steps_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(udev.subprocess, "run", lambda argv, **_: ran.append(argv))
    monkeypatch.setattr(udev, "_group_exists", lambda: False)
    commands = udev.steps("ada")
    udev.install(udev.text({"rapl": RULE}), commands, tmp_path)
    assert (tmp_path / udev.RULES).read_text("utf-8").endswith(RULE + "\n")
    assert [argv[0] for argv in ran] == ["groupadd", "usermod", "udevadm", "udevadm"]


def test_without_root_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnavailableError) as caught:
        udev.install("x", [], tmp_path)
    assert caught.value.remedy == "sudo edgeprof doctor --fix-udev"
    assert not any(tmp_path.iterdir())


def test_fix_udev_shows_everything_first_and_then_asks_for_root(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(["doctor", "--fix-udev"]) == 2
    out, err = capsys.readouterr()
    assert "chmod 0440" in out
    assert "udevadm control --reload" in out
    assert "needs root" in err


def test_a_bundle_is_shown_and_written_and_read_as_a_tree(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROF_PLUGINS", "ina3221,thermal,jetson")
    build("jetson-orin-nano", tmp_path / "board")
    (tmp_path / "board/root/etc/hostname").write_text("annas-robot\n")
    (tmp_path / "board/root/etc/os-release").write_text('PRETTY_NAME="L4T of annas-robot"\n')
    file = tmp_path / "bug.tar.gz"
    board = ["--sysfs-root", str(tmp_path / "board")]
    assert run(["sensors", "--json", *board]) == 0
    here = json.loads(capsys.readouterr().out)
    assert run(["doctor", "--bundle", str(file), "--yes", *board]) == 0
    shown = capsys.readouterr().out
    assert "in1_input  5000" in shown
    assert "annas-robot" not in shown
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path)  # its own; Debian's Python 3.11.2 has no filter yet
    unpacked = tmp_path / "edgeprof-bundle"
    assert all(name in shown for name in ("class/hwmon", "root/etc/os-release", "edgeprof-bundle.json"))
    assert run(["sensors", "--json", "--sysfs-root", str(unpacked)]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["headline"] == here["headline"]
    assert there["headline"]["power_w"] > 0
    assert {channel["provenance"] for channel in there["channels"]} == {"simulated"}
    manifest = json.loads((unpacked / "edgeprof-bundle.json").read_text())
    assert manifest["schema"] == "edgeprof.bundle/1"
    assert manifest["sensors"]["headline"]["power_w"] == here["headline"]["power_w"]
    assert {"python", "numpy", "kernel"} <= manifest["versions"].keys()
    whole, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as on a full disk
    try:
        assert run(["doctor", "--bundle", str(file), "--yes", *board]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == whole
    assert "cannot write" in capsys.readouterr().err


def test_a_bundle_is_not_written_unasked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROF_PLUGINS", "")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    board = ["--sysfs-root", str(tmp_path)]
    for name, words in (
        ("bug.zip", "gzipped tar"),
        ("no/bug.tgz", "not a directory"),
        ("bug.tgz", "nobody can be asked"),
    ):
        assert run(["doctor", "--bundle", str(tmp_path / name), *board]) == 2
        assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_unpacked_before_it_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bug.tar.gz").write_bytes(b"")
    assert run(["sensors", "--sysfs-root", str(tmp_path / "bug.tar.gz")]) == 2
    assert "tar xf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shapes", "status", "words"),
    [({}, "ok", "onnxruntime: ran a model"), ({"z": (1, 2)}, "fail", "z")],
    ids=["as it is", "with an input that it has not"],
)
def test_doctor_runs_the_users_own_model(shapes, status: str, words: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "own.onnx").write_bytes(smallest.ONNX)
    model = checks.OwnModel(str(tmp_path / "own.onnx"), shapes, {})
    (check,) = checks._own_model(PluginHost(points_of("onnxruntime")), model)
    assert (check.name, check.status) == ("model own.onnx", status)
    assert words in check.detail


def test_a_model_that_no_runtime_takes_or_that_is_none_is_a_failure_with_a_remedy(tmp_path: Path, capsys) -> None:
    (tmp_path / "own.onnx").write_bytes(smallest.ONNX)
    for spec in ("own.onnx", "missing.onnx"):
        model = checks.OwnModel(str(tmp_path / spec), {}, {})
        (check,) = checks._own_model(PluginHost(entry_points=[]), model)
        assert check.status == "fail"
        assert check.remedy
    assert run(["doctor", "--input", "x=1x2"]) == 2
    assert "--input goes with --model" in capsys.readouterr().err
