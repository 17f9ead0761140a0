"""The console script: ``edgeprof --help``, ``--version``, ``door`` and ``top`` are answered without click.

Importing click takes longer than starting Python. A profiler that is slow to print its version is not trusted with
milliseconds, a fleet's devices should answer soon, and ``top`` should show the machine at once, so the requests that
need no parsing are answered here; edgeprof.cli.main handles all others. A test compares this help text with click's.
"""

from __future__ import annotations

import os
import sys

from edgeprof import __version__
from edgeprof.cli import streams
from edgeprof.cli.verbs import ABOUT, EPILOG, VERBS

TYPE_CHECKING = False  # the module typing would take longer than the rest of ``--help``
if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS = (("--version", "Show the version and exit."), ("-h, --help", "Show this message and exit."))


def main() -> None:
    """Run the command line and exit with the contract's exit codes (contract §1)."""
    streams.mend()
    sys.exit(streams.finish(run(sys.argv[1:])))


def run(argv: list[str]) -> int:
    """Answer what needs no parsing at once, and pass everything else to edgeprof.cli.main."""
    if argv in (["--help"], ["-h"]):
        text = help_text()
        if max(map(len, text.splitlines())) <= _terminal_width() - 2:  # otherwise click must wrap it
            return _print_text(text)
    if argv == ["--version"]:
        return _print_text(f"edgeprof, version {__version__}\n")
    if argv == ["door"] or (argv[:2] == ["door", "--config"] and len(argv) == 3):
        return _without_click(lambda: _open_door(*argv[2:]))
    if argv == ["top"]:
        return _without_click(_show_top)
    from edgeprof.cli import main as full

    return full.run(argv)


def help_text() -> str:
    """What ``edgeprof --help`` prints where no line needs wrapping."""
    return (
        f"Usage: edgeprof [OPTIONS] COMMAND [ARGS]...\n\n  {ABOUT}\n\n"
        f"Options:\n{_verb_rows(_OPTIONS)}\nCommands:\n{_verb_rows(sorted(VERBS.items()))}\n  {EPILOG}\n"
    )


def _without_click(command: Callable[[], int]) -> int:
    """Run a command; no error that a user can cause becomes a traceback."""
    try:
        return command()
    except (Exception, KeyboardInterrupt) as error:
        from edgeprof.cli.main import exit_code_of

        code = exit_code_of(error)
        if code is None:
            raise
        return code


def _open_door(config: str | None = None) -> int:
    """Serve a fleet, as sshd starts it on each of many devices at once (edgeprof.cli.door has all flags)."""
    from pathlib import Path

    from edgeprof.fleet.door import open_door
    from edgeprof.roots import Roots

    return open_door(Roots.resolve(), None if config is None else Path(config))


def _show_top() -> int:
    """Show the machine live (edgeprof.cli.top has all flags)."""
    from edgeprof.cli.relay import relayed
    from edgeprof.roots import Roots

    with relayed():
        from edgeprof.cli.top_screen import show

        show(Roots.resolve())
    return 0


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
