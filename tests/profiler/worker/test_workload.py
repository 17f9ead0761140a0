"""Sessions with several workloads, called through the handler as in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.worker.handler import Handler
from edgeprof.worker.scenario import Scenario, Window
from edgeprof.worker.workload import INFERENCE, Workload, check_workloads

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME = """
from edgeprof.worker.runtime import Availability, Runtime, Session
from edgeprof.worker.workload import Workload

class TwoSession(Session):
    calls = []

    def run(self, feeds):
        return {}

    def workloads(self):
        return [Workload("request", "request", 1), Workload("decode", "output token", 16)]

    def bind_workload(self, name, feeds):
        return lambda: self.calls.append(name)

class Plain(Session):
    def run(self, feeds):
        return {}

class Nameless(Plain):
    def workloads(self):
        return [Workload("", "frame", 1)]

class Two(Runtime):
    name = "two"

    def availability(self):
        return Availability("1", None, None)

    def devices(self):
        return ["cpu"]

    def load(self, path, options):
        return {"two": TwoSession, "plain": Plain, "nameless": Nameless}[path]()
"""


def asked(handler: Handler, do: str, **request: Any) -> dict[str, Any]:
    answer, _ = handler.handle({"do": do, **request}, ())
    return answer


def loaded(tmp_path: Path, target: str) -> tuple[Handler, dict[str, Any]]:
    file = tmp_path / "two.py"
    file.write_text(RUNTIME)
    handler = Handler()
    options = {"device": "cpu", "threads": None, "batch": 4, "shapes": {}, "options": {}}
    answer = asked(handler, "load", runtime_file=str(file), runtime_class="Two", target=target, options=options)
    assert answer["ok"], answer
    return handler, asked(handler, "first", inputs=None, seed=0)


def window(handler: Handler, **request: Any) -> Window:
    scenario = Scenario(batch=4)._asdict()
    fields, blobs = handler.handle(
        {"do": "window", "scenario": scenario, "seconds": 0.01, "quiet_s": 0.0, **request}, ()
    )
    assert fields["ok"], fields
    return Window.from_wire(fields, blobs[0])


def test_a_session_that_says_nothing_offers_the_inference_counted_by_samples(tmp_path):
    handler, first = loaded(tmp_path, "plain")
    assert [Workload(*workload) for workload in first["workloads"]] == [INFERENCE]
    run = window(handler)
    assert (run.span.unit, run.span.key) == ("inference", ("inference",))
    assert run.span.count == 4 * run.calls == 4 * (len(run.latencies) + sum(run.waking))


def test_each_workload_runs_by_name_and_counts_its_own_units(tmp_path):
    handler, first = loaded(tmp_path, "two")
    assert [name for name, *_ in first["workloads"]] == ["request", "decode"]
    assert asked(handler, "warm_up", scenario=Scenario()._asdict(), min_s=0.01, max_s=1.0, workload="decode")["ok"]
    main, decode = window(handler), window(handler, workload="decode")
    assert (main.span.key, main.span.unit, main.span.count) == (("request",), "request", main.calls)
    assert (decode.span.key, decode.span.unit, decode.span.count) == (("decode",), "output token", 16 * decode.calls)


def test_a_workload_that_the_session_does_not_offer_is_refused_by_name(tmp_path):
    handler, _ = loaded(tmp_path, "two")
    answer = asked(handler, "window", scenario=Scenario()._asdict(), seconds=0.01, quiet_s=0.0, workload="prefil")
    assert not answer["ok"]
    assert "'prefil'; it has: request, decode" in answer["message"]


def test_workloads_without_a_name_are_refused_when_the_model_is_loaded(tmp_path):
    _, first = loaded(tmp_path, "nameless")
    assert not first["ok"]
    assert "without a name or a unit" in first["message"]


@pytest.mark.parametrize(
    ("workloads", "wrong"),
    [
        ([], "no workload"),
        ([Workload("a", "")], "without a name or a unit"),
        ([Workload("a", "b"), Workload("a", "c")], "two workloads"),
        ([Workload("a", "b", 0)], "0 units"),
    ],
)
def test_what_is_wrong_with_workloads_is_said(workloads, wrong):
    assert wrong in (check_workloads(workloads) or "")
