"""``edgeprof dashboards``: export, check and preview what Grafana and Prometheus need."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edgeprof.errors import GateError, InputError

_EXAMPLES = """
\b
Examples:
  edgeprof dashboards export monitoring
  edgeprof dashboards targets inventory.toml -o monitoring/prometheus/targets/edgeprof.json
  edgeprof dashboards preview device --prometheus http://127.0.0.1:9090 -o device.html
  edgeprof dashboards lint my-dashboard.json
  curl -s http://127.0.0.1:28283/metrics | edgeprof dashboards lint-metrics -
"""


@click.group(epilog=_EXAMPLES)
def command() -> None:
    """Grafana dashboards, Prometheus rules and scrape configuration."""


@command.command()
@click.argument("directory", metavar="DIR")
@click.option("--force", is_flag=True, help="Replace files that are different.")
def export(directory: str, force: bool) -> None:
    """Write everything to DIR: dashboards, provisioning, rules with their tests, scrape configuration, examples.

    Files that are there already and different are left alone and named, unless --force is given.
    """
    from edgeprof_dashboards.export import export as write

    written, unchanged = write(Path(directory), force=force)
    click.echo(f"{len(written)} files written to {directory}; begin with {directory}/README.md", err=True)
    if unchanged:
        raise GateError(
            f"left alone because they are different: {', '.join(str(path) for path in unchanged)}",
            remedy="--force replaces them.",
        )


@command.command()
@click.argument("inventory", metavar="INVENTORY.toml")
@click.option("-o", "--output", metavar="FILE", help="Replace FILE at once; otherwise to stdout.")
def targets(inventory: str, output: str | None) -> None:
    """What Prometheus should scrape (file_sd), from one inventory of the devices."""
    from edgeprof_dashboards import inventory as devices

    text = devices.targets(devices.load(Path(inventory)))
    if output is None:
        click.echo(text, nl=False)
    else:
        devices.write(Path(output), text)


@command.command()
@click.argument("files", nargs=-1, metavar="[FILE.json ...]")
def lint(files: tuple[str, ...]) -> None:
    """Check dashboards (default: those of edgeprof) against the rules of Grafana's dashboard-linter and stricter ones.

    Exits 1 if anything is found.
    """
    from edgeprof_dashboards import lint as rules
    from edgeprof_dashboards.catalogue import shipped_dashboards

    count = 0
    for path in [Path(name) for name in files] or list(shipped_dashboards().values()):
        for finding in rules.lint(_read_board(path)):
            click.echo(f"{path}: {finding}")
            count += 1
    if count:
        raise GateError(f"{count} finding{'s' if count > 1 else ''}")


@command.command("lint-metrics")
@click.argument("file", metavar="FILE")
def lint_metrics_command(file: str) -> None:
    """Check the names and labels of an exposition (- for stdin): base units, suffixes, banned labels.

    Exits 1 if anything is found.
    """
    from edgeprof_dashboards import lint_metrics

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
        findings = lint_metrics.lint(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{file} cannot be read as metrics: {reason}") from None
    for sentence in findings:
        click.echo(sentence)
    if findings:
        raise GateError(f"{len(findings)} finding{'s' if len(findings) > 1 else ''}")


@command.command()
@click.argument("name", metavar="DASHBOARD")
@click.option("--prometheus", "url", metavar="URL", default="http://127.0.0.1:9090", show_default=True)
@click.option("-o", "--output", metavar="FILE", required=True, help="The page to write (.html).")
@click.option("--from", "span", metavar="SPAN", default="1h", show_default=True, help="How far back: 15m, 6h, 7d …")
@click.option("--at", metavar="UNIX", type=float, help="The end of the time shown; default: now.")
@click.option("--step", metavar="S", type=float, default=15.0, show_default=True, help="The scrape interval.")
@click.option("--set", "values", metavar="NAME=VALUE", multiple=True, help="A variable of the dashboard, as instance=…")
def preview(
    name: str, url: str, output: str, span: str, at: float | None, step: float, values: tuple[str, ...]
) -> None:
    """One self-contained page of DASHBOARD (device, inference, benchmark or fleet) with what PROMETHEUS knows.

    A still picture for a place without Grafana: same panels, same expressions, no network and no scripts.
    """
    from edgeprof_dashboards.preview.page import write

    chosen = dict(value.partition("=")[::2] for value in values)
    empty = write(name, url, Path(output), span=span, at=at, scrape_s=step, chosen=chosen)
    if empty:
        click.echo(f"without data: {', '.join(empty)}", err=True)


def _read_board(path: Path) -> dict[str, object]:
    try:
        board = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path} cannot be read as a dashboard: {reason}") from None
    if not isinstance(board, dict) or not isinstance(board.get("panels"), list):
        raise InputError(f"{path} is no dashboard: it has no panels", remedy="Export it from Grafana as classic JSON.")
    return board
