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
from edgeprof_plugins.runtimes.llamacpp import runtime as plugin
from edgeprof_plugins.runtimes.llamacpp.engines import Engine
from edgeprof_plugins.runtimes.llamacpp.runtime import LlamaCpp, LlamaCppSession
from tests.profiler.artifact import gguf_files
from tests.profiler.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIBRARIES = [name for name in ("llama_cpp", "cyllama") if importlib.util.find_spec(name)]
needs_library = pytest.mark.skipif(not LIBRARIES, reason="neither llama-cpp-python nor cyllama is installed")


class StrictEngine(Engine):
    """A cache of tokens that refuses what llama.cpp would: gaps, and more than its context or its batch."""

    vocabulary, context, trained_context = 100, 64, 64

    def __init__(self, *, rewinds: bool = True) -> None:
        self.cache: list[int] = []
        self.decoded: list[int] = []  # the lengths of the batches
        self.cleared = 0
        self._rewinds = rewinds
        self.is_closed = False

    def prepare(self, tokens: Sequence[int], position: int) -> list[Any]:
        parts = [tokens[start : start + 8] for start in range(0, len(tokens), 8)]
        return [(position + 8 * number, list(part)) for number, part in enumerate(parts)]

    def decode(self, batch: Any) -> None:
        position, tokens = batch
        assert position == len(self.cache)
        self.cache += tokens
        assert len(self.cache) <= self.context
        self.decoded.append(len(tokens))

    def clear(self) -> None:
        self.cache = []
        self.cleared += 1

    def rewind(self, position: int) -> bool:
        assert position <= len(self.cache)
        if self._rewinds:
            del self.cache[position:]
        return self._rewinds

    def next_token(self) -> tuple[int, Any]:
        return self.cache[-1], None

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("lengths", [Lengths(20, 5, 0), Lengths(20, 5, 10), Lengths(1, 2, 3), Lengths(3, 1, 0)])
def test_phases_in_any_order_do_all_their_tokens_at_their_own_depth(lengths: Lengths) -> None:
    engine = StrictEngine()
    session = LlamaCppSession("m", engine, lengths, {})
    session.run({})
    request = list(engine.cache)
    assert len(request) == lengths.needed - 1
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


def test_a_model_that_keeps_a_state_has_no_decode_of_its_own() -> None:
    session = LlamaCppSession("m", StrictEngine(rewinds=False), Lengths(4, 3, 0), {})
    assert [workload.name for workload in session.workloads()] == ["request", "prefill"]
    assert "cannot be taken back" in session.facts["decode"]
    engine = StrictEngine(rewinds=False)
    with pytest.raises(LoadError, match="cannot be taken back to a depth"):
        LlamaCppSession("m", engine, Lengths(4, 3, 2), {})
    assert engine.is_closed


def test_each_request_says_when_each_of_its_tokens_came() -> None:
    session = LlamaCppSession("m", StrictEngine(), Lengths(4, 3, 0), {})
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
    assert recognise(str(model)).detail == "llama, 0.08224 M parameters, 32 bits a weight"


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
        assert loaded.language == {
            "prompt_tokens": 24,
            "generated_tokens": 8,
            "depth": 0,
            "context": 256,
            "kv_type": "f16",
            "method": "phase-windows",
        }
        units = {}
        for workload in loaded.workloads:
            window = running.window(Scenario(), 0.05, workload.name)
            units[workload.name] = (window.span.count / window.calls, window.span.unit)
            requests = running.token_times()
            assert len(requests) == (window.calls if workload.name == "request" else 0)
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
@pytest.mark.parametrize(
    ("device", "lengths", "says"),
    [
        ("npu", {}, "llama.cpp has no device npu"),
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
    assert figures.ttft_s.samples == variant.workloads[0].count
    assert figures.closure.time.value == pytest.approx(1.0, abs=0.5)
