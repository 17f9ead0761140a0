"""GGUF models by llama.cpp: the phases of a request, on an engine that checks every step, and on the real library."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.plugins import PluginHost
from edgeprof.roots import Roots
from edgeprof.worker.language import Lengths
from edgeprof.worker.runtime import LoadError, LoadOptions
from edgeprof.worker.scenario import Scenario
from edgeprof.worker.token_engine import EngineSession
from edgeprof_plugins.runtimes.llamacpp import runtime as plugin
from edgeprof_plugins.runtimes.llamacpp.engines import LlamaEngine
from edgeprof_plugins.runtimes.llamacpp.runtime import LlamaCpp
from tests.plugins.language_models import check_language_runtime
from tests.plugins.runtimes import numpy_llama
from tests.profiler.artifact import gguf_files
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIBRARIES = [name for name in ("llama_cpp", "cyllama") if importlib.util.find_spec(name)]
needs_library = pytest.mark.skipif(not LIBRARIES, reason="neither llama-cpp-python nor cyllama is installed")


class StrictEngine(LlamaEngine):
    """A cache of tokens that refuses what llama.cpp would: gaps, and more than its context or its batch."""

    vocabulary, context, trained_context, at_once = 100, 64, 64, 8

    def __init__(self, *, rewinds: bool = True, sequences: int = 1) -> None:
        self.sequences = sequences
        self.caches: list[list[int]] = [[] for _ in range(sequences)]
        self.decoded: list[int] = []  # the lengths of the batches
        self.cleared = 0
        self._rewinds = rewinds
        self.is_closed = False

    @property
    def cache(self) -> list[int]:
        return self.caches[0]

    def pack(self, entries: Sequence[Any]) -> Any:
        assert len(entries) <= self.at_once
        return entries

    def decode(self, batch: Any) -> None:
        for token, position, sequence, _ in batch:
            assert position == len(self.caches[sequence])
            self.caches[sequence].append(token)
            assert len(self.caches[sequence]) <= self.context
        self.wanted = [token for token, _, _, wanted in batch if wanted]
        self.decoded.append(len(batch))

    def clear(self) -> None:
        self.caches = [[] for _ in self.caches]
        self.cleared += 1

    def remove(self, sequence: int, position: int) -> bool:
        assert position <= len(self.caches[sequence])
        if self._rewinds:
            del self.caches[sequence][position:]
        return self._rewinds

    def logits(self, index: int) -> Any:
        row = np.zeros(self.vocabulary, np.float32)
        row[self.wanted[index]] = 1.0
        return row

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("lengths", [Lengths(20, 5, 0), Lengths(20, 5, 10), Lengths(1, 2, 3), Lengths(3, 1, 0)])
def test_phases_in_any_order_do_all_their_tokens_at_their_own_depth(lengths: Lengths) -> None:
    engine = StrictEngine()
    session = EngineSession("m", engine, lengths, {})
    session.run({})
    request = list(engine.cache)
    assert len(request) == lengths.length - 1
    calls = {workload.name: session.bind_workload(workload.name, {}) for workload in session.workloads()}
    chance = np.random.default_rng(1)
    for name in [*calls, *chance.choice(list(calls), 30)]:
        engine.decoded, before = [], engine.cleared
        calls[name]()
        prompt_end = lengths.depth + lengths.prompt
        if name == "decode":
            assert engine.decoded == [1] * lengths.decodes
            assert engine.cleared == before
        else:
            assert sum(engine.decoded) == lengths.prompt + (lengths.decodes if name == "request" else 0)
            assert engine.cleared == before + (lengths.depth == 0)  # no prompt is left from the call before
        assert engine.cache == request[: prompt_end if name == "prefill" else None]


@pytest.mark.parametrize("lengths", [Lengths(20, 5, 0, batch=3), Lengths(7, 2, 10, batch=2)])
def test_a_batch_of_requests_gives_each_its_own_tokens(lengths: Lengths) -> None:
    engine = StrictEngine(sequences=lengths.batch)
    session = EngineSession("m", engine, lengths, {})
    units = {workload.name: workload.units_per_call for workload in session.workloads()}
    assert units == {
        "request": lengths.batch,
        "prefill": lengths.batch * lengths.prompt,
        "decode": lengths.batch * lengths.decodes,
    }
    for name in ("request", "prefill", "decode", "request", "decode", "prefill"):
        session.bind_workload(name, {})()
        expected = lengths.depth + lengths.prompt + (0 if name == "prefill" else lengths.decodes)
        assert {len(cache) for cache in engine.caches} == {expected}
    assert len({tuple(cache) for cache in engine.caches}) == lengths.batch
    assert session.language()["batch"] == lengths.batch


def test_a_model_that_keeps_a_state_has_no_decode_of_its_own() -> None:
    session = EngineSession("m", StrictEngine(rewinds=False), Lengths(4, 3, 0), {})
    assert [workload.name for workload in session.workloads()] == ["request", "prefill"]
    assert "cannot be taken back" in session.facts["decode"]
    engine = StrictEngine(rewinds=False)
    with pytest.raises(LoadError, match="cannot be taken back to a depth"):
        EngineSession("m", engine, Lengths(4, 3, 2), {})
    assert engine.is_closed


def test_each_request_says_when_each_of_its_tokens_came() -> None:
    session = EngineSession("m", StrictEngine(), Lengths(4, 3, 0), {})
    for _ in range(2):
        session.run({})
    counts, seconds = session.take_token_times()
    assert list(counts) == [3, 3]
    assert list(seconds[:3]) == sorted(seconds[:3])
    assert [len(part) for part in session.take_token_times()] == [0, 0]


def test_without_a_library_the_remedy_installs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "library_version", lambda *_: None)
    status = LlamaCpp().availability()
    assert status.version is None
    assert "edgeprof[llamacpp]" in status.remedy
    with pytest.raises(LoadError, match="llama-cpp-python is not installed"):
        plugin._engine(None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "random.gguf"
    path.write_bytes(gguf_files.llama())
    return path


def test_the_model_of_these_tests_is_whole(model: Path) -> None:
    assert recognise(str(model)).detail == "llama, 0.08224 M parameters, 32 bits per weight"


def worker(model: Path, library: str, device: str = "cpu", **lengths: str) -> Worker:
    options = LoadOptions(device, 1, 1, {}, {"prompt": "24", "generate": "8", "library": library, **lengths})
    return Worker(WorkerSpec(plugin_file(), "LlamaCpp", str(model), options, timeout_s=60.0))


def plugin_file() -> Path:
    from pathlib import Path

    return Path(plugin.__file__)


@needs_library
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_is_loaded_and_asked_for_each_workload(model: Path, library: str) -> None:
    with worker(model, library) as running:
        loaded = running.load()
        told = {name: value for name, value in loaded.language.items() if not name.endswith("_bytes")}
        assert told == {
            "prompt_tokens": 24,
            "generated_tokens": 8,
            "depth": 0,
            "batch": 1,
            "context": 256,
            "kv_type": "f16",
            "method": "phase-windows",
        }
        units = {}
        for workload in loaded.workloads:
            window = running.window(Scenario(), 0.05, workload.name)
            units[workload.name] = (window.span.count / window.calls, window.span.unit)
            requests = running.token_times()
            assert len(requests) == (window.calls - sum(window.waking) if workload.name == "request" else 0)
            assert all(len(request) == 8 for request in requests)
        assert units == {"request": (1, "request"), "prefill": (24, "prompt token"), "decode": (7, "output token")}


@needs_library
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_decode_behind_a_rewound_prompt_ends_where_a_request_ends(model: Path, library: str) -> None:
    """Run in a process of its own: the library's own state is not for this one."""
    tokens = []
    for lengths in ({}, {"prompt": "14", "depth": "10"}, {"prompt": "300", "generate": "8", "context": "512"}):
        with worker(model, library, **lengths) as running:
            running.load()
            first = running.infer({})["next_token"]
            running.window(Scenario(), 0.02, "decode")
            running.window(Scenario(), 0.02, "prefill")
            assert running.infer({})["next_token"] == first
            tokens.append(int(first[0]))
    assert tokens[0] == tokens[1]  # the same tokens, read in one piece or behind a depth


@needs_library
@pytest.mark.parametrize("library", LIBRARIES)
def test_it_finds_a_text_as_likely_as_the_reference_does(tmp_path: Path, library: str) -> None:
    path = tmp_path / "reads.gguf"
    path.write_bytes(gguf_files.llama(tokenizer=True))
    text = "Joules per token, and how likely each token is: " * 3
    with worker(path, library, chunk="128") as running:
        running.load()
        tokens, begin = running.text_tokens(text.encode())
        assert begin is None
        assert len(tokens) == len(text)  # its tokens are bytes
        for first, count in ((1, 20), (65, 128)):
            found = running.log_likelihoods(tokens[:count], first)
            reference = numpy_llama.log_likelihoods(numpy_llama.weights_of(path), list(tokens[:count]), first)
            assert np.abs(found - reference).max() < 0.002
        first = running.infer({})["next_token"]
        running.log_likelihoods(tokens[:128], 65)
        running.window(Scenario(), 0.01, "decode")
        assert running.infer({})["next_token"] == first


@needs_library
@pytest.mark.parametrize("library", LIBRARIES)
def test_conforms_and_finds_a_text_as_likely_as_the_reference_does(tmp_path: Path, library: str) -> None:
    path = tmp_path / "reads.gguf"
    path.write_bytes(gguf_files.llama(tokenizer=True))
    tokens = list(range(40, 120))
    reference = list(numpy_llama.log_likelihoods(numpy_llama.weights_of(path), tokens, 20))
    options = LoadOptions("cpu", 1, 1, {}, {"prompt": "24", "generate": "8", "chunk": "128", "library": library})
    check_language_runtime("llamacpp", path, options, (tokens, reference))


@needs_library
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_file_that_is_not_mapped_is_not_resident_beside_its_weights(tmp_path: Path, library: str) -> None:
    path = tmp_path / "wide.gguf"
    path.write_bytes(gguf_files.llama(width=512, layers=2))
    weights = path.stat().st_size
    with worker(path, library) as mapped, worker(path, library, mmap="0") as read:
        for running, words in ((mapped, "mapped from the file"), (read, "read into memory")):
            assert running.load().facts["weights"] == words
        assert mapped.memory().mapped - read.memory().mapped > weights / 2
        assert read.memory().anonymous - mapped.memory().anonymous > weights / 2


@needs_library
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_batch_and_another_type_of_cache_are_what_was_asked_for(model: Path, library: str) -> None:
    options = LoadOptions("cpu", 1, 2, {}, {"prompt": "24", "generate": "8", "library": library, "kv": "f32"})
    with Worker(WorkerSpec(plugin_file(), "LlamaCpp", str(model), options, timeout_s=60.0)) as running:
        loaded = running.load()
        assert (loaded.language["batch"], loaded.language["context"], loaded.language["kv_type"]) == (2, 512, "f32")
        counts = {workload.name: running.window(Scenario(), 0.01, workload.name) for workload in loaded.workloads}
        assert {name: window.span.count // window.calls for name, window in counts.items()} == {
            "request": 2,
            "prefill": 48,
            "decode": 14,
        }


@needs_library
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("device", "lengths", "says"),
    [
        ("cpu", {"kv": "q9"}, "--kv q9 is not a type of llama.cpp's KV cache"),
        ("npu", {}, "llama.cpp has no device npu"),
        ("cpu", {"mmap": "no"}, "mmap=no is neither 0 nor 1"),
        ("cpu", {"promt": "3"}, "there is no option promt for a language model"),
        ("cpu", {"context": "16"}, "need a context of 32 tokens, and --context is 16"),
    ],
)
def test_what_it_cannot_do_is_refused(model: Path, library: str, device: str, lengths: dict, says: str) -> None:
    from edgeprof.errors import VariantError

    with worker(model, library, device, **lengths) as running, pytest.raises(VariantError, match=says):
        running.load()


@needs_library
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_file_that_names_tensors_of_another_model_is_refused_in_a_sentence(tmp_path: Path, library: str) -> None:
    from edgeprof.errors import VariantError

    path = tmp_path / "strange.gguf"
    path.write_bytes(gguf_files.gguf())
    with worker(path, library) as running, pytest.raises(VariantError, match=r"cannot be loaded: \S") as caught:
        running.load()
    assert "\n" not in caught.value.message


@needs_library
def test_a_bench_of_a_gguf_file_has_phases_times_and_bits(model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    request = BenchRequest(
        models=[ModelRequest(str(model), "random")],
        threads=1,
        language={"prompt": 24, "generate": 8},
        windows=2,
        window_s=0.2,
        warmup_s=0.05,
    )
    (variant,) = bench(request, PluginHost.from_environment(), Roots.resolve(None, None), Watcher()).variants
    assert variant.runtime.name == "llamacpp"
    assert [workload.name for workload in variant.workloads] == ["request", "prefill", "decode"]
    figures = variant.language
    assert (figures.architecture, figures.parameters, figures.bits_per_weight) == ("llama", 82240, 32.0)
    assert figures.ttft_s.samples == variant.latency_s.samples
    assert figures.closure.time is not None  # how near to 1 depends on what else this machine does
    memory = variant.memory_bytes
    # Keys and values of 2 layers, 2 heads of 16 numbers, 256 tokens, two bytes each.
    assert memory.kv_cache.formula_bytes == 2 * 2 * 2 * 16 * 256 * 2
    assert memory.anonymous + memory.mapped <= memory.peak_rss <= memory.load_peak + (64 << 20)


@needs_library
def test_rows_of_a_sweep_are_judged_by_a_text_and_compared_only_with_their_own_lengths(
    tmp_path: Path, monkeypatch
) -> None:
    from edgeprof.evaluation.perplexity import read_text

    monkeypatch.setenv("EDGEPROF_DATA_DIR", str(tmp_path / "data"))
    path, words = tmp_path / "reads.gguf", tmp_path / "words.txt"
    path.write_bytes(gguf_files.llama(tokenizer=True))
    words.write_text("Each token is as likely as the model says. " * 40)
    request = BenchRequest(
        models=[ModelRequest(str(path), "a"), ModelRequest(str(path), "b")],
        threads=1,
        language={"generate": 2},
        sweep={"prompt": [4, 8]},
        text=read_text(words, chunks=2),
        windows=2,
        window_s=0.05,
        warmup_s=0.05,
    )
    result = bench(request, PluginHost.from_environment(), Roots.resolve(None, None), Watcher())
    assert [variant.name for variant in result.variants] == ["a prompt=4", "a prompt=8", "b prompt=4", "b prompt=8"]
    assert [variant.language.prompt_tokens for variant in result.variants] == [4, 8, 4, 8]
    assert [(one.variant, one.baseline) for one in result.comparisons] == [
        ("b prompt=4", "a prompt=4"),
        ("b prompt=8", "a prompt=8"),
    ]
    reference = numpy_llama.log_likelihoods(numpy_llama.weights_of(path), list(words.read_bytes()[:512]), 257)
    for variant in result.variants:
        found = variant.language.perplexity
        assert (found.tokens, found.chunk, found.text) == (510, 512, "words.txt")
        assert variant.accuracy.metric == "perplexity"
        assert variant.accuracy.value == found.value
    assert np.log(result.variants[0].language.perplexity.value) == pytest.approx(-reference.mean(), abs=0.5)
    assert result.comparisons[0].perplexity_ratio.value == pytest.approx(1.0)
