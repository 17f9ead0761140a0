"""``edgeprof top``: show the rails, temperatures and clocks of this machine, live in the terminal."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
import time
from typing import TYPE_CHECKING

import click

from edgeprof.cli.options import json_option, no_color_option, resolve_roots, root_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeprof.energy.online.watch import Watch
    from edgeprof.reporters.terminal import Style
    from edgeprof.reporters.top_frame import Moment, OwnCost
    from edgeprof.roots import Roots

#: Sequences that switch to the terminal's alternate screen and hide the cursor, and that undo both.
_BEGIN, _END = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
#: Keys that end the program: q, Ctrl-C, Ctrl-D, and the end of stdin.
_QUIT = frozenset({b"q", b"Q", b"\x03", b"\x04", b""})
#: Readings per second: enough for a marked window of one second, at a negligible CPU load.
_RATE_HZ = 10.0
#: After this (s) there are two readings of every counter, and so its power.
_FIRST_S = 0.25
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
    from edgeprof.energy.online.watch import Watch
    from edgeprof.errors import require_range
    from edgeprof.plugins import PluginHost, sensor_points
    from edgeprof.reporters.terminal import Style
    from edgeprof.reporters.top_frame import History, draw
    from edgeprof.sensing.discover import discover

    require_range("--every", every_s, _FASTEST_S, 3600.0)
    roots = resolve_roots(sysfs_root, procfs_root)
    discovery = discover(PluginHost.from_environment(points=sensor_points()), roots, sources or None)
    watch, state = Watch(discovery, _RATE_HZ), _State(roots)
    live = sys.stdout.isatty() and sys.stdin.isatty() and not once and not as_json
    watch.start()
    try:
        if as_json:
            _print_json(watch, state, every_s, once=once)
        elif live:
            with _alternate_screen() as keys:
                _play_frames(watch, state, every_s, Style.of(sys.stdout, no_color=no_color), keys)
        else:
            time.sleep(_FIRST_S)  # a counter's power is the difference of two readings
            style = Style.of(sys.stdout, no_color=no_color)
            click.echo("\n".join(draw(state.moment(watch), History(), style, keys=False)))
    finally:
        watch.stop()


def _print_json(watch: Watch, state: _State, every_s: float, *, once: bool) -> None:
    import json

    from edgeprof.reporters.top_frame import document

    time.sleep(_FIRST_S)
    while True:
        click.echo(json.dumps(document(state.moment(watch), time.time())))
        if once:
            return
        sys.stdout.flush()
        time.sleep(every_s)


def _play_frames(watch: Watch, state: _State, every_s: float, style: Style, keys: int) -> None:
    """Draw frames until q, Ctrl-C or the end of stdin."""
    from edgeprof.reporters.terminal import terminal_size
    from edgeprof.reporters.top_frame import History, draw

    history = History()
    # At once what is known then; soon afterwards what the first readings and their differences give.
    for pause_s in itertools.chain((0.0, 0.05, _FIRST_S), itertools.repeat(every_s)):
        pressed = _read_key(keys, pause_s)
        if pressed in _QUIT:
            return
        if pressed == b" ":
            watch.mark()
        moment = state.moment(watch)
        history.add(moment.rails)
        lines = draw(moment, history, style, keys=True)[: terminal_size()[1] - 1]
        # os.write bypasses the guard of stdout, which would remove these sequences; ``style.text`` has made all names
        # in the lines safe.
        frame = _HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_REST
        os.write(sys.stdout.fileno(), frame.encode(sys.stdout.encoding or "utf-8", "replace"))


def _read_key(keys: int, seconds: float) -> bytes | None:
    """Wait up to ``seconds`` for a key, and return it; ``b""`` at the end of stdin, None if no key was pressed."""
    readable = select.select([keys], [], [], seconds)[0]
    return os.read(keys, 1) if readable else None


@contextlib.contextmanager
def _alternate_screen() -> Iterator[int]:
    """Switch to the terminal's alternate screen and read keys one by one; the terminal is restored in any case.

    Yields:
        The descriptor to read keys from.
    """
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        os.write(sys.stdout.fileno(), _BEGIN)
        yield 0
    finally:
        os.write(sys.stdout.fileno(), _END)
        termios.tcsetattr(0, termios.TCSADRAIN, before)


class _State:
    """What a frame shows beside the readings, and the CPU time at the frame before."""

    def __init__(self, roots: Roots) -> None:
        from edgeprof.energy.online.production import Production
        from edgeprof.sensing.device import throttle
        from edgeprof.sensing.device.power_mode import power_mode
        from edgeprof.sensing.files import TextFile

        self._causes = throttle.Causes(roots)
        self._mode = power_mode(roots)
        self._memory = TextFile("/proc/self/statm")
        self._production = Production()
        self._cpu_s, self._at = time.process_time(), time.monotonic()

    def moment(self, watch: Watch) -> Moment:
        from edgeprof.reporters.top_frame import Moment

        headline = watch.topology.headline
        return Moment(
            board=watch.topology.board.name,
            power_mode=self._mode,
            covers=headline.covers,
            total=watch.total(),
            rails=watch.rails(),
            others=watch.others(),
            throttling=self._causes.read(),
            marked=watch.marked(),
            models=self._production.models(),
            own_cost=self._own_cost(),
            reason=headline.reason,
        )

    def _own_cost(self) -> OwnCost:
        from edgeprof.reporters.top_frame import OwnCost

        cpu_s, at = time.process_time(), time.monotonic()
        ratio = (cpu_s - self._cpu_s) / (at - self._at) if at > self._at else 0.0
        self._cpu_s, self._at = cpu_s, at
        pages = (self._memory.read() or b"").split()[1:2]
        return OwnCost(ratio, int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else None)
