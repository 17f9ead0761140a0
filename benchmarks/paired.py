"""Paired comparisons within one run: ratios per round, their median with a distribution-free interval, and tables.

Values from different runs are never divided by each other, because machines drift.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
from pathlib import Path
from typing import Any


def median_interval(values: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """Return the median, and the ends of an interval that covers the true median with probability ``level`` or more.

    The ends are order statistics chosen by binomial ranks (David and Nagaraja, Order Statistics, 7.1), which assumes
    nothing about the distribution. With fewer than six values no such interval exists, and the ends are the smallest
    and the largest value.
    """
    ordered, n = sorted(values), len(values)
    below, tail = 0, 0.5**n
    while below < n // 2 and 2 * tail <= 1 - level:
        below += 1
        tail += math.comb(n, below) * 0.5**n
    low = max(0, below - 1)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def ratio_text(values: list[float]) -> str:
    median, low, high = median_interval(values)
    return f"{median:.4f} ({low:.4f}–{high:.4f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, padded so that it is readable in a terminal too."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def machine() -> dict[str, Any]:
    """Describe the machine; its load shows whether the numbers can be trusted."""
    load = os.getloadavg()[0]
    return {
        "cpus": os.cpu_count(),
        "arch": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(load, 2),
    }


def about(facts: dict[str, Any]) -> str:
    return (
        f"{facts['cpus']} × {facts['arch']}, Linux {facts['kernel']}, Python {facts['python']}, "
        f"load {facts['load_before']} before the run"
    )


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    made.add_argument("--smoke", action="store_true", help="some seconds: does it run? its numbers mean little")
    made.add_argument("--json", metavar="FILE", type=Path, help="write all numbers there")
    return made


def write(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
