"""The door: what it answers and what it refuses; no input makes it do anything else."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import struct
import subprocess
import sys
import threading
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof import __version__
from edgeprof.errors import BusyError, InputError
from edgeprof.fleet import door, protocol
from edgeprof.fleet.device_jobs import DeviceJobs
from edgeprof.fleet.door import Door
from edgeprof.fleet.flags import FLAGS, bench_flags
from edgeprof.fleet.framing import Wire
from edgeprof.fleet.permissions import Permissions
from edgeprof.fleet.spool import Spool
from edgeprof.roots import Roots
from tests.clocks import turn_clock
from tests.profiler.fleet.boards import Boards

ZERO = "0" * 64


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return Boards(tmp_path_factory.mktemp("boards")).add("nano-1", "jetson-orin-nano")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A separate data directory for the tests."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("data")
    patch.setenv("EDGEPROF_DATA_DIR", str(folder))
    yield folder / "door"
    patch.undo()


def framed(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def said(output: bytes):
    """Return the answers in a door's output; the bytes of a result are returned unchanged."""
    answers = []
    while output:
        (length,) = struct.unpack(">I", output[:4])
        assert len(output) >= 4 + length
        answers.append(json.loads(output[4 : 4 + length]))
        output = output[4 + length :]
        if "size" in answers[-1]:
            answers.append(output[: answers[-1]["size"]])
            output = output[answers[-2]["size"] :]
    return answers


def visit(tree, content: bytes, permissions: Permissions | None = None):
    """Send bytes to a door and close; return the answers and the exit status."""
    (reading, theirs), (ours, writing) = os.pipe(), os.pipe()

    def feed() -> None:
        with os.fdopen(theirs, "wb") as stream:
            try:
                stream.write(content)
                stream.flush()
            except BrokenPipeError:
                stream.detach()

    written = []

    def read() -> None:
        with os.fdopen(ours, "rb") as stream:
            written.append(stream.read())

    drain = threading.Thread(target=read)
    feeder = threading.Thread(target=feed)
    drain.start()
    feeder.start()
    try:
        status = Door(Wire(reading, writing), Roots.resolve(tree, None, {}), permissions or Permissions()).serve()
    finally:
        os.close(reading)
        os.close(writing)
        feeder.join()
        drain.join()
    return SimpleNamespace(answers=said(written[0]), status=status)


def ask(tree, *requests, files=(), **permissions):
    content = b"".join(framed(r if isinstance(r, bytes) else msgspec.json.encode(r)) for r in requests)
    return visit(tree, content + b"".join(files), Permissions(**permissions))


def put(content: bytes):
    sha256 = hashlib.sha256(content).hexdigest()
    return framed(msgspec.json.encode(protocol.Put(sha256=sha256, size=len(content)))) + content, sha256


def bench_of(name: str, sha256: str, **more) -> protocol.Bench:
    return protocol.Bench(models=[[protocol.File(name=name, sha256=sha256)]], **more)


def test_it_says_what_it_is(tree) -> None:
    done = ask(tree, protocol.Hello(), protocol.Status())
    hello, status = done.answers
    assert done.status == 0
    assert hello["board"] == "NVIDIA Jetson Orin Nano"
    assert hello["edgeprof"] == __version__
    assert hello["machine"] is not None
    assert "nano-1" not in hello["machine"]  # the id itself stays on the device
    assert status["measuring"] is None
    assert status["temperature_c"] > 0
    assert status["free_bytes"] > 0


#: What a door's answer to ``status`` must not import; on a slow board the imports take longer than the answer.
SLOW_IMPORTS = {
    "click", "dataclasses", "difflib", "getpass", "inspect", "msgspec", "numpy", "platform", "pluggy", "psutil",
    "secrets", "shutil", "tempfile", "tomllib", "edgeprof.fleet.device_jobs", "edgeprof.fleet.protocol",
    "edgeprof.results.schema", "edgeprof.sensing.sensor",
}  # fmt: skip


def test_hello_and_status_are_recognised_by_the_bytes_that_a_host_writes() -> None:
    assert msgspec.json.encode(protocol.Hello()) == door.HELLO
    assert msgspec.json.encode(protocol.Status()) == door.STATUS


def test_other_spellings_of_hello_and_status_have_the_same_answers(tree) -> None:
    plain = ask(tree, protocol.Hello(), protocol.Status()).answers
    spelt = ask(tree, b'{ "op" : "hello" }', b'{ "op" : "status" }').answers
    for first, second in zip(plain, spelt, strict=True):
        assert {**first, "time_s": 0, "free_bytes": 0} == {**second, "time_s": 0, "free_bytes": 0}


def test_the_answer_to_status_imports_little(tree, tmp_path) -> None:
    code = (
        "import sys\n"
        "from edgeprof.cli import entry\n"
        "from edgeprof.fleet import door\n"
        "door.CONFIGURATION /= 'absent'\n"
        "status = entry.run(['door'])\n"
        "print(*sorted(sys.modules), file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=framed(msgspec.json.encode(protocol.Status())),
        capture_output=True,
        check=True,
        env={**os.environ, "EDGEPROF_SYSFS_ROOT": str(tree), "EDGEPROF_DATA_DIR": str(tmp_path)},
    )
    assert said(done.stdout)[0]["board"] == "NVIDIA Jetson Orin Nano"
    assert not SLOW_IMPORTS & set(done.stderr.decode().split())


def test_a_door_that_is_started_by_hand_says_what_it_is_for(tmp_path) -> None:
    def door_of(**environ: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "edgeprof", "door", "--config", str(tmp_path / "absent.toml")],
            input=b"hello, door\n",
            capture_output=True,
            check=False,
            env={**os.environ, **environ},
        )
        return done.returncode, done.stderr.decode()

    status, words = door_of(SSH_ORIGINAL_COMMAND="cat /etc/shadow")
    assert (status, words.splitlines()[0]) == (
        2,
        "edgeprof: this key opens the door of a fleet and runs nothing else; 'cat /etc/shadow' was asked for",
    )
    status, words = door_of()
    assert status == 2
    assert words.startswith(f"edgeprof: cannot read {tmp_path}/absent.toml")


@pytest.mark.parametrize(
    "request_text",
    [
        b'{"op": "shell"}',
        b'{"op": "hello", "command": "id"}',
        b'{"op": "fetch", "key": "../../../../etc/shadow"}',
        b'{"op": "put", "sha256": "../x", "size": 1}',
        b'{"op": "put", "sha256": "' + ZERO.encode() + b'\\n", "size": 1}',
        b'{"op": "put", "sha256": "' + ZERO.encode() + b'", "size": -1}',
        b'{"op": "put", "sha256": "' + ZERO.encode() + b'", "size": 1e300}',
        b'{"op": "bench", "models": []}',
        b'{"op": "bench"}',
        b'{"op": ["hello"]}',
        b"[" * 100_000,
        b"{}",
        b"null",
        b"\xff\xfe",
        b"",
        b'{"op": "hello"} {"op": "hello"}',
    ],
)
def test_what_is_no_request_is_refused_in_one_sentence(tree, request_text) -> None:
    done = visit(tree, framed(request_text))
    (answer,) = done.answers
    assert done.status == answer["exit"] == 2
    assert "\n" not in answer["error"]
    assert len(answer["error"]) < 500


@pytest.mark.parametrize(
    "name",
    [
        "../m.onnx",
        "/etc/passwd",
        "a/b.onnx",
        ".onnx",
        "-o.onnx",
        "m.py:f",
        "a\nb",
        "a\0b",
        "",
        "x" * 300,
        "m:f",
        "a\x1b",
    ],
)
def test_a_name_that_is_a_path_an_option_or_a_callable_is_refused(tree, name) -> None:
    request = {"op": "bench", "models": [[{"name": name, "sha256": ZERO}]]}
    assert ask(tree, json.dumps(request).encode()).status == 2


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("output", "/tmp/x"),
        ("worker-python", "/bin/sh"),
        ("option", "custom_ops=/tmp/x.so"),
        ("with", "distill:teacher=/tmp/x.py"),
        ("allow-code", ""),
        ("no-isolation", ""),
        ("fast-sensor", ""),
        ("power-modes", "all"),
        ("sysfs-root", "/tmp"),
        ("input-data", "/etc/passwd"),
        ("dataset", "/etc"),
        ("model", "http://192.0.2.1"),
        ("sensor", "meter:/bin/sh"),
        ("metric", "/tmp/m.py:score"),
        ("metric", "m.py:score"),
        ("preset", "--output=/tmp/x"),
        ("preset", "quick --strict"),
        ("runtime", "../x"),
        ("threads", "1; id"),
        ("threads", "-1"),
        ("window", "1e9"),
        ("window", "1\n"),
        ("seed", "١"),
        ("device", "cuda:0 x"),
        ("rail", "VDD\x1b[2J"),
        ("preprocess", "labels=/etc/passwd"),
        ("input", "x=1x3:float32;id"),
        ("strict", "yes"),
    ],
)
def test_an_unlisted_flag_or_a_value_of_another_kind_is_refused(tree, flag, value) -> None:
    with pytest.raises(InputError):
        bench_flags(bench_of("m.onnx", ZERO, flags={flag: [value]}))


def test_the_flags_of_a_fleet_are_flags_of_a_bench() -> None:
    from edgeprof.cli.bench import command

    known = {option for parameter in command.params for option in parameter.opts}
    assert {f"--{flag}" for flag in FLAGS} <= known


def test_a_file_is_kept_once_and_only_whole(tree, place) -> None:
    content = os.urandom(3_000_000)
    message, sha256 = put(content)
    done = visit(tree, message)
    assert done.answers == [{"send": True}, {"stored": sha256}]
    assert (place / "files" / sha256).read_bytes() == content
    assert ask(tree, protocol.Put(sha256=sha256, size=len(content))).answers == [{"send": False}]


def test_a_file_that_arrives_damaged_or_cut_off_leaves_nothing(tree, place) -> None:
    message, sha256 = put(b"a model")
    damaged = visit(tree, message[:-1] + b"L")
    cut = visit(tree, message[:-1])
    assert "arrived damaged" in damaged.answers[-1]["error"]
    assert "1 bytes before its end" in cut.answers[-1]["error"]
    assert not [path for path in (place / "files").iterdir() if sha256 in path.name]


def test_files_beyond_the_owners_limit_are_refused_and_old_ones_make_room(tree, place) -> None:
    (first, old), (second, new) = put(b"x" * 600), put(b"y" * 600)
    assert "more than this device keeps" in visit(tree, first, Permissions(max_bytes=500)).answers[-1]["error"]
    visit(tree, first, Permissions(max_bytes=1000))
    os.utime(place / "files" / old, (1, 1))
    visit(tree, second, Permissions(max_bytes=1000))
    assert not (place / "files" / old).exists()
    assert (place / "files" / new).exists()


def test_an_endless_message_is_refused_by_its_length(tree) -> None:
    done = visit(tree, b"\xff\xff\xff\xff" + b"x" * 10_000)
    assert "no length of a message" in done.answers[0]["error"]
    assert done.status == 2


@given(st.binary(max_size=300) | st.binary(max_size=200).map(framed))
def test_nothing_that_arrives_is_more_than_a_refusal(content) -> None:
    """For any bytes, the answers are complete, and the status is that of a refusal or of a normal end."""
    reading, theirs = os.pipe()
    ours, writing = os.pipe()
    os.write(theirs, content)
    os.close(theirs)
    try:
        status = Door(Wire(reading, writing), Roots(), Permissions()).serve()
    finally:
        os.close(reading)
        os.close(writing)
    with os.fdopen(ours, "rb") as stream:
        answers = said(stream.read())
    assert status in {0, 2}
    assert all("error" in answer for answer in answers)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("net.pkl", b"\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.", "pickle"),
        ("net.py", b"def f(): pass\n", "python"),
        ("net.engine", b"ptrt" + b"\0" * 200, "tensorrt"),
        ("net.bin", b"\x7fELF" + b"\0" * 100, "unknown"),
    ],
)
def test_models_that_are_code_are_refused_unless_the_owner_allows_them(tree, name, content, part) -> None:
    message, sha256 = put(content)
    done = visit(tree, message + framed(msgspec.json.encode(bench_of(name, sha256))))
    answer = done.answers[-1]
    assert name in answer["error"]
    assert answer["exit"] == 2


def test_a_model_that_was_never_put_is_refused(tree) -> None:
    assert "is not on this device" in ask(tree, bench_of("m.onnx", ZERO)).answers[0]["error"]


@pytest.mark.parametrize(
    ("expected", "part"),
    [
        ({"board": "Raspberry Pi 5"}, "a NVIDIA Jetson Orin Nano, and the inventory says Raspberry Pi 5"),
        ({"machine": "cafe"}, "the inventory says cafe"),
        ({"power_mode": "99W"}, "the inventory says 99W"),
    ],
)
def test_another_device_or_power_mode_than_the_inventory_says_is_refused(tree, expected, part) -> None:
    request = bench_of("m.onnx", ZERO, expected=protocol.Expected(**expected))
    (answer,) = ask(tree, request).answers
    assert part in answer["error"]
    assert answer["exit"] == 78


def test_a_power_mode_that_a_run_left_changed_is_restored_before_a_job(tmp_path, monkeypatch) -> None:
    """The run and its guard were killed, for example by a reboot, which does not change the mode back."""
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    tree = Boards(tmp_path).add("nano-1", "jetson-orin-nano")
    status = tree / "root/var/lib/nvpmodel/status"
    usual = status.read_text()
    (before,) = ask(tree, protocol.Hello()).answers
    job = bench_of("m.onnx", ZERO, expected=protocol.Expected(power_mode=before["power_mode"]))
    status.write_text("pmode:0000")
    (refused,) = ask(tree, job).answers
    assert refused["exit"] == 78
    journal = tmp_path / "data/restore/1.json"
    journal.parent.mkdir(parents=True)
    undo = ["sh", "-c", f"printf '%s' {shlex.quote(usual)} > {shlex.quote(str(status))}"]
    journal.write_text(json.dumps({"pid": 1, "boot": "an earlier one", "changes": [{"command": undo}]}))
    (answer,) = ask(tree, job).answers
    assert "is not on this device" in answer["error"]  # the mode is right, and the model was never sent
    assert status.read_text() == usual


def test_an_unknown_job_is_neither_fetched_nor_cancelled(tree) -> None:
    done = ask(tree, protocol.Fetch(key=ZERO), protocol.Cancel(key=ZERO))
    assert done.answers == [{"state": "absent"}, {"state": "absent"}]


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ({}, True),
        ({"wait_s": 9.0, "rest_s": 5.0, "expected": protocol.Expected(board="x")}, True),
        ({"flags": {"threads": ["2"]}}, False),
        ({"repeat": 2}, False),
        ({"dataset": protocol.File(name="d.npz", sha256=ZERO)}, False),
        ({"input_data": protocol.File(name="d.npz", sha256=ZERO)}, False),
    ],
)
def test_a_key_names_the_measurement_and_not_the_circumstances(changed, is_same) -> None:
    where = {"machine": "cafe", "fingerprint": "f", "version": "1"}
    plain = protocol.job_key(bench_of("m.onnx", ZERO), **where)
    other = protocol.job_key(bench_of("m.onnx", ZERO, **changed), **where)
    assert (plain == other) is is_same
    assert plain != protocol.job_key(bench_of("m.onnx", ZERO), **{**where, "machine": "beef"})
    assert plain != protocol.job_key(bench_of("m.onnx", ZERO), **{**where, "version": "2"})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("allow = true", "allow"),
        ('allow_code = "yes"', "allow_code = 'yes' does not fit"),
        ("max_bytes = 5", "max_bytes = 5 does not fit"),
        ('max_bytes = "5 apples"', "max_bytes"),
        ("keep_days = 0", "keep_days = 0 does not fit"),
        ("keep_days = true", "keep_days = True does not fit"),
    ],
)
def test_an_owners_file_that_cannot_be_meant_is_refused(tmp_path, text, part) -> None:
    path = tmp_path / "door.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=part):
        Permissions.read(path)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_an_owners_file_that_others_may_write_is_refused(tmp_path, mode) -> None:
    path = tmp_path / "door.toml"
    path.write_text("allow_code = true\n")
    path.chmod(mode)
    with pytest.raises(InputError, match="may be written by other users"):
        Permissions.read(path)
    path.chmod(0o644)
    assert Permissions.read(path).allow_code


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_an_owners_file_in_a_folder_that_others_may_write_is_refused(tmp_path, mode) -> None:
    folder = tmp_path / "of the owner"
    (folder / "below").mkdir(parents=True)
    path = folder / "below/door.toml"
    path.write_text("allow_code = true\n")
    folder.chmod(mode)
    link = tmp_path / "door.toml"
    link.symlink_to(path)  # a request by a link is answered for the file that the link leads to
    for asked in (path, link):
        with pytest.raises(InputError, match="the folder above") as caught:
            Permissions.read(asked)
        assert caught.value.remedy == f"sudo chown root '{folder}' && sudo chmod go-w '{folder}'"
    folder.chmod(mode | 0o1000)  # sticky: others may not replace the files in it
    assert Permissions.read(link).allow_code
    folder.chmod(0o755)
    assert Permissions.read(path).allow_code


def test_an_owners_file_is_read(tmp_path) -> None:
    path = tmp_path / "door.toml"
    path.write_text('allow_code = true\nworker_python = "/usr/bin/python3"\nmax_bytes = "2GiB"\n')
    assert Permissions.read(path) == Permissions(True, "/usr/bin/python3", 2 << 30)


def test_a_result_is_removed_when_it_was_fetched_long_ago_and_never_before(tree, tmp_path) -> None:
    spool = Spool(tmp_path / "door", 1 << 20)
    for key in ("a" * 64, "b" * 64, "c" * 64):
        spool.result_path(key).parent.mkdir(parents=True)
        spool.result_path(key).write_text("{}")
    spool.note_fetched("a" * 64)
    spool.note_fetched("b" * 64)
    os.utime(spool.result_path("b" * 64).with_name("fetched"), (0, 0))
    os.utime(spool.result_path("c" * 64), (0, 0))  # old, and not fetched by anybody
    spool.tidy(keep_s=86_400.0)
    assert [job.key[0] for job in spool.jobs()] == ["a", "c"]


def jobs_of(tree, place) -> DeviceJobs:
    return DeviceJobs(Wire(0, 1), Roots.resolve(tree, None, {}), Permissions(), Spool(place, 1 << 30))


def resting(tree, place, monkeypatch, **asked):
    """Return how many seconds a door waits before a job if the previous job has just ended."""
    result = place / "jobs" / ZERO / "result.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text("{}")
    slept = []
    turn_clock(monkeypatch, sleep=slept.append)
    jobs_of(tree, place)._rest(bench_of("m.onnx", ZERO, **asked))
    return slept


def test_a_device_rests_between_two_jobs(tree, place, monkeypatch) -> None:
    (seconds,) = resting(tree, place, monkeypatch, rest_s=60.0)
    assert 50 < seconds <= 60


def test_a_clock_that_has_jumped_back_costs_one_rest_at_most(tree, place, monkeypatch) -> None:
    resting(tree, place, monkeypatch)
    result = place / "jobs" / ZERO / "result.json"
    os.utime(result, (4e9, 4e9))
    slept = []
    turn_clock(monkeypatch, sleep=slept.append)
    jobs_of(tree, place)._rest(bench_of("m.onnx", ZERO, rest_s=60.0))
    assert slept == [60.0]
    result.unlink()


def test_a_device_that_does_not_cool_down_is_not_measured(tree, place, monkeypatch) -> None:
    monkeypatch.setattr("edgeprof.fleet.device_jobs._LONGEST_COOLING_S", -1.0)
    with pytest.raises(BusyError, match="does not cool down below -40"):
        resting(tree, place, monkeypatch, start_below_c=-40.0)
    assert resting(tree, place, monkeypatch, start_below_c=125.0) == [0.0]
