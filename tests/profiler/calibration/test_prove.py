"""``doctor --prove`` on virtual boards and virtual time: healthy ones pass, and each fault that is put in is found."""

from __future__ import annotations

import bisect
import json
import math

import pytest

from edgeprof.calibration import prove as proving
from edgeprof.calibration.observed import Interval, interval
from edgeprof.calibration.proof import judged, ripple
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.sensing.proofs import Proofs
from edgeprof.sensing.sensor import Channel, Filter
from edgeprof.simulation.chip import BlockAverage, EnergyCounter, Ina3221
from edgeprof.simulation.live import LiveBoard
from edgeprof.simulation.source import Source
from tests.profiler.virtual import VirtualTime

IDLE_W, LOAD_W = 4.0, 10.0


class Turned(Source):
    """A load that sets the board's power, and counts its work: one loop for each second of all cores."""

    def __init__(self) -> None:
        self.now = lambda: 0.0
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

    def level(self, time: float) -> float:
        return IDLE_W + LOAD_W * self._shares[max(0, bisect.bisect_right(self._times, time) - 1)]

    def integral(self, time: float) -> float:
        at = max(0, bisect.bisect_right(self._times, time) - 1)
        return self._joules[at] + (IDLE_W + LOAD_W * self._shares[at]) * (time - self._times[at])


@pytest.fixture
def prove(tmp_path):
    """Proves a virtual board, quickly by default; ``spoil`` gets each rail's converter before it is used."""

    def call(board: str, spoil=lambda _rail, converter: converter, *, quick: bool = True, **options) -> proving.Proof:
        load = Turned()
        live = LiveBoard(board, tmp_path / "tree", load)
        make = live._converter
        live._converter = lambda rail: spoil(rail, make(rail))
        live._obey = lambda: None
        with VirtualTime(live) as clock:
            load.now = clock.now
            return proving.prove(
                options.pop("host", None) or PluginHost(only=["ina3221", "hwmon", "rapl", "pmic"]),
                Roots.resolve(live.directory),
                clock=clock,
                load=lambda: load,
                activity=dict,
                kept=Proofs(tmp_path / "data"),
                quick=quick,
                **options,
            )

    return call


def failed(proof: proving.Proof) -> set[tuple[str, str]]:
    return {(check.name, check.subject) for check in proof.checks if check.verdict == "failed"}


@pytest.mark.parametrize(
    "board",
    [
        "jetson-nano", "jetson-tx2", "jetson-orin-nano", "jetson-agx-orin", "jetson-thor", "raspberry-pi-5", "x86-rapl",
    ],
)  # fmt: skip
def test_a_healthy_board_passes(prove, board) -> None:
    proof = prove(board)
    assert failed(proof) == set()
    if board not in {
        "jetson-tx2",
        "raspberry-pi-5",
    }:  # coarse steps, and looks far apart: less than a minute may not do
        assert proof.verdict == "passed"
        assert proof.believable < 0.03


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
    """It counts what flowed 0.4 s ago."""

    def advance(self, end, energy, steady=None) -> None:
        super().advance(end, lambda time: energy(max(self._start, time - 0.4)))


class Aliasing(Ina3221):
    """It looks for a millisecond every 0.1 s, and averages nothing."""

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
    """The driver takes the shunt for one that is so many times smaller, and shows that much more current."""

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


@pytest.mark.parametrize(
    ("board", "spoil", "found"),
    [
        ("jetson-orin-nano", become(StuckChip, "VDD_IN"), ("answers", "VDD_IN")),
        ("jetson-orin-nano", become(StuckChip, "VDD_CPU_GPU_CV"), ("parts", "VDD_IN")),
        ("jetson-nano", become(StuckChip, "POM_5V_CPU"), ("answers", "POM_5V_CPU")),
        ("x86-rapl", become(StuckCounter, "package-0"), ("answers", "package-0")),
        ("jetson-orin-nano", wrong_shunt(2.0, "VDD_IN"), ("parts", "VDD_IN")),
        ("jetson-orin-nano", wrong_shunt(0.5, "VDD_IN"), ("parts", "VDD_IN")),
        ("jetson-orin-nano", wrong_shunt(2.0, "VDD_CPU_GPU_CV"), ("parts", "VDD_IN")),
        ("jetson-orin-nano", wrong_shunt(0.5, "VDD_CPU_GPU_CV"), ("parts", "VDD_IN")),
        ("jetson-orin-nano", other_average, ("filter", "VDD_IN")),
        ("jetson-orin-nano", become(Aliasing, "VDD_IN"), ("aliasing", "VDD_IN")),
        ("jetson-thor", moments, ("aliasing", "VIN")),
        ("x86-rapl", become(Lagging, "package-0"), ("delay", "package-0")),
        ("x86-rapl", slow_counter, ("refresh", "package-0")),
    ],
    ids=[
        "stuck total", "stuck part", "stuck CPU rail", "stuck counter", "total twice", "total half", "part twice",
        "part half", "wrong tau", "aliasing of an average", "aliasing of a block", "lagging counter", "slow counter",
    ],
)  # fmt: skip
def test_a_fault_is_found(prove, board, spoil, found) -> None:
    proof = prove(board, spoil)
    assert found in failed(proof)
    assert proof.verdict == "failed"


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
