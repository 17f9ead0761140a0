"""The load that a virtual board follows: that of the machine, or that of one process tree."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.errors import UnavailableError
from edgeprof.simulation.source import Load, machine_busy, tree_busy
from tests.processes import ended


@given(st.lists(st.tuples(st.floats(0.001, 0.2), st.floats(0, 1)), min_size=1, max_size=40))
def test_the_integral_of_a_load_is_that_of_its_levels(steps: list[tuple[float, float]]) -> None:
    spent = [0.0]
    load = Load(lambda _now: spent[0], cores=2, seed=1)
    load.begin(10.0)
    now, total = 10.0, 0.0
    for length, busy in steps:
        total += length * load.level(now)
        now += length
        assert load.integral(now) == pytest.approx(total)
        spent[0] += 2 * busy * length
        load.advance(now)
        assert 0 <= load.level(now) < 1.1
    assert load.integral(now) == pytest.approx(total)


def test_the_level_is_the_load_between_the_last_two_looks() -> None:
    spent = {10.0: 0.0, 10.05: 0.05, 10.1: 0.2}
    load = Load(lambda now: spent[now], cores=2, noise=0.0)
    load.begin(10.0)
    assert load.advance(10.02) is False  # too soon for another reading
    assert load.advance(10.05) is True
    assert load.level(10.06) == pytest.approx(0.5)
    load.advance(10.1)
    assert load.level(10.11) == 1.0  # more than all cores is a matter of /proc's steps
    assert load.steady(10.06, 10.09) == pytest.approx(0.5)
    assert load.steady(10.06, 10.11) is None


def test_counts_of_proc_stat_become_seconds_without_idle_iowait_and_steal(tmp_path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text(f"cpu  {tick} {tick} {tick} {7 * tick} {9 * tick} 0 {tick} {5 * tick} 0 0\ncpu0 …\n")
    assert machine_busy(tmp_path)(0.0) == pytest.approx(4.0)


def test_a_proc_without_stat_is_one_sentence_and_names_the_way_out(tmp_path) -> None:
    with pytest.raises(UnavailableError) as caught:
        machine_busy(tmp_path)
    assert "--waveform" in (caught.value.remedy or "")


def test_a_process_tree_counts_its_children_and_never_falls() -> None:
    """A shell waits for a child that burns CPU time."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    child = f"subprocess.run([sys.executable, '-c', {burn!r}])"
    code = f"import subprocess, sys; sys.stdin.readline(); {child}; sys.stdin.readline()"
    from edgeprof.roots import Roots

    with ended(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)) as process:
        busy = tree_busy(Roots().procfs, process.pid, rescan_s=0.0)
        first = last = busy(0.0)
        process.stdin.write(b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while last - first < 0.3 and time.monotonic() < deadline:
            now = busy(time.monotonic())
            assert now >= last
            last = now
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.wait()
    assert last - first >= 0.3
    assert busy(time.monotonic()) == last


def test_no_such_process_is_one_sentence() -> None:
    from edgeprof.roots import Roots

    with pytest.raises(UnavailableError, match="no process"):
        tree_busy(Roots().procfs, 2**22 + 1)
