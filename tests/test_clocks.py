"""A clock that one test turns is turned for nobody else."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clocks import turn_clock

TESTS = Path(__file__).parent
#: ``time.time`` is not among them: that a step of the wall clock shows nowhere is tested with all threads.
_FOR_ALL_THREADS = re.compile(
    r"""setattr\(\s*([\w.]*\btime,\s*"(monotonic|sleep|perf_counter|thread_time)"|"[\w.]*\btime\.(monotonic|sleep)")"""
)


def test_a_turned_clock_is_real_in_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before, slept = time.monotonic(), list[float]()
    turn_clock(monkeypatch, monotonic=lambda: -1.0, sleep=slept.append)
    time.sleep(3600.0)
    assert (time.monotonic(), slept) == (-1.0, [3600.0])
    with ThreadPoolExecutor(1) as other:
        assert other.submit(time.monotonic).result() >= before
        other.submit(time.sleep, 0.0).result()
    assert slept == [3600.0]


@pytest.mark.parametrize(
    "line",
    [
        'monkeypatch.setattr(time, "sleep", f)',
        'patch.setattr(meter.time, "monotonic", f)',
        'm.setattr("a.b.time.sleep", f)',
    ],
)
def test_a_clock_turned_for_all_threads_is_recognised(line: str) -> None:
    assert _FOR_ALL_THREADS.search(line)


def test_no_test_turns_a_clock_for_all_threads() -> None:
    texts = {path: path.read_text("utf-8") for path in TESTS.rglob("*.py") if path != Path(__file__)}
    assert [str(path.relative_to(TESTS)) for path, text in texts.items() if _FOR_ALL_THREADS.search(text)] == []
