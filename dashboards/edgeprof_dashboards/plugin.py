"""The entry point: ``edgeprof dashboards``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def register_commands(cli: click.Group) -> None:
    from edgeprof_dashboards.commands import command  # noqa: PLC0415 - nothing is imported before it is needed

    cli.add_command(command, "dashboards")
