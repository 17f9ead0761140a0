"""Run the whole command from its entry on in a fork of this process: with real streams, but without starting Python."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
import warnings
from typing import TYPE_CHECKING, NamedTuple

from edgeprof.cli import entry, streams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


def run(
    *words: str,
    folder: Path,
    environ: Mapping[str, str],
    stdout: str | None = None,
    stderr: str | None = None,
    unbuffered: bool = False,
) -> Done:
    """Run ``edgeprof WORDS…`` in ``folder``.

    Args:
        words: The arguments.
        folder: The working directory.
        environ: The whole environment.
        stdout: A file in place of the one that is read afterwards, such as ``/dev/full``.
        stderr: The same.
        unbuffered: As with PYTHONUNBUFFERED.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left a library's threads
            child = os.fork()
        if child == 0:
            code = 99
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(os.open(stdout, os.O_WRONLY) if stdout else out.fileno(), 1)
                os.dup2(os.open(stderr, os.O_WRONLY) if stderr else error.fileno(), 2)
                os.chdir(folder)
                os.environ.clear()
                os.environ.update(environ)
                for number, name in ((1, "stdout"), (2, "stderr")):
                    raw = io.FileIO(number, "w", closefd=False)
                    buffer = io.BufferedWriter(raw)
                    setattr(sys, name, io.TextIOWrapper(buffer, "utf-8", write_through=unbuffered))
                streams.mend()
                code = streams.finish(entry.run(list(words)))
            except BaseException:  # noqa: BLE001 - the child ends here, whatever happens
                os.write(error.fileno(), traceback.format_exc().encode())
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        for file in (out, error):
            file.seek(0)
        return Done(os.waitstatus_to_exitcode(status), out.read().decode(), error.read().decode())
