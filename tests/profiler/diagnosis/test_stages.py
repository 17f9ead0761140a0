"""The stage that holds a pipeline's frame rate back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.diagnosis.finding import Evidence
from edgeprof.diagnosis.stages import frame_rate
from tests.profiler.cli.in_process import verb

seconds = st.dictionaries(st.sampled_from(["decode", "detect", "draw", "match"]), st.floats(1e-6, 1.0), min_size=1)


@given(seconds)
def test_the_slowest_stage_is_named_with_what_it_allows_at_most(stages):
    (finding,) = frame_rate(Evidence(stages=stages))
    slowest = max(stages, key=stages.__getitem__)
    assert (
        f"{slowest} holds the frame rate back: it " in finding.sentence
        or f"{slowest} is the slowest: it" in finding.sentence
    )
    assert finding.number == pytest.approx(stages[slowest] / sum(stages.values()))
    assert (finding.status == "warn") == finding.sentence.startswith(f"{slowest} holds the frame rate back")


def test_a_stage_whose_model_is_a_parameter_is_to_be_varied():
    times = {"decode": 0.004, "detect": 0.020}
    (finding,) = frame_rate(Evidence(stages=times, stage_models=("detect",)))
    assert "it takes 20.0 ms of a frame's 24.0 ms (83%); the frame allows 41.7 frames/s" in finding.sentence
    assert "however fast it were, 250 frames/s" in finding.sentence
    assert "edgeprof sweep with recipes such as detect=int8-static" in finding.fix
    (finding,) = frame_rate(Evidence(stages=times))
    assert "make that a parameter detect" in finding.fix


def test_a_variant_is_compared_stage_by_stage():
    now, before = {"decode": 0.004, "detect": 0.010}, {"decode": 0.004, "detect": 0.020}
    _, finding = frame_rate(Evidence(stages=now, baseline_stages=before))
    assert finding.sentence == "a frame takes 0.58 × its baseline's time (decode 1.00 ×, detect 0.50 × theirs)"


def test_diagnose_names_the_slowest_stage_of_a_pipeline(tmp_path, capfd):
    app = tmp_path / "app.py"
    app.write_text(
        "import edgeprof\n"
        "def count(n):\n    return lambda frame: sum(range(n))\n"
        "pipeline = edgeprof.pipeline([('quick', count(10)), ('slow', count(100000))], source=lambda: range(4))\n"
    )
    diagnose = verb(capfd, "diagnose")
    assert diagnose(f"{app}:pipeline", "--measure", "0.1", "-q").stdout.startswith("slow holds the frame rate back")
    lost = diagnose(f"{app}:pipeline", "--frames", "clip.mp4", code=3).stderr
    assert "there are no frames at clip.mp4" in lost
