"""``edgeprof exporter``: run the daemon, query it, reload it and install it."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.errors import UnavailableError
from edgeprof_exporters import configuration as table

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprof_exporters.configuration import Settings

_EXAMPLES = """
\b
Examples:
  edgeprof exporter
  edgeprof exporter --web.listen-address :28283 --web.config.file web-config.yml
  edgeprof exporter install --system --dry-run
  edgeprof exporter status
  edgeprof simulate jetson-orin-nano -- edgeprof exporter
"""


def _add_setting_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each setting."""
    for name, field in reversed(table.KEYS.items()):
        facts = field.metadata
        several = callable(field.default_factory)
        kind: Any = str
        if facts["choices"]:
            kind = click.Choice(facts["choices"])
        elif isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            kind = click.INT if isinstance(field.default, int) else click.FLOAT
        if isinstance(field.default, bool):
            command = click.option(table.flag_of(name), name, is_flag=True, default=None, help=facts["text"])(command)
            continue
        text = facts["text"]
        default = ", ".join(field.default_factory()) if several else field.default
        if default not in ("", "auto"):
            text = f"{text} [{default}]"
        command = click.option(
            table.flag_of(name), name, type=kind, multiple=several, metavar=facts["metavar"] or None, help=text
        )(command)
    return command


@click.group(
    invoke_without_command=True,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--config.file", "config_file", metavar="FILE", help="File of settings, YAML or TOML (EDGEPROF_CONFIG).")
@_add_setting_flags
@click.option("--textfile", metavar="DIR", help="Start no daemon; write the stored results to DIR/edgeprof.prom.")
@click.option("--push", metavar="URL", help="Start no daemon; push the stored results to this Pushgateway.")
@click.option("--otlp", metavar="URL", help="Start no daemon; send the stored results to this OTLP/HTTP receiver.")
@click.pass_context
def exporter(
    ctx: click.Context,
    /,
    config_file: str | None,
    textfile: str | None,
    push: str | None,
    otlp: str | None,
    **flags: Any,
) -> Callable[[], None] | int | None:
    """Run the daemon that samples, integrates and serves Prometheus.

    Every flag is also a setting in the file (--web.listen-address: listen_address under web) and an environment
    variable (EDGEPROF_EXPORTER_WEB_LISTEN_ADDRESS). SIGHUP makes the daemon read all of them again; SIGTERM ends it.
    """
    path = Path(config_file) if config_file else None
    settings, _ = table.load(flags, path=path)
    ctx.obj = settings
    if ctx.invoked_subcommand is not None:
        return None
    if importlib.util.find_spec("prometheus_client") is None:
        raise UnavailableError(
            "the exporter needs prometheus-client, which is not installed", remedy="pip install 'edgeprof[exporter]'"
        )
    if textfile or push or otlp:
        _send_results(settings, textfile, push, otlp)
        return 0
    from edgeprof_exporters.main import become  # noqa: PLC0415 - needed only here

    return partial(become, flags, path)


def _send_results(settings: Settings, textfile: str | None, push: str | None, otlp: str | None) -> None:
    from edgeprof_exporters import push as to  # noqa: PLC0415 - the store's libraries, only for who sends

    newest_rows = to.stored(Path(settings.bench_directory) if settings.bench_directory else None)
    if textfile:
        click.echo(f"written: {to.to_textfile(newest_rows, Path(textfile))}")
    if push:
        to.to_pushgateway(newest_rows, push)
        click.echo("pushed")
    if otlp:
        to.to_otlp(newest_rows, otlp)
        click.echo("sent")


@exporter.command()
@click.pass_obj
def status(settings: Settings) -> None:
    """Print the state of the running daemon as JSON (over its control socket)."""
    click.echo(json.dumps(_ask_daemon(settings, "status"), indent=2))


@exporter.command()
@click.pass_obj
def reload(settings: Settings) -> None:
    """Make the running daemon read its settings again, as SIGHUP does."""
    click.echo(_ask_daemon(settings, "reload"))


@exporter.command()
@click.option(
    "--system", "where", flag_value="system", help="Install for the machine: unit, user, udev rules (needs root)."
)
@click.option("--user", "where", flag_value="user", help="Install a unit for this user only.")
@click.option("--dry-run", is_flag=True, help="Show what would be written and run, and stop.")
@click.option("--root", default="/", metavar="DIR", help="Install below DIR and run no command, to prepare an image.")
def install(where: str | None, dry_run: bool, root: str) -> None:
    """Write the systemd unit and the files that it needs, and start the daemon."""
    from edgeprof_exporters import install as installing  # noqa: PLC0415 - needed only here

    if where is None:
        if not dry_run:
            raise click.UsageError("--system or --user is needed (or --dry-run, to look first)")
        where = "system"
    plan = installing.plan(where, Path(root))
    if dry_run:
        click.echo(installing.shown(plan), nl=False)
        return
    for line in installing.carry_out(plan):
        click.echo(line)


def _ask_daemon(settings: Settings, command: str) -> Any:
    from edgeprof.daemon_client import ask, usual_path  # noqa: PLC0415 - needed only here

    named = settings.control_socket
    return ask(usual_path() if named == "auto" else Path(named), command)
