"""What a frame saves with a variant, within one run and between runs of their own."""

from __future__ import annotations

import pytest

from edgeprof.results import schema as s
from edgeprof.verdicts.savings import savings
from tests.profiler.results import samples

FRAME_J, DETECT_J = 0.150, 0.100


def _pipeline(name: str, detect_j: float, *, stage: str = "detect", **changes) -> s.Variant:
    """A frame whose detector needs ``detect_j`` joules, twice a frame, and whose other stages need 50 mJ."""
    frame_j = FRAME_J - DETECT_J + detect_j
    call_j = samples.energy(detect_j / 2)
    return samples.variant(
        name,
        frame_j,
        0.05,
        stages=[
            s.Stage(
                stage, 2.0, energy_j_per_call=s.StageEnergy("measured", "VDD_IN", "module", call_j.gross, call_j.net)
            )
        ],
        workloads=[
            s.Workload("frame", "frame", 1, 300, samples.energy(frame_j), samples.latency(0.05), 20.0),
            s.Workload(stage, "call", 1, 600, call_j, samples.latency(0.02), 40.0),
        ],
        **changes,
    )


def test_runs_of_their_own_are_compared_with_the_first():
    first = samples.result([_pipeline("baseline", DETECT_J)])
    others = [samples.result([_pipeline(name, 0.06)], id=f"20261122-0000-{name}") for name in ("int8", "fp16")]
    saved = savings([first, *others])
    assert [(saving.variant.name, saving.baseline) for saving in saved] == [
        (result.variants[0].name, first.variants[0]) for result in others
    ]
    for saving in saved:
        assert saving.baseline_j == pytest.approx(FRAME_J)
        assert saving.frame.value == pytest.approx(0.04, rel=0.05)
        assert saving.stages["detect"].value == pytest.approx(0.04, rel=0.05)
        assert saving.frame.is_certain


def test_an_interval_between_runs_is_wider_than_within_one():
    baseline, variant = _pipeline("baseline", DETECT_J), _pipeline("int8", 0.06)
    within = samples.result([baseline, variant])
    within.comparisons = [samples.comparison("int8", 0.11 / 0.15, 0.8)]
    (inside,) = savings([within])
    (between,) = savings([samples.result([baseline]), samples.result([variant], id="20261122-0000-abc")])
    assert between.frame.high - between.frame.low > inside.frame.high - inside.frame.low


@pytest.mark.parametrize("changes", [{"stage": "classify"}, {"energy_j_per_inference": None}])
def test_nothing_is_said_of_another_application_or_without_joules(changes):
    first = samples.result([_pipeline("baseline", DETECT_J)])
    assert savings([first, samples.result([_pipeline("int8", 0.06, **changes)], id="20261122-0000-abc")]) == []


def test_a_run_on_another_board_saves_nothing():
    first = samples.result([_pipeline("baseline", DETECT_J)])
    elsewhere = samples.result([_pipeline("int8", 0.06)], id="20261122-0000-abc", host=samples.host(board="other"))
    assert savings([first, elsewhere]) == []
