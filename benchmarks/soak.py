"""The exporter over hours: do memory, descriptors and CPU time stay constant? And what does one scrape cost?

A virtual Jetson runs in its own process; the daemon samples it at 10 Hz while it is scraped and receives reports of
inferences. Scrapes of about 100 series alternate with scrapes of node_exporter (with as many series) and of
prometheus_client's own server, over kept connections, so that drift affects all equally. Targets: at most 30 MB
resident and 0.5 % of a core; a scrape no slower than node_exporter's; a report by edgeprof.track at most 20 µs.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paired import about, machine, median_interval, parser, table, write

if TYPE_CHECKING:
    from collections.abc import Iterator

EDGEPROF = str(Path(sys.executable).parent / "edgeprof")
BOARD = "jetson-orin-nano"
TARGETS = {"rss_mb": 30.0, "cpu_percent": 0.5, "track_us": 20.0}
_TICKS = os.sysconf("SC_CLK_TCK")
#: A program that runs prometheus_client's own server with as many gauges as the exporter has series.
_REFERENCE = """
import sys, time
from prometheus_client import CollectorRegistry, Gauge, start_http_server
registry = CollectorRegistry()
gauge = Gauge("reference_watts", "A gauge.", ["rail", "source", "provenance"], registry=registry)
for n in range(int(sys.argv[2])): gauge.labels(f"rail{n}", "ina3221", "simulated").set(n * 1.1)
start_http_server(int(sys.argv[1]), "127.0.0.1", registry=registry)
time.sleep(1e6)
"""


def usage(pid: int) -> dict[str, float]:
    """Return a process's resident MB (1e6 bytes), CPU seconds so far, descriptors and threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "rss_mb": int(fields["VmRSS"].split()[0]) * 1024 / 1e6,
        "cpu_s": (int(stat[11]) + int(stat[12])) / _TICKS,
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(fields["Threads"]),
    }


@contextlib.contextmanager
def running(argv: list[str], port: int, path: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a child process, and wait until it answers."""
    child = subprocess.Popen(argv, env={**os.environ, **environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    break
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} does not answer on port {port}")
            time.sleep(0.05)
        yield child
    finally:
        child.terminate()
        child.wait(20)


def scrape(connection: http.client.HTTPConnection, path: str) -> tuple[float, int]:
    """Scrape once as Prometheus does; return the seconds and the number of series."""
    begun = time.perf_counter()
    connection.request("GET", path, headers={"Accept": "text/plain;version=0.0.4"})
    body = connection.getresponse().read()
    return time.perf_counter() - begun, sum(1 for line in body.splitlines() if line and not line.startswith(b"#"))


def compare_scrapes(port: int, requests: int) -> list[dict[str, Any]]:
    """Scrape the three servers in turn."""
    ours = "/metrics"
    _, series = scrape(http.client.HTTPConnection("127.0.0.1", port), ours)
    with contextlib.ExitStack() as stack:
        servers = {"edgeprof exporter": (port, ours)}
        argv = [sys.executable, "-c", _REFERENCE, str(port + 1), str(series)]
        stack.enter_context(running(argv, port + 1, "/metrics"))
        servers["prometheus_client's own"] = (port + 1, "/metrics")
        node = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
        if node:
            collectors = ("loadavg", "meminfo", "stat", "time", "uname", "vmstat", "filefd", "entropy")
            argv = [node, f"--web.listen-address=127.0.0.1:{port + 2}", "--collector.disable-defaults"]
            stack.enter_context(running([*argv, *(f"--collector.{c}" for c in collectors)], port + 2, "/metrics"))
            servers["node_exporter"] = (port + 2, "/metrics")
        connections = {name: http.client.HTTPConnection("127.0.0.1", p, timeout=20) for name, (p, _) in servers.items()}
        taken: dict[str, list[float]] = {name: [] for name in servers}
        counts = {}
        for turn in range(requests):
            names = list(servers)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                seconds, counts[name] = scrape(connections[name], servers[name][1])
                taken[name].append(seconds)
        for connection in connections.values():
            connection.close()
    return [
        {
            "server": name,
            "series": counts[name],
            "median_ms": 1e3 * statistics.median(seconds),
            "p99_ms": 1e3 * sorted(seconds)[int(0.99 * (len(seconds) - 1))],
        }
        for name, seconds in taken.items()
    ]


def track_cost(reports: int) -> dict[str, float]:
    """Return the microseconds of one ``with edgeprof.track(...)`` in a process that does little else."""
    code = (
        "import sys, time, statistics, json\n"
        "import edgeprof\n"
        "from edgeprof import tracking\n"
        "taken = []\n"
        "for turn in range(int(sys.argv[1]) // 5):\n"
        "    begun = time.perf_counter()\n"
        "    for _ in range(5):\n"
        "        with edgeprof.track('yolov8s', variant='int8', runtime='tensorrt'): pass\n"
        "    taken.append((time.perf_counter() - begun) / 5)\n"
        "    time.sleep(0.002)\n"
        "taken.sort()\n"
        "print(json.dumps({'median_us': 1e6 * statistics.median(taken), 'p99_us': 1e6 * taken[int(.99 * len(taken))],\n"
        "                  'sent': tracking.sender.sent, 'dropped': tracking.sender.dropped}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(reports)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def soak(pid: int, port: int, seconds: float, interval: float) -> list[dict[str, float]]:
    """Record the daemon's usage every ``interval`` s while it is scraped and receives 20 inferences per second."""
    teller = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time, edgeprof\nwhile True:\n    with edgeprof.track('soak', variant='int8'): time.sleep(0.05)",
        ]
    )
    rows = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            scrape(connection, "/metrics")
            rows.append({"at_s": now, **usage(pid)})
            time.sleep(interval)
    finally:
        teller.kill()
        teller.wait()
        connection.close()
    return rows


def idle_cpu(pid: int, seconds: float) -> float:
    """Return the percentage of a core that sampling at 10 Hz and housekeeping use without any scrape."""
    before, begun = usage(pid)["cpu_s"], time.monotonic()
    time.sleep(seconds)
    return 100 * (usage(pid)["cpu_s"] - before) / (time.monotonic() - begun)


def memory_slope(rows: list[dict[str, float]], blocks: int = 12) -> tuple[float, float, float]:
    """Return the slope of the resident memory in MB per hour, and the ends of its 95 % interval.

    Consecutive readings are correlated, so that a line through all of them would seem more certain than it is. Instead,
    each block of the second half of the time is compared with its block in the first half (Cox and Stuart 1955), and
    the median of the differences has a distribution-free interval. The first sixth of the time is left out, because the
    daemon's caches are still filling then.
    """
    settled = rows[len(rows) // 6 :]
    size = len(settled) // blocks
    if size < 1:
        return math.nan, math.nan, math.nan
    middles = [
        (
            statistics.mean(row["at_s"] for row in settled[n * size : (n + 1) * size]),
            statistics.median(row["rss_mb"] for row in settled[n * size : (n + 1) * size]),
        )
        for n in range(blocks)
    ]
    half = blocks // 2
    pairs = zip(middles[:half], middles[half:], strict=True)
    return median_interval([3600 * (later - mb) / (at - begun) for (begun, mb), (at, later) in pairs])


def verdict(value: float, target: float) -> str:
    return "met" if value <= target else "missed"


def _slope_text(slope: float, low: float, high: float) -> str:
    return "too short to tell" if math.isnan(slope) else f"{slope:+.3f} ({low:+.3f} to {high:+.3f}) MB/h"


def _flat(low: float, high: float) -> str:
    return "met" if low <= 0 else "missed" if high > 0 else ""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--hours", type=float, default=2.0, help="how long (default 2)")
    arguments.add_argument("--port", type=int, default=39_183)
    options = arguments.parse_args()
    seconds = 12.0 if options.smoke else 3600 * options.hours
    interval = 1.0 if options.smoke else 15.0
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        board = Path(folder, "board")
        argv = [EDGEPROF, "simulate", BOARD, "--dir", str(board), "--waveform", "square:2W,10W,400ms", "-q"]
        simulator = subprocess.Popen(argv)
        runtime = Path(folder, "run")
        runtime.mkdir()
        os.environ["EDGEPROF_TRACK_SOCKET"] = str(runtime / "track.sock")
        try:
            while not (board / "truth.jsonl").exists():
                time.sleep(0.05)
            environ = {
                "RUNTIME_DIRECTORY": str(runtime),
                "EDGEPROF_DATA_DIR": folder,
                "EDGEPROF_SYSFS_ROOT": str(board),
            }
            argv = [EDGEPROF, "exporter", f"--web.listen-address=127.0.0.1:{options.port}"]
            argv += [f"--state.file={folder}/state.json", "--log.level=error"]
            with running(argv, options.port, "/-/ready", **environ) as daemon:
                quiet = idle_cpu(daemon.pid, 5.0 if options.smoke else 120.0)
                print("  quiet phase done", file=sys.stderr)
                rows = soak(daemon.pid, options.port, seconds, interval)
                scrapes = compare_scrapes(options.port, 30 if options.smoke else 300)
                track = track_cost(500 if options.smoke else 20_000)
        finally:
            simulator.terminate()
            simulator.wait(10)
    quarter = max(1, len(rows) // 4)
    first, last = (statistics.median(row["rss_mb"] for row in part) for part in (rows[:quarter], rows[-quarter:]))
    cpu = 100 * (rows[-1]["cpu_s"] - rows[0]["cpu_s"]) / (rows[-1]["at_s"] - rows[0]["at_s"])
    most = max(row["rss_mb"] for row in rows)
    slope, low, high = memory_slope(rows)
    print(f"{about(facts)}; {seconds / 3600:.2f} h at 10 Hz, a scrape every {interval:g} s, 20 inferences a second\n")
    print(
        table(
            ["what", "measured", "target", ""],
            [
                ["resident, most", f"{most:.1f} MB", "≤ 30 MB", verdict(most, TARGETS["rss_mb"])],
                ["resident, last quarter − first", f"{last - first:+.2f} MB", "flat", ""],
                ["resident, slope", _slope_text(slope, low, high), "0 within", _flat(low, high)],
                ["descriptors, first → last", f"{rows[0]['descriptors']} → {rows[-1]['descriptors']}", "flat", ""],
                ["threads, first → last", f"{rows[0]['threads']} → {rows[-1]['threads']}", "flat", ""],
                ["CPU, sampling alone", f"{quiet:.2f} %", "≤ 0.5 %", verdict(quiet, TARGETS["cpu_percent"])],
                ["CPU, with scrapes and inferences", f"{cpu:.2f} %", "", ""],
                ["edgeprof.track, median", f"{track['median_us']:.1f} µs", "≤ 20 µs", verdict(track["median_us"], 20)],
            ],
        )
    )
    print()
    head = ["scrape of", "series", "median ms", "p99 ms"]
    cells = [[s["server"], str(s["series"]), f"{s['median_ms']:.2f}", f"{s['p99_ms']:.2f}"] for s in scrapes]
    print(table(head, cells))
    write(
        options.json,
        {
            "benchmark": "soak",
            "machine": facts,
            "rows": rows,
            "quiet_cpu_percent": quiet,
            "memory_slope_mb_per_h": [slope, low, high],
            "scrapes": scrapes,
            "track": track,
        },
    )


if __name__ == "__main__":
    main()
