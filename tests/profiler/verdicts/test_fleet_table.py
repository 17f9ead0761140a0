"""A fleet's table: which results may be compared in it, and how they are ordered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.reporters import fleet as reporter
from edgeprof.reporters.terminal import Style
from edgeprof.verdicts.compare import compare
from edgeprof.verdicts.fleet_table import fleet_table
from tests.profiler.results import samples

if TYPE_CHECKING:
    from edgeprof.results import schema as s

STUDY = samples.study()
BASE = {name: samples.variant(name, workloads=[]) for name in ("baseline", "int8")}


def result(gross=0.01, *, covers="module", provenance="measured", result_id="r", status="ok", **changes) -> s.Result:
    """Return a result with a baseline and an int8 variant with half of its joules."""
    variants = []
    for name, joules in (("baseline", gross), ("int8", gross / 2)):
        energy = None if provenance == "none" else samples.energy(joules, provenance=provenance, covers=covers)
        # A copy of each struct that a test changes.
        runtime, model = (msgspec.structs.replace(part) for part in (BASE[name].runtime, BASE[name].model))
        changed = {"energy_j_per_inference": energy, "status": status, "runtime": runtime, "model": model}
        variants.append(msgspec.structs.replace(BASE[name], **changed))
    made = msgspec.structs.replace(STUDY, id=result_id, variants=variants, host=samples.host(**changes))
    made.comparisons = [compare(variants[1], variants[0])]
    made.pareto, made.recommendation = [], None
    return made


def devices(group):
    return [block.device for block in group.blocks]


def text(groups) -> str:
    return "\n".join(reporter.console_lines(groups, Style()))


def test_devices_whose_joules_cover_the_same_are_ordered_by_them() -> None:
    (group,) = fleet_table([("a", result(0.03)), ("b", result(0.01)), ("c", result(0.02))])
    assert group.is_ordered
    assert devices(group) == ["b", "c", "a"]
    assert "ordered by joules of" in text([group])


def test_callables_of_one_program_are_different_models_though_its_hash_is_one() -> None:
    results = [result(0.03), result(0.01)]
    for made, attribute in zip(results, ("small", "large"), strict=True):
        made.variants[0].model.format, made.variants[0].model.path = "python", f"detect.py:{attribute}"
    (group,) = fleet_table(list(zip("ab", results, strict=True)))
    assert not group.is_ordered
    assert devices(group) == ["a", "b"]


def test_devices_whose_joules_cover_different_things_stand_apart_with_the_reason_and_the_way_out() -> None:
    groups = fleet_table([("a", result(0.03, covers="board")), ("b", result(0.01))])
    assert [devices(group) for group in groups] == [["a"], ["b"]]
    assert not any(group.is_ordered for group in groups)
    assert "a (measured, board) and b (measured, module) are of different kinds" in text(groups)
    assert "One wall meter" in text(groups)


def test_counted_joules_stand_with_measured_ones_and_simulated_ones_never_do() -> None:
    entries = [(p, result(provenance=p)) for p in ("counter", "measured", "simulated", "estimated", "none")]
    assert [devices(group) for group in fleet_table(entries)] == [
        ["counter", "measured"], ["estimated"], ["none"], ["simulated"],
    ]  # fmt: skip


def test_ratios_are_those_that_the_device_measured_and_stand_beside_no_other_device() -> None:
    (group,) = fleet_table([("a", result(0.03)), ("b", result(0.01))])
    for block in group.blocks:
        assert [row.comparison is None for row in block.rows] == [True, False]
        assert block.rows[1].comparison == block.result.comparisons[0]


def test_devices_that_measured_different_models_are_not_ordered() -> None:
    other = result(0.01)
    other.variants[0].model = msgspec.structs.replace(other.variants[0].model, sha256="f" * 64)
    (group,) = fleet_table([("b", result(0.03)), ("a", other)])
    assert not group.is_ordered
    assert devices(group) == ["a", "b"]


def test_the_newest_result_of_the_same_work_counts() -> None:
    entries = [("a", result(0.01, result_id="new")), ("a", result(0.09, result_id="old"))]
    (group,) = fleet_table([*entries, ("a", result(0.02, result_id="mode", power_mode="25W"))])
    assert [block.result.id for block in group.blocks] == ["new", "mode"]


def test_what_was_measured_otherwise_than_on_most_devices_is_told() -> None:
    odd = result(0.01)
    for variant in odd.variants:
        variant.runtime = msgspec.structs.replace(variant.runtime, version="0.0.1", threads=1)
    (group,) = fleet_table([("a", result()), ("b", odd), ("c", result())])
    told = {block.device: block.rows[0].differs for block in group.blocks}
    assert told["a"] == told["c"] == ()
    assert any("0.0.1" in difference for difference in told["b"])
    assert "threads 1" in told["b"]


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"),
            st.sampled_from(["module", "board", "unknown", None]),
            st.sampled_from(["counter", "measured", "estimated", "simulated", "none"]),
            st.floats(1e-6, 10.0),
        ),
        max_size=8,
    )
)
def test_no_set_of_results_mixes_kinds_or_loses_a_device(picked) -> None:
    entries = [
        (device, result(gross, covers=covers, provenance=provenance)) for device, covers, provenance, gross in picked
    ]
    groups = fleet_table(entries)
    assert sorted({block.device for group in groups for block in group.blocks}) == sorted({d for d, *_ in picked})
    for group in groups:
        kinds = {
            (energy.provenance, energy.covers)
            for block in group.blocks
            for row in block.rows
            if (energy := row.variant.energy_j_per_inference) is not None
        }
        assert len({covers for _, covers in kinds}) <= 1
        assert not ({"simulated", "estimated"} & {p for p, _ in kinds} and len({p for p, _ in kinds}) > 1)
        joules = [block.joules for block in group.blocks]
        assert not group.is_ordered or joules == sorted(joules)
    for line in text(groups).splitlines():
        assert line == line.rstrip()
    reporter.page(groups, "all")
    assert reporter.csv_text(groups).count("\n") == (
        1 + 2 * sum(len(group.blocks) for group in groups) if groups else 0
    )


@pytest.mark.parametrize("name", ["<b>x</b>", "=cmd|x", "a\x1b[2J"])
def test_names_are_text_and_nothing_else(name) -> None:
    groups = fleet_table([(name, result())])
    assert "\x1b" not in text(groups)
    assert "<b>x" not in reporter.page(groups, "t")
    assert "\n=cmd" not in reporter.csv_text(groups)
