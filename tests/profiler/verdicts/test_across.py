"""Comparing two results: which variants correspond, and when results must not be compared at all."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.energy.uncertainty import t_quantile
from edgeprof.verdicts.across import across
from edgeprof.verdicts.compare import compare
from tests.profiler.results import samples


def scaled(factor, name="int8-static"):
    """Return the study with the joules of one variant multiplied."""
    result = samples.study()
    result.id = "20261122-0900-bbb"
    for variant in result.variants:
        if variant.name == name:
            for window in variant.windows:
                window.energy_j *= factor
    return result


def verdicts(found):
    return {p.variant.name: p.comparison.verdict for p in found.pairs}


def test_a_result_is_tied_with_itself():
    assert set(verdicts(across(samples.study(), samples.study())).values()) == {"tied"}


def test_one_variant_that_costs_more_is_worse_and_the_rest_tied():
    found = across(samples.study(), scaled(1.032))
    assert verdicts(found) == {"baseline": "tied", "int8-static": "worse", "prune(amount=0.5)": "tied"}
    ratio = found.pairs[1].comparison.energy_ratio
    assert ratio.value == pytest.approx(1.032)
    assert ratio.ci95[0] > 1


def test_a_constant_factor_has_as_good_as_no_spread_and_still_a_sane_interval():
    """Windows that differ by one factor leave a spread of rounding errors: the degrees of freedom are astronomical."""
    found = across(samples.study(), scaled(1.032), repeats=[samples.study()] * 2)
    ratio = compare(found.pairs[1].variant, found.pairs[1].baseline).energy_ratio
    assert ratio.ci95[1] - ratio.ci95[0] < 0.02
    assert t_quantile(0.975, 1e55) == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda r: setattr(r.host, "power_mode", "MAXN"), "power_mode"),
        (lambda r: setattr(r.host, "board", "Raspberry Pi 5"), "board"),
        (lambda r: setattr(r.protocol, "scenario", "offline"), "scenario"),
        (lambda r: setattr(r.protocol, "batch", 8), "batch"),
    ],
)
def test_another_context_forbids_every_verdict_and_every_ratio(change, name):
    branch = samples.study()
    change(branch)
    found = across(samples.study(), branch)
    assert [d.name for d in found.forbidden] == [name]
    for pair in found.pairs:
        assert pair.comparison.verdict == "not_comparable"
        assert name in pair.comparison.reason
        assert pair.comparison.energy_ratio is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda r: setattr(r.host, "kernel", "6.1"), "kernel"),
        (lambda r: setattr(r.protocol, "windows", 10), "windows"),
        (lambda r: setattr(r.variants[0].runtime, "version", "2.4.0"), "runtime"),
    ],
)
def test_a_lesser_difference_is_noted_and_forbids_nothing(change, name):
    branch = samples.study()
    change(branch)
    found = across(samples.study(), branch)
    assert name in [d.name for d in found.differences]
    assert found.forbidden == []
    assert "tied" in verdicts(found).values()


def test_variants_without_a_counterpart_are_named():
    found = across(samples.one(), samples.study())
    assert [p.variant.name for p in found.pairs] == ["baseline"]
    assert found.only_branch == ["resnet8 int8-static", "resnet8 prune(amount=0.5)"]
    assert across(samples.study(), samples.one()).only_baseline == found.only_branch


def test_two_results_of_one_variant_belong_together_whatever_they_are_called():
    branch = samples.one()
    branch.variants[0].name = "new"
    branch.variants[0].model.name = "resnet8-v2"
    (pair,) = across(samples.one(), branch).pairs
    assert pair.comparison.baseline == "baseline"
    assert pair.comparison.variant == "new"


def test_a_model_that_was_benched_alone_is_the_baseline_of_its_variants():
    alone, beside = samples.one(), samples.study()
    alone.variants[0].name = Path(alone.variants[0].model.path).name
    (pair,) = across(alone, beside).pairs
    assert pair.variant.name == "baseline"


def test_the_same_variant_of_another_model_is_no_counterpart_where_it_is_ambiguous():
    baseline = samples.study()
    twin = samples.variant(p50=0.005)
    twin.model.name = "mnist"
    baseline.variants.append(twin)
    branch = samples.study()
    branch.variants[0].model.name = "squeezenet"
    found = across(baseline, branch)
    assert "squeezenet baseline" in found.only_branch


@pytest.mark.parametrize(
    "paths",
    [("net.onnx", "net.tflite", "other.onnx"), ("faces.py:pipeline", "faces.py:int8", "faces.py:pruned")],
    ids=["one stem in two formats", "callables of one program"],
)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_untouched_models_of_one_name_are_each_paired_with_themselves(paths, order):
    def result(numbers):
        study = samples.one()
        study.variants = [samples.variant(name=Path(paths[k]).name, recipe=[]) for k in numbers]
        for variant, number in zip(study.variants, numbers, strict=True):
            variant.model.path, variant.model.name = paths[number], None
        return study

    comparison = across(result(range(3)), result(order))
    assert [(p.variant.name, p.baseline.name) for p in comparison.pairs] == [(Path(paths[k]).name,) * 2 for k in order]
    assert comparison.only_baseline == comparison.only_branch == []
    either = result(range(2))  # where one of them was benched beside its variants, it could be either of these
    branch = result([0, 2])
    branch.variants[0].name = "baseline"
    assert across(either, branch).pairs == []


@given(
    st.lists(st.tuples(*[st.sampled_from(["net", "net.onnx", "net.tflite", "baseline", "int8"])] * 2), max_size=5),
    st.lists(st.tuples(*[st.sampled_from(["net", "net.onnx", "net.tflite", "baseline", "int8"])] * 2), max_size=5),
)
def test_no_variant_is_the_counterpart_of_two_and_whatever_is_the_same_is_paired(before, after):
    def result(rows):
        study = samples.one()
        study.variants = [samples.variant(name=name, recipe=[]) for _, name in rows]
        for variant, (path, _) in zip(study.variants, rows, strict=True):
            variant.model.path, variant.model.name = path, None
        return study

    def known(variant):
        return Path(variant.model.path).stem, variant.name

    baseline, branch = result(before), result(after)
    comparison = across(baseline, branch)
    for side in ([p.variant for p in comparison.pairs], [p.baseline for p in comparison.pairs]):
        assert len({id(variant) for variant in side}) == len(side)
    if len(before) == len(after) == 1:
        return
    for variant in branch.variants:
        same = [v for v in baseline.variants if known(v) == known(variant)]
        if len(same) == 1 and sum(known(v) == known(variant) for v in branch.variants) == 1:
            assert [p.baseline for p in comparison.pairs if p.variant is variant] == same


def test_a_context_that_differs_can_be_forced_and_is_still_told():
    other = scaled(1.032)
    other.host.power_mode = "MAXN"
    assert set(verdicts(across(samples.study(), other)).values()) == {"not_comparable"}
    forced = across(samples.study(), other, force=True)
    assert verdicts(forced)["int8-static"] == "worse"
    assert [d.name for d in forced.forbidden] == ["power_mode"]


def test_joules_before_and_after_a_calibration_are_on_two_scales():
    other = samples.study()
    use = next(s for s in other.sensors if s.quantity in {"power", "energy"})
    use.calibration = {"gain": 1.05, "offset_w": 0.4}
    found = across(samples.study(), other)
    assert [d.name for d in found.forbidden] == [f"calibration of {use.channel}"]
    assert across(other, other).forbidden == []
