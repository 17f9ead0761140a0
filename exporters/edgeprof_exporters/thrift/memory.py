"""Make the C library keep little free memory: the daemon runs for months beside more important programs."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8  # malloc.h


def few_arenas() -> None:
    """Limit the C library to two heaps (mallopt(3)).

    By default it makes one for each thread, and never returns the memory that a burst of scrapes takes.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Return free memory to the system (malloc_trim(3)), as after the start and after bursts of scrapes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
