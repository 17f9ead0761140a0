"""Fuzz every reader, or those that are named, and say what each did.

    python -m tests.fuzzing --cases 10000
    python -m tests.fuzzing result "graph onnx" --first 4711 --cases 1

The exit code is 1 where a reader crashed, took more than 2 s of CPU time or 256 MiB beyond the file, or raised what is
no sentence for its user; the files of these cases are kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.fuzzing.readers import READERS, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help=", ".join(reader.name for reader in READERS))
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the files of faults are kept")
    options = parser.parse_args()
    chosen = [reader for reader in READERS if not options.readers or reader.name in options.readers]
    folder = options.keep or Path(tempfile.mkdtemp(prefix="edgeprof-fuzzing-"))
    folder.mkdir(parents=True, exist_ok=True)
    faults = 0
    start = time.monotonic()
    # Fresh processes: a fork of one that has threads may hold a lock for ever.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [(one, pool.submit(run, one.name, options.cases, folder, options.first)) for one in chosen]
        for reader, running in runs:
            report = running.result()
            faults += len(report.faults)
            print(
                f"{reader.name:<14} {report.cases:>6} cases, {report.refused:>6} refused,"
                f" {report.total_s:.0f} s of CPU time, slowest {report.slowest_s:.2f} s,"
                f" most {report.most_bytes / 2**20:.0f} MiB, {len(report.faults)} faults",
                flush=True,
            )
            for number, what in report.faults.items():
                print(f"    {number}: {what}")
    print(f"{time.monotonic() - start:.0f} s; {faults} faults" + (f"; their files: {folder}" if faults else ""))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
