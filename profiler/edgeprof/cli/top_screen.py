"""What ``edgeprof top`` shows: frames in the terminal, or one as text, or lines of JSON.

Without click, so that edgeprof.cli.entry can begin at once; the first frame is drawn before the sampler is imported.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
import time
from typing import TYPE_CHECKING

from edgeprof.energy.online.production import Production
from edgeprof.energy.online.rails import Preview
from edgeprof.plugins import PluginHost, sensor_points
from edgeprof.reporters.terminal import Style, terminal_size
from edgeprof.reporters.top_frame import History, Moment, OwnCost, document, draw
from edgeprof.sensing.device import throttle
from edgeprof.sensing.device.power_mode import power_mode
from edgeprof.sensing.discover import discover
from edgeprof.sensing.files import TextFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeprof.energy.online.watch import Watch
    from edgeprof.roots import Roots
    from edgeprof.sensing.board.evidence import Looks
    from edgeprof.sensing.board.topology import Topology

#: Sequences that switch to the terminal's alternate screen and hide the cursor, and that undo both.
_BEGIN, _END = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
#: Keys that end the program: q, Ctrl-C, Ctrl-D, and the end of stdin.
_QUIT = frozenset({b"q", b"Q", b"\x03", b"\x04", b""})
#: Readings per second: enough for a marked window of one second, at a negligible CPU load.
_RATE_HZ = 10.0
#: After this (s) there are two readings of every counter, and so its power.
_FIRST_S = 0.25


def show(
    roots: Roots,
    sources: Sequence[str] = (),
    every_s: float = 1.0,
    *,
    once: bool = False,
    no_color: bool = False,
    as_json: bool = False,
) -> None:
    """Show the machine until q or Ctrl-C, or once if stdout is not a terminal.

    Args:
        roots: The trees to read.
        sources: The names of the sources to read; empty: all.
        every_s: Seconds between two frames.
        once: Whether one frame is enough.
        no_color: Whether the frames have no colours.
        as_json: Whether each frame is a line of JSON.
    """
    state, style = _State(roots), Style.of(sys.stdout, no_color=no_color)
    if sys.stdout.isatty() and sys.stdin.isatty() and not once and not as_json:
        history = History()

        def preview(topology: Topology, looks: Looks) -> None:
            _draw_frame(state.moment(Preview(topology, looks)), history, style)

        with _alternate_screen() as keys, _watched(roots, sources, preview) as watch:
            _play_frames(watch, state, every_s, history, style, keys)
        return
    with _watched(roots, sources) as watch:
        time.sleep(_FIRST_S)  # a counter's power is the difference of two readings
        if as_json:
            _print_json(watch, state, every_s, once=once)
        else:
            _print_lines("\n".join(draw(state.moment(watch), History(), style, keys=False)))


@contextlib.contextmanager
def _watched(
    roots: Roots, sources: Sequence[str], preview: Callable[[Topology, Looks], None] | None = None
) -> Iterator[Watch]:
    """A running watch of all sensors, or of the named ones."""
    host = PluginHost.from_environment(points=sensor_points())
    discovery = discover(host, roots, sources or None, preview=preview)
    from edgeprof.energy.online.watch import Watch

    watch = Watch(discovery, _RATE_HZ)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


def _print_lines(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _print_json(watch: Watch, state: _State, every_s: float, *, once: bool) -> None:
    import json

    while True:
        _print_lines(json.dumps(document(state.moment(watch), time.time())))
        if once:
            return
        time.sleep(every_s)


def _play_frames(watch: Watch, state: _State, every_s: float, history: History, style: Style, keys: int) -> None:
    """Draw frames until q, Ctrl-C or the end of stdin."""
    # The preview is on the screen; soon afterwards what the first readings and their differences give.
    for pause_s in itertools.chain((0.05, _FIRST_S), itertools.repeat(every_s)):
        pressed = _read_key(keys, pause_s)
        if pressed in _QUIT:
            return
        if pressed == b" ":
            watch.mark()
        moment = state.moment(watch)
        history.add(moment.rails)
        _draw_frame(moment, history, style)


def _draw_frame(moment: Moment, history: History, style: Style) -> None:
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
        self._causes = throttle.Causes(roots)
        self._mode = power_mode(roots)
        self._memory = TextFile("/proc/self/statm")
        self._production = Production()
        self._cpu_s, self._at = time.process_time(), time.monotonic()

    def moment(self, watch: Watch | Preview) -> Moment:
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
        cpu_s, at = time.process_time(), time.monotonic()
        ratio = (cpu_s - self._cpu_s) / (at - self._at) if at > self._at else 0.0
        self._cpu_s, self._at = cpu_s, at
        pages = (self._memory.read() or b"").split()[1:2]
        return OwnCost(ratio, int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else None)
