"""Run a command while a virtual board plays, and end it when the board stops."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from typing import TYPE_CHECKING

from edgeprof.cli import streams
from edgeprof.errors import InputError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence


@contextlib.contextmanager
def terminated(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM set ``stop``, as the end of ``--duration`` does; Ctrl-C still raises KeyboardInterrupt."""
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_command(
    command_line: Sequence[str],
    stop: threading.Event,
    environment: Mapping[str, str] | None = None,
    on_start: Callable[[int], None] = lambda _pid: None,
) -> int:
    """Run a command to its end, and return its exit code, or 128 plus the number of the signal that ended it.

    The command writes to the terminal itself, not through the place that removes control characters.

    Args:
        command_line: The program and its arguments.
        stop: When it is set, the command is asked to end.
        environment: The command's environment; by default that of this process.
        on_start: Is called with the command's process id once it runs.

    Raises:
        InputError: the command cannot be started.
    """
    stdout, stderr = streams.descriptors()
    try:
        child = subprocess.Popen(list(command_line), env=environment, stdout=stdout, stderr=stderr)
    except OSError as error:
        raise InputError(
            f"{command_line[0]} cannot be run: {error.strerror}", remedy="Give a program that is on PATH after --."
        ) from None
    on_start(child.pid)
    asked = False
    while True:
        try:
            code = child.wait(0.2)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:  # noqa: PERF203 - the wait is the point
            if stop.is_set() and not asked:
                child.terminate()
                asked = True
        except KeyboardInterrupt:
            continue  # the terminal sent Ctrl-C to the command as well, which ends in its own way
