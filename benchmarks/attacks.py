"""The exporter under attack on loopback, compared with node_exporter: does it still answer, with correct joules?

Three groups of clients load each server in turn: 500 that send a request's head byte by byte, 1,000 that keep their
connections open after a scrape, and 60 that scrape without a pause. Meanwhile two scrapers ask, one with a new
connection for each scrape and one with a kept connection; the target is that no more of their scrapes fail than with
node_exporter. Then the daemon is flooded with reports of inferences, in one case short ones, in another thousands that
overlap, while its joules are compared with the true energy of the virtual board; the target is an error of 0.5 %, or a
reported gap.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paired import about, machine, parser, table, write
from soak import BOARD, EDGEPROF, running, usage

from edgeprof.simulation.truth import Truth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
#: A program that floods the track socket from its own process; its arguments are the socket, the seconds and the kind.
_FLOOD = """
import socket, sys, time
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.setblocking(False)
sock.connect(sys.argv[1])
end, overlapping, sent = time.monotonic() + float(sys.argv[2]), sys.argv[3] == "overlapping", 0
while time.monotonic() < end:
    now = time.monotonic_ns()
    start = now - (800_000_000 if overlapping else 1_000_000)
    try:
        sock.send(b"EP1 %d %d 1\\tflood\\t\\t" % (start, now))
        sent += 1
    except BlockingIOError:
        time.sleep(0.0002)
print(sent)
"""


@contextlib.contextmanager
def _threads(count: int, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run ``work`` in ``count`` threads until the end of the block; after a socket error it is started again."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                work(stop)

    crowd = [threading.Thread(target=again, daemon=True) for _ in range(count)]
    for thread in crowd:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in crowd:
            thread.join()


def dripping(port: int, count: int) -> contextlib.AbstractContextManager[None]:
    """Run clients that send one byte of a request's head every half second."""

    def drip(stop: threading.Event) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(_REQUEST[:-2] + b"X: ")
            while not stop.wait(0.5):
                sock.sendall(b"a")

    return _threads(count, drip)


@contextlib.contextmanager
def keeping(port: int, count: int) -> Iterator[None]:
    """Run clients that scrape once and then keep their connection open."""
    kept: list[socket.socket] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), timeout=5)
                kept.append(sock)
                sock.sendall(_REQUEST)
                sock.recv(65536)
        yield
    finally:
        for sock in kept:
            sock.close()


def hammering(port: int, count: int) -> contextlib.AbstractContextManager[None]:
    """Run clients that scrape without a pause."""

    def hammer(stop: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while not stop.is_set():
            connection.request("GET", "/metrics")
            connection.getresponse().read()

    return _threads(count, hammer)


def ask(port: int, times: int, pause: float) -> dict[str, Any]:
    """Scrape with new connections and a kept one: how many were answered, and the 90th percentile of times (ms)."""
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    answered, taken = {"new": 0, "kept": 0}, []
    for _ in range(times):
        new = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for name, connection in (("new", new), ("kept", kept)):
            begun = time.monotonic()
            try:
                connection.request("GET", "/metrics")
                answered[name] += connection.getresponse().read().count(b"\n") > 10
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request connects anew
            taken.append(time.monotonic() - begun)
        new.close()
        time.sleep(pause)
    kept.close()
    return {**answered, "asked": times, "p90_ms": 1e3 * sorted(taken)[int(0.9 * (len(taken) - 1))]}


def _sum_and_time(port: int) -> tuple[float, float, float]:
    """Return the device's joules, its gap seconds, and the time of the scrape (monotonic s)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics?collect[]=power&collect[]=sampler")
    text = connection.getresponse().read().decode()
    age_s = time.time() - max(map(float, re.findall(r"last_sample_timestamp_seconds\{.*?ina3221.*?\} (\S+)", text)))
    (joules,) = re.findall(r"^edgeprof_device_energy_joules_total\{.*\} (\S+)", text, re.MULTILINE)
    gaps = re.findall(r"^edgeprof_sampler_gap_seconds_total\{.*ina3221.*\} (\S+)", text, re.MULTILINE)
    return float(joules), max(map(float, gaps)), time.monotonic() - age_s


def joules_under(port: int, board: Path, socket_path: Path, kind: str, seconds: float) -> dict[str, Any]:
    """Compare the daemon's joules with the true energy of the virtual board while the daemon is flooded."""
    argv = [sys.executable, "-c", _FLOOD, str(socket_path), str(seconds), kind]
    flood = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) if kind != "control" else None
    before = _sum_and_time(port)
    time.sleep(seconds)
    after = _sum_and_time(port)
    sent = int(flood.communicate()[0] or 0) if flood is not None else 0
    true = Truth(board).energy(before[2], after[2])
    return {
        "flood": kind,
        "sent_per_s": sent / seconds,
        "error_percent": 100 * ((after[0] - before[0]) / true - 1),
        "gap_s": after[1] - before[1],
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0, help="of each flood of reports (default 60)")
    arguments.add_argument("--port", type=int, default=39_283)
    options = arguments.parse_args()
    smoke = options.smoke
    facts = machine()
    crowds: dict[str, tuple[Callable[[int, int], contextlib.AbstractContextManager[None]], int]] = {
        "500 slow heads": (dripping, 50 if smoke else 500),
        "1,000 kept connections": (keeping, 100 if smoke else 1000),
        "60 without a pause": (hammering, 10 if smoke else 60),
    }
    rows, floods = [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        board, runtime = Path(folder, "board"), Path(folder, "run")
        runtime.mkdir()
        argv = [EDGEPROF, "simulate", BOARD, "--dir", str(board), "--waveform", "square:2W,10W,370ms", "-q"]
        simulator = subprocess.Popen(argv)
        stack.callback(simulator.wait, 10)
        stack.callback(simulator.terminate)
        while not (board / "truth.jsonl").exists():
            time.sleep(0.05)
        environ = {"RUNTIME_DIRECTORY": str(runtime), "EDGEPROF_DATA_DIR": folder, "EDGEPROF_SYSFS_ROOT": str(board)}
        argv = [EDGEPROF, "exporter", f"--web.listen-address=127.0.0.1:{options.port}", "--log.level=error"]
        argv.append("--web.max-requests=0")
        daemon = stack.enter_context(running(argv, options.port, "/-/ready", **environ))
        servers = {"edgeprof exporter": options.port}
        node = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
        if node:
            argv = [node, f"--web.listen-address=127.0.0.1:{options.port + 1}", "--web.max-requests=0"]
            stack.enter_context(running(argv, options.port + 1, "/metrics"))
            servers["node_exporter"] = options.port + 1
        for title, (crowd, count) in crowds.items():
            for name, port in servers.items():
                with crowd(port, count):
                    time.sleep(0.5)
                    rows.append({"crowd": title, "server": name, **ask(port, 5 if smoke else 30, 0.1)})
                print(f"  {title}, {name}: done", file=sys.stderr)
        for kind in ("control", "short", "overlapping"):
            seconds = 3.0 if smoke else options.seconds
            floods.append(joules_under(options.port, board, runtime / "track.sock", kind, seconds))
        resident = usage(daemon.pid)["rss_mb"]
    print(f"{about(facts)}\n")
    head = ["crowd", "server", "new answered", "kept answered", "p90 ms"]
    cells = [
        [r["crowd"], r["server"], f"{r['new']}/{r['asked']}", f"{r['kept']}/{r['asked']}", f"{r['p90_ms']:.0f}"]
        for r in rows
    ]
    print(table(head, cells))
    print()
    head = ["reports", "taken per s", "joules against truth", "gap s"]
    cells = [
        [f["flood"], f"{f['sent_per_s']:.0f}", f"{f['error_percent']:+.2f} %", f"{f['gap_s']:.1f}"] for f in floods
    ]
    print(table(head, cells))
    print(f"\nresident at the end: {resident:.1f} MB, load {os.getloadavg()[0]:.1f}")
    write(options.json, {"benchmark": "attacks", "machine": facts, "crowds": rows, "floods": floods})


if __name__ == "__main__":
    main()
