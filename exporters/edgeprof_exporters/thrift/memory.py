"""Asking the C library to keep little memory for later: the daemon runs for months beside what matters more."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8  # malloc.h


def few_arenas() -> None:
    """Two heaps for all threads (mallopt(3)): else the C library keeps one for each, and a burst of scrapes is never
    given back.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Give the C library's free memory back (malloc_trim(3)): starting and bursts of scrapes take more than rest."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
