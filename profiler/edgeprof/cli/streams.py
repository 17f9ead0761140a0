"""stdin, stdout and stderr as scripts hand them over: closed, or in an encoding that lacks half of what we say."""

from __future__ import annotations

import os
import sys


def mend() -> None:
    """Make the three streams usable, whatever the caller did to them.

    A closed one becomes /dev/null: its number would otherwise go to the next file that is opened, as the store, and a
    stray line of output with it. A character that a stream's encoding lacks is replaced and ends nothing.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one; inherited like any standard stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115 - it lives as long as the process
    for stream in (sys.stdout, sys.stderr):
        if not hasattr(stream, "reconfigure"):
            continue
        if str(stream.encoding).lower().replace("-", "") == "utf8":
            stream.reconfigure(errors="surrogateescape")  # a file's name goes out as the bytes that it is
        else:
            from edgeprof.reporters.plain import ERRORS

            stream.reconfigure(errors=ERRORS)


def silence() -> None:
    """Let nothing more go to stdout, whose reader is gone or whose disk is full, not even the flush at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
