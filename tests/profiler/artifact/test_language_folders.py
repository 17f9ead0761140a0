"""Folders of language models: which are recognised, and which are refused before anything is loaded."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.artifact import recognise
from edgeprof.artifact.language_folders import check
from edgeprof.benchmark.request import BenchRequest, ModelRequest, candidates
from edgeprof.errors import EdgeprofError, InputError
from edgeprof.plugins import PluginHost

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"model_type": "llama", "hidden_size": 8}


def safetensors(numbers: int = 4) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4 * numbers)


WHOLE: dict[str, bytes] = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": safetensors(),
    "tokenizer.json": b"{}",
}


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def without(*names: str, **more: bytes) -> dict[str, bytes]:
    return {name: content for name, content in WHOLE.items() if name not in names} | {
        name.replace("__", "."): content for name, content in more.items()
    }


def config(**changes: Any) -> bytes:
    return json.dumps({**CONFIG, **changes}).encode()


def test_a_whole_folder_is_one_model_of_its_own_files(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", WHOLE | {"pytorch_model.bin": b"pickle", "README.md": b"#"})
    artifact = recognise(str(folder))
    assert (artifact.format, artifact.target) == ("transformers", str(folder))
    assert sorted(file.name for file in artifact.files) == sorted(WHOLE)
    assert artifact.size_bytes == sum(map(len, WHOLE.values()))
    check(str(folder), folder, "transformers", random_weights=False)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("genai_config.json", "model.onnx"), "onnxruntime-genai"),
        (("openvino_model.xml", "openvino_model.bin", "config.json"), "openvino-genai"),
        (("config.json", "model.bin", "vocabulary.json"), "ctranslate2"),
    ],
)
def test_folders_of_other_libraries_are_told_apart(tmp_path: Path, names: tuple[str, ...], expected: str) -> None:
    assert recognise(str(folder_of(tmp_path / "m", dict.fromkeys(names, b"{}")))).format == expected


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (without("tokenizer.json"), "without its tokenizer"),
        (without("config.json"), r"holds weights \(model.safetensors\) without the model's config.json"),
        (without("model.safetensors"), r"without its weights \(\*.safetensors\)"),
        (without("model.safetensors", pytorch_model__bin=b"x"), "pytorch_model.bin, a pickle"),
        (without(config__json=config(auto_map={"AutoModel": "evil.py"})), "wants to run code"),
        (without(config__json=b"[1]"), "names no model_type"),
        (without(config__json=b"{"), "config.json is no JSON"),
        (without(model__safetensors=safetensors()[:-1]), "model.safetensors is cut off or damaged"),
        (without(model__safetensors=safetensors() + b"x"), "model.safetensors is cut off or damaged"),
        (without(model__safetensors=b"\xff" * 16), "model.safetensors is cut off or damaged"),
        (without(model__safetensors=b""), "model.safetensors is cut off or damaged"),
        (
            WHOLE | {"model.safetensors.index.json": b'{"weight_map": {"w": "model-00002-of-00002.safetensors"}}'},
            "lacks model-00002-of-00002.safetensors",
        ),
        (WHOLE | {"model.safetensors.index.json": b"{}"}, "names no files"),
    ],
)
def test_what_is_not_whole_or_runs_code_is_refused_in_a_sentence(
    tmp_path: Path, files: dict[str, bytes], says: str
) -> None:
    folder = folder_of(tmp_path / "m", files)
    with pytest.raises(InputError, match=says) as caught:
        check(str(folder), folder, recognise(str(folder)).format, random_weights=False)
    assert str(folder) in caught.value.message
    assert caught.value.remedy
    assert "\n" not in caught.value.message


def test_a_bare_configuration_needs_to_be_asked_for(tmp_path: Path) -> None:
    bare = tmp_path / "config.json"
    bare.write_bytes(WHOLE["config.json"])
    artifact = recognise(str(bare))
    assert (artifact.format, artifact.size_bytes) == ("transformers", None)
    with pytest.raises(InputError, match="configuration of a language model without its weights") as caught:
        check(str(bare), bare, "transformers", random_weights=False)
    assert "--random-weights" in caught.value.remedy
    check(str(bare), bare, "transformers", random_weights=True)
    whole = folder_of(tmp_path / "m", WHOLE)
    with pytest.raises(InputError, match="has weights"):
        check(str(whole), whole, "transformers", random_weights=True)
    (tmp_path / "other.json").write_bytes(b'{"model": 1}')
    with pytest.raises(InputError):
        recognise(str(tmp_path / "other.json"))


def test_flags_for_language_models_are_refused_for_others(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def f():\n    return 1\n")
    model = ModelRequest(f"{tmp_path / 'app.py'}:f")
    for asked, flag in (
        ({"language_options": {"kv": "q8_0"}}, "--kv"),
        ({"language_options": {"random_weights": "1"}}, "--random-weights"),
        ({"language_options": {"prefill_threads": "2"}}, "--threads N:M"),
        ({"sweep": {"batch": [1, 2]}}, "--batch with a list"),
        ({"sweep": {"prompt": [1, 2]}}, "--prompt"),
    ):
        with pytest.raises(InputError, match=f"{flag} is meant for language models"):
            candidates(BenchRequest(models=[model], **asked), PluginHost.from_environment())


def test_random_weights_of_a_file_that_has_its_own_are_refused(tmp_path: Path) -> None:
    from tests.profiler.artifact import gguf_files

    (tmp_path / "m.gguf").write_bytes(gguf_files.llama())
    request = BenchRequest(models=[ModelRequest(str(tmp_path / "m.gguf"))], language_options={"random_weights": "1"})
    with pytest.raises(EdgeprofError, match=r"--random-weights is for a bare config.json|no runtime"):
        candidates(request, PluginHost.from_environment())
