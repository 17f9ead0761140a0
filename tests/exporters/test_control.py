"""The control socket: lines by the thousand, and who is let near."""

from __future__ import annotations

import grp
import json
import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.daemon_client import ask
from edgeprof.errors import InputError, UnavailableError
from edgeprof_exporters.control import MOST_LINE, Control

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory):
    def crash() -> None:
        raise RuntimeError("inside")

    made = Control(tmp_path_factory.mktemp("control") / "c.sock", "", {"status": lambda: {"a": 1}, "crash": crash})
    made.start()
    yield made
    made.stop()


def test_a_command_is_answered_and_one_that_fails_is_an_answer_too(control: Control) -> None:
    assert ask(control.path, "status") == {"a": 1}
    with pytest.raises(UnavailableError, match="inside"):
        ask(control.path, "crash")
    with pytest.raises(UnavailableError, match="status, crash"):
        ask(control.path, "shutdown")


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.just("command") | st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)  # test_fuzzing has the ten thousand
@given(st.one_of(st.binary(max_size=200), json_like.map(lambda value: json.dumps(value).encode())))
def test_no_line_whatever_does_anything_but_name_the_commands(control: Control, line: bytes) -> None:
    answer = control.answer(line)
    assert set(answer) == {"error"} or answer == {"ok": {"a": 1}}
    json.dumps(answer)


def test_deep_nesting_and_length_are_refused(control: Control) -> None:
    assert control.answer(b"[" * MOST_LINE) == {"error": "not JSON"}
    assert "longer" in control.answer(b" " * (MOST_LINE + 1))["error"]


def test_root_and_oneself_may_and_others_only_by_their_group(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    with_group = Control(tmp_path / "a.sock", group, {})
    without = Control(tmp_path / "b.sock", "", {})
    try:
        assert with_group.permits(0, 0)
        assert with_group.permits(os.geteuid(), 12345)
        assert with_group.permits(54321, os.getegid())
        assert not with_group.permits(54321, 54321)
        assert not without.permits(54321, os.getegid())
    finally:
        with_group.stop()
        without.stop()


def test_one_that_is_refused_hears_so_though_it_is_slow_to_ask(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "permits", lambda _uid, _gid: False)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(control.path))
        caller.settimeout(0.2)
        with pytest.raises(TimeoutError):  # an answer before the question would end in a broken pipe
            caller.recv(1)
        caller.settimeout(10)
        caller.sendall(b'{"command": "status"}\n')
        assert b"not permitted" in caller.recv(100)


def test_a_group_that_does_not_exist_is_said_with_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no group named"):
        Control(tmp_path / "c.sock", "no-such-group", {})


def test_something_else_at_the_path_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "c.sock").write_text("precious")
    with pytest.raises(InputError, match="not a socket"):
        Control(tmp_path / "c.sock", "", {})
    assert (tmp_path / "c.sock").read_text() == "precious"
