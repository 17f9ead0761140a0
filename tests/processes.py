"""Processes that tests start."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


@contextlib.contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """A process that ends with its block, killed where the block fails: left to itself, Popen would wait for ever."""
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
