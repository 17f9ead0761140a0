"""Models on a microcontroller: the protocol against MLCommons' transcript, a device with faults, and a bench of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import sys
import threading
import tty
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.artifact import recognise
from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.cli.main import run
from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_dataset, load_metric
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.simulation.microcontroller.faults import Faults
from edgeprof.simulation.microcontroller.live import LiveMicrocontroller
from edgeprof.worker import sandbox
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof_plugins.runtimes.mcu import protocol
from edgeprof_plugins.runtimes.mcu.port import Line, Port
from edgeprof_plugins.runtimes.mcu.protocol import Device
from edgeprof_plugins.runtimes.mcu.runtime import Microcontrollers
from edgeprof_plugins.sensors import meter
from tests.profiler.watching import Watcher
from tests.transcript import BOOT, TRANSCRIPT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self

IDLE_W, BUSY_W, LATENCY_S = 0.02, 0.12, 0.004


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path: Path) -> Iterator[None]:
    """A device on a pty answers at once; nobody needs to wait for it as long as for one on USB."""
    monkeypatch.setattr(protocol, "QUIET_S", 0.06)
    monkeypatch.setattr(protocol, "ANSWER_S", 0.5)
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("EDGEPROF_CONFIG", str(tmp_path / "config"))
    yield
    meter.disconnect()


class Scripted:
    """The other end of a line: answers each command as a table says, and keeps every command."""

    def __init__(self, answers: dict[str, str], first: str = "") -> None:
        self._answers = answers
        self.commands: list[str] = []
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        os.write(self._master, first.encode("latin-1"))
        self._interrupt, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        heard = b""
        while self._interrupt not in (ready := select.select([self._master, self._interrupt], [], [])[0]):
            assert ready
            heard += os.read(self._master, 4096)
            *commands, heard = heard.split(b"%")
            for command in commands:
                text = command.decode("latin-1")
                self.commands.append(text)
                os.write(self._master, self._answers.get(text, "e-[Unknown command]\r\nm-ready\r\n").encode("latin-1"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wake)
        self._thread.join()
        for descriptor in (self._interrupt, self._master, self._slave):
            os.close(descriptor)


@contextlib.contextmanager
def playing(tmp_path: Path, *faults: str, **options: Any) -> Iterator[LiveMicrocontroller]:
    given = {"latency_s": LATENCY_S, "watts": (IDLE_W, BUSY_W), **options}
    with LiveMicrocontroller(tmp_path / "board", faults=Faults.parse(faults), **given) as live:
        yield live


def load(path: Any, **options: Any) -> Any:
    given = {"device": "mcu", "threads": None, "batch": 1, "shapes": {}, "options": {}, "dtypes": {}, **options}
    return Microcontrollers().load(str(path), LoadOptions(**given))


def an_input(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (1, 3072), np.uint8)


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_every_answer_of_the_transcript_is_taken_or_refused_and_leaves_the_two_in_step() -> None:
    answers = dict(TRANSCRIPT)
    with Scripted(answers, first=BOOT) as other, contextlib.closing(Port(other.path)) as port:
        device = Device(port)
        assert device.name == "unspecified"
        for command, answer in TRANSCRIPT:
            expected = [line for line in re.split(r"\r?\n", answer) if line and line != "m-ready"]
            if "\r\n" in command:  # its echo breaks the line of its answer
                expected = []
            if all(line.startswith("m-") for line in expected) and expected:
                assert [line.text for line in device.ask(command)] == expected
            elif expected:
                with pytest.raises(LoadError, match=re.escape(expected[0].removeprefix("e-"))):
                    device.ask(command)
            elif answer != "m-ready\r\n":
                with pytest.raises(LoadError):
                    device.ask(command)
            assert [line.text for line in device.ask("name")] == ["m-name-dut-[unspecified]"]
        assert device.resynchronised == 0


def test_what_was_said_before_the_first_command_answers_none() -> None:
    """A host that leaves the banner in the line takes each answer for that of the command before."""
    with Scripted(dict(TRANSCRIPT), first=3 * BOOT) as other, contextlib.closing(Port(other.path)) as port:
        device = Device(port)
        assert device.profile()[1] == "m-model-[ic01]"


def test_no_command_carries_more_than_26_bytes_or_is_longer_than_64_characters() -> None:
    data = bytes(range(256)) * 12
    answers = {"db load 3072": "m-[Expecting 3072 bytes]\r\nm-ready\r\n", "name": dict(TRANSCRIPT)["name"]}
    for start in range(0, len(data), 26):
        is_last = start + 26 >= len(data)
        answers[f"db {data[start : start + 26].hex()}"] = ("m-load-done\r\n" if is_last else "") + "m-ready\r\n"
    with Scripted(answers) as other, contextlib.closing(Port(other.path)) as port:
        Device(port).load(data)
        sent = [command for command in other.commands if re.fullmatch("db [0-9a-f]+", command)]
        assert bytes.fromhex("".join(command[3:] for command in sent)) == data
        assert max(len(command) + 1 for command in other.commands) <= 64
    with pytest.raises(LoadError, match="between 1 and 30"):
        Device(port, chunk_bytes=31)


@pytest.mark.parametrize("command", ["infer 5 0", "infer 1 0"])
@pytest.mark.parametrize(
    "answer",
    [
        "m-ready\r\n",
        "m-warmup-start-0\r\nm-warmup-done\r\nm-infer-start-5\r\nm-infer-done\r\nm-ready\r\n",
        "m-warmup-start-0\r\nm-infer-start-5\r\nm-lap-us-1\r\nm-infer-done\r\nm-results-[1.000]\r\nm-ready\r\n",
        "m-warmup-start-10\r\nm-infer-start-5\r\nm-lap-us-1\r\nm-lap-us-2\r\nm-infer-done\r\nm-results-[1]\r\nm-ready\r\n",
        "m-warmup-start-0\r\nm-infer-start-5\r\nm-lap-us-1\r\nm-lap-us-x\r\nm-infer-done\r\nm-results-[1]\r\nm-ready\r\n",
        "m-warmup-start-0\r\nm-infer-start-5\r\nm-lap-us-1\r\nm-lap-us-2\r\nm-infer-done\r\nm-results-[one]\r\nm-ready\r\n",
        "m-warmup-start-0\r\nm-infer-start-5\r\nm-lap-us-1\r\nm-lap-us-4294967296\r\nm-infer-done\r\nm-results-[1]\r\nm-ready\r\n",
    ],
)
def test_an_answer_that_lacks_a_line_is_out_of_step(command: str, answer: str) -> None:
    answers = {command: answer, "name": dict(TRANSCRIPT)["name"]}
    with Scripted(answers) as other, contextlib.closing(Port(other.path)) as port:
        device = Device(port)
        count = int(command.split()[1])
        with pytest.raises(LoadError, match="out of step"):
            device.infer(count, 0, 1.0)
        assert device.resynchronised == 1


class Saying:
    """A port whose other end answers each command with the next of some answers, whatever was asked."""

    path, baud, unfinished = "/dev/ttyX", 115200, ""

    def __init__(self, answers: list[list[str]]) -> None:
        self._answers, self._lines = iter(answers), iter(())
        self.longest = 0

    def write(self, data: bytes) -> None:
        self.longest = max(self.longest, len(data))
        self._lines = iter(next(self._answers, []))

    def read_line(self, deadline_s: float) -> Line | None:
        text = next(self._lines, None)
        return None if text is None else Line(text, 0.5)

    def drain(self, quiet_s: float) -> bool:
        self._lines = iter(())
        return True

    def report_delay_s(self, characters: int) -> float:
        return 0.016


LINES = st.one_of(
    st.sampled_from(
        [
            "m-ready",
            "m-name-dut-[x]",
            "m-profile-[p]",
            "m-model-[ic01]",
            "m-[Expecting 4 bytes]",
            "m-load-done",
            "m-warmup-start-0",
            "m-warmup-done",
            "m-infer-start-2",
            "m-lap-us-5",
            "m-lap-us-4294967295",
            "m-infer-done",
            "m-results-[0.1,0.9]",
            "m-results-[]",
            "m-results-[nan]",
            "m-lap-us-",
            "e-[no]",
            "m-init-done",
            "",
        ]
    ),
    st.text(max_size=20),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(LINES, max_size=9).map(lambda lines: [*lines, "m-ready"]), max_size=8), st.booleans())
def test_whatever_a_device_says_is_an_inference_or_one_sentence(answers: list[list[str]], is_named: bool) -> None:
    greeting = [["m-ready"], ["m-name-dut-[x]", "m-ready"]] if is_named else []
    port = Saying([*greeting, *answers])
    with contextlib.suppress(LoadError):  # anything else that it raises fails
        device = Device(port)
        device.load(bytes(4))
        done = device.infer(2, 0, 1.0)
        assert done.count == 2
        assert done.results
        assert done.device_s is None or 0 <= done.device_s < 4295
    assert port.longest <= 64


def test_firmware_in_energy_mode_tells_no_time_and_its_frame_is_the_window() -> None:
    answer = (
        "m-warmup-start-0\r\nm-warmup-done\r\nm-infer-start-5\r\nm-infer-done\r\nm-results-[0.250,0.750]\r\nm-ready\r\n"
    )
    with (
        Scripted({"infer 5 0": answer, "name": dict(TRANSCRIPT)["name"]}) as other,
        contextlib.closing(Port(other.path, 9600)) as port,
    ):
        done = Device(port).infer(5, 0, 1.0)
    assert done.device_s is None
    assert done.results == [0.25, 0.75]
    assert done.end_s >= done.start_s
    assert done.edge_s > 0.016  # the line's own time at 9600 baud, and the adapter's


# --- a device with faults ---------------------------------------------------------------------------------------------


def test_a_session_gives_the_scores_of_the_device_and_its_own_bursts(tmp_path: Path) -> None:
    with playing(tmp_path) as live, contextlib.closing(load(live.port)) as session:
        for number in range(3):
            data = an_input(number)
            assert session.run({"input": data})["results"].argmax() == int(data.sum()) % 10
        burst = session.bind_burst("inference", {"input": data})(0.2)
        assert burst.span.count == pytest.approx(0.2 / LATENCY_S, rel=0.3)
        assert burst.device_s / burst.span.count == pytest.approx(LATENCY_S, rel=0.25)
        assert burst.span.seconds == pytest.approx(burst.device_s, abs=burst.edge_s + 1e-9)
        assert session.microcontroller() == {
            "name": "edgeprof-virtual", "model": "ic01", "port": str(live.port),
            "arena_bytes": None, "flash_bytes": None, "ram_bytes": None,
        }  # fmt: skip


def test_a_model_that_keeps_state_is_reported_before_each_judged_run(tmp_path: Path, monkeypatch) -> None:
    with playing(tmp_path) as live, contextlib.closing(load(live.port)) as session:
        session.run({"input": an_input(1)})
        assert session.reset() is None
    with playing(tmp_path) as live, contextlib.closing(load(live.port)) as session:
        infer, calls = session._device.infer, []

        def drifting(*arguments: Any) -> Any:
            calls.append(arguments)
            done = infer(*arguments)
            return done._replace(results=[value + len(calls) for value in done.results])

        monkeypatch.setattr(session._device, "infer", drifting)
        session.run({"input": an_input(1)})
        assert "keeps state" in session.reset()
        session.run({"input": an_input(2)})
        assert len(calls) == 3  # only the first input is given twice


@pytest.mark.parametrize("fault", ["garbage", "out-of-step@2", "out-of-step@9", "lost-byte@4", "lost-byte@5", "wrap"])
def test_a_fault_of_the_line_is_survived(tmp_path: Path, fault: str) -> None:
    data = an_input(1)
    with playing(tmp_path, fault) as live, contextlib.closing(load(live.port)) as session:
        assert session.run({"input": data})["results"].argmax() == int(data.sum()) % 10
        burst = session.bind_burst("inference", {"input": data})(0.5)
        assert burst.device_s == pytest.approx(burst.span.seconds, rel=0.2)
        assert not burst.is_second_try


def test_a_window_in_which_the_device_was_brought_back_in_step_is_marked(tmp_path: Path) -> None:
    with playing(tmp_path) as live, contextlib.closing(load(live.port)) as session:
        session.run({"input": an_input(1)})
        burst = session.bind_burst("inference", {"input": an_input(1)})
        assert not burst(0.2).is_second_try
        device = session._device
        read, tries = device._read_inference, []

        def out_of_step_once(*given: Any) -> Any:
            tries.append(given)
            if len(tries) == 1:
                raise protocol.ProtocolError("the device answers out of step", "Ask again.")
            return read(*given)

        device._read_inference = out_of_step_once
        assert [burst(0.2).is_second_try for _ in range(2)] == [True, False]


def run_twice(live: LiveMicrocontroller) -> None:
    with contextlib.closing(load(live.port)) as session:
        for _ in range(2):
            session.run({"input": an_input(0)})


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("hang-up@3", "is gone"),
        ("login", "is not a device with MLPerf Tiny's protocol: it sends '%?name%'"),
        ("reset", "restarted during 'infer"),
        ("short-results@2", "gives 9 results, and gave 10 before"),
        ("silent", "is not a device with MLPerf Tiny's protocol: it does not answer"),
        ("silent@9", "gave no complete answer|does not answer"),
        ("unprefixed", "Invoke failed"),
        ("wrong-prompt", "is not a device with MLPerf Tiny's protocol: it sends 'm-name-dut"),
    ],
)
def test_a_fault_that_cannot_be_mended_is_one_sentence(tmp_path: Path, fault: str, says: str) -> None:
    with playing(tmp_path, fault) as live, pytest.raises(LoadError, match=says) as error:
        run_twice(live)
    assert "\n" not in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 2}, "--threads"),
        ({"batch": 2}, "--batch"),
        ({"device": "cuda"}, "--device"),
        ({"options": {"speed": "9600"}}, "has no option speed"),
        ({"options": {"chunk": "many"}}, "chunk=many is not a whole number"),
        ({"options": {"chunk": "31"}}, "between 1 and 30"),
        ({"shapes": {"input": (3072,)}}, "does not begin with 1"),
    ],
)
def test_what_a_finished_firmware_cannot_do_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with playing(tmp_path) as live, pytest.raises(LoadError, match=says):
        load(live.port, **options)


def test_an_input_of_another_size_is_refused_with_the_size_that_the_device_takes(tmp_path: Path) -> None:
    for count in (16, 4096):
        with (
            playing(tmp_path) as live,
            contextlib.closing(load(live.port, shapes={"input": (1, count)})) as session,
            pytest.raises(LoadError, match="takes 3072 bytes"),
        ):
            session.run({"input": np.zeros((1, count), np.uint8)})


def test_a_port_is_one_programs_alone_and_what_is_no_port_is_told(tmp_path: Path) -> None:
    with playing(tmp_path) as live:
        with contextlib.closing(Port(str(live.port))), pytest.raises(LoadError, match="in use"):
            Port(str(live.port))
        Port(str(live.port)).close()  # it was given back
    with pytest.raises(LoadError, match="not a serial port"):
        Port("/dev/null")
    (tmp_path / "file").write_text("")
    with pytest.raises(LoadError, match="not a serial port"):
        Port(str(tmp_path / "file"))
    with pytest.raises(LoadError, match="cannot be opened"):
        Port(str(tmp_path / "nothing"))
    with pytest.raises(LoadError, match="not a baud rate"):
        load("/dev/ttyS0@fast")
    with pytest.raises(InputError, match="names no serial port"):
        recognise("mcu:/dev/ttyNOTHING")


# --- a bench ----------------------------------------------------------------------------------------------------------


def bench_of(live: LiveMicrocontroller, tmp_path: Path, **options: Any) -> Any:
    (tmp_path / "sys").mkdir(exist_ok=True)
    given = {
        "models": [ModelRequest(f"mcu:{live.port}")],
        "sensors": [f"meter:{live.meter}"],
        "windows": 3,
        "window_s": 0.4,
        "idle_s": 0.4,
        "warmup_s": 0.1,
        "isolated": False,
        **options,
    }
    roots = Roots.resolve(tmp_path / "sys", None)
    return bench(BenchRequest(**given), PluginHost.from_environment(), roots, Watcher())


def codes(variant: Any) -> list[str]:
    return [reason.code for reason in variant.reasons]


def test_a_bench_has_the_devices_joules_its_mean_latency_and_nothing_of_this_machine(tmp_path: Path) -> None:
    with playing(tmp_path) as live:
        result = bench_of(live, tmp_path)
    (variant,) = result.variants
    assert variant.status == "ok", variant.reasons
    energy = variant.energy_j_per_inference
    assert energy.provenance == "simulated"
    assert energy.covers == "board"
    truth = BUSY_W * LATENCY_S
    assert energy.gross.value == pytest.approx(truth, rel=0.15)
    assert abs(energy.gross.value - truth) <= 2 * energy.gross.expanded_uncertainty
    assert energy.net.value == pytest.approx((BUSY_W - IDLE_W) * LATENCY_S, rel=0.15)
    assert energy.gross.budget.sync > 0.016 / 0.4 / 3 * truth  # what USB may delay is in it
    latency = variant.latency_s
    assert latency.mean == pytest.approx(LATENCY_S, rel=0.1)  # a busy machine sleeps too long
    assert latency.samples == variant.inferences
    assert (latency.p50, latency.p99, latency.p99_bound, latency.min, latency.max) == (None,) * 5
    assert "mean_latency_only" in codes(variant)
    assert variant.throughput_per_s == pytest.approx(1 / LATENCY_S, rel=0.15)
    assert variant.memory_bytes is None
    assert variant.utilization.cpu is None
    assert result.host.board == "edgeprof-virtual (microcontroller)"
    assert result.host.memory_bytes is None
    mcu = variant.microcontroller
    assert (mcu.name, mcu.model, mcu.arena_bytes) == ("edgeprof-virtual", "ic01", None)
    assert abs(mcu.clock_ppm) <= mcu.clock_u_ppm
    assert all(window.latency_median_s is None and window.latency_mean_s > 0 for window in variant.windows)


def test_the_only_port_without_a_device_is_the_error_of_the_command_and_no_note_beside_it(tmp_path: Path) -> None:
    class Notes(Watcher):
        def note(self, text: str) -> None:
            pytest.fail(f"noted: {text}")

    (tmp_path / "sys").mkdir()
    request = BenchRequest(models=[ModelRequest("mcu:/dev/null")], windows=2, idle_s=0.0, isolated=False)
    with pytest.raises(InputError, match=r"^/dev/null is not a serial port$"):
        bench(request, PluginHost.from_environment(), Roots.resolve(tmp_path / "sys", None), Notes())


def test_a_clock_that_is_wrong_is_told_and_the_latency_is_ours(tmp_path: Path) -> None:
    with playing(tmp_path, "drift") as live:
        (variant,) = bench_of(live, tmp_path, sensors=None, window_s=1.0, windows=2).variants
    assert "device_clock" in codes(variant)
    assert variant.microcontroller.clock_ppm == pytest.approx(50_000, abs=25_000)
    assert variant.latency_s.mean == pytest.approx(LATENCY_S, rel=0.04)  # its own clock would say 5 % more
    assert variant.energy_j_per_inference.gross.value is None  # nobody measured, and this machine's sensors do not


def test_a_device_whose_lines_come_late_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "QUIET_S", 0.2)
    data = np.random.default_rng(1).integers(-128, 128, (1, 490), np.int8)
    with playing(tmp_path, "slow", model="kws01") as live, contextlib.closing(load(live.port)) as session:
        assert session.run({"input": data})["results"].argmax() == int(data.view(np.uint8).sum()) % 12


def test_accuracy_and_auc_are_judged_on_the_device(tmp_path: Path) -> None:
    folder = tmp_path / "ic01"
    folder.mkdir()
    rows = []
    for number in range(6):
        data = an_input(number)
        (folder / f"{number}.bin").write_bytes(data.tobytes())
        rows.append(f"{number}.bin,10,{(int(data.sum()) + (number == 5)) % 10}")  # the last label is wrong
    (folder / "y_labels.csv").write_text("\n".join(rows))
    host = PluginHost.from_environment()
    dataset = load_dataset(str(folder / "y_labels.csv"), host, {"raw": "uint8"})
    with playing(tmp_path) as live:
        given = {"sensors": None, "windows": 1, "window_s": 0.1, "idle_s": 0.0, "dataset": dataset}
        (top1,) = bench_of(live, tmp_path, metric=load_metric("top1", host), **given).variants
        (auc,) = bench_of(live, tmp_path, metric=load_metric("auc", host), **given).variants
    assert top1.accuracy.value == pytest.approx(5 / 6)
    assert top1.accuracy.samples == 6
    assert 0.5 < auc.accuracy.value < 1.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sensors": ["rapl"]}, "rapl measures this machine"),
        ({"sensors": ["jtop"]}, "jtop measures this machine"),
        ({"estimate_power_w": 5.0}, "--estimate-power"),
        ({"scenario": "server", "rate_hz": 5.0}, "has no scenario server"),
    ],
)
def test_what_says_nothing_of_the_device_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with playing(tmp_path) as live:
        try:
            (variant,) = bench_of(live, tmp_path, **{"sensors": None, **options}).variants
        except InputError as error:
            message = error.message
        else:
            assert variant.status == "failed"
            message = variant.reasons[0].message
    assert re.search(says, message)


def test_one_port_twice_a_model_of_this_machine_beside_and_one_meter_for_two_are_refused(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def step(x=None):\n    return 1\n")
    with playing(tmp_path) as live, playing(tmp_path / "other") as other:
        port = ModelRequest(f"mcu:{live.port}")
        with pytest.raises(InputError, match="on one port"):
            bench_of(live, tmp_path, models=[port, port], sensors=None)
        with pytest.raises(InputError, match="one meter sees one of them"):
            bench_of(live, tmp_path, models=[port, ModelRequest(f"{tmp_path / 'app.py'}:step")])
        with pytest.raises(InputError, match="--sandbox keeps its worker"), sandbox.asked_for():
            bench_of(live, tmp_path, sensors=None, isolated=True)
        with pytest.raises(InputError, match="cannot tell the joules"):
            bench_of(live, tmp_path, models=[port, ModelRequest(f"mcu:{other.port}")])


def test_two_devices_take_turns_and_one_that_resets_costs_itself_alone(tmp_path: Path) -> None:
    with playing(tmp_path) as live, playing(tmp_path / "other", "reset@2") as other:
        models = [ModelRequest(f"mcu:{live.port}", "one"), ModelRequest(f"mcu:{other.port}", "two")]
        one, two = bench_of(live, tmp_path, models=models, sensors=None, windows=2, window_s=0.1).variants
    assert one.inferences > 0
    assert one.status != "failed"
    assert two.status == "failed"
    assert "restarted during" in two.reasons[0].message


def test_the_command_line_measures_a_device_in_a_worker_and_never_calls_it_mlperf(tmp_path: Path, capfd) -> None:
    place = tmp_path / "board"
    (tmp_path / "sys").mkdir()
    command = [sys.executable, "-c", "from edgeprof.cli.entry import main; main()", "bench", f"mcu:{place}/mcu"]
    flags = ["--sensor", f"meter:{place}/meter", "--preset", "mlperf-tiny", "--windows", "2", "--window", "0.3"]
    flags += ["--idle", "0.3", "--warmup", "0.1", "--sysfs-root", str(tmp_path / "sys"), "-o", str(tmp_path / "r.json")]
    assert run(["simulate", "mcu", "--dir", str(place), "-q", "--latency", "0.004", "--", *command, *flags]) == 0
    out, err = capfd.readouterr()
    assert " mean " in out
    assert "mlperf" not in (out + err).lower().replace("mlperf-tiny", "")
    (variant,) = json.loads((tmp_path / "r.json").read_text())["variants"]
    assert variant["microcontroller"]["name"] == "edgeprof-virtual"
    joules = variant["energy_j_per_inference"]["gross"]["value"]
    # A busy machine may lose so many samples that the result has no joules, and says why.
    assert joules > 0 if joules is not None else variant["reasons"]


def test_a_port_that_does_not_exist_and_one_that_is_something_else_are_exit_2(tmp_path: Path, capfd) -> None:
    (tmp_path / "sys").mkdir()
    assert run(["bench", "mcu:/dev/ttyNOTHING", "-q"]) == 2
    assert "names no serial port" in capfd.readouterr().err
    with playing(tmp_path, "silent") as live:
        flags = ["--no-isolation", "--quick", "--sysfs-root", str(tmp_path / "sys")]
        assert run(["bench", f"mcu:{live.port}", *flags]) == 2
    said = "".join(capfd.readouterr())
    assert "is not a device with MLPerf Tiny's protocol" in said
    assert "Traceback" not in said
