"""Run a program and read its output by posix_spawn, without the memory of the module subprocess."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any


def output_of(argv: list[str], patience_s: float) -> tuple[bytes, int]:
    """Run a program; return what it writes to stdout, and its exit status.

    Args:
        argv: Path of the program, and its arguments.
        patience_s: Time after which the program is killed (s).
    """
    read_end, write_end = os.pipe()
    try:
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, write_end, 1),
        ]
        try:
            pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
        except OSError as error:
            return str(error).encode(), -1
        finally:
            os.close(write_end)
        killer = threading.Timer(patience_s, _kill, [pid])
        killer.daemon = True
        killer.start()
        text = b""
        while data := os.read(read_end, 65536):
            text += data
        _, status = os.waitpid(pid, 0)
        killer.cancel()
        return text, os.waitstatus_to_exitcode(status)
    finally:
        os.close(read_end)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
