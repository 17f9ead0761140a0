"""``edgeprof plot``: write one chart of results to a file, for papers and slides."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("plot", no_args_is_help=True)
@click.argument("results", nargs=-1, required=True, metavar="RESULT...")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The picture, a .svg or .png (default: edgeprof-CHART.svg).",
)
@click.option(
    "--chart",
    type=click.Choice(["pareto", "power", "latency", "budget"]),
    default="pareto",
    show_default=True,
    help="Which chart of the report.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing where all is well.")
def command(results: tuple[str, ...], output: Path | None, chart: str, *, quiet: bool) -> None:
    """Draw one chart of the report as a picture: SVG, or PNG (which needs resvg-py).

    RESULT is a result file or a stored result, as for report. To draw runs over time, use edgeprof history --plot FILE.
    """
    from edgeprof.reporters import picture
    from edgeprof.results import files

    path = output or Path(f"edgeprof-{chart}.svg")
    picture.write(picture.draw([result for name in results for result in files.read(name)], chart), path)
    if not quiet:
        click.echo(f"wrote {path}: {picture.CHARTS[chart]}")
