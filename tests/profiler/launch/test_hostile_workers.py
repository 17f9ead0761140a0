"""Whatever a model does to its worker's connection affects only that model, and is reported in one sentence."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from edgeprof.errors import VariantError
from edgeprof.worker.scenario import Scenario
from edgeprof.worker.wire import LIMIT_LINE, Connection

if TYPE_CHECKING:
    from edgeprof.launch.supervisor import Worker


@pytest.mark.parametrize("when", ["load", "run", "call"])
@pytest.mark.parametrize(
    "what",
    [
        "scribble:hello",
        'scribble:{"ok"#true}',
        "scribble:{}",
        "scribble:[1]",
        "nest",
        "flood",
        "patch_json:no json",
        "patch_json:{}",
        'patch_json:["ok", true]',
    ],
)
def test_what_is_no_answer_ends_that_worker_with_a_sentence(toy, when, what):
    worker = toy(f"{when}:{what.replace('#', chr(58))}")
    with pytest.raises(VariantError, match="what came is no answer") as caught:
        _bench(worker)
    assert caught.value.code == "crashed"
    with pytest.raises(VariantError, match="is gone"):
        worker.memory()


def test_a_second_answer_is_taken_for_no_other_question(toy):
    worker = toy("run:scribble:" + '{"ok": true, "bytes": 7, "id": 4}')
    with pytest.raises(VariantError, match="what came is no answer"):
        _bench(worker)


@pytest.mark.parametrize(("when", "isolated"), [("load", False), ("run", False), ("call", False), ("call", True)])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("defy", "Defiance"),
        ("mumble", "half a letter: \\?"),
        ("recurse", "RecursionError"),
        ("bore", "ValueError: xxx"),
        ("exit_politely", "SystemExit: the model has had enough"),
    ],
)
def test_whatever_a_model_raises_is_one_sentence(toy, when, what, words, isolated):
    worker = toy(f"{when}:{what}", isolated=isolated)
    with pytest.raises(VariantError, match=words) as caught:
        _bench(worker)
    assert len(caught.value.message) < 1000
    assert len(caught.value.last_words) < 100_000
    caught.value.message.encode()
    caught.value.last_words.encode()


@pytest.mark.parametrize("what", ["close_all", "fork"])
def test_a_model_that_breaks_its_own_process_ends_with_a_sentence(toy, what):
    worker = toy(f"run:{what}")
    with pytest.raises(VariantError, match=r"ended its process|broke the connection|gave no answer"):
        _bench(worker)


def _bench(worker: Worker) -> None:
    worker.load()
    worker.warm_up(0.05, 0.1)
    worker.window(Scenario(), 0.05)
    worker.memory()


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours), theirs


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\n",
        b"null\n",
        b"[" * 100_000 + b"\n",
        b'{"blobs": [-1]}\n',
        b'{"blobs": [1e99]}\n',
        b'{"blobs": "a"}\n',
        b'{"blobs": [99999999999]}\n',
    ],
)
def test_a_line_that_is_no_message_is_an_error(ends, line):
    connection, peer = ends
    peer.sendall(line)
    with pytest.raises(ValueError, match=r"."):
        connection.receive()


def test_a_line_without_end_is_given_up_before_it_fills_the_memory(ends):
    connection, _ = ends
    connection._pending = bytearray(LIMIT_LINE + 1)
    with pytest.raises(ValueError, match="MiB"):
        connection.receive()
