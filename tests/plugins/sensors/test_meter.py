"""External meters: their lines, the ways to reach them, what is told of a bad one, and of one that stops talking."""

from __future__ import annotations

import itertools
import math
import os
import pty
import socket
import sys
import threading
import time
from array import array

import pytest

from edgeprof.errors import InputError, UnavailableError
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.meter.lines import Facts, LineError, parse_header, parse_line
from edgeprof.sensing.sampler import Sampler
from edgeprof_plugins.sensors import meter
from tests.clocks import turn_clock


@pytest.fixture(autouse=True)
def own_directories(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    yield
    meter.disconnect()


class Writer:
    """Says lines into a file descriptor from a thread, until it is told to stop."""

    def __init__(self, descriptor: int, lines, every_s: float = 0.02) -> None:
        self.descriptor, self.lines, self.every_s = descriptor, lines, every_s
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._say, daemon=True)
        self.thread.start()

    def _say(self) -> None:
        for line in self.lines:
            if self.stop.wait(self.every_s):
                return
            try:
                os.write(self.descriptor, (line + "\n").encode())
            except OSError:
                return

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


def forever(line):
    while True:
        yield line() if callable(line) else line


def find(address: str):
    return discover(PluginHost(only=["meter"]), Roots(), [f"meter:{address}"])


def test_a_line_is_watts_or_words() -> None:
    assert parse_line("12.5").watts == 12.5
    assert parse_line("-0.4\r").watts == -0.4
    assert parse_line("V=5.0, A=2").watts == 10.0
    assert parse_line("W=9 V=5 A=2").watts == 9.0  # a meter that says watts knows better than a product of means
    assert parse_line("t=3.5 J=100 ch=main") == ("main", None, None, None, 100.0, 3.5)
    assert parse_line("") is None
    assert parse_line("# said by hand") is None


@pytest.mark.parametrize("line", ["watts", "W=", "W=1W", "X=3", "V=5", "nan", "W=inf", "=3", "1 2"])
def test_what_is_no_reading_is_an_error_that_says_why(line: str) -> None:
    with pytest.raises(LineError, match=r"\w"):
        parse_line(line)


def test_a_header_says_what_the_meter_is() -> None:
    facts = parse_header("#edgeprof name=ut61 covers=board gain=0.5% step=0.001 average=0.1", Facts())
    assert facts == Facts("ut61", "board", 0.005, None, 0.001, None, 0.1)
    assert parse_header("# something else", Facts()) is None
    with pytest.raises(LineError, match="gain, offset"):
        parse_header("#edgeprof accuracy=1", Facts())


def test_a_serial_port_is_read_raw_at_its_speed(tmp_path) -> None:
    import termios

    master, slave = pty.openpty()
    path = os.ttyname(slave)
    writer = Writer(master, forever("V=5.0 A=0.5\r"))
    found = find(f"{path}@9600")
    assert termios.tcgetattr(slave)[4] == termios.B9600
    channels = {(c.name, c.quantity): c for c in found.topology.channels}
    assert set(channels) == {("meter", "power"), ("meter", "voltage"), ("meter", "current")}
    assert found.topology.headline.channels == (channels["meter", "power"],)
    assert found.topology.headline.covers == "wall"
    (sensor,) = found.sensors
    assert sensor.read_once()["meter/power"] == 2.5
    writer.end()
    os.close(master)
    os.close(slave)


def test_a_fifo_a_port_and_a_command_are_read_alike(tmp_path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    ready = threading.Thread(target=lambda: writers.append(Writer(os.open(fifo, os.O_WRONLY), forever("7.5"))))
    writers: list[Writer] = []
    ready.start()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        writers.append(Writer(connection.detach(), forever("7.5")))

    serving = threading.Thread(target=serve)
    serving.start()
    program = "import time\nwhile True: print('7.5', flush=True); time.sleep(0.02)"
    addresses = [str(fifo), f"tcp:127.0.0.1:{server.getsockname()[1]}", f'command:{sys.executable} -c "{program}"']
    for address in addresses:
        (sensor,) = find(address).sensors
        assert sensor.read_once() == {"meter/power": 7.5}, address
    ready.join()
    serving.join()
    server.close()
    for writer in writers:
        writer.end()
        os.close(writer.descriptor)


def test_the_meters_own_clock_places_its_readings(tmp_path) -> None:
    """Lines that come in clumps, each with the time at which it was measured."""
    read, write = os.pipe()
    origin = time.monotonic() - 1000.0
    begin = time.monotonic()

    def clumps():
        done = 0
        while True:
            now = time.monotonic() - begin
            rows = []
            while done * 0.02 <= now:
                rows.append(f"t={begin + done * 0.02 - origin:.6f} W={done}")
                done += 1
            yield "\n".join(rows) if rows else "# nothing yet"

    writer = Writer(write, clumps(), every_s=0.1)
    (sensor,) = find(f"/dev/fd/{read}").sensors
    sampler = Sampler([sensor], 200.0)
    with sampler:
        time.sleep(1.2)
    writer.end()
    os.close(read)
    os.close(write)
    series = sampler.trace.readings(("meter", "meter", "power"))
    delays = sorted(at - (begin + watts * 0.02) for at, watts in zip(series.times, series.values, strict=True))
    assert len(delays) > 5
    # Not the 0.1 s of the clumps. A busy machine delays the first lines, by which the meter's clock is placed.
    tenth = len(delays) // 10
    assert delays[-1 - tenth] - delays[tenth] < 0.05


def test_a_meter_that_stops_talking_gives_nothing_more_and_says_since_when(tmp_path) -> None:
    read, write = os.pipe()
    writer = Writer(write, forever("3.0"))
    found = find(f"/dev/fd/{read}")
    sampler = Sampler(found.sensors, 100.0, found.topology.by_key())
    with sampler:
        time.sleep(0.5)
        writer.end()
        lost = time.monotonic()
        time.sleep(2.0)
    series = sampler.trace.readings(("meter", "meter", "power"))
    values = [(t, v) for t, v in zip(series.times, series.values, strict=True) if not math.isnan(v)]
    assert {v for _, v in values} == {3.0}
    assert max(t for t, _ in values) <= lost + 0.05  # nothing is held
    (failure,) = sampler.failures()
    assert "said nothing for" in failure.reason
    os.close(read)
    os.close(write)


def test_the_time_that_a_silent_meter_lost_is_a_gap_and_it_comes_back() -> None:
    read, write = os.pipe()
    writer = Writer(write, forever("3.0"))
    found = find(f"/dev/fd/{read}")
    sampler = Sampler(found.sensors, 100.0, found.topology.by_key())
    with sampler:
        time.sleep(0.3)
        writer.end()
        time.sleep(1.5)
        writer = Writer(write, forever("4.0"))
        time.sleep(1.8)
    writer.end()
    (stats,) = [s for s in sampler.stats() if s.key[2] == "power"]
    assert stats.max_gap_s >= 1.4
    assert sampler.latest()["meter", "meter", "power"][1] == 4.0
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("tcp:host", InputError, "tcp:HOST:PORT"),
        ("/dev/ttyX@fast", InputError, "baud"),
        ("/dev/ttyX@12345", InputError, "baud"),
        ("command:", InputError, "no command"),
        ("command:'", InputError, "no command"),
        ("/no/such/port", UnavailableError, "No such file"),
        ("command:false", UnavailableError, "status 1"),
        ("command:sh -c 'echo first >&2; echo no such port >&2; exit 3'", UnavailableError, "status 3: no such port"),
        ("command:no-such-program-at-all", UnavailableError, "No such file"),
        ("command:sh -c 'while :; do echo hello; sleep 0.1; done'", UnavailableError, "'hello'"),
    ],
)
def test_a_bad_meter_is_one_sentence_with_a_remedy(address, error, words, monkeypatch) -> None:
    monkeypatch.setattr(meter, "FIRST_S", 0.5)
    with pytest.raises(error) as caught:
        find(address)
    assert words in caught.value.message
    assert caught.value.remedy is not None or error is InputError


def test_what_a_meter_writes_to_stderr_does_not_reach_the_terminal(tmp_path, capfd) -> None:
    program = tmp_path / "meter.sh"
    # More than a pipe holds: a program that nobody listens to must not stop either.
    program.write_text("head -c 300000 /dev/zero | tr '\\0' '\\033' >&2; while :; do echo W=5.0; sleep 0.01; done\n")
    (sensor,) = find(f"command:sh {program}").sensors
    values, times = array("d", [0.0]), array("d", [0.0])
    sensor.open()
    sensor.read(values, times)
    sensor.close()
    assert list(values) == [5.0]
    assert capfd.readouterr().err == ""


def test_a_record_is_told_from_a_meter(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(meter, "FIRST_S", 0.3)
    (tmp_path / "log.csv").write_text("time,watts\n")
    with pytest.raises(UnavailableError, match="calibrate --against"):
        find(str(tmp_path / "log.csv"))


def test_meters_toml_names_meters_with_what_they_are(tmp_path, monkeypatch) -> None:
    (tmp_path / "config").mkdir()
    read, write = os.pipe()
    writer = Writer(write, forever("40"))
    text = (
        f'[bench-supply]\naddress = "/dev/fd/{read}"\ncovers = "board"\ngain = 0.002\naverage = 0.1\ninterval = 0.1\n'
    )
    (tmp_path / "config" / "meters.toml").write_text(text)
    (sensor,) = find("bench-supply").sensors
    (channel,) = sensor.channels
    assert (channel.name, channel.scope, channel.gain_limit) == ("bench-supply", "board", 0.002)
    assert (channel.filter.kind, channel.filter.length_s, channel.update_interval_s) == ("block", 0.1, 0.1)
    assert channel.role == "total"
    writer.end()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a]\naddress = 3\n", ["line 1", "[a]", "address"]),
        ('\n[a]\naddress = "-"\nbaud = 3\n', ["line 4", "'baud'"]),
        ('[a]\naddress = "-"\ncovers = "house"\n', ["house"]),
        ('[a]\naddress = "-"\ngain = "much"\n', ["gain=much"]),
        ("[a\n", ["TOML"]),
        ("a = 3\n", ["block"]),
    ],
)
def test_a_malformed_meters_toml_names_the_file_the_line_and_the_keys(tmp_path, text, words) -> None:
    path = tmp_path / "meters.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        meter.configured(path)
    said = f"{caught.value.message} {caught.value.remedy}"
    assert all(word in said for word in ["meters.toml", *words])


def test_the_example_bridge_speaks_the_protocol(tmp_path) -> None:
    from pathlib import Path

    bridge = Path(__file__).parents[3] / "examples" / "meters" / "wattmeter.py"
    port = tmp_path / "port"
    os.mkfifo(port)
    lines = (f"5.0;0.4;{number * 0.02:.3f}" for number in range(100000))
    writers: list[Writer] = []
    ready = threading.Thread(target=lambda: writers.append(Writer(os.open(port, os.O_WRONLY), lines)))
    ready.start()
    found = find(f"command:{sys.executable} {bridge} {port}")
    ready.join()
    (sensor,) = found.sensors
    assert found.topology.headline.covers == "board"
    assert sensor.read_once()["usb/power"] == pytest.approx(2.0)
    writers[0].end()
    os.close(writers[0].descriptor)


def test_a_source_that_takes_no_address_and_an_empty_one_are_refused() -> None:
    with pytest.raises(InputError, match="takes no address"):
        discover(PluginHost(), Roots(), ["thermal:1"])
    with pytest.raises(InputError, match="no address after"):
        discover(PluginHost(), Roots(), ["meter:"])


def test_a_row_has_a_time_of_its_own() -> None:
    read, write = os.pipe()
    writer = Writer(write, forever("W=2 J=5"))
    (sensor,) = find(f"/dev/fd/{read}").sensors
    values, times = array("d", [0.0, 0.0]), array("d", [0.0, 0.0])
    sensor.open()
    sensor.read(values, times)
    assert list(values) == [2.0, 5.0]
    assert 0 <= time.monotonic() - times[0] < 1
    energy = next(c for c in sensor.channels if c.quantity == "energy")
    assert (energy.kind, energy.provenance) == ("counter", "counter")
    writer.end()
    os.close(read)
    os.close(write)


def heard(monkeypatch, *, every_s: float, reads_every_s: float, seconds: float, line):
    """What a meter that says ``line(t)`` every ``every_s`` seconds is read as, with clocks turned by hand."""
    now = [1000.0]
    turn_clock(monkeypatch, monotonic=lambda: now[0])
    stream = meter._Stream("nowhere", Facts(interval_s=every_s))
    monkeypatch.setattr(stream.link, "start", lambda: None)
    channel = [("meter", "watts")]
    sensor, rows = None, []
    for number in range(round(seconds / every_s)):
        now[0] = 1000.0 + number * every_s
        stream._line(line(number * every_s), now[0])
        if sensor is None:
            sensor = meter.Meter(stream, [meter._meter_channel("meter", "power", stream, "nowhere")], channel)
        elif number % round(reads_every_s / every_s) == 0:
            values, times = array("d", [math.nan]), array("d", [math.nan])
            sensor.read(values, times)
            rows.append((times[0], values[0]))
    return stream, rows


def test_no_line_of_a_meter_that_talks_faster_than_it_is_read_is_lost(monkeypatch) -> None:
    """1 kHz lines read at 100 Hz: a load of 1 ms in 10 has its joules, wherever the reads fall."""
    _, rows = heard(
        monkeypatch, every_s=0.001, reads_every_s=0.01, seconds=6.0,
        line=lambda t: f"W={22.0 if round(t * 1000) % 10 == 3 else 2.0}",
    )  # fmt: skip
    settled = [watts for _, watts in rows[5:]]
    assert sum(settled) / len(settled) == pytest.approx(4.0, rel=0.002)
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(rows[5:])]
    assert max(gaps) < 0.012


def test_lines_that_nobody_read_in_time_are_a_gap(monkeypatch) -> None:
    stream, rows = heard(
        monkeypatch, every_s=0.001, reads_every_s=5.0, seconds=15.0, line=lambda _t: "W=2"
    )  # fmt: skip
    assert stream.lost > 0
    assert any(math.isnan(watts) for _, watts in rows)


@pytest.mark.parametrize("step_s", [-5.0, -0.5, 5.0, 3600.0])
def test_a_meters_clock_that_is_set_anew_costs_no_readings(monkeypatch, step_s) -> None:
    """Backwards by five seconds, too: the readings go on one after another, at the times at which they came."""
    _, rows = heard(
        monkeypatch, every_s=0.02, reads_every_s=0.02, seconds=20.0,
        line=lambda t: f"t={5000.0 + t + (step_s if t > 10 else 0.0):.3f} W=3",
    )  # fmt: skip
    times = [at for at, _ in rows[5:]]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert min(gaps) > 0.01
    assert max(gaps) < 0.05


def test_a_meters_clock_that_runs_slow_is_followed(monkeypatch) -> None:
    """100 ppm for an hour are a third of a second; the stamps stay beside the lines."""
    stream, _ = heard(
        monkeypatch, every_s=0.5, reads_every_s=0.5, seconds=3600.0, line=lambda t: f"t={t * (1 - 1e-4):.6f} W=3"
    )  # fmt: skip
    assert stream.latest["meter"][0] == pytest.approx(stream.last_s, abs=0.01)
