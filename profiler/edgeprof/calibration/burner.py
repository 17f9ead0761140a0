"""A load that can be set: processes that keep a share of each core busy, for calibrating one sensor against another."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

#: Each core is busy for its share of every such period (s), far below any sensor's filter and any meter's average.
PERIOD_S = 0.01
#: Ends with its standard input, so that nothing burns on when its parent is killed.
_PROGRAM = f"""
import select, sys, time
share, period, text = 0.0, {PERIOD_S}, b""
begin = time.monotonic()
while True:
    if share >= 1.0 or share <= 0.0:
        wait = None if share <= 0.0 else 0.0
    else:
        wait = max(0.0, begin + period - time.monotonic())
    ready, _, _ = select.select([sys.stdin], [], [], wait)
    if ready:
        line = sys.stdin.readline()
        if not line:
            break
        share = float(line)
    begin = time.monotonic()
    while time.monotonic() < begin + share * period:
        sum(range(500))
"""


class Burner:
    """Keeps cores busy from ``__enter__`` to ``__exit__``.

    Args:
        cores: How many processes; all CPUs that this process may use by default.
    """

    def __init__(self, cores: int | None = None) -> None:
        self.cores = cores or len(os.sched_getaffinity(0))
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for _ in range(self.cores):
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
            self._children.append(child)
        return self

    def set(self, share: float) -> None:
        """From now on keep each core busy for this share of the time, 0 to 1."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(f"{share:.4f}\n")
            child.stdin.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            with suppress(OSError):  # a pipe whose reader is gone
                if child.stdin is not None:
                    child.stdin.close()
            child.wait()
