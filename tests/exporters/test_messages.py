"""Datagrams: what edgeprof.track sends is understood, and nothing else does any harm."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeprof
from edgeprof import tracking
from edgeprof_exporters.messages import MOST_BYTES, parse

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1000.0


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "track.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(5)
        monkeypatch.setenv("EDGEPROF_TRACK_SOCKET", str(path))
        tracking.sender.close()
        yield sock
        tracking.sender.close()


def received(sock: socket.socket):
    return parse(sock.recv(4096), time.monotonic())


def test_a_with_block_is_one_message_with_its_times(inbox) -> None:
    before = time.monotonic()
    with edgeprof.track("yolov8s", variant="int8", runtime="tensorrt") as call:
        call.count = 4
    message = received(inbox)
    assert (message.model, message.variant, message.runtime, message.inferences) == ("yolov8s", "int8", "tensorrt", 4)
    assert before - 1e-6 <= message.start <= message.end <= time.monotonic()


def test_a_decorated_function_keeps_its_name_and_answer(inbox) -> None:
    @edgeprof.track("résumé net")
    def infer(x):
        return 2 * x

    assert (infer.__name__, infer(21)) == ("infer", 42)
    assert received(inbox).model == "résumé net"


def test_a_call_that_fails_is_no_inference(inbox) -> None:
    with pytest.raises(KeyError), edgeprof.track("m"):
        raise KeyError
    inbox.settimeout(0.05)
    with pytest.raises(TimeoutError):
        inbox.recv(10)


def test_an_application_that_times_itself_reports_seconds(inbox) -> None:
    tracking.report("m", 0.25, count=2)
    message = received(inbox)
    assert message.end - message.start == pytest.approx(0.25)
    with pytest.raises(ValueError, match="seconds"):
        tracking.report("m", -1)


def test_without_a_daemon_nothing_happens_and_it_is_found_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "later.sock"
    sender = tracking.Sender(str(path))
    sender.send(b"x")
    assert (sender.sent, sender.dropped) == (0, 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sender.send(b"x")  # within the pause: not even tried
        assert sender.dropped == 2
        monkeypatch.setattr(tracking, "_PAUSE_S", 0.0)
        sender.close()
        sender.send(b"x")
        assert sock.recv(10) == b"x"
    sender.send(b"x")
    assert sender.dropped == 3
    sender.close()


def test_a_daemon_that_does_not_read_costs_datagrams_and_no_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "full.sock"))
        sender = tracking.Sender(str(tmp_path / "full.sock"))
        begun = time.monotonic()
        for _ in range(5000):
            sender.send(b"x" * 100)
        assert time.monotonic() - begun < 5
        assert sender.dropped > 0
        sender.close()


@pytest.mark.parametrize("label", ["", "x" * 101, "a\tb", "a\nb", "\x1b[31m"])
def test_a_label_that_the_daemon_would_refuse_is_an_error_at_once(label: str) -> None:
    with pytest.raises(ValueError, match="model"):
        edgeprof.track(label)


def test_the_library_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import edgeprof; edgeprof.track('m'); "
        "print(sorted({n.partition('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['edgeprof']"


GOOD = b"EP1 999000000000 999500000000 2\tyolo\tint8\tort"


def test_the_documented_form_is_read() -> None:
    assert parse(GOOD, NOW) == (999.0, 999.5, 2, "yolo", "int8", "ort")
    assert parse(GOOD + b"\n", NOW) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"EP2" + GOOD[3:],
        GOOD.replace(b"999500000000", b"998000000000"),  # ends before it begins
        GOOD.replace(b"999500000000", b"9999500000000"),  # in the future
        GOOD.replace(b" 2\t", b" 0\t"),
        GOOD.replace(b" 2\t", b" -2\t"),
        GOOD.replace(b" 2\t", b" 1_0\t"),
        GOOD.replace(b" 2\t", b" 99999999\t"),
        GOOD.replace(b"yolo", b""),
        GOOD.replace(b"yolo", b"a\x00b"),
        GOOD.replace(b"yolo", b"\xff\xfe"),
        GOOD.replace(b"yolo", b"x" * 101),
        GOOD.replace(b"\tort", b""),
        GOOD + b"\tmore",
        GOOD.replace(b"999000000000", b"9" * 30),
        GOOD.replace(b"999000000000", "९".encode()),
        GOOD.ljust(MOST_BYTES + 1, b"x"),
    ],
)
def test_what_is_no_message_is_none(data: bytes) -> None:
    assert parse(data, NOW) is None


@settings(max_examples=200, deadline=None)  # test_fuzzing has the ten thousand
@given(
    st.one_of(
        st.binary(max_size=1500),
        st.builds(lambda head, tail: b"EP1 " + head + b"\t" + tail, st.binary(max_size=60), st.binary(max_size=200)),
        st.builds(
            lambda at, byte: GOOD[:at] + bytes([byte]) + GOOD[at + 1 :],
            st.integers(0, len(GOOD) - 1),
            st.integers(0, 255),
        ),
    )
)
def test_no_bytes_whatever_make_it_raise_or_give_labels_that_are_none(data: bytes) -> None:
    message = parse(data, NOW)
    if message is not None:
        assert message.start <= message.end <= NOW + 1
        assert all(label.isprintable() and len(label) <= 100 for label in message[3:])
