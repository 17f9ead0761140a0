"""What a span of ``edgeprof.record`` adds to a call of 1 ms, compared with a window of Zeus.

Each round runs every loop once, each time in another order: the bare call, the call within ``recording.span``, and the
call within ``begin_window`` and ``end_window`` of Zeus if it can run. Each round gives one ratio to the bare loop; a
second bare loop is the null control. The call spins for a fixed CPU time, so that other load on the machine does not
count as overhead. On a machine without a GPU or RAPL, Zeus's windows read no device: the row shows their least cost.

Target: a span adds less than 1 % to a call of 1 ms.

Zeus is optional (``pip install zeus``); without it its row says why it is missing.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paired import about, machine, parser, ratio_text, table, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALL_S = 1e-3
TARGET = 1.01


def call() -> None:
    """Spin for a millisecond of this thread's CPU time."""
    end = time.thread_time() + CALL_S
    while time.thread_time() < end:
        pass


@contextlib.contextmanager
def zeus() -> Iterator[tuple[Any, str | None]]:
    """Provide Zeus's monitor and None, or None and the reason why there is no monitor."""
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError:
        yield None, "not installed: pip install zeus"
        return
    try:
        monitor = ZeusMonitor()
        monitor.begin_window("probe")
        monitor.end_window("probe")
    except Exception as error:  # noqa: BLE001 - it raises what its backends raise
        yield None, f"cannot run here: {type(error).__name__}"
        return
    yield monitor, None


def cpu_per_call(loop: Callable[[int], None], calls: int) -> float:
    """Return the CPU seconds of this thread per call."""
    begin = time.thread_time()
    loop(calls)
    return (time.thread_time() - begin) / calls


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--calls", type=int, default=200)
    given = arguments.parse_args()
    rounds, calls = (6, 30) if given.smoke else (given.rounds, given.calls)
    facts = machine()

    import edgeprof
    from edgeprof.simulation.live import LiveBoard
    from edgeprof.simulation.waveform import constant

    def bare(count: int) -> None:
        for _ in range(count):
            call()

    with (
        tempfile.TemporaryDirectory() as folder,
        LiveBoard("jetson-orin-nano", Path(folder) / "board", constant(6.0)),
        edgeprof.record(sysfs_root=Path(folder) / "board") as recording,
        zeus() as (monitor, missing),
    ):

        def span(count: int) -> None:
            for _ in range(count):
                with recording.span("call"):
                    call()

        loops: dict[str, Callable[[int], None]] = {"bare": bare, "bare again": bare, "edgeprof span": span}
        if monitor is not None:

            def window(count: int) -> None:
                for _ in range(count):
                    monitor.begin_window("call")
                    call()
                    monitor.end_window("call")

            loops["Zeus window"] = window
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        order = list(loops)
        chance = random.Random(0)
        for _ in range(rounds):
            chance.shuffle(order)
            for name in order:
                seconds[name].append(cpu_per_call(loops[name], calls))
    rows = []
    for name, values in seconds.items():
        if name != "bare":
            ratios = [value / base for value, base in zip(values, seconds["bare"], strict=True)]
            added = sorted(1e6 * (value - base) for value, base in zip(values, seconds["bare"], strict=True))
            rows.append([name, ratio_text(ratios), f"{added[len(added) // 2]:.1f}"])
    if missing is not None:
        rows.append(["Zeus window", missing, ""])
    print(about(facts))
    print()
    print(table(["around a call of 1 ms", "CPU time, × the bare call (95 %)", "added, µs"], rows))
    print(f"\ntarget: a span ≤ {TARGET} × the bare call")
    write(given.json, {"machine": facts, "cpu_seconds_per_call": seconds, "zeus": missing})


if __name__ == "__main__":
    sys.exit(main())
