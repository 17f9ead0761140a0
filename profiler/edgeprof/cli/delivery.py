"""Store, write and print what was measured, so that one place without room costs none of the others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from edgeprof.errors import EdgeprofError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Delivery:
    """The steps of a command after its measurement; one that fails does not stop those after it.

    Use it as a context manager: at its end the first error is raised, after the others were printed.
    """

    def __init__(self) -> None:
        self._errors: list[EdgeprofError] = []

    def __enter__(self) -> Delivery:  # noqa: PYI034 - Self is not in the typing of 3.10
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None or not self._errors:
            return
        first, *others = self._errors
        for error in others:
            click.echo(f"edgeprof: {error.message}", err=True)
        raise first

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A context for one step; an EdgeprofError in it is kept for the end."""
        try:
            yield
        except EdgeprofError as error:
            self._errors.append(error)

    def attempt(self, work: Callable[[], object]) -> bool:
        """Run one step, and return whether it succeeded."""
        before = len(self._errors)
        with self.step():
            work()
        return len(self._errors) == before
