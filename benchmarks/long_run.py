"""Are the joules of a run of half an hour correct? Virtual boards play known waveforms, each sampled at 100 Hz.

All boards run at the same time, each with its own ``edgeprof.record``. The joules of one long span are compared with
the closed-form integral of the waveform over the same time. A virtual board that gets no processor time for a while
shows an old value meanwhile, as no real board does. Its longest pause is printed: after long ones, the comparison means
little.

Target: 0.2 % of the true joules.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from paired import about, machine, parser, table, write

import edgeprof
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import parse

WAVEFORMS = ("sine:2W,12W,7s", "burst:3W,15W,100ms,730ms", "square:2W,10W,400ms")
RATE_HZ = 100.0
TARGET = 0.002


def measure(waveform: str, folder: Path, seconds: float, rows: list[dict[str, Any]]) -> None:
    """Record one board for ``seconds``, and append its joules and the true ones to ``rows``."""
    with contextlib.ExitStack() as stack:
        board = stack.enter_context(LiveBoard("jetson-orin-nano", folder, parse(waveform)))
        recording = stack.enter_context(edgeprof.record(sample_rate_hz=RATE_HZ, sysfs_root=folder))
        with recording.span("long"):
            start = time.monotonic()
            time.sleep(seconds)
            end = time.monotonic()
        truth, pause_s = board.energy(start, end), board.longest_pause_s
    quote = recording.quote("long")
    rows.append(
        {
            "waveform": waveform,
            "seconds": end - start,
            "joules": quote.value,
            "true_joules": truth,
            "longest_pause_s": pause_s,
            "remarks": [reason.message for reason in quote.reasons],
        }
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=30.0, help="length of the span (default 30)")
    options = arguments.parse_args()
    facts = machine()
    seconds = 5.0 if options.smoke else 60 * options.minutes
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgeprof-bench-") as name:
        os.environ["EDGEPROF_LOCK_DIR"] = os.environ["EDGEPROF_DATA_DIR"] = name
        threads = [
            threading.Thread(target=measure, args=(waveform, Path(name, f"board{number}"), seconds, rows))
            for number, waveform in enumerate(WAVEFORMS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(f"{about(facts)}; virtual Jetson Orin Nanos, sampled at {RATE_HZ:g} Hz; target {100 * TARGET:g} %\n")
    cells = []
    for row in rows:
        pause = f"{1e3 * row['longest_pause_s']:.0f} ms"
        cell = [row["waveform"], f"{row['seconds']:.0f} s", pause, f"{row['true_joules']:.1f}"]
        if row["joules"] is None:
            cells.append([*cell, "–", "no joules", "missed"])
            continue
        error = row["joules"] / row["true_joules"] - 1
        target = "met" if abs(error) <= TARGET else "missed"
        cells.append([*cell, f"{row['joules']:.1f}", f"{100 * error:+.3f} %", target])
    print(table(["waveform", "over", "longest pause", "true J", "counted J", "error", "target"], cells))
    write(options.json, {"benchmark": "long_run", "machine": facts, "results": rows})


if __name__ == "__main__":
    main()
