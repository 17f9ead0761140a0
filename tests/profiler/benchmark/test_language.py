"""A language model on a virtual board whose power differs between reading a prompt and generating tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.benchmark import language
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost
from edgeprof.results import document, schema
from tests.profiler.benchmark import virtual_device
from tests.profiler.benchmark.toy_language import POWER, Toy
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from pathlib import Path

PROMPT, GENERATE = 40, 21


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> schema.Result:
    return virtual_device.measure(
        Toy,
        {"plain": "toy:0.004:0.01:1", "leaking": "toy:0.004:0.01:1.5"},
        POWER["idle"],
        tmp_path_factory.mktemp("language"),
        Watcher(),
        language={"prompt": PROMPT, "generate": GENERATE},
        windows=4,
        window_s=1.0,
        idle_s=2.0,
        warmup_s=0.05,
    )


def test_joules_per_prompt_token_and_per_output_token_are_those_of_each_phases_power(result: schema.Result) -> None:
    for variant in result.variants:
        assert [(w.name, w.unit, w.units_per_call) for w in variant.workloads] == [
            ("request", "request", 1),
            ("prefill", "prompt token", PROMPT),
            ("decode", "output token", GENERATE - 1),
        ]
        for workload in variant.workloads[1:]:
            seconds = sum(window.end_s - window.start_s for window in workload.windows)
            truth = POWER[workload.name] * seconds / workload.count
            gross, net = workload.energy_j_per_unit.gross, workload.energy_j_per_unit.net
            assert gross.value == pytest.approx(truth, rel=0.01, abs=gross.expanded_uncertainty)
            above_idle = truth * (1 - POWER["idle"] / POWER[workload.name])
            assert net.value == pytest.approx(above_idle, rel=0.01, abs=net.expanded_uncertainty)


def test_the_phases_add_up_to_the_request_unless_a_request_does_more(result: schema.Result) -> None:
    plain, leaking = (variant.language.closure for variant in result.variants)
    assert plain.time.value == pytest.approx(1.0, abs=0.01)
    assert plain.energy.value == pytest.approx(1.0, abs=0.05)
    # A request of 160 ms of prefill and 20 · 15 ms of decode, whose phases alone take 160 + 200 ms.
    assert leaking.time.value == pytest.approx(360 / 460, abs=0.01)
    assert leaking.time.value < plain.time.value


@pytest.mark.parametrize(
    ("value", "ci95", "doubted"),
    [(1.2, (1.15, 1.25), True), (0.8, (0.7, 0.9), True), (1.2, (0.9, 1.5), False), (1.01, (1.005, 1.015), False)],
)
def test_phases_that_do_not_add_up_beyond_their_interval_are_told(
    value: float, ci95: tuple[float, float], *, doubted: bool
) -> None:
    ratio = schema.Ratio(value=value, ci95=ci95)
    told = language.closure_doubts(schema.Closure(energy=ratio, time=None))
    assert [reason.code for reason in told] == ["phases_do_not_add_up"] * doubted
    assert language.closure_doubts(schema.Closure()) == language.closure_doubts(None) == []


def test_the_times_of_tokens_come_from_the_requests_in_the_windows(result: schema.Result) -> None:
    for variant, output_s in zip(result.variants, (0.01, 0.015), strict=True):
        figures = variant.language
        assert (figures.prompt_tokens, figures.generated_tokens, figures.depth) == (PROMPT, GENERATE, 0)
        requests = variant.latency_s.samples
        assert requests == variant.workloads[0].count - 4  # the first of each window wakes the model up
        assert figures.ttft_s.samples == figures.tpot_s.samples == requests
        assert figures.itl_s.samples == requests * (GENERATE - 1)
        assert figures.ttft_s.p50 == pytest.approx(0.004 * PROMPT, rel=0.01)
        assert figures.tpot_s.p50 == pytest.approx(output_s, rel=0.01)
        whole = variant.latency_s.mean
        assert figures.ttft_s.mean + (GENERATE - 1) * figures.tpot_s.mean == pytest.approx(whole, rel=0.01)


def test_a_result_of_a_language_model_is_read_back_as_it_was_written(result: schema.Result) -> None:
    assert document.from_json(document.to_json(result)) == result


def test_quantiles_are_quoted_only_where_ten_samples_lie_beyond_them() -> None:
    assert language.summarise([]) is None
    few = language.summarise([1.0, 2.0, 3.0])
    assert (few.mean, few.p50, few.p90, few.p99, few.samples) == (2.0, 2.0, None, None, 3)
    many = language.summarise(np.arange(1000.0))
    assert (many.p90, many.p99) == (pytest.approx(899.1), pytest.approx(989.01))


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ({"prompt": 600, "context": 512}, "need a context of 728 tokens, and --context is 512"),
        ({"prompt": 0}, "--prompt 0 is no number of tokens from 1 on"),
        ({"depth": -1}, "--depth -1 is no number of tokens from 0 on"),
    ],
)
def test_lengths_that_cannot_be_are_refused_in_a_sentence(lengths: dict[str, int], says: str) -> None:
    from edgeprof.worker.language import read_lengths
    from edgeprof.worker.runtime import LoadError, LoadOptions

    asked = {name: str(count) for name, count in lengths.items()}
    with pytest.raises(LoadError, match=says):
        read_lengths(LoadOptions("cpu", None, 1, {}, asked))


def test_lengths_are_refused_for_a_model_that_is_no_language_model(tmp_path: Path) -> None:
    from edgeprof.benchmark.request import candidates

    (tmp_path / "app.py").write_text("def f():\n    return 1\n")
    asked = BenchRequest(models=[ModelRequest(f"{tmp_path / 'app.py'}:f")], language={"prompt": 4})
    with pytest.raises(InputError, match=r"--prompt is meant for language models, and .*app\.py:f is none"):
        candidates(asked, PluginHost.from_environment())
