"""``edgeprof fleet scheduler`` and ``host``: the processes of a fleet whose devices are held by several hosts."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import click

from edgeprof.cli.fleet_options import chosen_devices, inventory_options


@click.command("scheduler", short_help="Run the scheduler of several hosts.")
@click.option(
    "--listen",
    default="0.0.0.0:8786",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where hosts and desks connect, with TLS 1.3.",
)
@click.option(
    "--certificates",
    type=click.Path(file_okay=False, path_type=Path),
    default="/etc/edgeprof/fleet",
    show_default=True,
    metavar="DIR",
    help="Folder with ca.pem, cert.pem and key.pem.",
)
@click.option(
    "--dashboard-port",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    metavar="PORT",
    help="Port of Dask's own pages, which are served to this machine only.",
)
def scheduler(listen: str, certificates: Path, dashboard_port: int) -> None:
    """Run the scheduler that passes a fleet's tasks from desks to hosts, until it is ended.

    Only machines with a certificate of the fleet's own authority can connect (docs/fleet.md).
    """
    from edgeprof.errors import InputError
    from edgeprof.fleet.hosting import run_scheduler

    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})", listen)
    if match is None or int(match[2]) > 65535:
        raise InputError(f"--listen {listen} is not ADDRESS:PORT", remedy="As in --listen 0.0.0.0:8786.")
    run_scheduler(
        match[1].strip("[]"), int(match[2]), dashboard_port, certificates, lambda address: _say(f"listening: {address}")
    )


@click.command("host", short_help="Hold devices for the scheduler.")
@inventory_options
@click.option("--name", metavar="NAME", help="Name of this host (default: its host name).")
@click.option(
    "--compress",
    "variants",
    type=click.IntRange(0, 1024),
    default=0,
    metavar="N",
    help="Make up to N variants of studies at the same time (default: none).",
)
@click.option("--no-devices", is_flag=True, help="Hold no device, only make variants.")
def host(inventory: Path, on: tuple[str, ...], *, name: str | None, variants: int, no_devices: bool) -> None:
    """Hold the devices of the inventory for the scheduler that it names, until this process is ended.

    The host reaches the devices by ssh, as a desk does; it opens the connection to the scheduler itself and listens to
    nothing. It ends if the scheduler ends: let systemd start it again (docs/fleet.md).
    """
    from edgeprof.errors import InputError
    from edgeprof.fleet.hosting import run_host
    from edgeprof.fleet.inventory import load_engine

    if no_devices and (on or not variants):
        raise InputError("--no-devices leaves this host nothing to do", remedy="Give --compress N, and no --on.")
    devices = chosen_devices(inventory, on)
    engine = load_engine(inventory)
    if engine is None:
        raise InputError(
            f"{inventory} has no [engine] that names a scheduler",
            remedy='Add: [engine] and below it scheduler = "tls://server.example:8786".',
        )
    held = [] if no_devices else devices
    words = [device.name for device in held] + ([f"{variants} variants at a time"] if variants else [])
    run_host(
        engine,
        name or socket.gethostname(),
        held,
        variants,
        lambda address: _say(f"registered at {address}: {', '.join(words)}"),
    )


def _say(text: str) -> None:
    click.echo(text, err=True)
