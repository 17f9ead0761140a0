"""What edgeprof's loop costs per inference, and per token of a language model, beyond the call itself.

Three loops make the same calls equally often: a bare ``for`` that only calls, edgeprof's closed loop (it reads the
clock once and stores one value per call), and a loop as written by hand (two clock readings and an append). Each round
runs them in order and in reverse order, and gives one difference to the bare loop, divided by the number of calls.
Target: at most 0.5 µs per inference.

A request to a language model is compared in the same way: an engine that does nothing decodes the same tokens in a bare
``for`` and in the session that all local language runtimes share, which records the time of each token. Target: at most
5 µs per token.
"""

from __future__ import annotations

import hashlib
import sys
import time
from array import array
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from paired import about, machine, median_interval, parser, table, write

from edgeprof.worker.language import Lengths
from edgeprof.worker.scenario import closed_loop, without_garbage_collection
from edgeprof.worker.token_engine import EngineSession, TokenEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TARGET_S = 0.5e-6
TOKEN_TARGET_S = 5e-6
PROMPT, GENERATED = 16, 128
BLOCK = bytes(16 * 1024)

#: Name → (one inference, calls per block).
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


def measure(loops: Mapping[str, Callable[[], float]], count: int, rounds: int) -> dict[str, list[float]]:
    """Interleave loops, each of which returns the seconds of ``count`` calls; seconds per call, one value per round."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    with without_garbage_collection():
        for number in range(rounds):
            order = names[number % len(names) :] + names[: number % len(names)]
            spent = dict.fromkeys(names, 0.0)
            for name in order + order[::-1]:
                spent[name] += loops[name]()
            for name in names:
                seconds[name].append(spent[name] / (2 * count))
    return seconds


def measure_calls(call: Callable[[], object], count: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each loop, one value per round."""
    return measure({name: partial(loop, call, count) for name, loop in LOOPS.items()}, count, rounds)


class IdleEngine(TokenEngine):
    """A language model that takes no time and processes one batch for each token."""

    vocabulary = 1000

    def prepare(self, rows: Sequence[Sequence[int]], position: int) -> list[Any]:
        return [(position + index, token) for index, token in enumerate(rows[0])]

    def decode(self, batch: Any) -> None:
        pass

    def clear(self) -> None:
        pass

    def rewind(self, position: int) -> bool:
        return position >= 0

    def close(self) -> None:
        pass


def measure_tokens(requests: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds per generated token of a bare loop and of edgeprof's session, one value for each round."""
    engine = IdleEngine()
    session = EngineSession("idle", engine, Lengths(prompt=PROMPT, generate=GENERATED), {})
    batches = engine.prepare([range(PROMPT + GENERATED - 1)], 0)

    def bare_request() -> None:
        engine.clear()
        for batch in batches:
            engine.decode(batch)

    request = session.bind({})

    def session_requests() -> float:
        spent = bare(request, requests)
        session.take_token_times()
        return spent

    loops = {"bare": partial(bare, bare_request, requests), "edgeprof": session_requests}
    return measure(loops, requests * GENERATED, rounds)


def main() -> int:
    arguments = parser(__doc__).parse_args()
    rounds = 10 if arguments.smoke else 150
    facts = machine()
    print(about(facts))
    results: dict[str, Any] = {}
    rows, met = [], True
    for name, (call, count) in CALLS.items():
        seconds = measure_calls(call, count // 5 if arguments.smoke else count, rounds)
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
    tokens = measure_tokens(20 if arguments.smoke else 100, rounds)
    beyond = [one - base for one, base in zip(tokens["edgeprof"], tokens["bare"], strict=True)]
    median, low, high = median_interval(beyond)
    print(f"a generated token: {median * 1e6:.3f} µs ({low * 1e6:.3f}–{high * 1e6:.3f}) beyond a bare loop")
    print(f"target ≤ {TOKEN_TARGET_S * 1e6:.0f} µs per token: {'met' if median <= TOKEN_TARGET_S else 'NOT met'}")
    write(arguments.json, {"machine": facts, "seconds_per_call": results, "seconds_per_token": tokens})
    return 0


if __name__ == "__main__":
    sys.exit(main())
