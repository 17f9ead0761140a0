"""``edgeprof exporter``: the daemon, and what there is to do around it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.errors import UnavailableError
from edgeprof_exporters import settings as table

if TYPE_CHECKING:
    from collections.abc import Callable

_EXAMPLES = """
\b
Examples:
  edgeprof exporter
  edgeprof exporter --web.listen-address :28283 --web.config.file web-config.yml
  edgeprof exporter install --system --dry-run
  edgeprof exporter status
  edgeprof simulate jetson-orin-nano -- edgeprof exporter
"""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for each setting."""
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
@click.option("--config.file", "config_file", metavar="FILE", help="Settings, YAML or TOML (EDGEPROF_CONFIG).")
@_options
@click.pass_context
def exporter(ctx: click.Context, /, config_file: str | None, **flags: Any) -> int | None:
    """The long-running daemon: samples, integrates, serves Prometheus.

    Every flag is also a setting of the file (--web.listen-address: listen_address under web) and an environment
    variable (EDGEPROF_EXPORTER_WEB_LISTEN_ADDRESS). SIGHUP reads all of them again; SIGTERM ends in order.
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
    from edgeprof_exporters.main import become  # noqa: PLC0415 - needed only here

    become(flags, path)
    return None
