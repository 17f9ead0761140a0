"""``edgeprof history``: what was measured on this device, and any of it again in full."""

from __future__ import annotations

import itertools
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, no_color_option, output_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.reporters.terminal import Style
    from edgeprof.results.store import Entry

SCHEMA = "edgeprof.history/1"


@click.command("history")
@click.argument("result", required=False)
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many runs.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--model", metavar="NAME", help="Only this model.")
@output_option
@json_option
@no_color_option
def command(result: str | None, **flags: Any) -> None:
    """Past results on this device, newest first.

    With RESULT, that one in full: an id or its last part (k3f), "last", "last~1", or a result file.
    """
    if result is not None or flags["output"]:
        _show_run(result or "last", flags)
        return
    from edgeprof.reporters.terminal import Style
    from edgeprof.results.store import Store

    store = Store()
    entries = store.history(limit=None if flags["everything"] else flags["limit"], model=flags["model"])
    if flags["model"] and not entries:
        from edgeprof.errors import unknown

        raise unknown("stored model", flags["model"], store.models())
    if flags["as_json"]:
        click.echo(json.dumps({"schema": SCHEMA, "results": _as_json(entries)}, indent=2))
    elif entries:
        click.echo("\n".join(_runs_table(entries, Style.of(sys.stdout, no_color=flags["no_color"]))))
        click.echo(f"\n  kept in {store.directory} (EDGEPROF_DATA_DIR)")
    else:
        click.echo(f"nothing is stored in {store.directory} yet; measure something: edgeprof bench MODEL")


def _show_run(reference: str, flags: dict[str, Any]) -> None:
    from edgeprof.reporters import console, registry
    from edgeprof.reporters.terminal import Style
    from edgeprof.results import document, files

    result = files.read_one(reference)
    for path in flags["output"]:
        registry.write([result], path)
    if flags["as_json"]:
        click.echo(document.to_json(result).encode())  # JSON is UTF-8, whatever the terminal is
    elif not flags["output"]:
        click.echo(console.render(result, Style.of(sys.stdout, no_color=flags["no_color"])), nl=False)


def _as_json(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Runs with their variants."""
    return [
        {
            "id": run,
            "created": group[0].created,
            "board": group[0].board,
            "scenario": group[0].scenario,
            "interrupted": group[0].interrupted,
            "variants": [
                {
                    "model": e.model,
                    "variant": e.variant,
                    "runtime": e.runtime or None,
                    "device": e.device or None,
                    "status": e.status,
                    "provenance": e.provenance,
                    "unit": e.unit,
                    "energy_j": e.energy_j,
                    "energy_expanded_uncertainty_j": e.energy_u_j,
                    "latency_p50_s": e.latency_p50_s,
                    "accuracy": e.accuracy,
                }
                for e in group
            ],
        }
        for run, group in _list_runs(entries)
    ]


def _list_runs(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    return [(run, list(group)) for run, group in itertools.groupby(entries, key=lambda e: e.id)]


def _runs_table(entries: Sequence[Entry], style: Style) -> list[str]:
    """One line a variant; a run's id and time stand before its first."""
    from edgeprof.reporters import view
    from edgeprof.reporters.terminal import Column, table
    from edgeprof.results.schema import EnergyFigure

    first = [n == 0 for _, group in _list_runs(entries) for n in range(len(group))]
    figures = [
        (EnergyFigure(value=e.energy_j, expanded_uncertainty=e.energy_u_j, ci95=None), e.provenance) for e in entries
    ]
    # What is the same for all would only push the rest off the screen; the id tells the time.
    units = {e.unit for e in entries}
    facts = (
        ("unit", "unit"),
        ("scenario", "scenario"),
        ("runtime", "runtime"),
        ("device", "device"),
        ("board", "board"),
    )
    columns = [
        Column("model", [("", e.model) for e in entries]),
        Column("variant", [("", e.variant) for e in entries]),
        Column(f"energy / {units.pop() if len(units) == 1 else 'unit'}", view.energy_cells(figures), "energy"),
        Column("latency p50", view.scaled([e.latency_p50_s for e in entries], "s"), "p50"),
        Column("accuracy", [view.share(e.accuracy) for e in entries]),
        *(
            Column(title, [("", getattr(e, name) or "–") for e in entries])
            for title, name in facts
            if len({getattr(e, name) for e in entries}) > 1
        ),
    ]
    names = [e.id if f else "" for e, f in zip(entries, first, strict=True)]
    marks = ["" if e.status == "ok" else e.status for e in entries]
    return table(style, names, columns, marks)
