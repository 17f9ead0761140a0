"""Operators measured alone: their joules against a virtual board's truth, their sum against the whole, and refusals."""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_right
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.benchmark import assemble, isolated
from edgeprof.benchmark.records import Sampled, WorkloadRecord
from edgeprof.energy.recording import Recording
from edgeprof.plugins import PluginHost
from edgeprof.reporters import console, html_page, markdown
from edgeprof.results import document, schema
from edgeprof.roots import Roots
from edgeprof.sensing.discover import discover
from edgeprof.sensing.sampler import Sampler
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.source import Source
from edgeprof.worker.scenario import Window
from edgeprof.worker.span import Span
from edgeprof.worker.workload import Workload
from tests.profiler.benchmark import virtual_device
from tests.profiler.benchmark.toy_operators import COPIES, POWER, SECONDS, Toy
from tests.profiler.virtual import VirtualTime
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from pathlib import Path

IDLE = 2.0
TRUTH = {name: POWER[name] * SECONDS[name] for name in POWER}


def run(folder: Path, factor: float, watcher: Watcher, **settings: Any) -> schema.Result:
    models = {"model": f"operators:{factor}"}
    return virtual_device.measure(Toy, models, IDLE, folder, watcher, warmup_s=0.05, isolate_ops=3, **settings)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[schema.Result, Watcher]:
    watcher = Watcher()
    return run(tmp_path_factory.mktemp("operators"), 1.0, watcher, windows=3, window_s=0.8, idle_s=1.0), watcher


def test_each_operator_alone_has_the_joules_of_its_own_power_which_its_share_of_the_time_does_not_give(measured):
    (variant,) = measured[0].variants
    operators = {operator.name: operator for operator in variant.operators if operator.isolated}
    assert set(operators) == {"matmul", "conv"}
    for name, operator in operators.items():
        assert operator.method == "isolated"
        energy = operator.isolated.energy_j
        seconds = operator.isolated.seconds
        assert seconds >= SECONDS[name]
        assert energy.provenance == "simulated"
        for joules in energy.gross.windows:
            assert joules == pytest.approx(POWER[name] * seconds, rel=0.001)
        low, high = operator.isolated.seconds_ci95
        assert low <= seconds <= high
    # It draws the most: a share of the time attributes too little to it.
    assert operators["matmul"].energy_j_attributed < 0.9 * operators["matmul"].isolated.energy_j.gross.value


def test_the_sum_of_the_operators_and_the_rest_are_the_whole_of_the_same_turns(measured):
    (variant,) = measured[0].variants
    total = variant.isolated_sum
    parts = [operator.isolated for operator in variant.operators if operator.isolated]
    assert total.operators == 2
    assert sum(part.seconds for part in parts) + total.rest_s == pytest.approx(total.whole.seconds)
    joules = [part.energy_j.gross.windows for part in parts]
    for whole, rest, *its_parts in zip(total.whole.energy_j.gross.windows, total.rest_j.windows, *joules, strict=True):
        assert rest + sum(its_parts) == pytest.approx(whole)
    assert total.rest_j.value == pytest.approx(TRUTH["softmax"], rel=0.01, abs=total.rest_j.expanded_uncertainty)
    assert total.rest_j.expanded_uncertainty > 0


def test_the_model_and_its_operators_take_turns_and_the_rest_of_the_result_is_that_of_the_model_alone(measured):
    result, watcher = measured
    (variant,) = result.variants
    windows = [stage.partition(" · ")[2] for stage in watcher.stages if stage.startswith("window")]
    forward = ["model by operator inference", "model by operator matmul", "model by operator conv"]
    assert windows == ["model"] * 3 + forward + forward[::-1] + forward
    assert [workload.name for workload in variant.workloads] == ["inference"]
    assert [operator.name for operator in variant.operators][:3] == ["matmul", "conv", "softmax"]
    assert any(
        "the operator softmax is not measured alone: it is too soft" in reason.message for reason in variant.reasons
    )
    assert variant.status != "failed"
    assert document.from_json(document.to_json(result)) == result


def test_every_report_compares_the_operators_alone_with_the_whole(measured):
    result, _ = measured
    for text in (console.render(result), markdown.render([result]), html_page.render([result])):
        words = " ".join(text.split())
        assert "alone" in words
        assert "of the whole model in the same turns" in words
        assert "finds its inputs in the cache" in words


def test_a_model_that_cannot_be_cut_keeps_its_profile_and_says_why(tmp_path):
    (variant,) = run(tmp_path, 0.0, Watcher(), windows=1, window_s=0.1, idle_s=0.0).variants
    assert variant.operators[0].isolated is None
    assert variant.isolated_sum is None
    assert variant.status != "failed"
    assert any("no operator was measured alone: model: this model is not cut" in r.message for r in variant.reasons)


class Switched(Source):
    """A virtual board's power that the test itself switches."""

    def __init__(self) -> None:
        self._knots: list[tuple[float, float, float]] = []  # since when, joules until then, watts
        self._changed = False

    def begin(self, time: float) -> None:
        self._knots = [(time, 0.0, IDLE)]

    def level(self, time: float) -> float:
        return self._knot(time)[2]

    def integral(self, time: float) -> float:
        since_s, joules, watts = self._knot(time)
        return joules + watts * (time - since_s)

    def _knot(self, time: float) -> tuple[float, float, float]:
        return self._knots[max(0, bisect_right(self._knots, (time, math.inf, math.inf)) - 1)]

    def advance(self, time: float) -> bool:
        changed, self._changed = self._changed, False
        return changed

    def switch(self, time: float, watts: float) -> None:
        self._knots.append((time, self.integral(time), watts))
        self._changed = True


def test_in_virtual_time_the_joules_of_each_operator_and_of_the_rest_are_within_their_uncertainty(tmp_path):
    """Whatever else this machine does: 1 s windows behind a filter of 0.44 s, in turns with the whole model."""
    power = Switched()
    works = {"inference": list(SECONDS), "matmul": ["matmul"] * COPIES, "conv": ["conv"] * COPIES}
    records = [
        WorkloadRecord(Workload(name, "inference", len(work) if name in SECONDS else None))
        for name, work in works.items()
    ]
    with VirtualTime(LiveBoard("jetson-orin-nano", tmp_path, power)) as clock:
        found = discover(PluginHost(only=["ina3221"]), Roots.resolve(tmp_path, environ={}))
        sampler = Sampler(found.sensors, 100.0, found.topology.by_key(), clock=clock)
        with Recording(found.topology, sampler, is_quiet_between=True, clock=clock) as recording:
            idles = [recording.idle(4.0)]
            for turn in (records, records[::-1]) * 3:
                for record in turn:
                    record.windows.append(work_for(1.0, works[record.workload.name], power, clock))
                    record.orders.append(len(record.windows))
                    span = record.windows[-1].span
                    span = span._replace(
                        count=span.count * record.workload.units(1), key=("alone", record.workload.name)
                    )
                    record.windows[-1] = record.windows[-1]._replace(span=span)
                    recording.add(span)
                    recording.hold(4.0)
            idles.append(recording.idle(4.0))
        sampled = Sampled(recording, [], 0.0, 6)
        plan = SimpleNamespace(statistic="mean", scenario="single-stream", rate_hz=None, streams=None, batch=1)
        figures = [assemble._workload_figures(record, idles, sampled, plan) for record in records]
    operators = [schema.Operator(name, name.title(), 0.3, None, None) for name in works if name != "inference"]
    row = SimpleNamespace(operators=operators, reasons=[], isolated_sum=None)
    isolated.add_findings(row, SimpleNamespace(workloads=records), figures, "mean")
    for operator in operators:
        energy = operator.isolated.energy_j
        assert operator.isolated.seconds == pytest.approx(SECONDS[operator.name])
        assert energy.gross.value == pytest.approx(TRUTH[operator.name], abs=energy.gross.expanded_uncertainty)
        assert energy.gross.expanded_uncertainty < 0.05 * energy.gross.value
        net = TRUTH[operator.name] - IDLE * SECONDS[operator.name]
        assert energy.net.value == pytest.approx(net, abs=energy.net.expanded_uncertainty)
    rest = row.isolated_sum.rest_j
    assert rest.value == pytest.approx(TRUTH["softmax"], abs=rest.expanded_uncertainty)
    assert rest.expanded_uncertainty < 0.3 * TRUTH["softmax"]


def work_for(seconds: float, names: list[str], power: Switched, clock: VirtualTime) -> Window:
    start_s, latencies = clock.now(), array("d")
    while clock.now() < start_s + seconds:
        begin_s = clock.now()
        for name in names:
            power.switch(clock.now(), POWER[name])
            clock.wait(clock.now() + SECONDS[name], threading.Event())
        latencies.append(clock.now() - begin_s)
    power.switch(clock.now(), IDLE)
    span = Span("window", start_s, clock.now(), len(latencies))
    return Window(span, len(latencies), latencies, span.seconds, 0.0)


@given(
    st.lists(st.lists(st.floats(1e-6, 1.0), min_size=3, max_size=3), min_size=2, max_size=5),
    st.integers(1, 9),
    st.integers(1, 4),
)
def test_seconds_of_operators_and_of_the_rest_add_up_to_the_whole_for_all_copies_and_batches(times, copies, batch):
    def workload(name: str, units: int) -> schema.Workload:
        return schema.Workload(
            name=name, unit="inference", units_per_call=units, count=1, energy_j_per_unit=None, latency_s=None,
            throughput_per_s=None,
        )  # fmt: skip

    names = [f"op{n}" for n in range(1, len(times))]
    records, figures = [], []
    for name, seconds in zip(["inference", *names], times, strict=True):
        repeats = 1 if name == "inference" else copies
        records.append(SimpleNamespace(windows=[SimpleNamespace(latencies=np.full(4, s * repeats)) for s in seconds]))
        quote = SimpleNamespace(value=None, reasons=[])
        figures.append((workload(name, repeats * batch), quote))
    operators = [schema.Operator(name, "Conv", 0.1, None, None) for name in names]
    row = SimpleNamespace(operators=operators, reasons=[], isolated_sum=None)
    isolated.add_findings(row, SimpleNamespace(workloads=records), figures, "mean")
    assert sum(o.isolated.seconds for o in operators) + row.isolated_sum.rest_s == pytest.approx(np.mean(times[0]))
    assert [o.isolated.seconds for o in operators] == pytest.approx([np.mean(seconds) for seconds in times[1:]])
    assert row.isolated_sum.rest_j.value is None


def test_a_call_alone_runs_its_operator_several_times():
    assert COPIES > 1  # otherwise the tests above would not see a wrong division
