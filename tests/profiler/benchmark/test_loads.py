"""One workload at several rates and with several cameras: names, saturation, and the cost of another camera."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.benchmark import loads
from edgeprof.benchmark.records import VariantRecord
from edgeprof.reporters.loads_text import load_lines
from edgeprof.results import schema
from edgeprof.worker.scenario import Scenario, Window
from edgeprof.worker.span import WINDOW, Span
from edgeprof.worker.workload import Workload
from tests.profiler.results import samples

FRAME = Workload("frame", "frame", 1, 10)
SECONDS = 10.0


def window(rate: float, streams: int, most: float) -> Window:
    """Return a window of a device that processes at most ``most`` frames per second."""
    due = round(rate * streams * SECONDS)
    calls = min(due, round(most * SECONDS))
    return Window(Span(WINDOW, 0.0, SECONDS, calls), calls, array("d"), 1.0, 1.0, due=due, due_s=SECONDS, late=0)


def measured(
    given: list[tuple[float, int]], most: float | dict[float, float], watts: dict[tuple[float, int], list[float]]
) -> schema.Variant:
    """Return a variant that was measured under these loads."""
    (rate, streams), *further = given
    scenario = Scenario("periodic", rate, streams)
    record = VariantRecord("a", [], None, "python", None)
    record.workloads = loads.records(FRAME, scenario, further)
    row = samples.study().variants[0]
    row.workloads = []
    for one, load in zip(record.workloads, given, strict=True):
        capacity = most[load[0]] if isinstance(most, dict) else most
        one.windows = [window(*load, capacity), window(*load, capacity)]
        windows = [
            schema.Window(0.0, SECONDS, 1, order=n, energy_j=1.0, mean_power_w=power, latency_median_s=0.01)
            for n, power in enumerate(watts.get(load, [5.0, 5.0]))
        ]
        row.workloads.append(
            schema.Workload(
                one.workload.name, "frame", 1, windows=windows, energy_j_per_unit=row.energy_j_per_inference,
                rate_hz=load[0], streams=load[1],
            )
        )  # fmt: skip
    loads.add_findings(row, record)
    return row


def test_a_single_load_has_no_findings():
    assert measured([(15.0, 1)], 100.0, {}).loads is None


def test_each_number_of_streams_has_rates_of_its_own():
    every = [(10.0, 1), (10.0, 2), (20.0, 1), (20.0, 2)]
    row = measured(every, 30.0, {(10.0, 1): [5.0, 5.1], (10.0, 2): [5.5, 5.6]})
    assert [one.name for one in row.workloads][:2] == ["frame at 10.0/s × 1 stream", "frame at 10.0/s × 2 streams"]
    one, two = row.loads.saturation
    assert (one.streams, one.kept_hz, one.saturated_hz) == (1, 20.0, None)
    assert (two.streams, two.kept_hz, two.saturated_hz) == (2, 10.0, 20.0)
    assert two.achieved_per_s == pytest.approx(30.0)
    # At the highest rate that was reached with one and with two cameras.
    assert row.loads.stream_rate_hz == 10.0
    assert row.loads.stream_power_w == pytest.approx(0.5)
    low, high = row.loads.stream_power_ci95
    assert low < 0.5 < high
    (line,) = load_lines([row])
    assert "with 2 streams 10.0/s is kept, and 20.0/s saturates it, where 30.0 frames/s are done" in line
    assert "Each further stream takes 0.5" in line or "Each further stream takes 500" in line


@given(capacities=st.dictionaries(st.floats(0.5, 60.0), st.floats(0.5, 60.0), min_size=2, max_size=6))
def test_a_rate_that_is_kept_is_below_every_one_that_saturates(capacities):
    """What the device processes varies between the rates, as on a busy machine."""
    rates = list(capacities)
    row = measured([(rate, 1) for rate in rates], capacities, {})
    (saturation,) = row.loads.saturation
    seen = {saturation.kept_hz, saturation.saturated_hz} - {None}
    assert seen <= set(rates)
    if saturation.kept_hz is not None and saturation.saturated_hz is not None:
        assert saturation.kept_hz < saturation.saturated_hz
    assert (saturation.kept_hz is None) <= (saturation.saturated_hz is not None)
