"""Write a man page for edgeprof and each of its commands, from click's definitions: python tools/man.py DIRECTORY"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import click

from edgeprof import __version__
from edgeprof.cli import main as cli
from edgeprof.cli.verbs import ABOUT, VERBS


def roff(text: str) -> str:
    """Escape a text for troff, so that nothing in it is a request or an escape sequence."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in plain.splitlines())


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a help text, without click's marks."""
    return [" ".join(block.replace("\b", "").split()) for block in re.split(r"\n\s*\n", inspect.cleandoc(text))]


def context_of(names: list[str], command: click.Command) -> click.Context:
    """Return the context in which edgeprof calls a command, with its settings, such as ``-h`` beside ``--help``.

    click stores the help option in the command when it is asked for first, so any other context would change what the
    command answers later in the same process.
    """
    command._help_option = None  # noqa: SLF001 - another context may have asked already
    top = cli.cli.make_context(names[0], [], resilient_parsing=True)
    return top if command is cli.cli else click.Context(command, parent=top, info_name=names[-1])


def page(names: list[str], command: click.Command) -> str:
    """Return the man page of one command."""
    title = "-".join(names)
    context = context_of(names, command)
    short = ABOUT if len(names) == 1 else VERBS.get(names[-1]) or command.get_short_help_str(120)
    pieces = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH {title.upper()} 1 "" "edgeprof {__version__}" "User Commands"',
        ".SH NAME",
        roff(f"{title} - {short.rstrip('.')}"),
        ".SH SYNOPSIS",
        f".B {roff(' '.join(names))}",
        roff(pieces),
        ".SH DESCRIPTION",
    ]
    for paragraph in paragraphs(command.help or short):
        lines += [roff(paragraph), ".PP"]
    parameters = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    options = [record for parameter in parameters if (record := parameter.get_help_record(context))]
    lines += [".SH OPTIONS"] if options else []
    for flags, words in options:
        lines += [".TP", f".B {roff(flags)}", roff(words) or "\\&"]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            words = VERBS.get(name) or (child.get_short_help_str(120) if child else "")
            lines += [".TP", f".B {roff(name)}", roff(words)]
    lines += [".SH SEE ALSO", roff("edgeprof(1)" if len(names) > 1 else ", ".join(f"edgeprof-{v}(1)" for v in VERBS))]
    return "\n".join(lines) + "\n"


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "edgeprof.1").write_text(page(["edgeprof"], cli.cli), encoding="utf-8")
    for verb in VERBS:
        command = cli.cli.get_command(click.Context(cli.cli), verb)
        assert command is not None
        (directory / f"edgeprof-{verb}.1").write_text(page(["edgeprof", verb], command), encoding="utf-8")


if __name__ == "__main__":
    main()
