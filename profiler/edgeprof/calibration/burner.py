"""A load that can be set: processes that keep each core busy for a share of the time."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from edgeprof.errors import UnavailableError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

#: The period (s) in which each core is busy for its share: far shorter than any filter of a sensor or a meter.
PERIOD_S = 0.01
#: The program of one process. It ends with its standard input, so that no load remains when the parent is killed.
_PROGRAM = f"""
import os, select, time
share, period, loops = 0.0, {PERIOD_S}, 0
begin = time.monotonic()
while True:
    if share >= 1.0 or share <= 0.0:
        wait = None if share <= 0.0 else 0.0
    else:
        wait = max(0.0, begin + period - time.monotonic())
    ready, _, _ = select.select([0], [], [], wait)
    if ready:
        words = os.read(0, 4096).split()  # several may have come at once
        if not words:
            break
        for word in words:
            if word == b"?":
                os.write(1, b"%d\\n" % loops)
            else:
                share = float(word)
    begin = time.monotonic()
    while time.monotonic() < begin + share * period:
        sum(range(500))
        loops += 1
"""


class Burner:
    """Keeps cores busy from ``__enter__`` to ``__exit__``.

    Args:
        cores: How many processes; by default one for each CPU that this process may use.
    """

    def __init__(self, cores: int | None = None) -> None:
        self.cores = cores or len(os.sched_getaffinity(0))
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for _ in range(self.cores):
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._children.append(child)
        return self

    def set(self, share: float) -> None:
        """Keep each core busy for this share of the time, 0 to 1, from now on."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(f"{share:.4f}\n")
            child.stdin.flush()

    def loops(self) -> float:
        """How many loops of work all cores together have done; answered within a period of ``PERIOD_S``.

        Raises:
            UnavailableError: a process of the load has ended.
        """
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write("?\n")
            child.stdin.flush()
        return float(sum(_read_count(child) for child in self._children))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            for pipe in (child.stdin, child.stdout):
                with suppress(OSError):  # a pipe whose reader is gone
                    if pipe is not None:
                        pipe.close()
            child.wait()


def _read_count(child: subprocess.Popen[str]) -> int:
    assert child.stdout is not None
    answer = child.stdout.readline()
    if not answer:
        raise UnavailableError("a process that makes the load has ended", remedy="Was it killed? See dmesg.")
    return int(answer)
