"""One small model, made here, through every library of language models: each must find a text equally likely.

``make test-runtimes`` has the libraries; without them there is nothing to test.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.errors import VariantError
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.plugins import PluginHost
from edgeprof.worker.runtime import LoadOptions
from edgeprof.worker.scenario import Scenario
from tests.plugins.language_models import byte_llama, check_language_runtime

if TYPE_CHECKING:
    from pathlib import Path


def has(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)


pytestmark = [
    # Importing PyTorch and transformers takes a minute where other programs want the processor too.
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not has("transformers", "torch"), reason="transformers and PyTorch are not both installed (make test-runtimes)"
    ),
]
TEXT = "Joules per token, and how likely each token is: " * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights with a tokenizer of bytes, as transformers saves it."""
    return byte_llama(tmp_path_factory.mktemp("models") / "hf")


def converted(folder: Path, library: str) -> Path:
    """The same model for another library, by the library's own converter."""
    target = folder.parent / library
    if target.exists():
        return target
    if library == "ctranslate2":
        script = "from ctranslate2.converters.transformers import main; main()"
        words = ["--model", str(folder), "--output_dir", str(target), "--copy_files", "tokenizer.json"]
        command = [sys.executable, "-c", script, *words]
    else:
        words = ["-i", str(folder), "-o", str(target), "-p", "fp32", "-e", "cpu", "-c", str(folder.parent / "cache")]
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    return target


def worker(name: str, target: Path, **options: str) -> Worker:
    runtime = PluginHost.from_environment().of("runtimes")[name]()
    asked = {"prompt": "24", "generate": "8", **options}
    return Worker(WorkerSpec.of(runtime, str(target), LoadOptions("cpu", 1, 1, {}, asked), timeout_s=250.0))


@pytest.mark.parametrize(
    ("name", "module"), [("ctranslate2", "ctranslate2"), ("onnxruntime-genai", "onnxruntime_genai")]
)
def test_a_library_finds_a_text_as_likely_as_transformers_does(folder: Path, name: str, module: str) -> None:
    if not has(module):
        pytest.skip(f"{module} is not installed (make test-runtimes)")
    found: dict[str, Any] = {}
    target = converted(folder, name)
    assert recognise(str(target)).format == name
    for runtime, path in (("transformers", folder), (name, target)):
        with worker(runtime, path, chunk="96") as running:
            loaded = running.load()
            tokens, _ = running.text_tokens(TEXT.encode())
            found[runtime] = list(tokens), running.log_likelihoods(tokens[:96], 49)
            for workload in loaded.workloads:
                window = running.window(Scenario(), 0.02, workload.name)
                assert window.span.count == window.calls * workload.units(1)
                requests = running.token_times()
                assert [len(request) for request in requests] == [8] * (
                    window.calls - sum(window.waking) if workload.name == "request" else 0
                )
            assert loaded.language["generated_tokens"] == 8
    (tokens, reference), (others, likelihoods) = found["transformers"], found[name]
    assert tokens == others
    assert np.abs(likelihoods - reference).max() < 0.002
    assert reference.std() > 0.1  # else nothing was compared


@pytest.mark.parametrize(
    ("name", "module"),
    [("transformers", "torch"), ("ctranslate2", "ctranslate2"), ("onnxruntime-genai", "onnxruntime_genai")],
)
def test_conforms(folder: Path, name: str, module: str) -> None:
    if not has(module):
        pytest.skip(f"{module} is not installed (make test-runtimes)")
    with worker("transformers", folder, chunk="96") as running:
        running.load()
        tokens, _ = running.text_tokens(TEXT.encode())
        text = [int(token) for token in tokens[:96]]
        reference = [float(value) for value in running.log_likelihoods(tokens[:96], 49)]
    target = folder if name == "transformers" else converted(folder, name)
    options = LoadOptions("cpu", 1, 1, {}, {"prompt": "24", "generate": "8", "chunk": "96"})
    check_language_runtime(name, target, options, (text, reference))


@pytest.mark.skipif(not has("openvino_genai"), reason="openvino-genai is not installed (make test-runtimes)")
def test_openvino_refuses_a_gguf_file_that_it_cannot_read_in_a_sentence(tmp_path: Path) -> None:
    from tests.profiler.artifact import gguf_files

    path = tmp_path / "strange.gguf"
    path.write_bytes(gguf_files.llama())
    with worker("openvino-genai", path) as running, pytest.raises(VariantError) as caught:
        running.load()
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("name", "module"), [("ctranslate2", "ctranslate2"), ("openvino-genai", "openvino_genai")])
def test_a_library_without_a_cache_of_its_own_refuses_a_depth(tmp_path: Path, name: str, module: str) -> None:
    if not has(module):
        pytest.skip(f"{module} is not installed (make test-runtimes)")
    with worker(name, tmp_path, depth="5") as running, pytest.raises(VariantError, match="takes no --depth"):
        running.load()
