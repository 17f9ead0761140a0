"""The daemon as a whole: what it serves, what it survives, and what it keeps."""

from __future__ import annotations

import gc
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from edgeprof.errors import InputError, UnavailableError
from edgeprof.plugins import sensor_points
from edgeprof_exporters import engine
from edgeprof_exporters.configuration import Settings
from edgeprof_exporters.daemon import Daemon
from edgeprof_exporters.messages import Message
from edgeprof_exporters.metric_names import BY_NAME, COLLECTORS
from tests.exporters.conftest import EDGEPROF, samples
from tests.profiler.results import samples as made

#: A Python that any user may run; our own may lie where nobody else may look.
PYTHON = Path("/usr/bin/python3")
OPEN_METRICS = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.1"


def store(directory: Path) -> None:
    from edgeprof.results.store import Store

    stored = Store(directory)
    stored.save(made.study())
    stored.save(made.language())


def send(daemon, *lines: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(str(daemon.runtime / "track.sock"))
        for line in lines:
            sock.send(line)


def test_every_collector_shows_what_there_is_and_promtool_has_no_objection(board, start, tmp_path: Path) -> None:
    store(tmp_path / "run/data")
    daemon = start(board.directory).ready()
    daemon.until(lambda: b"edgeprof_bench" in daemon.get()[1])
    time.sleep(0.5)
    now = time.monotonic_ns()
    send(daemon, b"EP1 %d %d 4\tyolov8s\tint8\ttensorrt" % (now - 400_000_000, now))
    daemon.until(lambda: sum(samples(daemon.get()[1].decode(), "edgeprof_inference_energy_joules_total")) > 0)
    text = daemon.get()[1].decode()
    assert "NaN" not in text
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    exposed = {name for name in BY_NAME if name in shown or name.removesuffix("_total") in shown}
    # This board has no rail inside another but the total, nothing tells a state of throttling, and no application
    # marked stages.
    assert set(BY_NAME) - exposed == {
        "edgeprof_stage_energy_joules_total",
        "edgeprof_stage_seconds_total",
        "edgeprof_stages_total",
        "edgeprof_stages_with_energy_total",
        "edgeprof_stages_without_energy_total",
        "edgeprof_subrail_energy_joules_total",
        "edgeprof_subrail_power_watts",
        "edgeprof_throttled",
    }
    assert samples(text, "edgeprof_scrape_collector_success") == [1.0] * len(COLLECTORS)
    rails = {s for s in ("VDD_CPU_GPU_CV", "VDD_SOC") if samples(text, "edgeprof_rail_energy_joules_total", rail=s)}
    assert len(rails) == 2
    assert not samples(text, "edgeprof_rail_energy_joules_total", rail="VDD_IN")  # the whole device is no rail
    assert samples(text, "edgeprof_device_energy_joules_total", source="ina3221", provenance="simulated")
    assert samples(text, "edgeprof_inference_energy_joules_total", model="yolov8s") == [pytest.approx(0.4 * 6, rel=0.5)]
    if promtool := shutil.which("promtool"):
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_names_are_base_units_with_their_suffixes_and_no_label_that_belongs_to_the_scraper() -> None:
    unit = (
        r"(joules|watts|volts|amperes|celsius|ratio|bytes|hertz|seconds|joules_per_(inference|unit|token)|per_second)"
    )
    counted = r"(inferences|samples|missed|events|with(out)?_energy|messages|stages)"
    flags = {"edgeprof_throttled", "edgeprof_sampler_up", "edgeprof_config_last_reload_success"}
    flags |= {"edgeprof_scrape_collector_success", "edgeprof_bench_last_run_success"}
    flags |= {"edgeprof_bench_perplexity"}  # a number without a unit
    banned = {"type", "zone", "region", "cluster", "az", "dc", "service", "env", "owner", "job", "instance"}
    for name in BY_NAME.values():
        assert re.fullmatch(r"edgeprof_[a-z_]+", name.name)
        if name.kind == "counter":
            assert re.search(rf"_({unit}|{counted})_total$", name.name), name.name
        elif name.kind == "info":
            assert name.name.endswith("_info")
        else:
            assert name.name in flags or re.search(rf"_{unit}$", name.name), name.name
            assert not name.name.endswith("_total")
        assert not set(name.labels) & banned
        assert name.text.endswith(".")
        assert name.text[0].isupper() or name.text[0].isdigit()


def test_both_formats_and_gzip_and_a_choice_of_collectors(shared) -> None:
    daemon = shared
    status, plain, headers = daemon.get("/metrics?collect[]=power&collect[]=sampler")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert b"edgeprof_rail_power_watts{" in plain
    assert b"edgeprof_temperature_celsius" not in plain
    _, text, headers = daemon.get("/metrics?exclude[]=process", Accept=OPEN_METRICS)
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert b"process_" not in text
    _, packed, headers = daemon.get(**{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert b"edgeprof_device_info" in gzip.decompress(packed)
    assert daemon.get("/metrics?collect[]=power&exclude[]=device")[0] == 400
    assert daemon.get("/metrics?collect[]=pwer")[0] == 400


def test_sigterm_ends_within_two_seconds_with_exit_0_and_counters_go_on_after_it(board, start, tmp_path: Path) -> None:
    flags = ("--state.file", str(tmp_path / "state.json"))
    daemon = start(board.directory, *flags).ready()
    now = time.monotonic_ns()
    send(daemon, b"EP1 %d %d 4\tm\t\t" % (now - 3_000_000, now))
    daemon.until(lambda: daemon.value("edgeprof_device_energy_joules_total") > 3)
    before = daemon.value("edgeprof_device_energy_joules_total")
    begun = time.monotonic()
    assert daemon.end() == 0
    assert time.monotonic() - begun < 2.5
    assert not (daemon.runtime / "track.sock").exists()
    later = start(board.directory, *flags).ready()
    assert later.logged("counters go on")
    assert later.value("edgeprof_device_energy_joules_total") >= before
    assert later.value("edgeprof_inferences_total", model="m") == 4


def test_after_kill_9_no_counter_is_lower_than_the_last_scrape_saw_it(board, start, tmp_path: Path) -> None:
    """A lower counter would be read as one that began again at zero, and all of it added once more."""
    flags = ("--state.file", str(tmp_path / "state.json"), "--state.interval-s", "1")
    daemon = start(board.directory, *flags).ready()
    daemon.until(lambda: daemon.value("edgeprof_device_energy_joules_total") > 5)
    before = {name: daemon.value(name) for name in COUNTERS}
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    later = start(board.directory, *flags).ready()
    assert later.logged("counters go on")
    for name, value in before.items():
        assert later.value(name) >= value, name


COUNTERS = ("edgeprof_device_energy_joules_total", "edgeprof_rail_energy_joules_total")


def test_after_a_power_cut_counters_begin_at_zero(board, start, tmp_path: Path) -> None:
    flags = ("--state.file", str(tmp_path / "state.json"), "--state.interval-s", "1")
    daemon = start(board.directory, *flags).ready()
    daemon.until((tmp_path / "state.json").exists)
    daemon.end(signal.SIGKILL)
    for copy in daemon.runtime.glob("state-*.copy"):
        copy.unlink()  # memory does not survive
    later = start(board.directory, *flags).ready()
    assert later.logged("did not end in order")


def test_two_daemons_of_one_user_do_not_go_on_from_one_anothers_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    one, other = (Settings(state_file=str(tmp_path / name)) for name in ("a.json", "b.json"))
    killed = Daemon(one, lambda: one, [])
    killed.inferences.take(Message(1.0, 2.0, 4, "m", "", ""))
    killed.state.save_runtime(kept := killed.collect_state())
    stranger = Daemon(other, lambda: other, [])
    stranger.resume()
    assert stranger.collect_state()["inferences"] == []
    stranger.state.save(stranger.collect_state(), clean=True)
    again = Daemon(one, lambda: one, [])
    again.resume()
    assert again.collect_state()["inferences"] == kept["inferences"] != []


def test_a_daemon_that_finds_its_port_in_use_leaves_the_state_to_the_next(
    board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROF_SYSFS_ROOT", str(board.directory))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings(state_file=str(tmp_path / "state.json"), web_listen_address=[address])
        last = Daemon(settings, lambda: settings, [])
        last.state.save(last.collect_state(), clean=True)
        late = Daemon(settings, lambda: settings, [])
        with pytest.raises((InputError, UnavailableError), match="Address already in use"):
            late.begin()
        late.end()
    kept, _ = Daemon(settings, lambda: settings, []).state.load()
    assert kept is not None


@pytest.mark.parametrize(
    ("path", "said"), [("/dev/null", "not a regular file"), ("nowhere/state.json", "not a directory")]
)
def test_a_state_file_where_none_can_be_is_refused_at_once(path: str, said: str) -> None:
    settings = Settings(state_file=path)
    with pytest.raises(InputError, match=said):
        Daemon(settings, lambda: settings, [])


def test_a_broken_state_file_is_named_and_passed_over(board, start, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"{")
    daemon = start(board.directory, "--state.file", str(tmp_path / "state.json")).ready()
    assert daemon.logged("the state cannot be read")


@pytest.mark.parametrize(
    "broken", [{"joules": "many"}, {"joules": -5.0, "gap_s": 0, "time": None, "value": 0}, {}, None]
)
def test_a_state_of_the_right_form_with_wrong_numbers_is_not_taken_over_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: object
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    settings = Settings(state_file=str(tmp_path / "state.json"))
    first = Daemon(settings, lambda: settings, [])
    first.inferences.take(Message(1.0, 2.0, 4, "m", "", ""))
    kept = first.collect_state()
    meters = {"ina3221\tVDD_IN\tpower": {"joules": 5.0, "gap_s": 0.0, "time": 1.0, "value": 6.0}}
    kept["engine"]["meters"] = meters
    first.state.save(kept, clean=True)
    second = Daemon(settings, lambda: settings, [])
    second.resume()
    assert second.collect_state()["inferences"] == kept["inferences"]
    assert second.collect_state()["engine"]["meters"] == meters
    kept["engine"]["meters"] = {"ina3221\tVDD_IN\tpower": broken}
    first.state.save(kept, clean=True)
    third = Daemon(settings, lambda: settings, [])
    third.resume()
    assert (third.collect_state()["inferences"], third.collect_state()["engine"]["meters"]) == ([], {})
    assert "the state is not ours; counters begin at zero" in caplog.messages


def test_a_state_that_cannot_be_written_costs_nothing_else_and_is_told_soon(board, start, tmp_path: Path) -> None:
    (tmp_path / "state.json.new").mkdir()
    daemon = start(board.directory, "--state.file", str(tmp_path / "state.json")).ready()
    daemon.until(lambda: daemon.logged("the state cannot be kept"))
    assert daemon.get("/-/healthy")[0] == 200
    assert daemon.end() == 0


def test_a_good_reload_is_taken_over_and_a_bad_one_leaves_all_as_it_was(board, start, tmp_path: Path) -> None:
    config = tmp_path / "exporter.yml"
    config.write_text("sampling: {rate_hz: 10}\n")
    daemon = start(board.directory, "--config.file", str(config)).ready()
    config.write_text("collectors: {exclude: [device]}\n")
    daemon.child.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.logged('"reloaded"'))
    assert b"edgeprof_temperature" not in daemon.get()[1]
    energy = daemon.value("edgeprof_device_energy_joules_total")
    config.write_text("sampling: {rate_hx: 10}\n")
    daemon.child.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.logged("reload refused"))
    assert daemon.logged("Did you mean rate_hz?")
    assert b"edgeprof_temperature" not in daemon.get()[1]
    assert daemon.value("edgeprof_config_last_reload_success") == 0
    assert daemon.value("edgeprof_device_energy_joules_total") >= energy


def test_a_sensor_that_vanishes_and_comes_back_is_shown_lost_and_then_read_again(
    board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, with less patience."""
    monkeypatch.setattr(engine, "STALE_S", 1.0)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path))
    root = str(board.directory)
    settings = Settings(web_listen_address=["127.0.0.1:0"], sampling_sysfs_root=root, sampling_bridge_s=0.5)
    daemon = Daemon(settings, lambda: settings, sensor_points())
    daemon.begin()
    try:
        address = daemon._server.addresses[0]

        def value(name: str, **labels: str) -> float | None:
            with urllib.request.urlopen(
                f"http://{address}/metrics?collect[]=power&collect[]=sampler", timeout=10
            ) as answer:
                found = samples(answer.read().decode(), name, **labels)
            return sum(found) if found else None

        def until(up: float) -> None:
            deadline = time.monotonic() + 30
            while value("edgeprof_sampler_up", sensor="ina3221") != up:
                assert time.monotonic() < deadline
                time.sleep(0.05)

        until(1)
        chips = [path for path in (board.directory / "class/hwmon").iterdir() if (path / "name").is_file()]
        chip = next(path for path in chips if (path / "name").read_text().strip() == "ina3221").resolve()
        shutil.copytree(chip, board.directory / "kept", symlinks=True)
        shutil.rmtree(chip)
        until(0)
        assert value("edgeprof_device_power_watts") is None
        assert value("edgeprof_sampler_up", sensor="system") == 1
        assert daemon.unhealthy() is None  # one lost sensor is no reason to be started again
        (board.directory / "kept").rename(chip)
        until(1)
        assert value("edgeprof_sampler_gap_seconds_total", sensor="ina3221") > 0.5
        assert value("edgeprof_device_power_watts") > 0
    finally:
        daemon.end()
        gc.unfreeze()


def test_without_any_power_sensor_it_serves_what_there_is(start, tmp_path: Path) -> None:
    from edgeprof.simulation.layouts import build

    build("raspberry-pi-4", tmp_path / "pi")
    daemon = start(tmp_path / "pi").ready()
    text = daemon.get()[1].decode()
    assert "edgeprof_device_energy_joules_total" not in text
    assert samples(text, "edgeprof_temperature_celsius")
    assert daemon.logged("nothing measures the whole device")


def test_the_control_socket_answers_its_owner_and_survives_everything_else(shared) -> None:
    daemon = shared
    path = daemon.runtime / "control.sock"
    assert (path.stat().st_mode & 0o777) == 0o660
    cases = [b"{", b"[]", b"null", b'"x"', b'{"command": 1}', b'{"command": "__class__"}', b"[" * 4000, b"\xff\xfe"]
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as answers:
        sock.settimeout(10)
        sock.connect(str(path))
        for case in cases:
            sock.sendall(case + b"\n")
            assert "error" in json.loads(answers.readline())
        sock.sendall(b'{"command": "status"}\n')
        assert json.loads(answers.readline())["ok"]["unhealthy"] is None
        sock.sendall(b"x" * 10_000)
        assert "longer" in json.loads(answers.readline())["error"]
    env = {**os.environ, "EDGEPROF_EXPORTER_CONTROL_SOCKET": str(path)}
    done = subprocess.run([EDGEPROF, "exporter", "status"], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["pid"] == daemon.child.pid
    subprocess.run([EDGEPROF, "exporter", "reload"], env=env, capture_output=True, check=True)
    daemon.until(lambda: daemon.logged('"reloaded"'))


@pytest.mark.skipif(os.geteuid() != 0 or not PYTHON.exists(), reason="only root becomes another user")
def test_the_control_socket_refuses_a_user_outside_the_group(board, start, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime:  # pytest's own is closed to others
        Path(runtime).chmod(0o755)
        daemon = start(board.directory, runtime=Path(runtime)).ready()
        path = daemon.runtime / "control.sock"
        path.chmod(0o666)  # as if the file's mode had failed us
        assert "not permitted" in ask_as_nobody(path)


def ask_as_nobody(path: Path) -> str:
    code = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        's.sendall(b\'{"command": "status"}\\n\'); print(s.makefile().readline())'
    )
    argv = [str(PYTHON), "-c", code, str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_it_is_found_by_its_name_and_its_settings_are_nobodys_business(shared) -> None:
    told = Path(f"/proc/{shared.child.pid}/cmdline").read_bytes().decode().rstrip("\0").replace("\0", " ")
    assert told.endswith(" edgeprof exporter")
    assert "listen" not in told


def test_a_second_daemon_does_not_take_the_sockets_of_the_first(shared, board, start) -> None:
    first = shared
    second = start(board.directory, runtime=first.runtime)
    assert second.child.wait(30) == 2
    second.until(lambda: second.logged("another daemon listens"))
    assert first.get("/-/ready")[0] == 200
    send(first, b"EP1 0 1 1\tm\t\t")


def test_systemd_hears_ready_the_watchdog_and_the_end(board, start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        daemon = start(board.directory, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
        heard = [sock.recv(4096)]
        assert heard[0].startswith(b"READY=1\n")
        while not any(b"WATCHDOG=1" in one for one in heard):
            heard.append(sock.recv(4096))
        daemon.end()
        while b"STOPPING=1" not in heard:
            heard.append(sock.recv(4096))


def test_an_address_in_use_is_one_sentence_and_exit_2(board, start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = start(board.directory, "--web.listen-address", f"127.0.0.1:{taken.getsockname()[1]}")
        assert daemon.child.wait(30) == 2
        daemon.until(lambda: daemon.logged("cannot listen on"))
        assert not daemon.logged("Traceback")


def test_at_several_addresses_only_what_there_is_is_served(board, start) -> None:
    addresses = ("--web.listen-address", "127.0.0.1:0", "--web.listen-address", "[::1]:0")
    daemon = start(board.directory, *addresses, "--web.telemetry-path", "/m").ready()
    line = json.loads(next(line for line in daemon.log if '"listening"' in line))
    both = line["addresses"].split(",")
    assert [address.rpartition(":")[0] for address in both] == ["127.0.0.1", "[::1]"]
    for daemon.address in both:
        assert daemon.get("/metrics")[0] == 404
        assert daemon.get("/m")[0] == 200
        assert b'href="/m"' in daemon.get("/")[1]
        assert daemon.get("/-/healthy")[:2] == (200, b"OK\n")
        assert daemon.get("/../../etc/passwd")[0] == 404


def test_sockets_that_systemd_hands_over_are_taken(board, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as handed:
        # systemd's numbers begin at 3, and it names the process that they are for.
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3)\n"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
            "os.execv(sys.argv[2], [sys.argv[2], 'exporter', '--web.systemd-socket'])"
        )
        argv = [sys.executable, "-c", code, str(handed.fileno()), EDGEPROF]
        env = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path), "EDGEPROF_SYSFS_ROOT": str(board.directory)}
        with subprocess.Popen(argv, pass_fds=[handed.fileno()], env=env, stderr=subprocess.DEVNULL) as child:
            try:
                url = f"http://127.0.0.1:{handed.getsockname()[1]}/-/healthy"
                with urllib.request.urlopen(url, timeout=30) as answer:
                    assert answer.status == 200
            finally:
                child.terminate()
                assert child.wait(20) == 0


def test_without_a_socket_from_systemd_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    settings = Settings(web_systemd_socket=True)
    with pytest.raises(UnavailableError, match="systemd passed no socket"):
        Daemon(settings, lambda: settings, []).begin()


def test_the_daemon_is_small(board, start) -> None:
    daemon = start(board.directory).ready()
    for _ in range(20):
        daemon.get()
    assert daemon.status("VmRSS") < 27_000  # kB; the soak benchmark holds the target, this only notices a new import
    maps = Path(f"/proc/{daemon.child.pid}/maps").read_text()
    unwanted = ("numpy", "msgspec", "sqlite", "_bcrypt", "onnxruntime", "libssl", "libcrypto", "_ssl")
    assert not [name for name in unwanted if name in maps]
