"""The checks on figures whose verdict is known, among them the figures of the Raspberry Pi study."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeprof.diagnosis.checks import Evidence, amdahl, diagnose, headline, predicted_speed_up
from edgeprof.diagnosis.graph import Graph, Layer


def layer(name: str, macs: int, precision: str = "float32", weights: Any = None, **more: Any) -> Layer:
    values = np.random.default_rng(0).standard_normal((32, 16)) if weights is None else weights
    settings = {"stored": "int8" if precision.startswith("int8") else "float32", "channels": 32, **more}
    return Layer(name=name, op="Conv", macs=macs, precision=precision, weights=lambda: values, **settings)


def by_name(evidence: Evidence) -> dict[str, Any]:
    return {finding.check: finding for finding in diagnose(evidence)}


def test_dynamic_quantisation_of_a_resnet50_is_a_no_op() -> None:
    """2048 × 100 of 4.1 G multiply-accumulates: 0.005 %, 1.0001 × at best (the seed study's 280.6 → 279.2 ms)."""
    graph = Graph([layer("convs", 4_100_000_000 - 204_800), layer("fc", 204_800, "int8-dynamic")], nodes=100)
    found = headline(diagnose(Evidence(graph=graph, instructions="asimddp")))
    assert found is not None
    assert (found.check, found.status) == ("int8-share", "fail")
    assert found.number == pytest.approx(5e-5, rel=0.01)
    assert "at most 1.00 × faster" in found.sentence
    assert "int8-static" in (found.fix or "")


def test_unstructured_zeros_do_not_make_it_faster_and_channels_would() -> None:
    weights = np.random.default_rng(1).standard_normal((64, 64))
    scattered = np.where(np.abs(weights) < 0.93, 0, weights)  # 65 %
    graph = Graph([layer("conv", 10**8, weights=scattered)], nodes=10)
    found = by_name(Evidence(graph=graph))["sparsity"]
    assert found.status == "fail"
    assert "predicted speed-up 1.00" in found.sentence
    assert "prune-structured" in (found.fix or "")
    whole = weights.copy()
    whole[:40] = 0
    found = by_name(Evidence(graph=Graph([layer("conv", 10**8, weights=whole)], nodes=10)))["sparsity"]
    assert found.status == "warn"
    assert "62% in whole channels" in found.sentence


def test_static_quantisation_that_falls_to_chance_is_a_configuration_error() -> None:
    """From 88 % to 2 %: wrong preprocessing must be the first cause that is named."""
    graph = Graph([layer("conv", 10**8, "int8")], nodes=10)
    recipe = [{"compressor": "int8-static", "facts": {"calibration": "x", "samples": 10, "preprocessing": "sha256:a"}}]
    found = diagnose(Evidence(graph=graph, recipe=recipe, preprocessing="sha256:b", agreement=(0.02, 256)))
    assert [f.check for f in found if f.status == "fail"] == ["preprocessing", "agreement"]
    assert "configuration error" in found[1].sentence
    assert by_name(Evidence(graph=graph, recipe=recipe))["calibration"].status == "warn"
    assert by_name(Evidence(agreement=(0.8, 256)))["agreement"].status == "warn"
    assert by_name(Evidence(agreement=(0.99, 256)))["agreement"].status == "ok"


def test_what_was_pruned_to_death_is_not_called_a_configuration_error() -> None:
    found = by_name(Evidence(agreement=(0.1, 256), recipe=[{"compressor": "prune", "facts": {}}]))["agreement"]
    assert "configuration" not in found.sentence


@pytest.mark.parametrize(
    ("evidence", "check", "status"),
    [
        (Evidence(sqnr_db={"a": 25.0, "b": 9.0}), "sqnr", "fail"),
        (Evidence(sqnr_db={"a": 25.0, "b": 15.0}), "sqnr", "warn"),
        (Evidence(sqnr_db={"a": 25.0}), "sqnr", "ok"),
        (Evidence(clipped={"a": 0.2}), "clipping", "fail"),
        (Evidence(clipped={"a": 0.2}, agreement=(0.99, 200)), "clipping", "warn"),
        (Evidence(dead={"a": 0.9}), "dead-range", "warn"),
        (Evidence(batch_error=0.2), "batch", "fail"),
        (Evidence(engine=("qnnpack", "fbgemm")), "engine", "fail"),
        (Evidence(graph=Graph([layer("c", 10**8)], 9, training=["bn"])), "eval-mode", "fail"),
        (Evidence(graph=Graph([layer("c", 10**8)], 9, batch_norms=["bn"])), "batch-norms", "warn"),
        (Evidence(graph=Graph([layer("c", 10**8, "int8")], 9), instructions=""), "instructions", "warn"),
        (Evidence(graph=Graph([layer("c", 10**8, "int8")], 9), instructions="asimddp"), "instructions", "ok"),
        (Evidence(graph=Graph([layer("c", 10**8, "int16x8")], 9)), "kernels", "fail"),
        (Evidence(graph=Graph([layer("c", 10**8, channels=13), layer("d", 9)], 9)), "channels", "warn"),
        (Evidence(graph=Graph([layer("c", 1000)], 9)), "launch-bound", "warn"),
        (Evidence(graph=Graph([layer("c", 10**6)], 9), latency_s=40e-6), "launch-bound", "warn"),
        (Evidence(graph=Graph([layer("c", 1000), layer("d", None)], 9)), "launch-bound", "unknown"),
        (Evidence(costly={"dtype=float32": ("computing in float32", 1.0, 2.0)}), "library-call", "warn"),
        (Evidence(costly={"dtype=float32": ("computing in float32", 1.0, 0.25)}), "library-call", "warn"),
        (Evidence(costly={"dtype=float32": ("computing in float32", 1.0, 0.99)}), "library-call", "ok"),
        (Evidence(resident={"mmap=0": ("reading the file", 100, 80)}), "library-memory", "warn"),
        (Evidence(resident={"mmap=0": ("reading the file", 100, 110)}), "library-memory", "ok"),
        (Evidence(size=(50, 40), baseline_size=(100, 90), speed_up=1.01), "memory-only", "warn"),
        (Evidence(size=(100, 90), baseline_size=(100, 90)), "size", "warn"),
    ],
)
def test_each_check_has_its_threshold(evidence: Evidence, check: str, status: str) -> None:
    assert by_name(evidence)[check].status == status


def test_nothing_known_says_nothing() -> None:
    assert diagnose(Evidence()) == []
    assert headline([]) is None


def test_the_worst_comes_first_and_the_headline_is_not_something_fine() -> None:
    evidence = Evidence(sqnr_db={"a": 25.0}, agreement=(0.02, 200), clipped={"a": 0.02})
    assert [f.check for f in diagnose(evidence)] == ["agreement", "clipping", "sqnr"]
    assert headline(diagnose(Evidence(sqnr_db={"a": 30.0}))) is None


def test_amdahl_and_the_prediction_agree_on_one_layer_of_two() -> None:
    assert amdahl(0.5, 3.0) == pytest.approx(1.5)
    assert amdahl(1.0, float("inf")) == float("inf")
    half = Graph([layer("a", 100, "int8"), layer("b", 100)], nodes=2)
    assert predicted_speed_up(half, None, dot=True) == pytest.approx(1.5)
    assert predicted_speed_up(Graph([layer("a", 50)], 1), half, dot=False) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("steps", "fix"),
    [
        ([{"compressor": "int8-static"}], "what gives b in float"),
        ([], "what gives b in float"),
        ([{"compressor": "prune-structured"}, {"compressor": "fp16"}], "a smaller amount for prune-structured"),
        ([{"compressor": "low-rank"}, {"compressor": "cluster"}], "energy or rank for low-rank and a larger n for cl"),
        ([{"compressor": "distill", "facts": {"trained_on": "train.npz"}}], None),
    ],
)
def test_what_to_do_about_noise_depends_on_what_made_it(steps, fix):
    """Leaving a layer in float does not restore a pruned channel; a retrained network has different activations."""
    found = [f for f in diagnose(Evidence(sqnr_db={"a": 25.0, "b": 9.0}, recipe=steps)) if f.check == "sqnr"]
    assert [fix in (one.fix or "") for one in found] == ([] if fix is None else [True])


def test_operators_that_take_their_time_are_not_bound_by_their_start():
    graph = Graph([layer("c", 10**6)], 9)
    assert not [
        f
        for latency in (None, 1e-3)
        for f in diagnose(Evidence(graph=graph, latency_s=latency))
        if f.check == "launch-bound"
    ]
