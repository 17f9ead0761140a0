"""``edgeprof plugins``: list the installed plugins, check one for conformance, or write a new one."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.options import json_option
from edgeprof.cli.prose import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.plugins import PluginHost, PluginInfo


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List installed plugins, what they registered and what went wrong; check or write a plugin."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_plugins, as_json=False)


@command.command("list", short_help="List every plugin, what it registered, why it failed.")
@json_option
def list_plugins(as_json: bool) -> None:
    """List every installed plugin, what it registered, and why it failed if it did.

    EDGEPROF_PLUGINS=name,name restricts loading.
    """
    host = _plugin_host()
    if as_json:
        import json

        click.echo(json.dumps({"plugins": [_plugin_row(info) for info in host.plugins]}, indent=2))
        return
    if not host.plugins:
        click.echo("no plugin is installed")
        return
    width = max(len(info.name) for info in host.plugins)
    for info in host.plugins:
        brings = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in info.registers.items() if names)
        text = info.reason if info.status != "loaded" else brings or "registers nothing"
        source = "" if info.distribution == "edgeprof" else f"  ({info.distribution} {info.version})"
        say(f"  {info.status:<7} {info.name:<{width}}  {text}{source}")


@command.command("check", short_help="Run the conformance checks on an installed plugin.")
@click.argument("name")
@click.option(
    "--model", "models", multiple=True, metavar="FILE", help="A model that the plugin's runtimes must load and run."
)
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=SHAPE[:DTYPE]", help="Shape of an input that --model leaves open."
)
@click.option(
    "--sensor",
    "sensors",
    multiple=True,
    metavar="NAME:ADDRESS",
    help="Address of the device of one of the plugin's sensors.",
)
@json_option
def check(name: str, models: tuple[str, ...], inputs: tuple[str, ...], sensors: tuple[str, ...], as_json: bool) -> None:
    """Run the conformance checks of edgeprof.testing on the installed plugin NAME.

    Sensors of this machine are read; those of an instrument are read at the address that --sensor gives. Runtimes are
    asked about themselves, and run the models that --model names. Exit status 1 if a check fails.
    """
    from edgeprof.benchmark.request import input_shapes
    from edgeprof.cli.conformance import Given, check_plugin
    from edgeprof.errors import InputError, unknown

    host = _plugin_host()
    info = next((info for info in host.plugins if info.name == name), None)
    if info is None:
        raise unknown("plugin", name, [info.name for info in host.plugins])
    if inputs and not models:
        raise InputError("--input goes with --model", remedy=f"edgeprof plugins check {name} --model FILE --input …")
    shapes, dtypes = input_shapes(inputs)
    given = Given(models, shapes, dtypes, _addresses_by_sensor(name, sensors, info.registers["sensors"]))
    rows = check_plugin(host, info, given)
    failed = any(row.status == "fail" for row in rows)
    if as_json:
        import json

        click.echo(json.dumps({"plugin": name, "checks": [row._asdict() for row in rows]}, indent=2))
    else:
        for row in rows:
            say(f"  {row.status:<6} {row.name}" + (f": {row.detail}" if row.detail else ""))
        click.echo("it does not conform" if failed else "it conforms, as far as this machine can tell")
    if failed:
        raise click.exceptions.Exit(1)


@command.command("new", short_help="Write a new plugin that installs, works and tests itself.")
@click.argument("name")
@click.argument("directory", type=click.Path(file_okay=False), metavar="DIR")
@click.option(
    "--kind",
    type=click.Choice(["sensor", "runtime", "compressor", "metric", "dataset", "reporter", "exporter"]),
    default="sensor",
    show_default=True,
    help="Kind of thing that the plugin adds.",
)
def new(name: str, directory: str, kind: str) -> None:
    """Write a plugin called NAME into the new folder DIR: a distribution that installs, works and tests itself."""
    from pathlib import Path

    from edgeprof.cli.scaffold import write
    from edgeprof.installation import install_command

    written = write(name, kind, Path(directory))
    click.echo(f"{name}, of the kind {kind}:")
    for path in written:
        click.echo(f"  {path}")
    install = install_command(["-e", directory, "pytest"])
    click.echo(f"\nNext: {install}, then\n  {shlex.quote(sys.executable)} -m pytest {shlex.quote(directory)}")
    click.echo(f"  edgeprof plugins check {name}")


def _plugin_host() -> PluginHost:
    from edgeprof.cli.verbs import RESERVED
    from edgeprof.plugins import PluginHost

    host = PluginHost.from_environment()
    host.commands(reserved=RESERVED)
    return host


def _addresses_by_sensor(plugin: str, sensors: tuple[str, ...], registered: Sequence[str]) -> dict[str, list[str]]:
    """Group the addresses by sensor.

    Raises:
        InputError: an address is missing, or the plugin has no such sensor.
    """
    from edgeprof.errors import InputError

    addresses: dict[str, list[str]] = {}
    for text in sensors:
        sensor, _, address = text.partition(":")
        if sensor not in registered or not address:
            names = ", ".join(registered) or "no sensor"
            raise InputError(
                f"--sensor {text!r} is not NAME:ADDRESS of a sensor of {plugin}", remedy=f"It has: {names}."
            )
        addresses.setdefault(sensor, []).append(address)
    return addresses


def _plugin_row(info: PluginInfo) -> dict[str, Any]:
    """Describe a plugin in the form of contract §2."""
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "registers": info.registers,
        "status": info.status,
        "reason": info.reason,
    }
