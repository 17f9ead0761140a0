"""``sensors``, ``doctor``, ``bench`` and the exporter say the same of a machine, and count what flowed."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from edgeprof.cli.doctor_checks import examine
from edgeprof.plugins import PluginHost
from edgeprof.sensing.discover import discover
from edgeprof.sensing.prepare import prepare
from edgeprof_exporters import views
from edgeprof_exporters.engine import Engine
from tests.cases.test_totals import RIGHT
from tests.cases.trees import Case, needs_cases

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprof.sensing.discover import Discovery
    from edgeprof_exporters.exposition import Samples

pytestmark = needs_cases
HOST = PluginHost()
#: Nothing that is said of sensors needs the runtimes, each of which doctor tries.
SENSORS = PluginHost(only=[plugin.name for plugin in HOST.plugins if plugin.registers["sensors"]])
#: How long the exporter samples (s).
_SECONDS = 6.0


class Shown(NamedTuple):
    """What the exporter shows of a case at two times."""

    found: Discovery
    first: Samples
    last: Samples
    seconds: float


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """Every case sampled by the exporter's engine, one after the other found and then all at once."""
    engines: dict[str, tuple[Engine, Discovery]] = {}
    with ExitStack() as stack:
        for name in RIGHT:
            case = Case(name, tmp_path_factory.mktemp(name))
            stack.enter_context(case.playing())
            engine = Engine(rate_hz=20.0)
            stack.callback(engine.stop)
            found = discover(HOST, case.roots)
            if found.sensors:
                engine.start(found)
                engines[name] = engine, found
        time.sleep(1.2)  # a processor's counter is shown once a second
        begun, first = time.monotonic(), {name: views.power(engine) for name, (engine, _) in engines.items()}
        time.sleep(_SECONDS)
        last = {name: views.power(engine) for name, (engine, _) in engines.items()}
        seconds = time.monotonic() - begun
    return {name: Shown(found, first[name], last[name], seconds) for name, (_, found) in engines.items()}


def watts(shown: Shown, metric: str) -> float:
    """The mean power of all series of a counter."""
    first, last = dict(shown.first.get(metric, ())), dict(shown.last.get(metric, ()))
    return math.fsum(last[labels] - first.get(labels, 0.0) for labels in last) / shown.seconds


@pytest.mark.parametrize("name", list(RIGHT))
def test_the_exporter_counts_the_machines_energy_and_no_series_stands_twice(
    name: str, exported: dict[str, Shown]
) -> None:
    if name not in exported:
        assert RIGHT[name].watts is None
        return
    right, shown = RIGHT[name], exported[name]
    for metric, rows in shown.last.items():
        labels = [labels for labels, _ in rows]
        assert len(labels) == len(set(labels)), metric
    device = watts(shown, "edgeprof_device_energy_joules_total")
    # A processor's counter is latched once a second, and the machine is busy.
    assert device == pytest.approx(right.watts or 0.0, rel=0.4)
    most = right.most if right.most is not None else right.watts or 0.0
    assert watts(shown, "edgeprof_rail_energy_joules_total") <= most * 1.4
    gauges = math.fsum(value for _, value in shown.last.get("edgeprof_rail_power_watts", ()))
    assert gauges <= most * 1.25


@pytest.mark.parametrize("name", ["01-threadripper-mirrored-dies", "05-psys-stands-still", "13-pc-amd-dgpu"])
def test_bench_and_doctor_take_the_same_total_for_the_same_reason(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    with case.playing():
        benched = prepare(HOST, case.roots)
        checks = [check for check in examine(SENSORS, case.roots) if check.name in {"joules", "sensor rapl"}]
    assert benched.topology.headline.rail == RIGHT[name].rail
    (joules,) = [check for check in checks if check.name == "joules"]
    assert joules.detail.startswith(f"{RIGHT[name].rail} covers the ")
    assert "; not " in joules.detail
    refused = {f"{c.name}: {c.reason}" for c in benched.unavailable}
    assert refused <= {check.detail for check in checks}
    (working,) = [check.detail for check in checks if check.name == "sensor rapl" and check.status == "ok"]
    assert not {c.name for c in benched.unavailable} & set(working.split(", "))


@pytest.mark.parametrize(
    ("name", "value"),
    [("40-rapl-reset", 1000), ("43-rapl-steps-back", None), ("46-no-max-energy-range", 1000)],
)
def test_a_counter_that_falls_is_a_gap_and_no_energy(name: str, value: int | None, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    (ending,) = case.watts
    engine = Engine(rate_hz=50.0)
    with case.playing():
        engine.start(discover(HOST, case.roots))
        begun = time.monotonic()
        time.sleep(1.0)
        now = float(case.file(ending).read_text())
        case.set_counter(ending, now - 10e6 if value is None else value)
        time.sleep(1.5)
        engine.stop()
        span = time.monotonic() - begun
    assert engine.total is not None
    assert engine.total.joules <= case.watts[ending] * (span + 0.3)
    assert 0 < engine.total.gap_s < 0.6
