"""The console script: ``edgeprof --help``, ``--version`` and ``door`` are answered without click.

Importing click takes longer than starting Python. A profiler that is slow to print its version is not trusted with
milliseconds, and a fleet's devices should answer soon, so the requests that need no parsing are answered here;
edgeprof.cli.main handles all others. A test checks that this help text equals click's.
"""

from __future__ import annotations

import os
import sys

from edgeprof import __version__
from edgeprof.cli import streams
from edgeprof.cli.verbs import ABOUT, EPILOG, VERBS

_OPTIONS = (("--version", "Show the version and exit."), ("-h, --help", "Show this message and exit."))


def main() -> None:
    """Run the command line and exit with the contract's exit codes (contract §1)."""
    streams.mend()
    sys.exit(streams.finish(run(sys.argv[1:])))


def run(argv: list[str]) -> int:
    """Answer ``--help``, ``--version`` and ``door`` at once, and pass everything else to edgeprof.cli.main."""
    if argv in (["--help"], ["-h"]):
        text = help_text()
        if max(map(len, text.splitlines())) <= _terminal_width() - 2:  # otherwise click must wrap it
            return _print_text(text)
    if argv == ["--version"]:
        return _print_text(f"edgeprof, version {__version__}\n")
    if argv == ["door"] or (argv[:2] == ["door", "--config"] and len(argv) == 3):
        return _open_door(*argv[2:])
    from edgeprof.cli import main as full

    return full.run(argv)


def help_text() -> str:
    """What ``edgeprof --help`` prints where no line needs wrapping."""
    return (
        f"Usage: edgeprof [OPTIONS] COMMAND [ARGS]...\n\n  {ABOUT}\n\n"
        f"Options:\n{_verb_rows(_OPTIONS)}\nCommands:\n{_verb_rows(sorted(VERBS.items()))}\n  {EPILOG}\n"
    )


def _open_door(config: str | None = None) -> int:
    """Serve a fleet, as sshd starts it on each of many devices at once (edgeprof.cli.door has all flags)."""
    from pathlib import Path

    from edgeprof.errors import EdgeprofError
    from edgeprof.fleet.door import open_door
    from edgeprof.roots import Roots

    try:
        return open_door(Roots.resolve(), None if config is None else Path(config))
    except EdgeprofError as error:
        from edgeprof.cli.main import print_error

        return print_error(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _verb_rows(rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str:
    width = max(len(name) for name, _ in rows)
    return "".join(f"  {name:<{width}}  {text}\n" for name, text in rows)


def _terminal_width() -> int:
    """The width that click would use, without shutil.get_terminal_size, whose module imports zlib, bz2 and lzma."""
    try:
        return int(os.environ["COLUMNS"]) or 80
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def _print_text(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        streams.silence()
    except OSError as error:
        streams.silence()
        sys.stderr.write(f"edgeprof: cannot write to stdout: {error.strerror}\n")
        return 2
    return 0


if __name__ == "__main__":
    main()
