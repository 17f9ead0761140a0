"""The host's end of a link to a device that may answer anything."""

from __future__ import annotations

import json
import shlex
import struct

import pytest

from edgeprof import __version__
from edgeprof.errors import EdgeprofError
from edgeprof.fleet import framing
from edgeprof.fleet.inventory import parse_device
from edgeprof.fleet.link import Link, LinkError

KEY = "0" * 64
WELL = {
    "protocol": framing.VERSION, "edgeprof": __version__, "board": "b", "machine": None, "power_mode": None,
    "time_s": 0.0, "allow_code": False, "simulated": True,
}  # fmt: skip


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """Make every ssh wait for a request, answer given bytes, write a text to stderr, and end."""

    def answer(content: bytes, words: str = "", status: int = 0) -> Link:
        (tmp_path / "content").write_bytes(content)
        (tmp_path / "words").write_text(words)
        program = tmp_path / "ssh"
        folder = shlex.quote(str(tmp_path))
        program.write_text(
            f"#!/bin/sh\nhead -c 4 >/dev/null\ncat {folder}/words >&2\ncat {folder}/content\nexit {status}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("EDGEPROF_SSH", str(program))
        return Link(parse_device("nano-1", "nano-1"))

    return answer


def framed(*answers) -> bytes:
    texts = [a if isinstance(a, bytes) else json.dumps(a).encode() for a in answers]
    return b"".join(struct.pack(">I", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"Welcome\n",
        framed(b"null"),
        framed(b"[" * 50_000),
        framed(b"\xff"),
        framed([]),
        framed({}),
        framed({"error": {"a": 1}, "exit": "x"}),
        framed({"error": "\x1b[2J", "exit": 0}),
        framed({**WELL, "protocol": 2}),
        framed({**WELL, "edgeprof": None}),
        framed({**WELL, "board": 5}),
        framed({**WELL, "time_s": "now"}),
        framed(WELL)[:-1],
    ],
)
def test_whatever_it_answers_to_hello_is_one_sentence(answering, content) -> None:
    with answering(content) as link, pytest.raises(EdgeprofError) as caught:
        link.hello()
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    "answer",
    [
        {"state": "done", "size": -1},
        {"state": "done", "size": 1 << 60},
        {"state": "done", "size": "many"},
        {"state": "done", "size": 3, "sha256": KEY},
        {"state": "done", "size": 300, "sha256": KEY},
    ],
)
def test_a_result_of_another_length_or_hash_than_was_said_is_refused(answering, answer) -> None:
    with answering(framed(answer) + b"abc") as link, pytest.raises(EdgeprofError):
        link.fetch(KEY)


def test_a_flood_of_words_is_read_and_its_end_kept(answering) -> None:
    words = "x" * 2_000_000 + "\nPermission denied (publickey).\n"
    with answering(b"", words, 255) as link, pytest.raises(LinkError, match="does not accept any SSH key"):
        link.hello()


def test_what_it_says_well_is_believed(answering) -> None:
    with answering(framed(WELL)) as link:
        assert link.hello().board == "b"
