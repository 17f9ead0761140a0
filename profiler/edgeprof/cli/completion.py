"""``edgeprof completion``: print click's script that lets a shell complete commands and flags."""

from __future__ import annotations

import click

_HOW = {
    "bash": 'eval "$(edgeprof completion bash)"      # in ~/.bashrc',
    "zsh": 'eval "$(edgeprof completion zsh)"       # in ~/.zshrc',
    "fish": "edgeprof completion fish > ~/.config/fish/completions/edgeprof.fish",
}


@click.command(epilog="\b\n" + "\n".join(_HOW.values()))
@click.argument("shell", type=click.Choice(list(_HOW)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete edgeprof's commands and flags.

    It needs bash 4.4, zsh or fish.
    """
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None  # click knows the three shells
    script = completion(ctx.find_root().command, {}, "edgeprof", "_EDGEPROF_COMPLETE")
    # Not script.source(): it refuses if the bash of *this* machine is old or absent, but the script may be for another.
    click.echo(script.source_template % script.source_vars())
