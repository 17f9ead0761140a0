"""Callables of this process, as ``edgeprof.library.in_process:NAME``, which the ``python`` runtime can import."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_callables: dict[str, Callable[..., Any]] = {}


@contextmanager
def offered(callables: dict[str, Callable[..., Any]]) -> Iterator[dict[str, str]]:
    """Make callables importable within the ``with`` statement.

    Args:
        callables: Name → callable.

    Returns:
        Name → the model to give to a benchmark.
    """
    targets = {}
    for name, function in callables.items():
        attribute = f"{re.sub(r'[^0-9A-Za-z_]', '_', name)}_{len(_callables)}"
        _callables[attribute] = function
        targets[name] = f"{__name__}:{attribute}"
    try:
        yield targets
    finally:
        for target in targets.values():
            del _callables[target.rpartition(":")[2]]


def __getattr__(name: str) -> Callable[..., Any]:
    try:
        return _callables[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
