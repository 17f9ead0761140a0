"""What a stage of ``edgeprof.stage`` costs, as a multiple of a clock reading, compared with other ways to mark a stage.

Each round runs every loop once, each time in another order: an empty ``with``, ``edgeprof.stage`` without a reader,
``edgeprof.stage`` that writes to a ring, and, if they are installed, a span of OpenTelemetry (without an exporter) and
torch's ``record_function`` (without a profiler). A time is the thread's CPU time minus that of the empty loop, divided
by the time of one ``time.monotonic_ns()`` in the same round. The last column is the share of the time of a pipeline of
five stages at 15 frames/s.

    python benchmarks/stage_overhead.py [--smoke] [--json FILE]
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

from paired import parser, table, write

from edgeprof import staging

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES, RATE_HZ = 5, 15.0


def per_call(make: Callable[[], Any], calls: int) -> float:
    """Return the CPU seconds of this thread for each ``with``."""
    begin = time.thread_time()
    for _ in range(calls):
        with make():
            pass
    return (time.thread_time() - begin) / calls


def of_clock(calls: int) -> float:
    now = time.monotonic_ns
    begin = time.thread_time()
    for _ in range(calls):
        now()
    return (time.thread_time() - begin) / calls


def others() -> dict[str, Callable[[], Any]]:
    """Return the installed alternatives: name → a function that makes a context manager."""
    found: dict[str, Callable[[], Any]] = {}
    with contextlib.suppress(ImportError):
        from opentelemetry.sdk.trace import TracerProvider

        tracer = TracerProvider().get_tracer("benchmark")
        found["OpenTelemetry span"] = lambda: tracer.start_as_current_span("detect")
    with contextlib.suppress(ImportError):
        from torch.profiler import record_function

        found["torch record_function"] = lambda: record_function("detect")
    return found


def main() -> None:
    given = parser(__doc__).parse_args()
    calls, rounds = (2_000, 3) if given.smoke else (50_000, 15)
    os.environ[staging.VARIABLE] = ""
    empty = contextlib.nullcontext()
    loops: dict[str, Callable[[], Any]] = {
        "empty": lambda: empty,
        "edgeprof.stage, not read": lambda: staging.stage("detect"),
        "edgeprof.stage, to a ring": lambda: staging.stage("detect"),
        **others(),
    }
    reads: dict[str, list[float]] = {name: [] for name in loops}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            clock_s = of_clock(calls)
            taken = {}
            for name in random.sample(list(loops), len(loops)):
                if name.endswith("ring"):
                    staging.attach(folder)
                taken[name] = per_call(loops[name], calls)
                staging.detach(folder)
            for name, cost in taken.items():
                seconds[name].append(cost - taken["empty"])
                reads[name].append((cost - taken["empty"]) / clock_s)
    rows = []
    for name in list(loops)[1:]:
        share = statistics.median(seconds[name]) * STAGES * RATE_HZ
        rows.append([name, f"{statistics.median(reads[name]):.1f}", f"{100 * share:.4f} %"])
    print(table(["a stage", "readings of the clock", f"of {STAGES} stages at {RATE_HZ:g} frames/s"], rows))
    write(given.json, {"reads": reads, "seconds": seconds})


if __name__ == "__main__":
    main()
