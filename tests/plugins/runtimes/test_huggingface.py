"""Language models by transformers: small ones, made here. ``make test-runtimes`` has the library."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.errors import VariantError
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.plugins import PluginHost
from edgeprof.reporters import console
from edgeprof.roots import Roots
from edgeprof.worker.runtime import LoadOptions
from edgeprof.worker.scenario import Scenario
from edgeprof_plugins.runtimes import huggingface
from tests.plugins.language_models import CONFIG
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    # Importing PyTorch and transformers takes a minute where other programs want the processor too.
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("transformers", "torch")),
        reason="transformers and PyTorch are not both installed (make test-runtimes)",
    ),
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


def worker(target: Path, batch: int = 1, **options: str) -> Worker:
    asked = {"prompt": "24", "generate": "8", **options}
    loading = LoadOptions("cpu", 1, batch, {}, asked)
    from pathlib import Path

    return Worker(WorkerSpec(Path(huggingface.__file__), "Transformers", str(target), loading, timeout_s=250.0))


def test_a_configuration_runs_with_random_weights_which_are_marked_everywhere(
    config: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    request = BenchRequest(
        models=[ModelRequest(str(config), "sized")],
        threads=1,
        language={"prompt": 24, "generate": 8},
        language_options={"random_weights": "1"},
        windows=2,
        window_s=0.2,
        warmup_s=0.05,
    )
    result = bench(request, PluginHost.from_environment(), Roots.resolve(None, None), Watcher())
    (variant,) = result.variants
    assert [workload.name for workload in variant.workloads] == ["request", "prefill", "decode"]
    figures = variant.language
    assert (figures.architecture, figures.random_weights, figures.kv_type) == ("llama", True, "f32")
    assert figures.parameters == 260 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64
    assert figures.bits_per_weight == 32
    assert variant.model.size_bytes is None
    assert "random_weights" in [reason.code for reason in variant.reasons]
    assert "random weights" in console.render(result)
    cache = variant.memory_bytes.kv_cache
    assert cache.bytes == cache.formula_bytes == 2 * 2 * 2 * 16 * 31 * 4
    assert cache.source == "measured"


def test_a_decode_behind_a_rewound_prompt_ends_where_a_request_ends(config: Path) -> None:
    tokens = []
    for lengths in ({}, {"prompt": "14", "depth": "10"}):
        with worker(config, random_weights="1", **lengths) as running:
            running.load()
            first = running.infer({})["logits"]
            running.window(Scenario(), 0.02, "decode")
            running.window(Scenario(), 0.02, "prefill")
            assert running.infer({})["logits"] == pytest.approx(first, abs=1e-4)
            tokens.append(first)
    assert tokens[0] == pytest.approx(tokens[1], abs=1e-4)  # the same tokens, read in one piece or behind a depth


def test_likelihoods_are_those_of_the_logits_of_each_prefix(config: Path) -> None:
    with worker(config, random_weights="1", batch=2) as running:
        loaded = running.load()
        assert loaded.language["batch"] == 2
        tokens = np.arange(20, 40)
        whole = running.log_likelihoods(tokens, 1)
        assert whole[10:] == pytest.approx(running.log_likelihoods(tokens, 11), abs=1e-5)
        assert running.log_likelihoods(tokens[:12], 11)[0] == pytest.approx(whole[10], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int3"}, "int3 is not a dtype"),
        ({"prompt": "900"}, "a request of 908 tokens is beyond the context"),
    ],
)
def test_what_it_cannot_do_is_refused(config: Path, options: dict[str, str], says: str) -> None:
    with worker(config, random_weights="1", **options) as running, pytest.raises(VariantError, match=says):
        running.load()


def test_an_architecture_that_it_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    with worker(tmp_path / "config.json", random_weights="1") as running, pytest.raises(VariantError) as caught:
        running.load()
    assert "cannot be loaded" in caught.value.message
    assert "\n" not in caught.value.message
