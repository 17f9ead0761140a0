"""What each memory saving of the daemon saves: the resident memory of a process with it and of a process without it.

The list in exporters/edgeprof_exporters/thrift/README.md comes from this benchmark. The two programs of a pair run
alternately, each in a new process; the result is the median of the differences.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from paired import about, machine, parser, table, write

_RSS = "\nfor line in open('/proc/self/status'):\n    if line.startswith('VmRSS'): print(int(line.split()[1]) / 1024)\n"
#: The modules that the daemon always loads.
_BASE = "import edgeprof_exporters.configuration, edgeprof_exporters.engine, edgeprof.sensing.discover\n"
_CLIENT = "from edgeprof_exporters.thrift.light import import_client; import_client()\n"
_BURST = """
import threading
def work():
    for _ in range(20): parts = [b"x" * 5000 for _ in range(400)]; text = b"".join(parts)
gate = threading.Barrier(40)
def run(): gate.wait(); work(); gate.wait()
threads = [threading.Thread(target=run) for _ in range(40)]
for t in threads: t.start()
for t in threads: t.join()
"""
#: Saving → (program without it, program with it).
PAIRS = {
    "prometheus-client without its server (`light.import_client`)": (
        _BASE + "import prometheus_client\n", _BASE + _CLIENT),
    "PyYAML only while a file is read (`light.borrowed_yaml`)": (
        _BASE + "import yaml; yaml.safe_load('a: 1')\n",
        _BASE + "from edgeprof_exporters.thrift.light import borrowed_yaml\n"
        "with borrowed_yaml() as yaml: yaml.safe_load('a: 1')\ndel yaml\n"),
    "no click in the process (`main.become`)": (
        _BASE + "import edgeprof_exporters.command\n", _BASE),
    "no package metadata in the process (`main.Plugin`)": (
        _BASE + "from edgeprof.plugins import installed; list(installed())\n", _BASE),
    "the store read by another process (`results_reader`)": (
        _BASE + "import edgeprof.results.store\n", _BASE),
    "no module subprocess (`spawn.output_of`)": (
        _BASE + "import subprocess\n", _BASE + "import edgeprof_exporters.thrift.spawn\n"),
    "a server of our own (`server.py`, `connections.py`)": (
        _BASE + "import http.server, socketserver\n", _BASE + "import edgeprof_exporters.server\n"),
    "two heaps, and free memory given back (`memory`)": (
        _BASE + _BURST,
        _BASE + "from edgeprof_exporters.thrift.memory import few_arenas, give_back; few_arenas()\n" + _BURST
        + "give_back()\n"),
}  # fmt: skip


def resident_mib(code: str) -> float:
    """Return the resident memory (MiB) of a process that has run ``code``."""
    done = subprocess.run([sys.executable, "-c", code + _RSS], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    for title, (without, with_it) in PAIRS.items():
        saved = [resident_mib(without) - resident_mib(with_it) for _ in range(1 if options.smoke else options.rounds)]
        rows.append({"economy": title, "saved_mib": saved})
    room = Path(__file__).parents[1] / "exporters/edgeprof_exporters/thrift"
    lines = {file.name: len(file.read_text().splitlines()) for file in sorted(room.glob("*.py"))}
    facts = machine()
    print(f"{about(facts)}\n")
    print(table(["economy", "saves MiB"], [[r["economy"], f"{statistics.median(r['saved_mib']):.1f}"] for r in rows]))
    print("\nlines: " + ", ".join(f"{name} {count}" for name, count in lines.items() if count))
    write(options.json, {"benchmark": "thrift_prices", "machine": facts, "rows": rows, "lines": lines})


if __name__ == "__main__":
    main()
