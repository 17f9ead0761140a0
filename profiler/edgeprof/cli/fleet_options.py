"""What the commands of ``edgeprof fleet`` share: options, the choice of devices, and the report of a failure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from edgeprof.cli.options import output_files
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.errors import EdgeprofError
    from edgeprof.fleet.engine import Engine
    from edgeprof.fleet.inventory import Device
    from edgeprof.results.schema import Result
    from edgeprof.verdicts.fleet_table import Group

SCHEMA = "edgeprof.fleet/1"
INVENTORY = "EDGEPROF_INVENTORY"
_FORMATS = (".html", ".csv", ".json")
F = TypeVar("F", bound="Callable[..., object]")


def inventory_options(command: F) -> F:
    """Add ``--inventory`` and ``--on``; the command gets ``inventory`` and ``on``."""
    command = click.option(
        "--on", multiple=True, metavar="NAME,kind:K", help="Only these devices, by name or kind (default: all)."
    )(command)
    return inventory_option(command)


def inventory_option(command: F) -> F:
    """Add ``--inventory``; the command gets ``inventory``."""
    return click.option(
        "--inventory",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar=INVENTORY,
        default="inventory.toml",
        metavar="FILE",
        help=f"File of the devices (default: {INVENTORY}, else inventory.toml in this folder).",
    )(command)


def table_output_option(command: F) -> F:
    """Add ``-o FILE`` for the table (``output_files``)."""
    return output_files("Write the table to FILE; its suffix gives the format: .html .csv .json. Repeatable.")(command)


def is_inventory_named() -> bool:
    """Whether the user named an inventory, on the command line or by the variable."""
    return click.get_current_context().get_parameter_source("inventory") is not ParameterSource.DEFAULT


def chosen_devices(inventory: Path, on: Sequence[str]) -> list[Device]:
    """The devices that a command runs on.

    Raises:
        InputError: the inventory cannot be read, or has no such device.
    """
    from edgeprof.errors import InputError
    from edgeprof.fleet import inventory as devices

    if not inventory.exists():
        raise InputError(
            f"there is no inventory {inventory}",
            remedy=f"Add a device: edgeprof fleet add NAME ADDRESS, or name another file: --inventory, {INVENTORY}.",
        )
    return devices.choose(devices.load(inventory), on, inventory)


def engine_of(inventory: Path) -> Engine:
    """The engine that runs a fleet's tasks: threads of this process, or the cluster that the inventory names.

    Raises:
        InputError: the table [engine] or a certificate cannot be used.
        UnavailableError: the scheduler cannot be reached, or the extra fleet is not installed.
    """
    from edgeprof.fleet.engine import Threads
    from edgeprof.fleet.inventory import load_engine

    settings = load_engine(inventory)
    if settings is None:
        return Threads()
    from edgeprof.fleet.cluster import Cluster

    return Cluster(settings)


def failure_as_json(error: EdgeprofError) -> dict[str, Any]:
    """Describe for the JSON output why a device failed."""
    return {"error": error.message, "remedy": error.remedy, "exit": error.exit_code}


def say_failure(device: Device, error: EdgeprofError) -> None:
    """Print a device's error to stderr, and the remedy below it."""
    say(f"{device.name}: {error.message}", *([f"  {error.remedy}"] if error.remedy else []), err=True)


def exit_code(failures: Sequence[EdgeprofError], devices: int, results: Sequence[Result]) -> int:
    """The exit code of a command on a fleet.

    A failure gives 3, but with a single device the code of its error; else it is the largest code of the results.
    """
    from edgeprof.cli.exit_codes import exit_code as code_of

    if failures:
        return failures[0].exit_code if devices == 1 else 3
    return max((code_of(result, strict=False) for result in results), default=0)


def show_table(groups: Sequence[Group], *, no_color: bool) -> None:
    """Print the table of a fleet."""
    from edgeprof.reporters import fleet as reporter
    from edgeprof.reporters.terminal import Style

    style = Style.of(sys.stdout, no_color=no_color)
    click.echo("\n".join(reporter.console_lines(groups, style)).rstrip())


def check_outputs(paths: Sequence[Path]) -> None:
    """
    Raises:
        InputError: a fleet's table cannot be written with a file's suffix, or the file cannot be written.
    """
    from edgeprof.errors import InputError
    from edgeprof.results import files

    for path in paths:
        if path.suffix not in _FORMATS:
            raise InputError(
                f"-o {path}: a fleet's table cannot be written as {path.suffix or 'a file without a suffix'}",
                remedy=f"Let its name end in one of {' '.join(_FORMATS)}",
            )
        files.check_writable(path)


def write_output(path: Path, groups: Sequence[Group]) -> None:
    """Write a fleet's table, in the format of the file's suffix.

    Raises:
        InputError: the file cannot be written.
    """
    from edgeprof.reporters import fleet as reporter
    from edgeprof.results import files

    if path.suffix == ".html":
        text = reporter.page(groups, "What the fleet measured")
    elif path.suffix == ".csv":
        text = reporter.csv_text(groups)
    else:
        text = json.dumps(reporter.as_json(groups), indent=2) + "\n"
    files.write(path, text)
