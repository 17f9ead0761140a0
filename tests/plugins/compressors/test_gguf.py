"""GGUF models quantised by llama.cpp."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from edgeprof.artifact import gguf, recognise
from edgeprof.compression import conductor
from edgeprof.compression.variant import settings
from edgeprof.errors import InputError
from edgeprof.plugins import PluginHost
from edgeprof.testing.compressors import check_compressor
from edgeprof_plugins.compressors.gguf import Gguf
from tests.profiler.artifact import gguf_files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("llama_cpp", "cyllama")),
    reason="neither llama-cpp-python nor cyllama is installed",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "random.gguf"
    path.write_bytes(gguf_files.llama(width=256))
    return path


def test_it_keeps_the_contract_of_a_compressor(model: Path) -> None:
    check_compressor(Gguf(), model, parameters={"type": "Q8_0", "threads": 1})


def test_each_type_takes_the_bits_that_it_should(model: Path, tmp_path: Path) -> None:
    bits = {}
    for kind in ("F16", "Q8_0", "Q4_K_M", "Q4_0"):
        target = tmp_path / f"{kind}.gguf"
        facts = Gguf().apply(model, target, settings(Gguf(), {"type": kind, "threads": "1"}), None)
        header = gguf.read_header(target)
        assert facts["tensor_bytes"] == header.tensor_bytes
        assert facts["bits_per_weight"]["before"] == gguf.read_header(model).bits_per_weight
        bits[kind] = header.bits_per_weight
    assert 16 <= bits["F16"] < 16.1
    assert 8.5 <= bits["Q8_0"] < 8.6
    assert 4.5 <= bits["Q4_0"] < bits["Q4_K_M"] < 6


def test_what_is_quantised_already_is_quantised_again_only_when_asked_for(model: Path, tmp_path: Path) -> None:
    small, smaller = tmp_path / "q8.gguf", tmp_path / "q4.gguf"
    Gguf().apply(model, small, settings(Gguf(), {"type": "Q8_0"}), None)
    with pytest.raises(InputError, match=r"is quantised already \(Q8_0\)"):
        Gguf().apply(small, smaller, settings(Gguf(), {"type": "Q4_0"}), None)
    Gguf().apply(small, smaller, settings(Gguf(), {"type": "Q4_0", "requantize": "yes"}), None)
    assert "Q4_0" in gguf.read_header(smaller).tensor_bytes
    Gguf().apply(small, tmp_path / "f16.gguf", settings(Gguf(), {"type": "F16"}), None)  # nothing is lost by that


def test_a_vocabulary_and_a_type_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(gguf_files.gguf(tensors=()))
    with pytest.raises(InputError, match="the vocabulary of a language model without its weights"):
        Gguf().apply(path, tmp_path / "out.gguf", settings(Gguf(), {"type": "Q8_0"}), None)
    with pytest.raises(InputError, match="no type of gguf is named 'Q4_K_N'") as caught:
        settings(Gguf(), {"type": "Q4_K_N"})
    assert "Q4_K_M" in caught.value.remedy


def test_a_variant_is_checked_with_a_short_request(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    class Recorded(conductor.Worker):
        def __init__(self, spec: Any) -> None:
            requests.append(dict(spec.options.options))
            super().__init__(spec)

    monkeypatch.setattr(conductor, "Worker", Recorded)
    manifest = conductor.compress(recognise(str(model)), ["gguf:type=Q8_0"], PluginHost(), tmp_path / "out")
    assert [variant["status"] for variant in manifest["variants"]] == ["ok"]
    assert requests == [{"prompt": "8", "generate": "2"}]
