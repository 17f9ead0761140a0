"""``edgeprof plot``: write one chart of results to a file, for papers and slides."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from edgeprof.cli.options import output_files


@click.command("plot", no_args_is_help=True)
@click.argument("results", nargs=-1, required=True, metavar="RESULT...")
@output_files("The picture, a .svg or .png (default: edgeprof-CHART.svg). Repeatable.")
@click.option(
    "--chart",
    type=click.Choice(["pareto", "power", "latency", "budget"]),
    default="pareto",
    show_default=True,
    help="Which chart of the report.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing where all is well.")
def command(results: tuple[str, ...], output: tuple[Path, ...], chart: str, *, quiet: bool) -> None:
    """Draw one chart of the report as a picture: SVG, or PNG (which needs resvg-py).

    RESULT is a result file or a stored result, as for report. To draw runs over time, use edgeprof history --plot FILE.
    """
    from edgeprof.cli.delivery import Delivery
    from edgeprof.reporters import picture
    from edgeprof.results import files

    drawn = picture.draw([result for name in results for result in files.read(name)], chart)
    with Delivery() as delivery:
        for path in output or (Path(f"edgeprof-{chart}.svg"),):
            if delivery.attempt(functools.partial(picture.write, drawn, path)) and not quiet:
                click.echo(f"wrote {path}: {picture.CHARTS[chart]}")
