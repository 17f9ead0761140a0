"""``edgeprof door``: the device's end of a fleet, which sshd starts for each connection (docs/fleet.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeprof.cli.options import resolve_roots, root_options


@click.command("door", hidden=True)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What the device's owner allows (default: /etc/edgeprof/door.toml, where it exists).",
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
    from edgeprof.fleet.door import open_door

    more: dict[str, Any] = {}
    if mcu is not None:
        name, port = mcu
        more = {"microcontrollers": {name: port}, "meters": {} if meter is None else {name: meter}}
    return open_door(resolve_roots(sysfs_root, procfs_root), config, **more)
