"""``doctor --prove`` on virtual boards in virtual time: healthy boards pass, and each injected fault is found."""

from __future__ import annotations

import bisect
import functools
import json
import math
from array import array
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from edgeprof import hookimpl
from edgeprof.calibration import prove as proving
from edgeprof.calibration.observed import Interval, Observed, interval
from edgeprof.calibration.pattern import Plan, Played, Pulse
from edgeprof.calibration.proof import judged, ripple
from edgeprof.calibration.proof_of_sums import sum_checks
from edgeprof.cli.main import run
from edgeprof.plugins import PluginHost, PluginInfo
from edgeprof.roots import Roots
from edgeprof.sensing.proofs import Proofs
from edgeprof.sensing.sensor import Channel, Filter, Sensor
from edgeprof.sensing.trace import Series
from edgeprof.simulation.chip import BlockAverage, EnergyCounter, Ina3221
from edgeprof.simulation.layouts import build
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.source import Source
from tests.profiler.virtual import VirtualTime

pytestmark = pytest.mark.slow

IDLE_W, LOAD_W = 4.0, 10.0


class Turned(Source):
    """A load that sets the board's power and counts its work: one loop for each second of all cores."""

    def __init__(self) -> None:
        self.now, self.ready = lambda: 0.0, False
        self._times, self._joules, self._shares, self._done = [0.0], [0.0], [0.0], [0.0]

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, time: float) -> None:
        self._times = [time]

    def set(self, share: float) -> None:
        now = self.now()
        self._joules.append(self.integral(now))
        self._done.append(self.loops())
        self._times.append(now)
        self._shares.append(share)

    def loops(self) -> float:
        return self._done[-1] + self._shares[-1] * (self.now() - self._times[-1])

    def steady(self, start: float, end: float) -> float | None:
        constant = bisect.bisect_right(self._times, start) == bisect.bisect_left(self._times, end)
        return self.level(start) if constant else None

    def level(self, time: float) -> float:
        return IDLE_W + LOAD_W * self._shares[max(0, bisect.bisect_right(self._times, time) - 1)]

    def integral(self, time: float) -> float:
        at = max(0, bisect.bisect_right(self._times, time) - 1)
        return self._joules[at] + (IDLE_W + LOAD_W * self._shares[at]) * (time - self._times[at])


def prove_in(
    folder, board: str, spoil=lambda _rail, converter: converter, *, quick: bool = True, meter=None, **options
) -> proving.Proof:
    """Prove a virtual board, quickly by default; ``spoil`` may change each rail's converter."""
    load = Turned()
    if meter is not None:
        meter.load = load
    live = LiveBoard(board, folder / "tree", load)
    make = live._make_converter
    live._make_converter = lambda rail: spoil(rail, make(rail))
    live._obey_settings = lambda: None
    with VirtualTime(live) as clock:
        load.now, load.ready = clock.now, True
        return proving.prove(
            options.pop("host", None) or PluginHost(only=["ina3221", "hwmon", "rapl", "pmic"]),
            Roots.resolve(live.directory),
            clock=clock,
            load=lambda: load,
            activity=dict,
            proofs=Proofs(folder / "data"),
            quick=quick,
            **options,
        )


@pytest.fixture
def prove(tmp_path):
    """``prove(board, …)``: as ``prove_in``, in a folder of this test."""
    return partial(prove_in, tmp_path)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """``healthy(board)``: the quick proof of a board without a fault, made once."""
    return functools.cache(lambda board: prove_in(tmp_path_factory.mktemp("healthy"), board))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """``faulty(name)``: the quick proof of a board with one of ``FAULTS``, made once."""
    return functools.cache(lambda name: prove_in(tmp_path_factory.mktemp("faulty"), *FAULTS[name][:2]))


def failed(proof: proving.Proof) -> set[tuple[str, str]]:
    return {(check.name, check.subject) for check in proof.checks if check.verdict == "failed"}


@pytest.mark.parametrize(
    "board",
    [
        "jetson-nano", "jetson-tx2", "jetson-orin-nano", "jetson-agx-orin", "jetson-thor", "raspberry-pi-5", "x86-rapl",
    ],
)  # fmt: skip
def test_nothing_fails_on_a_healthy_board(healthy, board) -> None:
    """Less than a minute may not suffice for every verdict, for example with coarse steps or rare readings."""
    assert failed(healthy(board)) == set()


@pytest.mark.parametrize("board", ["jetson-nano", "jetson-thor", "x86-rapl"])
def test_a_healthy_board_passes(prove, board) -> None:
    proof = prove(board, quick=False)
    assert failed(proof) == set()
    assert proof.verdict == "passed"
    assert proof.believable < 0.05


def test_the_whole_proof_tells_the_figures_of_a_board_and_keeps_them(prove, tmp_path) -> None:
    proof = prove("jetson-orin-nano", quick=False)
    assert 90 < proof.seconds < 150
    figures = {(check.name, check.subject): check for check in proof.checks}
    tau = figures["filter", "VDD_IN"]
    assert tau.verdict == "passed"
    assert tau.low < 0.43008 < tau.high
    rise = figures["answers", "VDD_IN"]
    assert rise.low - 0.04 < LOAD_W < rise.high + 0.04
    parts = figures["parts", "VDD_IN"]
    assert parts.value == pytest.approx((7.5 + 2.6) / 14.0, abs=0.01)
    assert figures["gain", "VDD_IN"].verdict == "cannot_tell"
    assert proof.believable < 0.02
    kept = Proofs(tmp_path / "data").get("simulated jetson-orin-nano")
    assert kept.proof == json.loads(json.dumps(proof.to_dict()))
    channel = Channel("ina3221", "VDD_IN", "power")
    assert kept.of(channel) == {"date": proof.date, "verdict": "passed"}
    assert kept.of(Channel("ina3221", "OTHER", "power")) is None


# --- faults -----------------------------------------------------------------------------------------------------------


class StuckChip(Ina3221):
    def advance(self, end, energy, steady=None) -> None:
        pass


class StuckCounter(EnergyCounter):
    def advance(self, end, energy, steady=None) -> None:
        super().advance(self._start, energy)


class Lagging(EnergyCounter):
    """A counter that shows the energy of 0.4 s ago."""

    def advance(self, end, energy, steady=None) -> None:
        super().advance(end, lambda time: energy(max(self._start, time - 0.4)))


class Aliasing(Ina3221):
    """A sensor that measures for one millisecond every 0.1 s, without averaging."""

    looked = 0

    def advance(self, end, energy, steady=None) -> None:
        count = math.floor((end - self._offset) / 0.1)
        if count > self.looked:
            at = self._offset + 0.1 * count
            self.average_w, self.looked = (energy(at) - energy(at - 1e-3)) / 1e-3, count


def become(kind: type, *rails: str):
    def spoil(rail, converter):
        if rail.files.name in rails:
            converter.__class__ = kind
        return converter

    return spoil


def wrong_shunt(factor: float, *rails: str):
    """The driver assumes a shunt that is ``factor`` times smaller, and therefore shows a larger current."""

    class Wrong(Ina3221):
        @property
        def milliamperes(self) -> int:
            return round(super().milliamperes * factor)

    def spoil(rail, converter):
        if rail.files.name in rails:
            converter.__class__ = Wrong
            file = rail.files.directory / f"shunt{rail.files.channel}_resistor"
            file.write_text(f"{round(rail.files.shunt_ohm * 1e6 / factor)}\n")
        return converter

    return spoil


def other_average(rail, converter):
    """The driver's files say 512 samples, the chip takes 128."""
    converter.samples = 128
    return converter


def slow_counter(rail, converter):
    if rail.files.name == "package-0":
        converter.refresh_s = 0.6
    return converter


def moments(rail, converter):
    if isinstance(converter, BlockAverage):
        converter._look = 1e-3
    return converter


#: Fault → the board, what makes it, and the check that finds it.
FAULTS = {
    "stuck total": ("jetson-orin-nano", become(StuckChip, "VDD_IN"), ("answers", "VDD_IN")),
    "stuck part": ("jetson-orin-nano", become(StuckChip, "VDD_CPU_GPU_CV"), ("parts", "VDD_IN")),
    "stuck CPU rail": ("jetson-nano", become(StuckChip, "POM_5V_CPU"), ("answers", "POM_5V_CPU")),
    "stuck counter": ("x86-rapl", become(StuckCounter, "package-0"), ("answers", "package-0")),
    "total twice": ("jetson-orin-nano", wrong_shunt(2.0, "VDD_IN"), ("parts", "VDD_IN")),
    "total half": ("jetson-orin-nano", wrong_shunt(0.5, "VDD_IN"), ("parts", "VDD_IN")),
    "part twice": ("jetson-orin-nano", wrong_shunt(2.0, "VDD_CPU_GPU_CV"), ("parts", "VDD_IN")),
    "part half": ("jetson-orin-nano", wrong_shunt(0.5, "VDD_CPU_GPU_CV"), ("parts", "VDD_IN")),
    "wrong tau": ("jetson-orin-nano", other_average, ("filter", "VDD_IN")),
    "aliasing of an average": ("jetson-orin-nano", become(Aliasing, "VDD_IN"), ("aliasing", "VDD_IN")),
    "aliasing of a block": ("jetson-thor", moments, ("aliasing", "VIN")),
    "lagging counter": ("x86-rapl", become(Lagging, "package-0"), ("delay", "package-0")),
    "slow counter": ("x86-rapl", slow_counter, ("refresh", "package-0")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(faulty, name) -> None:
    assert FAULTS[name][2] in failed(faulty(name))
    assert faulty(name).verdict == "failed"


# --- a meter, and the command ----------------------------------------------------------------------------------------


class Meter(Sensor):
    """A meter that shows the board's true power on a different scale."""

    name = "truth"
    channels = ()

    def __init__(self, scope: str, gain: float) -> None:
        self.channels = (Channel("truth", "truth", "power", scope=scope, gain_limit=0.001),)
        self.gain, self.load = gain, None

    def read(self, values, times) -> None:
        values[0] = self.gain * self.load.level(self.load.now()) if self.load.ready else IDLE_W


def host_with(meter: Sensor) -> PluginHost:
    module = ModuleType("meters")
    module.register_sensors = hookimpl(lambda register: register(meter.name, lambda roots: [meter]))
    module.register_sensors.__name__ = "register_sensors"
    host = PluginHost(only=["ina3221"])
    host.register(module, PluginInfo("meters", "meters", "1.0"))
    return host


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A proof against a right meter, and what the check of the meter was made of."""
    compare, seen = proving.meter_check, []
    meter = Meter("module", 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proving, "meter_check", lambda *given: seen.append(given) or compare(*given))
        folder = tmp_path_factory.mktemp("compared")
        against = {"host": host_with(meter), "meter": meter, "against": "truth", "rail": "VDD_IN"}
        return prove_in(folder, "jetson-orin-nano", **against), *seen


def test_a_right_meter_takes_the_place_of_the_unproved_gain(compared) -> None:
    checks = {check.name: check for check in compared[0].checks}
    assert checks["meter"].verdict == "passed"
    assert "gain" not in checks


@pytest.mark.parametrize(
    ("scope", "gain", "verdict"),
    [("module", 1.0, "passed"), ("module", 1.1, "failed"), ("wall", 1.15, "passed"), ("wall", 0.9, "failed")],
)
def test_a_meter_shows_a_wrong_scale(compared, scope, gain, verdict) -> None:
    seen, sensor, meter, holds = compared[1]
    scaled = replace(meter, channel=replace(meter.channel, scope=scope), values=gain * np.asarray(meter.values))
    check = proving.meter_check(seen, sensor, scaled, holds)
    assert check.verdict == verdict
    assert check.low < gain < check.high


@pytest.mark.parametrize("status", [0, 1], ids=["healthy", "stuck"])
def test_the_command_says_what_failed_and_exits_with_it(healthy, faulty, monkeypatch, capsys, tmp_path, status) -> None:
    monkeypatch.setenv("EDGEPROF_LOCK_DIR", str(tmp_path))
    proof = faulty("stuck total") if status else healthy("jetson-orin-nano")
    build("jetson-orin-nano", tmp_path / "tree")
    monkeypatch.setattr("edgeprof.calibration.prove.prove", lambda *_, **__: proof)
    tree = ["--sysfs-root", str(tmp_path / "tree")]
    assert run(["doctor", "--prove", *tree]) == status
    shown = capsys.readouterr().out
    assert ("fail   VDD_IN: it stands still" in shown) == (status == 1)
    assert ("can be trusted to ±" in shown) == (status == 0)
    page, file = tmp_path / "proof.html", tmp_path / "proof.json"
    assert run(["doctor", "--prove", "--json", "-o", str(page), *tree]) == status
    document = json.loads(capsys.readouterr().out)
    assert run(["doctor", "--prove", "-o", str(file), *tree]) == status
    assert json.loads(file.read_text()) == document
    assert ("The joules cannot be trusted as they are" in page.read_text()) == (status == 1)
    assert "stands still" in page.read_text() or status == 0
    assert run(["doctor", "--prove", "-o", str(tmp_path / "proof.txt"), *tree]) == 2
    assert "does not end in .html or .json" in capsys.readouterr().err
    assert document["schema"] == "edgeprof.prove/1"
    assert document["verdict"] == ("failed" if status else "passed")


def test_options_of_a_proof_alone_are_refused(capsys) -> None:
    assert run(["doctor", "--quick"]) == 2
    assert "go with --prove" in capsys.readouterr().err


# --- what no virtual board has ----------------------------------------------------------------------------------------

PLAN = Plan(hold_s=2.0, steps=3, trains=2, train_s=2.4)


class Rows:
    """Readings every 5 ms of channels whose values are functions of the load's share and its integral."""

    def __init__(self, channels: dict[Channel, object]) -> None:
        self.played = Played(idles=[(0.0, 2.0)] * 3, others=0.0, blocks=[(1.0, 1.0)] * 3)
        at, edges = 2.0, [(0.0, 0.0)]
        pulses = [(2.0, 1)] * PLAN.steps + [(on_s, round(1.2 / on_s)) for on_s in (0.02, 0.2) for _ in range(2)]
        for on_s, count in pulses:
            start = at
            for _ in range(count):
                edges += [(at, 1.0), (at + on_s, 0.0)]
                at += 2 * on_s
            off, at = at - on_s, at - on_s + PLAN.hold_s
            pulse = Pulse(start, off, at, count * on_s, on_s)
            (self.played.steps if count == 1 else self.played.trains).append(pulse)
        times = np.arange(0.0, at, 0.005)
        starts = np.array([edge for edge, _ in edges])
        shares = np.array([share for _, share in edges])
        share = shares[np.searchsorted(starts, times, side="right") - 1]
        done = np.concatenate(([0.0], np.cumsum(np.diff(starts) * shares[:-1])))
        place = np.searchsorted(starts, times, side="right") - 1
        integral = done[place] + shares[place] * (times - starts[place])
        self._rows = {
            c.key: Series(array("d", times), array("d", f(times, share, integral))) for c, f in channels.items()
        }
        self.channels = list(channels)

    def series(self, key):
        return self._rows[key]

    readings = series

    def period_s(self, _key) -> float:
        return 0.005


def seen(channels: dict[Channel, object]) -> Observed:
    rows = Rows(channels)
    topology = SimpleNamespace(headline=SimpleNamespace(channels=[c for c in channels if c.role == "total"]))
    return Observed(topology, rows.channels, rows, PLAN, rows.played)


def gauge(name: str, **more) -> Channel:
    return Channel("lab", name, "power", resolution=0.001, update_interval_s=0.005, **more)


def wave(low: float, rise: float, seed: int = 0, noise: float = 0.01):
    scatter = np.random.default_rng(seed)
    return lambda times, share, _integral: low + rise * share + noise * scatter.standard_normal(times.size)


def verdicts(channels: dict[Channel, object]) -> dict[str, str]:
    return {check.name: check.verdict for check in sum_checks(seen(channels))}


@pytest.mark.parametrize(("double", "verdict"), [(True, "failed"), (False, "passed")])
def test_what_is_added_up_twice_is_found(double, verdict) -> None:
    one, other = gauge("SOCKET_A", role="total"), gauge("SOCKET_B", role="total")
    assert verdicts({one: wave(3, 5, 1), other: wave(3, 5, 1) if double else wave(3.2, 5.1, 2)})["double"] == verdict


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, "failed"), (1.0, "passed")])
def test_a_total_that_is_added_to_its_parts_is_found(factor, verdict) -> None:
    a, b, whole = (gauge(name, role="total") for name in ("A", "B", "WHOLE"))
    channels = {
        a: wave(2, 3, 1, 0.0),
        b: wave(1, 2, 2, 0.0),
        whole: wave(3, 5, 3, 0.0) if factor > 1 else wave(9, 1, 3),
    }
    assert verdicts(channels)["double"] == verdict


@pytest.mark.parametrize(("gain", "verdict"), [(1.0, "passed"), (0.8, "failed"), (2.0, "failed")])
def test_a_counter_is_held_against_the_power_of_its_source(gain, verdict) -> None:
    counter = Channel("lab", "CARD", "energy", kind="counter", update_interval_s=0.005)
    counted = lambda times, _share, integral: gain * (3 * times + 5 * integral)  # noqa: E731 - one of a table's rows
    assert verdicts({gauge("CARD", role="total"): wave(3, 5), counter: counted})["counter"] == verdict


def test_a_sensor_that_shows_short_work_too_small_does_not_add_up() -> None:
    """The sensor misses the first tenth of a second of each pulse."""

    def slow_start(times, share, _integral):
        begun = np.maximum.accumulate(np.where(np.diff(share, prepend=0.0) > 0, times, -1.0))
        return 3 + 5 * share * (times - begun > 0.1) + 0.001 * np.random.default_rng(0).standard_normal(times.size)

    assert verdicts({gauge("IN", role="total"): slow_start})["additivity"] == "failed"
    assert verdicts({gauge("IN", role="total"): wave(3, 5, 0, 0.001)})["additivity"] == "passed"


@pytest.mark.parametrize(
    ("lost", "verdict"), [(0.0, "passed"), (0.05, "failed"), (None, "cannot_tell")], ids=["nothing", "much", "noise"]
)
def test_what_sampling_costs_is_judged_by_pairs_of_blocks(lost, verdict) -> None:
    observed = seen({gauge("IN", role="total"): wave(3, 5)})
    pairs = [(1.0, 1.2), (1.2, 1.0)] * 2 if lost is None else [(1 - lost, 1.0), (0.999 - lost, 1.0)] * 2
    observed.played.blocks[:] = pairs
    (cost,) = [check for check in sum_checks(observed) if check.name == "cost"]
    assert cost.verdict == verdict
    assert (cost.needs_s is not None) == (verdict == "cannot_tell")


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_verdict_needs_the_whole_interval_outside_to_fail_and_a_narrow_one_to_pass() -> None:
    assert judged(Interval(1.0, 0.01), 0.98, 1.02) == "passed"
    assert judged(Interval(1.05, 0.01), 0.98, 1.02) == "failed"
    assert judged(Interval(1.05, 0.04), 0.98, 1.02) == "cannot_tell"
    assert judged(Interval(1.0, 0.5), 0.98, 1.02) == "cannot_tell"
    assert judged(Interval(math.nan, math.inf), 0.98, 1.02) == "cannot_tell"


def test_an_interval_is_students_and_unknown_without_a_second_value() -> None:
    found = interval([1.0, 2.0, 3.0, math.nan])
    assert (found.value, found.half) == (2.0, pytest.approx(4.303 / 3**0.5, rel=1e-3))
    assert interval([1.0]).half == math.inf
    assert math.isnan(interval([]).value)


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        (Filter("exponential", tau_s=0.43), 0.02 / (2 * 0.43) / 12**0.5),
        (Filter("block", length_s=0.04), 0.0),
        (Filter("block", length_s=1e-6), 0.5),
    ],
)
def test_what_an_average_leaves_of_a_square_wave_is_known(shape, left) -> None:
    assert ripple(Channel("s", "c", "power", filter=shape), 0.02) == pytest.approx(left, abs=0.002)
