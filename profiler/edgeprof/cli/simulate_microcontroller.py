"""``edgeprof simulate mcu``: play a virtual microcontroller and its meter, by itself or while a command runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.around import run_command, terminated
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.simulation.microcontroller.live import LiveMicrocontroller


def play(
    directory: str,
    command_line: Sequence[str],
    duration: float | None,
    *,
    quiet: bool,
    model: str | None,
    latency_s: float | None,
    power: str | None,
    faults: Sequence[str],
) -> int:
    """Play until Ctrl-C, for ``duration`` seconds, or as long as the command runs; return the exit code.

    Raises:
        InputError: a fault, a model or a number cannot be used.
    """
    from edgeprof.simulation.microcontroller.faults import Faults
    from edgeprof.simulation.microcontroller.live import LiveMicrocontroller

    given: dict[str, Any] = {"model": model, "latency_s": latency_s, "watts": _parse_watts(power)}
    chosen = {name: value for name, value in given.items() if value is not None}
    stop = threading.Event()
    live = LiveMicrocontroller(Path(directory), faults=Faults.parse(faults), **chosen)
    with terminated(stop), live:
        if not quiet:
            _print_introduction(live, is_around=bool(command_line))
        code = run_command(command_line, stop) if command_line else _wait_for_end(stop, duration)
    if not quiet:
        joules = live.supply.read()[1]
        click.echo(f"mcu (virtual): {live.inferences} inferences, true energy {joules:.6g} J", err=True)
    return code


def _parse_watts(power: str | None) -> tuple[float, float] | None:
    if power is None:
        return None
    try:
        idle, busy = (float(part) for part in power.split(","))
    except ValueError:
        raise InputError(
            f"--power {power} is not two numbers", remedy="Write it as --power 0.02,0.08: idle and busy."
        ) from None
    return idle, busy


def _print_introduction(live: LiveMicrocontroller, *, is_around: bool) -> None:
    idle_w, busy_w = live.supply.idle_w, live.supply.busy_w
    truth = f"{live.latency_s:g} s and {live.latency_s * busy_w:.6g} J an inference, {idle_w:g} W at rest"
    click.echo(f"mcu (virtual) at {live.port}, {live.model} · truth: {truth}", err=True)
    if not is_around:
        click.echo(
            f"  measure it: edgeprof bench mcu:{live.port} --sensor meter:{live.meter} · Ctrl-C ends it", err=True
        )


def _wait_for_end(stop: threading.Event, duration: float | None) -> int:
    try:
        stop.wait(duration)
    except KeyboardInterrupt:
        return 130
    return 0
