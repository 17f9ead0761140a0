"""The click group of all commands: it imports a command when it is called, and turns errors into exit codes.

edgeprof.cli.entry is the console script and answers ``--help`` by itself. This module imports click, but still neither
numpy nor psutil nor a plugin.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from edgeprof import __version__
from edgeprof.cli import streams
from edgeprof.cli.prose import say
from edgeprof.cli.verbs import ABOUT, BUNDLED, EPILOG, HIDDEN, RESERVED, VERBS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

    from edgeprof.errors import EdgeprofError


#: Errors that a disk or a terminal causes; they are not defects of edgeprof.
_SURROUNDINGS_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
#: Errors that a file name from the user causes: it is too long, a loop of links, or in a folder without access.
_NAME_ERRORS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.ENOTDIR, errno.EISDIR})


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; plugins are loaded only for a name that is not ours."""

    #: A sentence about plugins that failed; None until plugins were loaded.
    plugin_hint: str | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*VERBS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in BUNDLED:
            return self.load_bundled(cmd_name)
        if cmd_name in VERBS or cmd_name in HIDDEN:
            command: click.Command = importlib.import_module(f"edgeprof.cli.{cmd_name}").command
            return command
        if cmd_name not in self.commands:
            self.load_plugins()
        return super().get_command(ctx, cmd_name)

    def load_bundled(self, verb: str) -> click.Command:
        """Load a command of one of our own plugins, and no other plugin.

        Raises:
            UnavailableError: EDGEPROF_PLUGINS leaves the plugin out, or it failed to load.
        """
        from edgeprof.errors import UnavailableError
        from edgeprof.plugins import PluginHost, points_of

        host = PluginHost.from_environment(points=points_of(BUNDLED[verb]))
        command = host.commands(reserved=RESERVED).get(verb)
        if command is None:
            why = next((info.reason for info in host.plugins if info.reason), "it is not installed")
            raise UnavailableError(f"edgeprof {verb} belongs to the plugin {BUNDLED[verb]}, which is not loaded: {why}")
        return command

    def load_plugins(self) -> None:
        """Let all plugins add their commands (``register_commands``), once."""
        if self.plugin_hint is None:
            from edgeprof.plugins import PluginHost

            host = PluginHost.from_environment()
            for name, command in host.commands(reserved=RESERVED).items():
                self.add_command(command, name)
            self.plugin_hint = host.failure_hint()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader (head, less) has seen enough; click itself would exit with 1
            streams.silence()
            return 0

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands without importing their modules: a press of Tab must not wait for imports."""
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=text) for verb, text in VERBS.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from edgeprof.errors import printable, unknown

            error = unknown("command", args[0], self.list_commands(ctx))
            error.remedy = f"{error.remedy} {printable(self.plugin_hint or '')}".rstrip()
            raise error
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(verb, VERBS.get(verb) or self._help_of(ctx, verb)) for verb in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _help_of(self, ctx: click.Context, verb: str) -> str:
        command = self.get_command(ctx, verb)
        return command.get_short_help_str() if command else ""


@click.group(
    cls=LazyGroup,
    help=ABOUT,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgeprof")
def cli() -> None:
    pass


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no error that a user can cause becomes a traceback.

    A command whose program is to take the place of this process returns the function that does so. It is called when
    descriptors 1 and 2 are the process's own again.
    """
    from edgeprof.cli.relay import relayed

    try:
        words = sys.argv[1:] if argv is None else list(argv)
        is_ours = words[:1] and words[0] in VERBS  # a plugin's command may give the terminal to a program
        with relayed() if is_ours else contextlib.nullcontext():
            outcome: Any = cli.main(args=words, prog_name="edgeprof", standalone_mode=False, obj=tuple(words))
    except (Exception, KeyboardInterrupt) as error:
        code = exit_code_of(error)
        if code is None:
            raise
        return code
    if callable(outcome):
        outcome()
    return outcome if isinstance(outcome, int) else 0


def exit_code_of(error: BaseException) -> int | None:
    """Print what stopped a command, and return its exit code; None: the error is a defect of edgeprof."""
    from edgeprof.errors import EdgeprofError

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        click.echo("interrupted", err=True)
        return 130
    if isinstance(error, EdgeprofError):
        return print_error(error)
    if isinstance(error, OSError) and (sentence := _system_error_sentence(error)) is not None:
        say(f"edgeprof: {sentence}", err=True)
        return 2
    return None


def print_error(error: EdgeprofError) -> int:
    """Print an error of the user's and its remedy to stderr, and return its exit code."""
    say(f"edgeprof: {error.message}", *([f"  {error.remedy}"] if error.remedy else []), err=True)
    return error.exit_code


def _system_error_sentence(error: OSError) -> str | None:
    """Describe a system error that a file name, a disk or a terminal causes; None: it is a defect of edgeprof."""
    from edgeprof.errors import printable

    name = None if error.filename is None else printable(os.fsdecode(error.filename))[:200]
    if error.errno in _NAME_ERRORS and name is not None:
        return f"cannot use {name}: {error.strerror}"
    if error.errno not in _SURROUNDINGS_ERRORS:
        return None
    if name is None and error is not getattr(sys.stdout.buffer, "error", None):
        return f"cannot write a file: {error.strerror}"
    streams.silence()
    return f"cannot write to {name or 'stdout'}: {error.strerror}"
