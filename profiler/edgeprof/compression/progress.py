"""Progress of a long compression: compressors call ``report``, and the caller decides how to show it."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Sink = Callable[[str, float], None]

_SINK: ContextVar[Sink | None] = ContextVar("edgeprof_compression_progress", default=None)


@contextlib.contextmanager
def shown_by(sink: Sink) -> Iterator[None]:
    """Within this context, ``report`` calls ``sink(text, done)``."""
    token = _SINK.set(sink)
    try:
        yield
    finally:
        _SINK.reset(token)


def report(text: str, done: float) -> None:
    """Report the present step and the share of it that is done.

    Args:
        text: The step in a few words, such as ``fine-tune · epoch 2/5 · loss 0.113``.
        done: The completed share, from 0 to 1.
    """
    sink = _SINK.get()
    if sink is not None:
        sink(text, done)
