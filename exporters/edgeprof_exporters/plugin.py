"""The exporters as a plugin: the verb ``edgeprof exporter``, and where results can be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def register_commands(cli: click.Group) -> None:
    from edgeprof_exporters.command import exporter  # noqa: PLC0415 - click, only for who asks for the verb

    cli.add_command(exporter, "exporter")
