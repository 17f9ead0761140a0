"""What edgeprof's loop costs per inference beyond the call itself.

Three loops make the same number of the same calls: a bare ``for`` that only calls, edgeprof's closed loop (one reading
of the clock and one store per call), and the loop that one would write by hand (two readings and an append). They are
interleaved forwards and backwards in each round; each round gives one difference to the bare loop, divided by the
calls. Target: at most 0.5 µs per inference.
"""

from __future__ import annotations

import hashlib
import sys
import time
from array import array
from itertools import repeat
from typing import TYPE_CHECKING, Any

from paired import about, machine, median_interval, parser, table, write

from edgeprof.worker.scenario import closed_loop, without_garbage_collection

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET_S = 0.5e-6
BLOCK = bytes(16 * 1024)

#: name → (one inference, calls per block)
CALLS: dict[str, tuple[Callable[[], object], int]] = {
    "an empty function": (lambda: None, 100_000),
    "SHA-256 of 16 KiB": (lambda: hashlib.sha256(BLOCK).digest(), 5_000),
}


def bare(call: Callable[[], object], count: int) -> float:
    start = time.monotonic()
    for _ in repeat(None, count):
        call()
    return time.monotonic() - start


def edgeprof(call: Callable[[], object], count: int) -> float:
    stamps = array("d", [0.0]) * (count + 1)
    start = time.monotonic()
    closed_loop(call, 1e9, stamps)  # ends when the stamps are full
    return time.monotonic() - start


def by_hand(call: Callable[[], object], count: int) -> float:
    latencies = []
    start = time.monotonic()
    for _ in range(count):
        begin = time.perf_counter()
        call()
        latencies.append(time.perf_counter() - begin)
    return time.monotonic() - start


LOOPS = {"bare": bare, "edgeprof": edgeprof, "by hand": by_hand}


def measure(call: Callable[[], object], count: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each loop, one value per round."""
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    names = list(LOOPS)
    with without_garbage_collection():
        for number in range(rounds):
            order = names[number % len(names) :] + names[: number % len(names)]
            spent = dict.fromkeys(names, 0.0)
            for name in order + order[::-1]:
                spent[name] += LOOPS[name](call, count)
            for name in names:
                seconds[name].append(spent[name] / (2 * count))
    return seconds


def main() -> int:
    arguments = parser(__doc__).parse_args()
    rounds = 10 if arguments.smoke else 150
    facts = machine()
    print(about(facts))
    results: dict[str, Any] = {}
    rows, met = [], True
    for name, (call, count) in CALLS.items():
        seconds = measure(call, count // 5 if arguments.smoke else count, rounds)
        results[name] = seconds
        for loop in ("edgeprof", "by hand"):
            beyond = [one - base for one, base in zip(seconds[loop], seconds["bare"], strict=True)]
            median, low, high = median_interval(beyond)
            if loop == "edgeprof":
                met = met and median <= TARGET_S
            rows.append(
                [
                    name,
                    f"{median_interval(seconds['bare'])[0] * 1e6:.3f}",
                    loop,
                    f"{median * 1e6:.3f} ({low * 1e6:.3f}–{high * 1e6:.3f})",
                ]
            )
    print(table(["inference", "bare loop, µs", "harness", "beyond it, µs per inference (95 %)"], rows))
    print(f"target ≤ {TARGET_S * 1e6:.1f} µs per inference: {'met' if met else 'NOT met'}")
    write(arguments.json, {"machine": facts, "seconds_per_call": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
