"""Estimate the cycles of a .tflite file on Arm's microNPUs, by Arm's own compiler Vela (ethos-u-vela).

The compiler computes cycles with a model of the processor. Nothing is measured, and it knows no joules. It runs in a
separate process, because it imports much and may fail on a model in ways of its own. Source: Vela's options and
``*_summary_*.csv`` (ethos-u-vela, OPTIONS.md and PERFORMANCE.md). Python 3.6 grammar.
"""

import csv
import glob
import os
import subprocess
import sys
import tempfile
from typing import Dict, List, Optional

from edgeprof.worker.runtime import CycleEstimate

#: The processors: a common size of the first family and of the newest.
ACCELERATORS = ("ethos-u55-128", "ethos-u85-256")
_LIMIT_S = 120.0


def estimate(path: str) -> List[CycleEstimate]:
    """Estimate the cycles of a model on each of the processors; without those on which Vela fails.

    Args:
        path: The model.
    """
    estimates = (_run(path, accelerator) for accelerator in ACCELERATORS)
    return [each for each in estimates if each is not None]


def _run(path: str, accelerator: str) -> Optional[CycleEstimate]:
    with tempfile.TemporaryDirectory(prefix="edgeprof-vela-") as folder:
        command = [sys.executable, "-m", "ethosu.vela", path, "--accelerator-config", accelerator]
        try:
            done = subprocess.run(
                [*command, "--output-dir", folder],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_LIMIT_S,
                check=False,
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            return None
        summaries = glob.glob(os.path.join(folder, "*_summary_*.csv"))
        if done.returncode != 0 or len(summaries) != 1:
            return None
        with open(summaries[0], newline="") as file:
            rows = list(csv.DictReader(file))
    return _read(rows[0], accelerator) if len(rows) == 1 else None


def _read(row: Dict[str, str], accelerator: str) -> Optional[CycleEstimate]:
    try:
        cycles, clock_hz = float(row["cycles_total"]), float(row["core_clock"])
    except (KeyError, TypeError, ValueError):
        return None
    if not (cycles > 0 and clock_hz > 0):  # nothing was mapped to the processor
        return None
    return CycleEstimate(accelerator, cycles, clock_hz)
