"""Write one chart of a report to a file, for papers and slides: SVG, or PNG by resvg."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING

from edgeprof.errors import InputError, UnavailableError
from edgeprof.reporters.charts import budget, latency, pareto, traces
from edgeprof.reporters.charts.rows import rows as rows_of
from edgeprof.reporters.names import with_short_names
from edgeprof.results import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeprof.results.schema import Result

#: Chart → its description.
CHARTS = {
    "pareto": "accuracy, joules and latency of each variant",
    "power": "power over the run",
    "latency": "distribution of latencies",
    "budget": "the sources of the uncertainty",
}
SUFFIXES = (".svg", ".png")
#: Pixels of a PNG for each unit of the drawing: 2880 pixels are sharp over the width of a page.
_PNG_SCALE = 3


def draw(results: Sequence[Result], chart: str) -> str:
    """Draw one chart of the results, as SVG for the inside of a page.

    Raises:
        InputError: the results do not contain what the chart shows.
    """
    short = [with_short_names(result) for result in results]
    rows = rows_of(short)
    if chart == "power":
        drawn = traces.draw(short[0], [row for row in rows if row.result is short[0]])
    elif chart == "pareto":
        drawn = pareto.draw(rows, legend=True)
    else:
        drawn = {"latency": latency.draw, "budget": budget.draw}[chart](rows)
    if drawn is None:
        raise InputError(
            f"there is nothing to draw: {_LACKING[chart]}",
            remedy=f"Another chart: {', '.join(c for c in CHARTS if c != chart)}.",
        )
    return drawn


_LACKING = {
    "pareto": "fewer than two variants have two quantities in common",
    "power": "no power was sampled",
    "latency": "no latency was measured",
    "budget": "no figure has an uncertainty budget",
}


def write(drawing: str, path: Path) -> None:
    """Write a chart in the format of the file's suffix.

    Raises:
        InputError: the suffix is not in ``SUFFIXES``, or the file cannot be written.
        UnavailableError: the file is a PNG, and resvg is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} is neither .svg nor .png", remedy=f"Name it {path.with_suffix('.svg')}.")
    files.check_writable(path)
    text = standalone(drawing)
    if path.suffix == ".svg":
        files.write(path, text)
        return
    data = _png(text)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise files.cannot_write(path, error) from None


def standalone(drawing: str) -> str:
    """Turn a chart into a complete SVG document, with the page's colours on white and without variables."""
    css = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    variables = dict(re.findall(r"(--[\w-]+): ([^;]+);", css.partition("@media")[0]))
    variables["--card"] = "#ffffff"
    rules = re.findall(r"^((?:svg|\.base|\.c\d)[^{]*\{[^}]*\})|(\.c\d \{[^}]*\})", css, re.MULTILINE)
    style = "\n".join(rule for pair in rules for rule in pair if rule)
    style = re.sub(r"var\((--[\w-]+)\)", lambda match: variables[match[1]], style)
    style = style.replace("font-family: inherit", 'font-family: "DejaVu Sans", "Liberation Sans", Arial, sans-serif')
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', drawing)[0]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    background = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    inside = drawing.partition(">")[2]
    attributes = drawing.partition(">")[0].removeprefix("<svg")
    return f"{head}{attributes}><style>{style}</style>{background}{inside}\n"


def _png(svg: str) -> bytes:
    try:
        import resvg_py  # noqa: PLC0415 - an extra
    except ImportError:
        raise UnavailableError("a PNG needs resvg, which is not installed", remedy="pip install resvg-py") from None
    # resvg reads nothing but the drawing: it has no links, and none would be followed.
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=_PNG_SCALE))
