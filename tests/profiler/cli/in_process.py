"""Call commands in this process, so that a test need not start Python."""

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
    """Return a function that runs ``edgeprof FIRST… WORDS…`` and checks its exit code and that it has no traceback."""

    def call(*words: object, code: int = 0) -> Done:
        found = run([*first, *map(str, words)])
        done = Done(*capfd.readouterr())
        assert found == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return call
