"""Are the exporter's joules correct? Virtual boards play known waveforms; scrapers read them at several intervals.

The daemon is stopped and started several times, and its counters continue from the state file; a second daemon on the
same board, the null control, is not restarted. For each waveform and scrape interval, the counter's increase from the
first to the last scrape is compared with the closed-form integral over the same time. Differences have these causes: a
sample is up to 0.1 s old at either end; the virtual sensor has a step and an averaging filter (0.43 s late) like a real
one, which affects the control too; and the pause of a restart is bridged from both sides, or is left out as a gap if it
is longer than sampling.bridge_s. With a gap, the error means nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

from paired import about, machine, parser, table, write

from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.waveform import parse

EDGEPROF = str(Path(sys.executable).parent / "edgeprof")
WAVEFORMS = (
    "constant:6W",
    "square:2W,10W,400ms",
    "burst:3W,15W,100ms,730ms",
    "sine:2W,12W,7s",
    "ramp:1W,11W,13s",
    "sine:2W,12W,40s",
)
INTERVALS = (1.0, 5.0, 15.0, 30.0)
_GAP = re.compile(rb'^edgeprof_sampler_gap_seconds_total\{sensor="ina3221"\} (\S+)$', re.MULTILINE)
_LINE = re.compile(rb'^edgeprof_device_energy_joules_total\{[^}]*source="ina3221"[^}]*\} (\S+)$', re.MULTILINE)


def start(board: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the daemon and return its process once it is ready."""
    environ = {"RUNTIME_DIRECTORY": str(folder), "EDGEPROF_DATA_DIR": str(folder), "EDGEPROF_SYSFS_ROOT": str(board)}
    flags = [f"--web.listen-address=127.0.0.1:{port}", f"--state.file={folder}/state.json", "--log.level=error"]
    child = subprocess.Popen([EDGEPROF, "exporter", *flags], env={**os.environ, **environ})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2):
            return child
        time.sleep(0.05)
    child.kill()
    raise RuntimeError("the exporter is not ready")


def look(port: int) -> tuple[float, float] | None:
    """Scrape: return the middle of the scrape's time (monotonic s) and the joules; None while the daemon is down."""
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics?collect[]=power", timeout=5) as answer:
            found = _LINE.search(answer.read())
    except OSError:
        return None
    return (0.5 * (begun + time.monotonic()), float(found[1])) if found else None


def gap(port: int) -> float:
    """Return the seconds that are missing from the counters."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics?collect[]=sampler", timeout=5) as answer:
        found = _GAP.search(answer.read())
    return float(found[1]) if found else 0.0


def scraper(port: int, interval: float, until: float, seen: list[tuple[float, float]]) -> None:
    due = time.monotonic()
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        if (one := look(port)) is not None:
            seen.append(one)
        due += interval


def play(waveform: str, seconds: float, intervals: tuple[float, ...], port: int, restarts: int) -> list[dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory() as name,
        LiveBoard("jetson-orin-nano", Path(name, "board"), parse(waveform)) as live,
        contextlib.ExitStack() as stack,
    ):

        def begin(which: str, at: int) -> subprocess.Popen[bytes]:
            folder = Path(name, which)
            folder.mkdir(exist_ok=True)
            child = start(live.directory, folder, at)
            stack.callback(child.wait, 20)
            stack.callback(child.terminate)
            return child

        child = begin("run", port)
        begin("control", port + 1)
        until = time.monotonic() + seconds
        seen: dict[float | None, list[tuple[float, float]]] = {interval: [] for interval in (*intervals, None)}
        threads = [
            threading.Thread(target=scraper, args=(port if i else port + 1, i or intervals[0], until, some))
            for i, some in seen.items()
        ]
        for thread in threads:
            thread.start()
        pauses = 0.0
        for _ in range(restarts):
            time.sleep(seconds / (restarts + 1))
            begun = time.monotonic()
            child.send_signal(signal.SIGTERM)
            child.wait(20)
            child = begin("run", port)
            pauses += time.monotonic() - begun
        for thread in threads:
            thread.join()
        left_out = gap(port)
        rows = []
        for interval, some in seen.items():
            (t0, e0), (t1, e1) = some[0], some[-1]
            if t1 <= t0:
                continue
            truth = live.energy(t0, t1)
            fell = any(b[1] < a[1] for a, b in pairwise(some))
            rows.append(
                {
                    "waveform": waveform,
                    "interval_s": interval,
                    "seconds": t1 - t0,
                    "paused_s": pauses if interval else 0.0,
                    "gap_s": left_out if interval else gap(port + 1),
                    "joules": e1 - e0,
                    "true_joules": truth,
                    "relative_error": (e1 - e0) / truth - 1,
                    "fell": fell,
                }
            )
        return rows


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=240.0, help="for each waveform (default 240)")
    arguments.add_argument("--restarts", type=int, default=1, help="of the daemon for each waveform (default 1)")
    arguments.add_argument("--port", type=int, default=39_483)
    options = arguments.parse_args()
    facts = machine()
    waveforms = WAVEFORMS[:2] if options.smoke else WAVEFORMS
    intervals = (1.0, 2.0) if options.smoke else INTERVALS
    rows = []
    for waveform in waveforms:
        rows += play(waveform, 15.0 if options.smoke else options.seconds, intervals, options.port, options.restarts)
        print(f"  {waveform} done", file=sys.stderr)
    print(f"{about(facts)}; a virtual Jetson Orin Nano, sampled at 10 Hz\n")
    cells = [
        [
            row["waveform"],
            f"{row['interval_s']:g} s" if row["interval_s"] else "control",
            f"{row['seconds']:.0f} s",
            f"{row['paused_s']:.1f} s",
            f"{row['gap_s']:.1f} s",
            f"{row['true_joules']:.1f}",
            f"{row['joules']:.1f}",
            f"{100 * row['relative_error']:+.2f} %",
            "never" if not row["fell"] else "yes",
        ]
        for row in rows
    ]
    head = ["waveform", "scrape", "over", "restarts took", "left out", "true J", "counted J", "error", "fell"]
    print(table(head, cells))
    write(options.json, {"benchmark": "integral_truth", "machine": facts, "results": rows})


if __name__ == "__main__":
    main()
