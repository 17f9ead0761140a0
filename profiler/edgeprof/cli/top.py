"""``edgeprof top``: show the rails, temperatures and clocks of this machine, live in the terminal."""

from __future__ import annotations

import click

from edgeprof.cli.options import json_option, no_color_option, resolve_roots, root_options

_FASTEST_S = 0.1


@click.command()
@click.option("--every", "every_s", default=1.0, show_default=True, metavar="S", help="Seconds between two frames.")
@click.option("--once", is_flag=True, help="Show one frame and end; the default if stdout is not a terminal.")
@click.option("--sensor", "sources", multiple=True, metavar="NAME", help="Only this source; repeatable.")
@root_options
@no_color_option
@json_option
def command(
    every_s: float,
    once: bool,
    sources: tuple[str, ...],
    sysfs_root: str | None,
    procfs_root: str | None,
    no_color: bool,
    as_json: bool,
) -> None:
    """Show rails, load, temperatures and clocks live; a rail that is part of another one stands below it.

    The space bar begins a window, whose joules and uncertainty stand in the last line. With --json each frame is one
    line of JSON.
    """
    from edgeprof.cli.top_screen import show
    from edgeprof.errors import require_range

    require_range("--every", every_s, _FASTEST_S, 3600.0)
    show(resolve_roots(sysfs_root, procfs_root), sources, every_s, once=once, no_color=no_color, as_json=as_json)
