"""Lead what libraries and child processes write past Python's streams to stderr, where it becomes inert text."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from edgeprof.cli.streams import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A line is cut after so many bytes.
_LONGEST_LINE = 65536
#: How long (s) the end of a command waits for what was printed last; a program that it left running may hold the pipe.
_LAST_LINES_S = 1.0


@contextlib.contextmanager
def relayed() -> Iterator[None]:
    """Let what is written to descriptors 1 and 2 pass through ``streams.Output`` to stderr, line by line.

    Python's own stdout and stderr go on as before. A child process reads the lines, and not a thread, so that the last
    words of a library that aborts this process are shown.
    """
    stdout, stderr = (getattr(stream, "buffer", None) for stream in (sys.stdout, sys.stderr))
    if not isinstance(stdout, Output) or not isinstance(stderr, Output):
        yield  # not the process of the command: the streams belong to somebody else
        return
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _relay_lines(reading, writing, stderr)
    os.close(reading)
    try:
        with _moved_away(stdout, writing), _moved_away(stderr, writing):
            os.close(writing)
            yield
    finally:
        _await_exit(child)


@contextlib.contextmanager
def _moved_away(output: Output, replacement: int) -> Iterator[None]:
    """Within this context ``replacement`` has the number of an output, which goes on by another number."""
    number = output.descriptor
    output.descriptor = os.dup(number)
    os.dup2(replacement, number)
    try:
        yield
    finally:
        os.dup2(output.descriptor, number)
        os.close(output.descriptor)
        output.descriptor = number


def _relay_lines(reading: int, writing: int, output: Output) -> None:
    """Write whole lines from a pipe to ``output`` until no process can write to it any more, then end this process.

    A carriage return ends a line as well: what a library draws over and over becomes lines. Before each line on a
    terminal, edgeprof's progress line is erased.
    """
    try:
        import signal  # here, since its enumerations take longer to make than the rest of this process

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # the end of the pipe ends it
        os.close(writing)
        erased = b"\r\x1b[K" if output.isatty() else b""
        rest = b""
        while data := os.read(reading, _LONGEST_LINE):
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            output.write(b"".join(erased + line + b"\n" for line in lines if line))
        if rest:
            output.write(erased + rest + b"\n")
    finally:
        os._exit(0)


def _await_exit(child: int) -> None:
    deadline = time.monotonic() + _LAST_LINES_S
    pause_s = 0.0005
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(0.02, 2 * pause_s)
