"""A command that runs inside a play: started, waited for, ended with it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from typing import TYPE_CHECKING

from edgeprof.errors import InputError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence


@contextlib.contextmanager
def terminated(stop: threading.Event) -> Iterator[None]:
    """SIGTERM ends the play as its time would; Ctrl-C arrives as KeyboardInterrupt."""
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
    """Run a command to its end; its exit code, or 128 + the signal that ended it.

    Args:
        command_line: The program and its arguments.
        stop: When it is set, the command is asked to end.
        environment: Of the command; by default this process's.
        on_start: Gets the command's process id.

    Raises:
        InputError: it cannot be started.
    """
    try:
        child = subprocess.Popen(list(command_line), env=environment)
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
            continue  # the terminal sent it to the command too, which ends in its own way
