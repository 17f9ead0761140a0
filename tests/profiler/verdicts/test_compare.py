"""Verdicts from paired windows, and which hosts may be compared."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgeprof.results import schema
from edgeprof.verdicts.compare import compare, contexts
from tests.profiler.synthetic import variant

BASE = [0.0100, 0.0103, 0.0101, 0.0099, 0.0102]


def scaled(factor, noise=0.002, seed=0):
    rng = np.random.default_rng(seed)
    return [j * factor * (1 + noise * rng.normal()) for j in BASE]


@pytest.mark.parametrize(("factor", "verdict"), [(0.5, "better"), (1.3, "worse"), (1.0, "tied"), (1.002, "tied")])
def test_verdict_by_energy(factor, verdict):
    found = compare(variant("int8", scaled(factor)), variant("baseline", BASE))
    assert found.verdict == verdict
    assert found.energy_ratio.value == pytest.approx(factor, rel=0.01)
    low, high = found.energy_ratio.ci95
    assert low < found.energy_ratio.value < high
    assert found.reason.startswith("energy")


def test_a_certain_difference_below_one_percent_does_not_matter():
    found = compare(variant("v", [j * 0.995 for j in BASE]), variant("baseline", BASE))
    assert found.verdict == "tied"
    assert "too little" in found.reason
    assert compare(variant("v", [j * 0.995 for j in BASE]), variant("b", BASE), relevant=0.001).verdict == "better"


def test_pairing_takes_drift_out_of_the_ratio():
    """Both drift by 30 % together: unpaired windows would show nothing, but paired windows show a difference of 3 %."""
    drift = np.linspace(1, 1.3, 8)
    base = [0.01 * d for d in drift]
    better = [0.0097 * d * (1 + e) for d, e in zip(drift, [1e-3, -1e-3] * 4, strict=True)]
    assert compare(variant("v", better), variant("b", base)).verdict == "better"


@pytest.mark.slow
def test_the_ratio_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(23)
    hits = 0
    for _ in range(300):
        base = list(0.01 * (1 + 0.02 * rng.normal(size=5)))
        other = list(0.009 * (1 + 0.02 * rng.normal(size=5)))
        low, high = compare(variant("v", other), variant("b", base)).energy_ratio.ci95
        hits += low <= 0.9 <= high
    assert 0.90 <= hits / 300 <= 0.99


def test_what_pairing_does_not_cancel_widens_the_ratio():
    budget = schema.Budget(repeatability=0.0, gain=0.0005, offset=0.0004, resolution=0.0001)
    plain = compare(variant("v", scaled(0.5)), variant("b", BASE))
    wide = compare(variant("v", scaled(0.5), budget=budget), variant("b", BASE, budget=budget))
    assert wide.energy_ratio.ci95[0] < plain.energy_ratio.ci95[0]
    gain_only = schema.Budget(repeatability=0.0, gain=0.005)
    same = compare(variant("v", scaled(0.5), budget=gain_only), variant("b", BASE, budget=gain_only))
    assert same.energy_ratio.ci95 == pytest.approx(plain.energy_ratio.ci95)


def test_latency_decides_where_there_is_no_energy():
    found = compare(variant("v", latencies=scaled(0.7)), variant("b", latencies=BASE))
    assert (found.energy_ratio, found.verdict) == (None, "better")
    assert found.latency_ratio.value == pytest.approx(0.7, rel=0.01)
    assert found.reason.startswith("latency")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (variant("v", BASE, rail="VDD_CPU"), "rail is VDD_CPU"),
        (variant("v", BASE, provenance="estimated"), "joules are estimated"),
        (variant("v", BASE, status="failed"), "v failed"),
        (variant("v", BASE, status="invalid"), "v is invalid"),
        (variant("v", [0.01]), "two windows"),
    ],
)
def test_not_comparable_and_why(other, words):
    found = compare(other, variant("b", BASE))
    assert found.verdict == "not_comparable"
    assert words in found.reason


def test_an_unquotable_energy_is_not_compared_but_latency_is():
    vague = variant("v", BASE, latencies=scaled(0.5))
    vague.energy_j_per_inference.gross.value = None
    found = compare(vague, variant("b", BASE, latencies=BASE))
    assert found.energy_ratio is None
    assert found.verdict == "better"
    assert "not to be quoted" in found.reason


def test_a_lost_window_costs_its_pair_only():
    other = variant("v", scaled(0.5))
    other.windows[1].energy_j = None
    found = compare(other, variant("b", BASE))
    assert found.verdict == "better"
    assert found.energy_ratio.value == pytest.approx(0.5, rel=0.01)


def test_accuracy_difference_has_newcombes_interval():
    """Newcombe 1998, table II (a), method 10: 56/70 − 48/80 = 0.20, 0.0524 to 0.3339."""
    found = compare(variant("v", BASE, accuracy=(56 / 70, 70)), variant("b", BASE, accuracy=(48 / 80, 80)))
    assert found.accuracy_difference.value == pytest.approx(0.2)
    assert found.accuracy_difference.ci95 == pytest.approx((0.0524, 0.3339), abs=1e-4)


HOST = schema.Host(
    board="Jetson Orin Nano", hostname="a", arch="aarch64", cpu="A78AE", cores=6, memory_bytes=8 * 2**30,
    kernel="5.15", os="L4T", power_mode="15W", governor="schedutil", fingerprint="sha256:1",
    context={"l4t": "36.4", "uptime": "3"},
)  # fmt: skip


def test_equal_hosts_have_no_difference():
    assert contexts(HOST, HOST) == []


@pytest.mark.parametrize(
    ("changes", "name", "forbids"),
    [
        ({"board": "Jetson AGX Orin"}, "board", True),
        ({"power_mode": "25W"}, "power_mode", True),
        ({"governor": None}, "governor", True),
        ({"memory_bytes": 4 * 2**30}, "memory_bytes", True),
        ({"kernel": "6.1"}, "kernel", False),
        ({"hostname": "b"}, "hostname", False),
        ({"context": {"l4t": "35.1", "uptime": "3"}}, "l4t", True),
        ({"context": {"l4t": "36.4"}}, "uptime", False),
        ({"fingerprint": "sha256:2"}, "fingerprint", True),
    ],
)
def test_what_differs_and_whether_it_forbids(changes, name, forbids):
    (found,) = contexts(HOST, msgspec.structs.replace(HOST, **changes))
    assert (found.name, found.forbids) == (name, forbids)


def test_a_kernels_idea_of_memory_may_vary_a_little():
    assert contexts(HOST, msgspec.structs.replace(HOST, memory_bytes=HOST.memory_bytes - 2**20)) == []


def test_a_named_difference_explains_the_fingerprint():
    found = contexts(HOST, msgspec.structs.replace(HOST, power_mode="25W", fingerprint="sha256:2", kernel="6.1"))
    assert [d.name for d in found] == ["power_mode", "kernel"]
