"""``edgeprof choose``: which model on which hardware meets a product's requirements, judged by what was measured."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option, no_color_option, output_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeprof.reporters.terminal import Style
    from edgeprof.results.schema import Interval, Result
    from edgeprof.verdicts.choose import Choice, Group
    from edgeprof.verdicts.choose_row import Row
    from edgeprof.verdicts.requirements import Requirements

SCHEMA = "edgeprof.choice/1"


@click.command("choose", no_args_is_help=True)
@click.argument("requirements", metavar="REQUIREMENTS.toml")
@click.argument("results", nargs=-1, metavar="[RESULT...]")
@click.option("--fleet", is_flag=True, help="Choose among what the fleet has measured (edgeprof fleet).")
@click.option("--ask", is_flag=True, help="Write REQUIREMENTS.toml from eight questions first.")
@output_files("Also write the JSON to FILE; repeatable.", "FILE.json")
@json_option
@no_color_option
def command(
    requirements: str,
    results: tuple[str, ...],
    *,
    fleet: bool,
    ask: bool,
    output: tuple[Path, ...],
    as_json: bool,
    no_color: bool,
) -> int:
    """Choose a model and hardware that meet the requirements.

    Every device, variant and power mode of the results (files, or ids of stored results; by default all that are
    stored) is checked against the requirements: the rate, p99 at that rate, accuracy, memory, a rate held without
    throttling, hours of battery, watts, price. Each check says yes, no, unsure (the interval contains the limit) or
    unknown, with the command that measures it. Rows that fit come first, ordered by their watts at the product's rate
    and duty; rows whose joules cover different things are not ordered against each other. Exit codes: 0 a row fits,
    1 none does, 3 all rows are unknown.
    """
    from edgeprof.cli.delivery import Delivery
    from edgeprof.errors import InputError
    from edgeprof.reporters.terminal import Style
    from edgeprof.results import files
    from edgeprof.verdicts.choose import choose
    from edgeprof.verdicts.requirements import load

    path = Path(requirements)
    for target in output:
        if target.suffix != ".json":
            raise InputError(f"-o {target} does not end in .json", remedy="A choice is written as JSON: -o choice.json")
        files.check_writable(target)
    if ask:
        from edgeprof.cli.choose_questions import write_answers

        write_answers(path)
    asked = load(path)
    of_fleet = _read_fleet() if fleet else []
    others = _read_results(results) if results or not fleet else []
    choice = choose([*of_fleet, *others], asked, of_fleet={result.id for result in of_fleet})
    text = json.dumps(_as_json(choice), indent=2, allow_nan=False)
    with Delivery() as delivery:
        for target in output:
            with delivery.step():
                files.write(target, text + "\n")
        if as_json:
            click.echo(text)
        else:
            click.echo("\n".join(_choice_lines(choice, Style.of(sys.stdout, no_color=no_color))))
    return choice.exit_code


def _read_results(references: tuple[str, ...]) -> list[Result]:
    """Read the results to choose from, each once.

    Raises:
        InputError: a result cannot be read, or nothing is stored.
    """
    from edgeprof.errors import InputError
    from edgeprof.results import files
    from edgeprof.results.store import Store

    store = Store()
    loaded = (
        [result for reference in references for result in files.read(reference, store)] if references else store.all()
    )
    if not loaded:
        raise InputError(
            f"there is nothing to choose from: nothing is stored in {store.directory}",
            remedy="Measure something first: edgeprof bench MODEL, or name result files.",
        )
    return list({result.id: result for result in loaded}.values())


def _read_fleet() -> list[Result]:
    """Read the results of the fleet, each with its device's name in the inventory as hostname.

    Raises:
        InputError: the fleet has measured nothing.
    """
    import msgspec

    from edgeprof.errors import InputError
    from edgeprof.fleet.store import fleet_store

    store = fleet_store()
    entries = store.jobs()
    if not entries:
        raise InputError(
            f"there is nothing to choose from: no result of a fleet is stored in {store.directory}",
            remedy="Measure something first: edgeprof fleet bench MODEL",
        )
    return [
        msgspec.structs.replace(result, host=msgspec.structs.replace(result.host, hostname=device))
        for device, result in entries
    ]


# --- for people -------------------------------------------------------------------------------------------------------


def _choice_lines(choice: Choice, style: Style) -> list[str]:
    lines = [line for sentence in choice.asked.arithmetic() for line in style.wrap("", sentence)]
    for group in choice.groups:
        lines += ["", *style.wrap("", _group_sentence(group, choice)), *_group_table(group, choice.asked, style)]
        for row in group.rows:
            lines += _explain_row(row, style)
    lines.append("")
    for sentence in [_choice_summary(choice), choice.change, *choice.passed_over]:
        lines += style.wrap("", sentence) if sentence else []
    return lines


def _group_table(group: Group, asked: Requirements, style: Style) -> list[str]:
    from edgeprof.reporters.terminal import Column, table

    rows = group.rows
    columns = [
        Column("fits", [("", row.answer) for row in rows]),
        Column("mean power", [("", _power_text(row)) for row in rows], "power"),
    ]
    if asked.usable_wh is not None:
        columns.append(Column("battery", [("", _hours_text(row, asked)) for row in rows]))
    columns += [
        Column("mode", [("", row.power_mode or "–") for row in rows]),
        Column("runtime", [("", row.runtime or "–") for row in rows]),
    ]
    if any(row.device and row.device.price is not None for row in rows):
        prices = [row.device.price if row.device else None for row in rows]
        columns.append(Column("price", [("", "–" if price is None else f"{price:g}") for price in prices]))
    return table(style, [_row_name(row, rows) for row in rows], columns, ["" for _ in rows])


def _row_name(row: Row, rows: tuple[Row, ...]) -> str:
    """Name a row by board, model and variant; the hostname is added where several hosts have the same board."""
    from edgeprof.results.schema import variant_label

    hosts = {other.hostname for other in rows if other.board == row.board}
    device = f"{row.board} ({row.hostname})" if len(hosts) > 1 else row.board
    return f"{device} · {variant_label(row.model, row.variant)}"


def _power_text(row: Row) -> str:
    from edgeprof import units

    if row.draw is None:
        return "–"
    if row.draw.ci95 is None:
        return f"{units.significant(row.draw.watts)} W"
    return units.plus_minus(row.draw.watts, row.draw.ci95[1] - row.draw.watts, "W")


def _hours_text(row: Row, asked: Requirements) -> str:
    from edgeprof import units

    if row.draw is None or asked.usable_wh is None:
        return "–"
    interval = row.hours_ci95(asked)
    middle = f"{units.significant(row.draw.hours(asked.usable_wh))} h"
    if interval is None:
        return middle
    return f"{middle} ({units.significant(interval[0])} to {units.significant(interval[1])})"


def _explain_row(row: Row, style: Style) -> Iterator[str]:
    """Say which checks keep a row from a yes, and what to do about each."""
    from edgeprof.verdicts.choose_row import title

    open_checks = [check for check in row.checks if check.answer != "yes"]
    if not open_checks and not row.notes:
        return
    yield from style.wrap("", f"{title(row)}:")
    for check in open_checks:
        yield from style.wrap("", f"{check.answer}: {check.requirement}: {check.sentence}.", indent=4)
    for note in row.notes:
        yield from style.wrap("", f"note: {note}.", indent=4)
    where = f"on {row.hostname}" + (f" in {row.power_mode}" if row.power_mode else "")
    for remedy in dict.fromkeys(check.remedy for check in open_checks if check.remedy):
        runs_there = remedy.startswith("edgeprof ") and not remedy.startswith("edgeprof fleet ")
        yield from style.wrap("", f"{where}: {remedy}" if runs_there else remedy, indent=4)


def _choice_summary(choice: Choice) -> str:
    from edgeprof.verdicts.choose_row import title

    if not choice.fitting:
        if choice.exit_code == 3:
            return "No row is known to fit, and none is known not to fit: measure what is unknown."
        return "No row is known to fit."
    best = [group for group in choice.groups if group.rows[0].answer == "yes"]
    names = "; ".join(title(group.rows[0]) for group in best)
    if len(best) > 1:
        return f"These fit, and their joules cannot be compared: {names}."
    if best[0].rows[0].draw is None:
        return f"{names} fits; how much power it draws is not known."
    ties = ", ".join(title(row) for row in best[0].ties)
    tied = f" Its watts cannot be distinguished from those of {ties}." if ties else ""
    return f"Take {names}: it draws the least power of the rows that fit.{tied}"


def _group_sentence(group: Group, choice: Choice) -> str:
    """Say what the joules of a group have in common, and why the group stands apart."""
    from edgeprof.reporters.view import COVERS

    if group.origin == "none":
        return "No joules are known for these rows:"
    if group.covers == "owner's sum":
        what = "cover what the rails measure and the watts that you added (outside_w)"
    else:
        named = "an unknown part" if group.covers == "unknown" else f"what the {group.covers} feeds"
        what = f"cover {COVERS.get(group.covers, named)}"
    sentence = f"Joules are {group.origin} and {what}"
    if group.origin == "simulated":
        sentence += "; a virtual board proves nothing about a real one, so no row is a yes"
    elif group.origin == "estimated":
        sentence += "; an estimate is not a measurement, so no check that rests on joules is a yes"
    elif sum(other.origin == "measured" for other in choice.groups) > 1:
        sentence += (
            "; these rows are ordered only among themselves, since the joules of the others cover something else"
        )
    return f"{sentence}:"


# --- for machines -----------------------------------------------------------------------------------------------------


def _as_json(choice: Choice) -> dict[str, Any]:
    from dataclasses import asdict

    asked = {name: value for name, value in asdict(choice.asked).items() if name != "devices"}
    return {
        "schema": SCHEMA,
        "requirements": asked,
        "devices": [asdict(device) for device in choice.asked.devices],
        "arithmetic": choice.asked.arithmetic(),
        "groups": [
            {
                "provenance": group.origin,
                "covers": group.covers,
                "sentence": _group_sentence(group, choice),
                "rows": [_row_as_json(row, choice.asked) for row in group.rows],
            }
            for group in choice.groups
        ],
        "summary": _choice_summary(choice),
        "change": choice.change,
        "passed_over": list(choice.passed_over),
        "exit_code": choice.exit_code,
    }


def _row_as_json(row: Row, asked: Requirements) -> dict[str, Any]:
    from dataclasses import asdict

    hours = None if row.draw is None or asked.usable_wh is None else row.draw.hours(asked.usable_wh)
    return {
        "board": row.board,
        "hostname": row.hostname,
        "power_mode": row.power_mode,
        "model": row.model,
        "variant": row.variant,
        "runtime": row.runtime or None,
        "covers": row.covers,
        "verdict": row.answer,
        "mean_power_w": None if row.draw is None else row.draw.watts,
        "mean_power_ci95_w": None if row.draw is None else row.draw.ci95,
        "hours": _finite_or_none(hours),
        "hours_ci95": _finite_interval(row.hours_ci95(asked)),
        "price": row.device.price if row.device else None,
        "outside_w": row.device.outside_w if row.device else None,
        "checks": [{**asdict(check), "acceptable": _finite_or_none(check.acceptable)} for check in row.checks],
        "notes": list(row.notes),
        "results": list(row.results),
    }


def _finite_or_none(value: float | None) -> float | None:
    """Return None for infinity, which JSON cannot express: there is no bound."""
    return value if value is not None and math.isfinite(value) else None


def _finite_interval(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_finite_or_none(end) for end in interval]
