"""The exporters as a plugin: the command ``edgeprof exporter``, and the targets for results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof import hookimpl

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    import click

    from edgeprof.hookspecs import Register
    from edgeprof.results.schema import Result


@hookimpl
def register_commands(cli: click.Group) -> None:
    from edgeprof_exporters.command import exporter  # noqa: PLC0415 - click, only for who asks for the verb

    cli.add_command(exporter, "exporter")


@hookimpl
def register_exporters(register: Register) -> None:
    register("textfile", _export_to_textfile)
    register("pushgateway", _export_to_pushgateway)
    register("otlp", _export_to_otlp)


def _export_to_textfile(results: Iterable[Result], target: str | os.PathLike[str]) -> None:
    from edgeprof_exporters import push  # noqa: PLC0415 - prometheus-client, only for who sends

    push.to_textfile(push.rows_of(results), Path(target))


def _export_to_pushgateway(results: Iterable[Result], target: str) -> None:
    from edgeprof_exporters import push  # noqa: PLC0415 - see above

    push.to_pushgateway(push.rows_of(results), target)


def _export_to_otlp(results: Iterable[Result], target: str) -> None:
    from edgeprof_exporters import push  # noqa: PLC0415 - see above

    push.to_otlp(push.rows_of(results), target)
