"""``edgeprof fleet``: the same measurement on many devices, reached by ssh (docs/fleet.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli import fleet_hosts
from edgeprof.cli.fleet_options import (
    SCHEMA,
    check_outputs,
    chosen_devices,
    engine_of,
    exit_code,
    failure_as_json,
    inventory_option,
    inventory_options,
    is_inventory_named,
    say_failure,
    show_table,
    table_output_option,
    write_output,
)
from edgeprof.cli.options import json_option, no_color_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.errors import EdgeprofError
    from edgeprof.fleet.inventory import Device
    from edgeprof.fleet.protocol import State

#: Certificates may fail on a device whose clock is off by more than this (s).
_CLOCK_OFF_S = 5.0


@click.group("fleet")
def command() -> None:
    """Run the same bench or study on many devices, which are reached by ssh.

    The inventory names the devices; edgeprof dashboards targets reads the same file. A device needs edgeprof, and a
    key or a certificate whose forced command is edgeprof door (docs/fleet.md); nothing runs on it between jobs. If one
    device fails, the others are measured nevertheless (exit 3).
    """


command.add_command(fleet_hosts.scheduler)
command.add_command(fleet_hosts.host)


@command.command("add", short_help="Contact a device and add it to the inventory.")
@click.argument("name")
@click.argument("address", required=False)
@click.option("--ssh", metavar="DESTINATION", help="Destination for ssh: user@host, or a Host of ~/.ssh/config.")
@click.option("--kind", metavar="WORD", help="Kind of device, a word of your choice, for --on kind:WORD.")
@click.option("--power-mode", metavar="MODE", help="Measure in this power mode only.")
@inventory_option
def add(
    name: str, address: str | None, ssh: str | None, kind: str | None, power_mode: str | None, inventory: Path
) -> int:
    """Contact a device and add it to the inventory, with its board and its machine.

    ADDRESS is its host, with the port of its exporter if that is not the default one (default: NAME). The fleet's key
    must be installed on the device, and the device's host key must be known here: docs/fleet.md has the commands.
    """
    from dataclasses import replace

    from edgeprof.errors import EdgeprofError, printable
    from edgeprof.fleet import inventory as devices
    from edgeprof.fleet.link import Link

    device = devices.parse_device(name, address or name, ssh, kind, power_mode)
    devices.with_device(inventory, device)  # what the inventory refuses is said before the device is asked
    try:
        with Link(device) as link:
            answer = link.hello()
    except EdgeprofError as error:
        say_failure(device, error)
        return error.exit_code
    devices.add(inventory, replace(device, board=answer.board, machine=answer.machine))
    mode = f", {answer.power_mode}" if answer.power_mode else ""
    click.echo(printable(f"{name}: {answer.board}{mode}; written to {inventory}"))
    return 0


@command.command("status", short_help="Show a row for each device: what it is, who measures on it.")
@inventory_options
@json_option
@no_color_option
def status(inventory: Path, on: tuple[str, ...], *, as_json: bool, no_color: bool) -> int:
    """Show for each device whether it answers, what it is, who measures on it and how warm it is.

    Exit 3 if a device is missing, or is not the one that the inventory describes.
    """
    from edgeprof.errors import EdgeprofError
    from edgeprof.fleet.task import AskState

    devices = chosen_devices(inventory, on)
    tasks = [AskState(device) for device in devices]
    answers = {task.name: answer for task, answer in engine_of(inventory).run(tasks)}
    failures = [answer for answer in answers.values() if isinstance(answer, EdgeprofError)]
    wrong = {device.name: error for device in devices if (error := _wrong_device(device, answers[device.name]))}
    if as_json:
        rows = [
            {
                "device": name,
                **(failure_as_json(answer) if isinstance(answer, EdgeprofError) else _state_as_json(*answer)),
                **(failure_as_json(wrong[name]) if name in wrong else {}),
            }
            for name, answer in sorted(answers.items())
        ]
        click.echo(json.dumps({"schema": SCHEMA, "devices": rows}, indent=2))
    else:
        click.echo("\n".join(_status_lines(devices, answers, wrong, no_color=no_color)))
    return exit_code([*failures, *wrong.values()], len(devices), [])


def _wrong_device(device: Device, answer: tuple[State, float] | EdgeprofError) -> EdgeprofError | None:
    """Why a device that answered is not the one of the inventory, or is in another power mode; None where it is."""
    from edgeprof.errors import EdgeprofError
    from edgeprof.fleet.device import check_expected
    from edgeprof.fleet.task import expected_of

    if isinstance(answer, EdgeprofError):
        return None
    try:
        check_expected(expected_of(device), _state_as_json(*answer))
    except EdgeprofError as error:
        return error
    return None


def _state_as_json(state: State, clock_off_s: float) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(state), "clock_off_s": clock_off_s}


def _status_lines(
    devices: Sequence[Device],
    answers: dict[str, tuple[State, float] | EdgeprofError],
    wrong: dict[str, EdgeprofError],
    *,
    no_color: bool,
) -> list[str]:
    from edgeprof import units
    from edgeprof.errors import EdgeprofError
    from edgeprof.reporters.terminal import Column, Style, table

    states: list[State | None] = []
    notes: list[str] = []
    style = Style.of(sys.stdout, no_color=no_color)
    for device in devices:
        answer = answers[device.name]
        if isinstance(answer, EdgeprofError):
            states.append(None)
            notes += style.wrap(device.name, " ".join(filter(None, (answer.message + ".", answer.remedy))))
            continue
        state, clock_off_s = answer
        states.append(state)
        if abs(clock_off_s) > _CLOCK_OFF_S:
            notes += style.wrap(device.name, f"its clock is off by {clock_off_s:+.0f} s: certificates may fail.")
        if device.name in wrong:
            error = wrong[device.name]
            notes += style.wrap(device.name, " ".join(filter(None, (error.message + ".", error.remedy))))
    columns = [
        Column("state", [("", _in_words(state)) for state in states]),
        Column("board", [("", state.board if state else "–") for state in states]),
        Column("mode", [("", state.power_mode or "–" if state else "–") for state in states]),
        Column("temp", [_number(state.temperature_c if state else None, "°C") for state in states]),
        Column("disk free", [("", units.size(state.free_bytes) if state else "–") for state in states]),
        Column("results", [("", str(len(state.jobs)) if state else "–") for state in states]),
    ]
    names = [device.name for device in devices]
    return [*table(style, names, columns, ["" for _ in names]), *([""] if notes else []), *notes]


def _in_words(state: State | None) -> str:
    if state is None:
        return "missing"
    return f"measured by {state.measuring}" if state.measuring else "free"


def _number(value: float | None, unit: str) -> tuple[str, str]:
    return ("–", "") if value is None else (f"{value:.1f}", unit)


@command.command(
    "bench",
    short_help="Bench the same MODEL(s) on every device.",
    no_args_is_help=True,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="MODEL... [BENCH FLAGS]")
@inventory_options
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 86400),
    default=3600.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait while somebody else measures on a device.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1_000_000),
    default=1,
    show_default=True,
    metavar="N",
    help="Take the N-th measurement of the same job; one that exists already is not taken again.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@table_output_option
@json_option
@no_color_option
def bench(arguments: tuple[str, ...], **flags: Any) -> int:
    """Bench the same MODEL(s) on every device, and show one table.

    BENCH FLAGS are those of edgeprof bench that a device allows (--threads, --preset, --dataset FILE.npz, …); a value
    follows its flag after a space or an equals sign. All models of a device are measured in turns, in one benchmark.
    What a device has measured already is fetched and not measured again. The MODEL mcu is the firmware of
    microcontrollers in the inventory, which each command measures again.
    """
    from edgeprof.cli.fleet_bench import bench_on_devices

    return bench_on_devices(arguments, flags)


@command.command("sweep", short_help="Run a study on every device.", no_args_is_help=True)
@click.argument("recipe", metavar="RECIPE.toml", type=click.Path(dir_okay=False, path_type=Path))
@inventory_options
@click.option("--dir", "directory", metavar="DIR", help="Folder for the variants (default: RECIPE.study).")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 86400),
    default=3600.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait while somebody else measures on a device.",
)
@click.option("--target", metavar="CPU|BOARD", help="Make variants for another device than this machine.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@table_output_option
@json_option
@no_color_option
def sweep(recipe: Path, **flags: Any) -> int:
    """Run a study on every device: make the variants once, measure them there, and recommend one for each device.

    The variants of RECIPE.toml are made on this machine, or by hosts if the inventory has compress = true. Each device
    measures the baseline and all variants in turns, and is held to the study's budgets. With [search], each device has
    a search of its own.
    """
    from edgeprof.cli.fleet_sweep import sweep_on_devices

    return sweep_on_devices(recipe, flags)


@command.command("report", short_help="Show one table of what the fleet has measured.")
@inventory_options
@table_output_option
@json_option
@no_color_option
def report(inventory: Path, on: tuple[str, ...], *, output: tuple[Path, ...], as_json: bool, no_color: bool) -> None:
    """Show one table of what the fleet has measured: a row for each device and variant, the newest result of each.

    Ratios are shown only within a device. Devices are ordered by joules only if their joules cover the same parts and
    were obtained in the same way. All stored results are shown unless --inventory or --on chooses devices. -o FILE
    writes the table: .html, .csv or .json.
    """
    from edgeprof.errors import InputError
    from edgeprof.fleet.store import fleet_store
    from edgeprof.reporters import fleet as reporter
    from edgeprof.verdicts.fleet_table import fleet_table

    check_outputs(output)
    entries = fleet_store().jobs()
    if on or is_inventory_named():
        names = {device.name for device in chosen_devices(inventory, on)}
        entries = [entry for entry in entries if entry[0] in names]
    if not entries:
        raise InputError(
            "the fleet has measured nothing yet", remedy="edgeprof fleet bench MODEL, or edgeprof fleet fetch"
        )
    groups = fleet_table(entries)
    for path in output:
        write_output(path, groups)
    if as_json:
        click.echo(json.dumps(reporter.as_json(groups), indent=2))
    elif not output:
        show_table(groups, no_color=no_color)


@command.command("fetch", short_help="Fetch results that are missing on this machine.")
@inventory_options
@json_option
def fetch(inventory: Path, on: tuple[str, ...], *, as_json: bool) -> int:
    """Fetch the results of the devices that are missing on this machine, as after a broken connection."""
    from edgeprof.errors import EdgeprofError
    from edgeprof.fleet.store import fleet_store, keep
    from edgeprof.fleet.task import FetchMissing

    devices, here = chosen_devices(inventory, on), frozenset(fleet_store().job_keys())
    failures: list[EdgeprofError] = []
    rows = []
    for task, outcome in engine_of(inventory).run([FetchMissing(device, here) for device in devices]):
        try:
            if isinstance(outcome, EdgeprofError):
                raise outcome
            result_ids = [keep(measured, task.name).id for measured in outcome]
        except EdgeprofError as error:
            failures.append(error)
            rows.append({"device": task.name, **failure_as_json(error)})
            say_failure(task.device, error)
            continue
        rows.append({"device": task.name, "results": result_ids})
        if not as_json:
            click.echo(f"{task.name}: {len(result_ids)} fetched")
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "devices": rows}, indent=2))
    return exit_code(failures, len(devices), [])
