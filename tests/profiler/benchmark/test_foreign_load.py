"""The load of other programs is the machine's load minus that of this run; it degrades the variants it disturbs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.benchmark import foreign_load
from edgeprof.benchmark.foreign_load import ForeignLoad
from edgeprof.roots import Roots


def seen(monkeypatch, readings):
    """Return a variant's load, from the (busy, all, ours) seconds before and after one window."""
    waiting = iter([foreign_load._Reading(*reading) for reading in readings])
    monkeypatch.setattr(foreign_load, "_read_counters", lambda _roots: next(waiting))
    load = ForeignLoad()
    for _ in range(len(readings) // 2):
        load.begin(Roots())
        load.end(Roots())
    return load


def test_what_this_run_used_itself_is_no_foreign_load(monkeypatch):
    load = seen(monkeypatch, [(10.0, 100.0, 3.0), (14.0, 108.0, 7.0)])
    assert load.share == 0.0
    assert load.reason() is None


def test_the_share_is_of_all_processors_and_over_all_windows(monkeypatch):
    load = seen(monkeypatch, [(10, 100, 3), (14, 108, 5), (20, 200, 6), (20, 208, 6)])
    assert load.share == pytest.approx(2 / 16)
    reason = load.reason()
    assert (reason.code, "12 %" in reason.message) == ("competing_load", True)


def test_a_tick_of_the_kernels_clock_is_no_load(monkeypatch):
    assert seen(monkeypatch, [(0.0, 0.0, 0.0), (0.04, 0.2, 0.0)]).reason() is None


def test_where_nothing_is_counted_the_share_is_unknown(tmp_path):
    load = ForeignLoad()
    load.begin(Roots(procfs=tmp_path))
    load.end(Roots(procfs=tmp_path))
    assert load.share is None
    assert load.reason() is None


@given(st.lists(st.tuples(*[st.floats(0, 1e6)] * 3), min_size=2, max_size=8))
def test_a_share_is_never_negative(readings):
    ordered = [tuple(sorted(column)) for column in zip(*readings, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        pairs = list(zip(*ordered, strict=True))
        load = seen(patch, pairs[: len(pairs) // 2 * 2])
    assert load.taken_s >= 0
    assert load.share is None or load.share >= 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux lists a process's children")
def test_a_child_of_this_run_is_ours():
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    before = foreign_load._seconds_used(os.getpid())
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert foreign_load._seconds_used(os.getpid()) - before >= 0.25
        child.communicate(b"\n")
