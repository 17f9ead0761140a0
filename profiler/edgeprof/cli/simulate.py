"""``edgeprof simulate``: play a virtual board, by itself or while a command runs."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprof.cli.around import run_command, terminated
from edgeprof.cli.prose import say
from edgeprof.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgeprof.simulation.live import LiveBoard
    from edgeprof.simulation.source import Source
    from edgeprof.simulation.waveform import Waveform

#: The board that is not a tree of files, but a device on a serial port.
MICROCONTROLLER = "mcu"

_EXAMPLES = """
\b
Examples:
  edgeprof simulate jetson-orin-nano --dir board &
  edgeprof sensors --sysfs-root board
  edgeprof simulate jetson-orin-nano --follow command -- edgeprof bench model.onnx
  edgeprof simulate jetson-agx-orin --dir board --waveform burst:15W,40W,100ms,2s --duration 30
  edgeprof simulate mcu --dir board -- edgeprof bench mcu:board/mcu --sensor meter:board/meter
"""


@click.command(epilog=_EXAMPLES)
@click.argument("board")
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD ...]")
@click.option("--dir", "directory", metavar="DIR", help="Folder for the tree (required without CMD).")
@click.option(
    "--waveform",
    "waveform",
    metavar="SPEC",
    help="Course of the board's total power: constant:5W, square:1W,10W,20ms, ramp:1W,10W,2s, "
    "burst:4W,17W,100ms,2s, sine:2W,8W,1s or FILE.csv (time_s,watts; or a column for each rail). "
    "Default: follow the CPU load of this machine.",
)
@click.option(
    "--follow",
    metavar="WHOM",
    help="CPU load that the rails follow: of the whole machine (default), of command (CMD and its children), or of the "
    "process with this id and its children.",
)
@click.option("--duration", type=float, metavar="S", help="Stop after S seconds (default: at Ctrl-C).")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise on the load.")
@click.option("--model", "network", metavar="NAME", help="For mcu: network of MLPerf Tiny (default ic01).")
@click.option(
    "--latency", "latency_s", type=float, metavar="S", help="For mcu: seconds that an inference takes (default 0.01)."
)
@click.option("--power", "power", metavar="IDLE,BUSY", help="For mcu: power in watts (default 0.02,0.08).")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME[@N]",
    help="For mcu: a fault that happens at or from the N-th command; an unknown NAME lists the faults.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
def command(
    board: str,
    command_line: tuple[str, ...],
    directory: str | None,
    waveform: str | None,
    follow: str | None,
    duration: float | None,
    seed: int,
    network: str | None,
    latency_s: float | None,
    power: str | None,
    faults: tuple[str, ...],
    quiet: bool,
) -> int:
    """Simulate a BOARD, to try edgeprof without hardware: a sysfs tree whose rails change while it runs.

    The rails follow the machine's real CPU load (or --waveform), and are averaged, rounded and refreshed as on the real
    board. The true joules are written beside them (truth.jsonl, truth.json). Every reading is marked simulated.
    With CMD, CMD runs with EDGEPROF_SYSFS_ROOT set to the tree, and the board stops when CMD ends.

    The BOARD mcu is a microcontroller that speaks MLPerf Tiny's serial protocol on DIR/mcu, with a meter at DIR/meter.
    """
    from edgeprof.simulation.live import LiveBoard

    given = {"waveform": waveform, "follow": follow, "seed": seed or None}
    of_mcu = {"model": network, "latency": latency_s, "power": power, "fault": faults or None}
    _check_flags(board, given if board == MICROCONTROLLER else of_mcu, directory, command_line, duration)
    if board == MICROCONTROLLER:
        from edgeprof.cli.simulate_microcontroller import play

        assert directory is not None
        return play(
            directory,
            command_line,
            duration,
            quiet=quiet,
            model=network,
            latency_s=latency_s,
            power=power,
            faults=faults,
        )
    if waveform is not None and follow is not None:
        raise click.UsageError("--waveform and --follow exclude one another")
    if follow == "command" and not command_line:
        raise click.UsageError("--follow command needs a command: edgeprof simulate BOARD --follow command -- CMD ...")
    meter = _Meter(follow)
    source = _make_source(waveform, meter, seed)
    stop = threading.Event()
    with _tree_folder(directory) as tree, terminated(stop), LiveBoard(board, tree, source, seed=seed) as live:
        if not quiet:
            _introduce_board(live, waveform or meter.name, bool(command_line))
        if command_line:
            environment = {**os.environ, "EDGEPROF_SYSFS_ROOT": str(live.directory.absolute())}
            code = run_command(command_line, stop, environment, meter.started)
            _check_alive(live)
        else:
            code = _wait_for_end(live, stop, duration)
        live.stop()
        if not quiet:
            _sum_up(live, has_directory=directory is not None)
    return code


def _check_flags(
    board: str,
    of_others: Mapping[str, object],
    directory: str | None,
    command_line: tuple[str, ...],
    duration: float | None,
) -> None:
    """Check that the flags fit each other and the board.

    Raises:
        UsageError: flags exclude one another, are missing, or have no meaning for this board.
    """
    for name, value in of_others.items():
        if value is not None:
            raise click.UsageError(f"--{name} has no meaning for the board {board}")
    if directory is None and (board == MICROCONTROLLER or not command_line):
        raise click.UsageError(
            "--dir DIR is needed: the port is DIR/mcu, and the meter DIR/meter"
            if board == MICROCONTROLLER
            else "--dir DIR is needed (or a command: edgeprof simulate BOARD -- CMD ...)"
        )
    if command_line and duration is not None:
        raise click.UsageError("--duration and a command exclude one another: the board stops when the command ends")
    if duration is not None and not duration > 0:
        raise click.UsageError(f"--duration {duration:g} is not above 0")


class _Meter:
    """The CPU seconds that the rails follow: of the machine, a process, or a command once it has started.

    Raises:
        InputError: ``follow`` is neither ``machine`` nor ``command`` nor a number.
        UnavailableError: there is no such process.
    """

    def __init__(self, follow: str | None) -> None:
        from edgeprof.roots import Roots
        from edgeprof.simulation.source import tree_busy

        self._busy: Callable[[float], float] | None = None
        self.is_machine = follow in {None, "machine"}
        self.is_command = follow == "command"
        self.name = "this machine's CPU load" if self.is_machine else f"the CPU load of {follow}"
        if follow is not None and follow.isdecimal():
            self.name = f"the CPU load of process {follow}"
            self._busy = tree_busy(Roots().procfs, int(follow))
        elif not (self.is_machine or self.is_command):
            raise InputError(
                f"--follow {follow} is neither machine, command nor the id of a process",
                remedy="As in --follow command, or --follow 4711",
            )

    def started(self, pid: int) -> None:
        """Follow the command, which runs as process ``pid``."""
        from edgeprof.roots import Roots
        from edgeprof.simulation.source import tree_busy

        if self.is_command:
            # A command that has already ended uses no CPU.
            with contextlib.suppress(UnavailableError):
                self._busy = tree_busy(Roots().procfs, pid)

    def __call__(self, time: float) -> float:
        return self._busy(time) if self._busy is not None else 0.0


def _make_source(waveform: str | None, meter: _Meter, seed: int) -> Source | Waveform | Mapping[str, Waveform] | None:
    from edgeprof.simulation.source import Load
    from edgeprof.simulation.waveform import parse, read_csv

    if waveform is not None and waveform.endswith(".csv"):
        tables = read_csv(Path(waveform))
        return tables[""] if list(tables) == [""] else tables
    if waveform is not None:
        return parse(waveform)
    return None if meter.is_machine else Load(meter, cores=os.cpu_count() or 1, seed=seed)


@contextlib.contextmanager
def _tree_folder(directory: str | None) -> Iterator[Path]:
    """Yield the user's directory, or a temporary one that is removed at the end."""
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory(prefix="edgeprof-board-") as name:
        yield Path(name)


def _introduce_board(live: LiveBoard, follows: str, around: bool) -> None:
    name = live.layout.spec.model or live.board
    total = " + ".join(live.totals) if len(live.totals) < 5 else f"the sum of {len(live.totals)}"
    rails = f"{len(live.rails)} rails, " + (f"total = {total}" if total else "none of which is the total")
    say(f"{name} (virtual) in {live.directory} · {rails} · follows {follows}", err=True)
    if not around:
        say(f"  look at it: edgeprof sensors --sysfs-root {live.directory} · Ctrl-C ends it", err=True)


def _sum_up(live: LiveBoard, has_directory: bool) -> None:
    from edgeprof.simulation.truth import SUMMARY
    from edgeprof.units import quantity

    seconds = live.stopped - live.started
    if live.totals and seconds > 0:
        joules = live.energy(live.started, live.stopped)
        mean = quantity(joules / seconds, "W", 4)
        text = f"true energy {quantity(joules, 'J', 4)} in {seconds:.2f} s, {mean} on average"
    else:
        text = f"played for {seconds:.2f} s"
    where = f" · {live.directory / SUMMARY}" if has_directory else ""
    say(f"{live.board} (virtual): {text}{where}", err=True)


def _check_alive(live: LiveBoard) -> None:
    if live.failure is not None:
        raise UnavailableError(
            f"the virtual board in {live.directory} stopped: {live.failure}",
            remedy="Is the disk full, or was the directory removed?",
        )


def _wait_for_end(live: LiveBoard, stop: threading.Event, duration: float | None) -> int:
    left = float("inf") if duration is None else duration
    try:
        while left > 0 and not stop.wait(min(left, 0.5)):
            _check_alive(live)
            left -= 0.5
    except KeyboardInterrupt:
        return 130
    return 0
