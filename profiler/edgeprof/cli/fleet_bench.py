"""``edgeprof fleet bench`` and ``sweep``: run one job on all devices, store their results, and show one table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.delivery import Delivery
from edgeprof.cli.fleet_options import (
    SCHEMA,
    check_outputs,
    chosen_devices,
    engine_of,
    exit_code,
    failure_as_json,
    say_failure,
    show_table,
    write_output,
)
from edgeprof.cli.signals import ending_like_ctrl_c
from edgeprof.errors import EdgeprofError, InputError, unknown
from edgeprof.fleet.flags import FLAGS
from edgeprof.fleet.store import keep
from edgeprof.fleet.task import Job, Measure, Watch
from edgeprof.reporters import fleet as reporter
from edgeprof.verdicts.fleet_table import fleet_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeprof.fleet.engine import Engine
    from edgeprof.fleet.inventory import Device
    from edgeprof.fleet.task import Measured
    from edgeprof.results.schema import Result

#: Flags of a bench that name a file of this machine; the file is sent to the devices.
_FILES = ("dataset", "input-data")


def bench_on_devices(arguments: Sequence[str], flags: Mapping[str, Any]) -> int:
    """Bench models on the chosen devices, show the table, and return the exit code.

    Raises:
        InputError: the inventory, a model or a flag cannot be used; nothing was measured.
    """
    check_outputs(flags["output"])
    models, given = parse_arguments(arguments)
    if not models:
        raise InputError("no model was given", remedy="edgeprof fleet bench MODEL [MODEL …]")
    data = {name: given.pop(name, [None])[-1] for name in _FILES}
    devices = chosen_devices(flags["inventory"], flags["on"])
    job = Job.of(models, given, data["dataset"], data["input-data"], flags["repeat"])
    outcome = Outcome()
    measure_all(engine_of(flags["inventory"]), devices, job, flags, outcome)
    return deliver(devices, outcome, flags)


@dataclass
class Outcome:
    """What came of one job or several.

    Attributes:
        entries: Names of devices, each with its result.
        failures: The errors of the devices that have no result.
        rows: A row for each device and job, for the JSON output.
    """

    entries: list[tuple[str, Result]] = field(default_factory=list)
    failures: list[EdgeprofError] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def measure_all(
    engine: Engine,
    devices: Sequence[Device],
    job: Job,
    flags: Mapping[str, Any],
    outcome: Outcome,
    finish: Callable[[Result], None] = lambda _: None,
) -> None:
    """Measure a job on every device, and keep each result as it comes.

    Args:
        engine: What runs the tasks.
        devices: Where.
        job: What.
        flags: Of the command: ``quiet``, ``wait_s``.
        outcome: What came of it is added here.
        finish: Called with each result before it is kept.
    """
    watches = watch_all(devices, quiet=flags["quiet"])
    with ending_like_ctrl_c():
        for task, measured in engine.run([Measure(device, job, flags["wait_s"]) for device in devices], watches):
            result = keep_measured(task.device, measured, flags, outcome, finish)
            if result is not None:
                outcome.entries.append((task.name, result))


def watch_all(devices: Sequence[Device], *, quiet: bool) -> dict[str, Watch]:
    """Who waits for each device, by its name."""
    return {device.name: Watch(_speaker(device.name, quiet=quiet)) for device in devices}


def keep_measured(
    device: Device,
    measured: Measured | EdgeprofError,
    flags: Mapping[str, Any],
    outcome: Outcome,
    finish: Callable[[Result], None],
) -> Result | None:
    """Keep what a device measured; None, with a sentence for the user, where it failed."""
    try:
        if isinstance(measured, EdgeprofError):
            raise measured
        finish(measured.result)
        result = keep(measured, device.name)
    except EdgeprofError as error:
        outcome.failures.append(error)
        outcome.rows.append({"device": device.name, "state": "failed", **failure_as_json(error)})
        say_failure(device, error)
        return None
    state = "there" if measured.was_there else "measured"
    outcome.rows.append({"device": device.name, "state": state, "key": measured.key, "result": result.id})
    if not flags["quiet"]:
        click.echo(f"{device.name}: {'was measured before' if measured.was_there else 'done'}", err=True)
    return result


def deliver(devices: Sequence[Device], outcome: Outcome, flags: Mapping[str, Any]) -> int:
    """Show one table of all, and return the exit code."""
    groups = fleet_table(outcome.entries)
    with Delivery() as delivery:
        for path in flags["output"]:
            with delivery.step():
                write_output(path, groups)
        if flags["as_json"]:
            document = {"schema": SCHEMA, "devices": outcome.rows, "table": reporter.as_json(groups)}
            click.echo(json.dumps(document, indent=2))
        elif groups:
            show_table(groups, no_color=flags["no_color"])
            for name, result in outcome.entries:
                if result.recommendation is not None and len(result.variants) > 1:
                    click.echo(f"  {name}: {result.recommendation.reason}")
    return exit_code(outcome.failures, len(devices), [result for _, result in outcome.entries])


def _speaker(name: str, *, quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else click.echo(f"{name}: {text}", err=True)


def parse_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Split a command line into models, and flags with their values.

    Raises:
        InputError: a flag is not one that a fleet may pass on, or has no value.
    """
    models: list[str] = []
    flags: dict[str, list[str]] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word == "-":
            models.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name == "quick" and not equals:
            name, equals, value = "preset", "=", "quick"
        if not word.startswith("--") or name not in {*FLAGS, *_FILES}:
            raise unknown("flag of edgeprof fleet bench", word, [f"--{flag}" for flag in (*FLAGS, *_FILES)])
        if not equals and name != "strict":
            following = next(words, None)
            if following is None:
                raise InputError(f"{word} has no value")
            value = following
        flags.setdefault(name, []).append(value)
    return models, flags


# --- files ------------------------------------------------------------------------------------------------------------
