"""Print sentences: on a terminal they are broken between words, elsewhere each stays on one line."""

from __future__ import annotations

import os
import sys

import click


def say(*lines: str, err: bool = False) -> None:
    """Print lines; one that is wider than the terminal (or COLUMNS) continues below, indented.

    Args:
        lines: The lines; a text with line breaks counts as several.
        err: Whether they go to stderr.
    """
    stream = sys.stderr if err else sys.stdout
    separate = "\n".join(lines).split("\n")
    if stream.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        from edgeprof.reporters.terminal import Style

        separate = Style.of(stream).fit(separate)
    click.echo("\n".join(separate), err=err)
