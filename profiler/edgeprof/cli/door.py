"""``edgeprof door``: the device's end of a fleet, which sshd starts for each connection (docs/fleet.md)."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgeprof.cli.options import resolve_roots, root_options

#: The file in which a device's owner says what a fleet may do.
CONFIGURATION = Path("/etc/edgeprof/door.toml")
#: Commands that a fleet's host asks sshd to run; the forced command runs in place of whatever was asked for.
ASKED = ("", "edgeprof door")


@click.command("door", hidden=True)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"What the device's owner allows (default: {CONFIGURATION}, where it exists).",
)
@click.option("--mcu", nargs=2, metavar="NAME PORT", help="A microcontroller of this machine that may be measured.")
@click.option("--meter", metavar="SENSOR", help="The meter at its supply.")
@root_options
def command(
    config: Path | None, mcu: tuple[str, str] | None, meter: str | None, sysfs_root: str | None, procfs_root: str | None
) -> int:
    """Serve a fleet on this device: answer hello, status, put, bench, fetch and cancel on stdin and stdout.

    sshd starts this command as the forced command of a key or a certificate, so that the holder of that key can do
    nothing else on this device. The process ends with the connection; asked for a benchmark, it turns into it.
    """
    from dataclasses import replace

    from edgeprof.errors import InputError
    from edgeprof.fleet.door import Door, Permissions
    from edgeprof.fleet.protocol import Wire

    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "").strip()
    if asked not in ASKED:
        raise InputError(
            f"this key opens the door of a fleet and runs nothing else; {asked[:200]!r} was asked for",
            remedy="Log in with a key of your own to work on this device.",
        )
    if config is None and CONFIGURATION.exists():
        config = CONFIGURATION
    permissions = Permissions() if config is None else Permissions.read(config)
    if mcu is not None:
        name, port = mcu
        permissions = replace(permissions, microcontrollers={name: port}, meters={} if meter is None else {name: meter})
    return Door(Wire(0, 1), resolve_roots(sysfs_root, procfs_root), permissions).serve()
