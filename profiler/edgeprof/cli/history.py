"""``edgeprof history``: list the results of this device, show one in full, and label, move or delete results."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import can_ask, json_option, no_color_option, output_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.reporters.terminal import Style
    from edgeprof.results.store import Entry, Store

SCHEMA = "edgeprof.history/1"
_PLOT = "Draw the runs over time to FILE (.svg .png .html)."
_MOVE = "Move RESULT to another data directory."
#: Options that change a run instead of showing it.
_CHANGES = ("tags", "untag", "delete", "move")
#: Largest number of runs in a plot, without --all.
_MOST_PLOTTED = 200


@click.command("history")
@click.argument("result", required=False)
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="Number of runs to list.")
@click.option("--all", "everything", is_flag=True, help="List all runs.")
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option("--tagged", metavar="TAG", help="Only runs with this tag.")
@click.option(
    "--failed", is_flag=True, help="List only runs in which nothing could be measured; they are otherwise left out."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help=_PLOT)
@click.option("--name", metavar="NAME", help="Name RESULT; an empty NAME removes its name.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Add a tag to RESULT; repeatable.")
@click.option("--untag", multiple=True, metavar="TAG", help="Remove a tag from RESULT; repeatable.")
@click.option("--delete", is_flag=True, help="Delete RESULT.")
@click.option("--move", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help=_MOVE)
@click.option("-y", "--yes", is_flag=True, help="With --delete: do not ask.")
@output_option
@json_option
@no_color_option
def command(result: str | None, **flags: Any) -> None:
    """List past results of this device, newest first.

    With RESULT, show that result in full, or do with it what an option says. RESULT is its name, its id or the id's
    last part (k3f), "last", "last~1", or a result file.
    """
    if any(flags[change] for change in _CHANGES) or flags["name"] is not None:
        _change_run(result, flags)
        return
    if flags["plot"] is not None:
        _plot_runs(flags)
        return
    if result is not None or flags["output"]:
        _show_run(result or "last", flags)
        return
    from edgeprof.reporters.terminal import Style
    from edgeprof.results.store import Store

    store = Store()
    entries = _selected_runs(store, flags)
    failed = 0 if flags["failed"] else len({e.id for e in store.history(limit=None, model=flags["model"], failed=True)})
    if flags["as_json"]:
        click.echo(json.dumps({"schema": SCHEMA, "results": _as_json(entries)}, indent=2))
    elif entries:
        click.echo("\n".join(_runs_table(entries, Style.of(sys.stdout, no_color=flags["no_color"]))))
        click.echo(f"\n  kept in {store.directory} (EDGEPROF_DATA_DIR){_left_out(failed)}")
    elif failed:
        click.echo(f"nothing was measured in {store.directory} yet{_left_out(failed)}")
    else:
        click.echo(f"nothing is stored in {store.directory} yet; measure something: edgeprof bench MODEL")


def _selected_runs(store: Store, flags: dict[str, Any], limit: int | None = None) -> list[Entry]:
    """The runs that the flags ask for.

    Raises:
        InputError: there is no such model, or no run with the tag.
    """
    from edgeprof.errors import InputError, unknown

    number = None if flags["everything"] else limit or flags["limit"]
    entries = store.history(limit=number, model=flags["model"], tag=flags["tagged"], failed=flags["failed"])
    if flags["model"] and not entries and flags["model"] not in store.models():
        raise unknown("stored model", flags["model"], store.models())
    if flags["tagged"] and not entries:
        raise InputError(
            f"no run has the tag {flags['tagged']!r}", remedy=f"edgeprof history RESULT --tag {flags['tagged']}"
        )
    return entries


def _left_out(failed: int) -> str:
    if not failed:
        return ""
    return f"; {failed} run{'s' if failed > 1 else ''} in which nothing could be measured: edgeprof history --failed"


def _change_run(reference: str | None, flags: dict[str, Any]) -> None:
    """Name, tag, move or delete a stored run.

    Raises:
        InputError: no run is named, two options exclude one another, or nobody can be asked.
    """
    from edgeprof.errors import InputError
    from edgeprof.results.store import Store

    store = Store()
    if reference is None:
        raise InputError("no run was named", remedy="Name one: edgeprof history RESULT --tag TAG, or last")
    if flags["delete"] and flags["move"]:
        raise InputError("--delete and --move exclude one another", remedy="Leave one out.")
    if flags["name"] is not None or flags["tags"] or flags["untag"]:
        reference = store.label(reference, name=flags["name"], tags=flags["tags"], untag=flags["untag"])
        click.echo(f"labelled {reference}")
    if flags["move"]:
        click.echo(f"moved {store.move(reference, flags['move'])} to {flags['move']}")
    if flags["delete"]:
        result = store.find(reference)
        if not flags["yes"] and not can_ask():
            raise InputError(
                f"{result.id} was not deleted, because nobody can be asked",
                remedy=f"edgeprof history {result.id} --delete --yes",
            )
        if flags["yes"] or click.confirm(f"Delete {result.id} of {result.created}?"):
            click.echo(f"deleted {store.delete(result.id)}")


def _plot_runs(flags: dict[str, Any]) -> None:
    """Write the runs over time as a picture or a page.

    Raises:
        InputError: no two runs can be compared, or the file cannot be written.
    """
    from edgeprof.errors import InputError
    from edgeprof.reporters import html_page, picture
    from edgeprof.reporters.charts import trend
    from edgeprof.results import files
    from edgeprof.results.store import Store

    store = Store()
    entries = _selected_runs(store, flags, limit=_MOST_PLOTTED)
    path = flags["plot"]
    if path.suffix == ".html":
        files.check_writable(path)
        files.write(path, html_page.trend_page(entries, store.directory))
        written = True
    else:
        drawing = trend.draw(entries)
        written = drawing is not None
        if drawing is not None:
            picture.write(drawing, path)
    if not written:
        raise InputError(
            "there are no two runs of one model and variant to draw", remedy="Measure it again: edgeprof bench MODEL"
        )
    click.echo(f"wrote {path}: {len({entry.id for entry in entries})} runs")


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
    """Describe the runs, each with its variants."""
    return [
        {
            "id": run,
            "name": group[0].name or None,
            "tags": list(group[0].tags),
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
    """Format one line for each variant; the id of a run stands before its first variant.

    Model and variant are part of a row's name, so that they are repeated where a narrow screen divides the columns.
    """
    from edgeprof.reporters import view
    from edgeprof.reporters.names import short_names
    from edgeprof.reporters.terminal import GAP, Column, table
    from edgeprof.results.schema import EnergyFigure, variant_label

    first = [n == 0 for _, group in _list_runs(entries) for n in range(len(group))]
    figures = [
        (EnergyFigure(value=e.energy_j, expanded_uncertainty=e.energy_u_j, ci95=None), e.provenance) for e in entries
    ]
    # A column whose cells are all alike would only push the others off the screen; the id contains the time.
    units = {e.unit for e in entries}
    facts = (
        ("unit", "unit"),
        ("scenario", "scenario"),
        ("runtime", "runtime"),
        ("device", "device"),
        ("board", "board"),
    )
    labels = [variant_label(e.model, e.variant) for e in entries]
    short = short_names(labels)
    calls = [_label_of(e) if f else "" for e, f in zip(entries, first, strict=True)]
    columns = [
        *([Column("name", [("", called) for called in calls])] if any(calls) else []),
        Column(f"energy / {units.pop() if len(units) == 1 else 'unit'}", view.energy_cells(figures), "energy"),
        Column("latency p50", view.scaled([e.latency_p50_s for e in entries], "s"), "p50"),
        Column("accuracy", [view.share(e.accuracy) for e in entries]),
        *(
            Column(title, [("", getattr(e, name) or "–") for e in entries])
            for title, name in facts
            if len({getattr(e, name) for e in entries}) > 1
        ),
    ]
    wide = max((len(e.id) for e in entries), default=0)
    ids = [(e.id if f else "").ljust(wide) for e, f in zip(entries, first, strict=True)]
    names = [f"{run}{GAP}{short[label]}" for run, label in zip(ids, labels, strict=True)]
    marks = ["" if e.status == "ok" else e.status for e in entries]
    return table(style, names, columns, marks)


def _label_of(entry: Entry) -> str:
    """The name and tags of a run, as ``before-pruning #release #v2``."""
    return " ".join(filter(None, [entry.name, *(f"#{tag}" for tag in entry.tags)]))
