"""Verbs called in this process, which spares each test the start of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeprof.cli.main import run

if TYPE_CHECKING:
    import pytest


class Done(NamedTuple):
    stdout: str
    stderr: str


class Verb(Protocol):
    def __call__(self, *words: object, code: int = 0) -> Done: ...


def verb(capfd: pytest.CaptureFixture[str], *first: str) -> Verb:
    """``edgeprof FIRST… WORDS…``: it must end with the code that is expected, and without a traceback."""

    def call(*words: object, code: int = 0) -> Done:
        found = run([*first, *map(str, words)])
        done = Done(*capfd.readouterr())
        assert found == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return call
