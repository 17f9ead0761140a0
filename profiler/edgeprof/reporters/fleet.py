"""The results of many devices as one table: on a terminal, as a page, as CSV and as JSON.

Every form is made from the same groups (``verdicts.fleet_table``), and explains in the same words why they are apart.
"""

from __future__ import annotations

import csv
import io
from importlib import resources
from typing import TYPE_CHECKING, Any

from edgeprof.reporters import view
from edgeprof.reporters.charts.svg import escape
from edgeprof.reporters.csv_rows import inert, result_rows
from edgeprof.reporters.terminal import Column, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.reporters.terminal import Style
    from edgeprof.results.schema import Energy
    from edgeprof.verdicts.fleet_table import Block, Group, Row

SCHEMA = "edgeprof.fleet/1"
#: The remedy if joules cover different things.
ONE_METER = "One wall meter for all devices would make them comparable (--sensor NAME of the meter; docs/meters.md)."


def headline(group: Group) -> str:
    """Say how the joules of a group were obtained, what they cover, and whether its devices are ordered by them."""
    if group.origin == "none":
        return "No joules are known for these devices:"
    part = view.COVERS.get(group.covers or "", f"what the {group.covers} feeds" if group.covers else "an unknown part")
    sentence = f"Joules are {group.origin} and cover {part}"
    if group.origin == "simulated":
        sentence += "; a virtual board proves nothing about a real one"
    elif group.origin == "estimated":
        sentence += "; estimates do not order devices"
    elif group.covers in {None, "unknown"}:
        sentence += "; compare each device only with itself"
    elif group.is_ordered:
        sentence += f"; ordered by joules of {group.blocks[0].rows[0].label}"
    return f"{sentence}:"


def closing(groups: Sequence[Group]) -> str | None:
    """Say why the groups are not ordered against each other, and the remedy; None if there is only one group."""
    apart = [group for group in groups if group.origin != "none"]
    if len(apart) < 2:
        return None
    named = [f"{group.blocks[0].device} ({group.origin}, {group.covers or 'unknown'})" for group in apart]
    first, last = ", ".join(named[:-1]), named[-1]
    return (
        f"Joules of {first} and {last} are of different kinds: compare them within a device; across devices compare "
        f"latency, rate and accuracy. {ONE_METER}"
    )


def console_lines(groups: Sequence[Group], style: Style) -> list[str]:
    """Format the table for a terminal."""
    lines: list[str] = []
    for group in groups:
        rows = [(block, row) for block in group.blocks for row in block.rows]
        names = [block.device if row is block.rows[0] else "" for block, row in rows]
        marks = ["" if row.variant.status == "ok" else row.variant.status for _, row in rows]
        lines += [*style.wrap("", headline(group)), *table(style, names, _table_columns(rows), marks), ""]
    last = closing(groups)
    return lines + (style.wrap("", last) if last else [])


def page(groups: Sequence[Group], title: str) -> str:
    """Write the table as one HTML page that needs no network."""
    sections = []
    for group in groups:
        rows = [(block, row) for block in group.blocks for row in block.rows]
        columns = _table_columns(rows)
        head = "".join(f"<th>{escape(text)}</th>" for text in ("device", *(column.title for column in columns)))
        body = []
        for number, (block, row) in enumerate(rows):
            device = block.device if row is block.rows[0] else ""
            cells = [" ".join(filter(None, (part.strip() for part in column.cells[number]))) for column in columns]
            words = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            body.append(f'<tr><th scope="row">{escape(device)}</th>{words}</tr>')
        sections.append(
            f'<section><h2>{escape(headline(group))}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div></section>"
        )
    from edgeprof.reporters.html_page import POLICY  # noqa: PLC0415 - no other format needs a page and its charts

    last = closing(groups)
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1>{f'<p>{escape(last)}</p>' if last else ''}</header>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def csv_text(groups: Sequence[Group]) -> str:
    """Write a row for each workload of each variant: three columns of the fleet, then those of ``report -o F.csv``."""
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for group in groups:
        for block in group.blocks:
            differences = {row.variant.name: "; ".join(row.differs) for row in block.rows}
            for figures in result_rows(block.result):
                line = {
                    "fleet_device": block.device,
                    "joules_comparable_with": f"{group.origin}, {group.covers or 'unknown'}",
                    "differs": differences.get(str(figures["variant"]), ""),
                    **figures,
                }
                if writer is None:
                    writer = csv.DictWriter(text, list(line), lineterminator="\n")
                    writer.writeheader()
                writer.writerow({key: inert(value) for key, value in line.items()})
    return text.getvalue()


def as_json(groups: Sequence[Group]) -> dict[str, Any]:
    """The table for programs; the figures in full are in the results that it names."""
    return {
        "schema": SCHEMA,
        "groups": [
            {
                "provenance": group.origin,
                "covers": group.covers,
                "sentence": headline(group),
                "is_ordered": group.is_ordered,
                "rows": [_row_as_json(block, row) for block in group.blocks for row in block.rows],
            }
            for group in groups
        ],
        "sentence": closing(groups),
    }


def _row_as_json(block: Block, row: Row) -> dict[str, Any]:
    variant, comparison = row.variant, row.comparison
    energy, latency, ratio = variant.energy_j_per_inference, variant.latency_s, None
    if comparison is not None and comparison.energy_ratio is not None:
        ratio = {"value": comparison.energy_ratio.value, "ci95": list(comparison.energy_ratio.ci95)}
    return {
        "device": block.device,
        "result": block.result.id,
        "board": block.result.host.board,
        "power_mode": block.result.host.power_mode,
        "variant": row.label,
        "status": variant.status,
        "energy_j": energy.gross.value if energy else None,
        "energy_expanded_uncertainty_j": energy.gross.expanded_uncertainty if energy else None,
        "energy_ratio": ratio,
        "latency_p99_s": latency.p99 if latency else None,
        "throughput_per_s": variant.throughput_per_s,
        "accuracy": variant.accuracy.value if variant.accuracy else None,
        "differs": list(row.differs),
    }


def _table_columns(rows: Sequence[tuple[Block, Row]]) -> list[Column]:
    variants = [row.variant for _, row in rows]
    latencies = [variant.latency_s for variant in variants]
    columns = [
        Column("variant", [("", row.label) for _, row in rows]),
        Column(
            f"energy / {view.common_unit(variants)}",
            view.energy_cells([_gross_and_provenance(variant.energy_j_per_inference) for variant in variants]),
            "energy",
        ),
        Column("to the first on this device", [("", _ratio_cell(row)) for _, row in rows], "ratio"),
        Column("latency p50", view.scaled([latency.p50 if latency else None for latency in latencies], "s"), "p50"),
        Column("p99", view.scaled([latency.p99 if latency else None for latency in latencies], "s")),
        Column("rate", [view.rate_cell(variant.throughput_per_s) for variant in variants]),
        Column("accuracy", [view.accuracy_cell(variant) for variant in variants]),
        Column("board", [("", block.result.host.board if row is block.rows[0] else "") for block, row in rows]),
        Column("mode", [("", block.result.host.power_mode or "–") for block, _ in rows]),
        Column("differs", [("", "; ".join(row.differs) or "–") for _, row in rows]),
    ]
    # A column without values is left out, but not that of the joules: that they are unknown must be visible.
    return [
        column
        for number, column in enumerate(columns)
        if number < 2 or any("".join(cell).strip() not in {"", "–"} for cell in column.cells)
    ]


def _gross_and_provenance(energy: Energy | None) -> Any:
    return None if energy is None else (energy.gross, energy.provenance)


def _ratio_cell(row: Row) -> str:
    if row.comparison is None:
        return ""
    if row.comparison.energy_ratio is None:
        return "–"
    return view.ratio_text(row.comparison.energy_ratio)
