"""``bench --profile-ops``: with and without a number, from the command line to the result and its table."""

from __future__ import annotations

import pytest

import edgeprof
from edgeprof.benchmark.operators import KEPT, OUTSIDE
from edgeprof.cli.bench import command
from edgeprof.reporters import console, html_page, markdown


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [(["--profile-ops", "m.onnx"], KEPT), (["m.onnx", "--profile-ops=3"], 3), (["m.onnx"], None)],
)
def test_the_number_may_be_left_out_and_takes_no_model_for_one(arguments, kept):
    context = command.make_context("bench", list(arguments))
    assert context.params["profile_ops"] == kept
    assert context.params["models"] == ("m.onnx",)


def test_a_bench_shows_where_the_time_goes_and_that_joules_are_attributed(onnx_model, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("EDGEPROF_LOCK_DIR", str(tmp_path))
    result = edgeprof.bench(
        str(onnx_model), windows=1, window_s=0.05, warmup_s=0.0, idle_s=0.0, profile_ops=1, save=False,
        estimate_power_w=5.0, progress=False,
    )  # fmt: skip
    (variant,) = result.variants
    assert variant.operators[-1].name == OUTSIDE
    assert sum(one.share for one in variant.operators) == pytest.approx(1)
    assert sum(one.seconds for one in variant.operators) == pytest.approx(variant.latency_s.mean)
    gross = variant.energy_j_per_inference.gross.value
    assert sum(one.energy_j_attributed for one in variant.operators) == pytest.approx(gross)
    assert variant.memory_bytes.runtime_rss < variant.memory_bytes.peak_rss
    for text in (console.render(result), markdown.render([result]), html_page.render([result])):
        assert OUTSIDE in text
        assert "attributed by their share of the time" in " ".join(text.split())
