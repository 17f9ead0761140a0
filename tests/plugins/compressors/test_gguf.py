"""GGUF models quantised by llama.cpp."""

from __future__ import annotations

import gc
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.artifact import gguf, recognise
from edgeprof.compression import conductor
from edgeprof.compression.share import check_share
from edgeprof.compression.variant import settings
from edgeprof.errors import InputError, VariantError
from edgeprof.plugins import PluginHost
from edgeprof.testing.compressors import check_compressor
from edgeprof_plugins.compressors.gguf import TYPES, Gguf
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


# --- reconstruction: the weights as the package gguf (ggml-org/llama.cpp, gguf-py) decodes them -----------------------

#: Type → weights of a block and steps between its smallest and largest value; the largest error is half a step, or a
#: whole one where a block has one sign more than the other (Q4_0, Q5_0).
STEPS = {"Q8_0": (32, 254, 0.5), "Q4_1": (32, 15, 0.5), "Q5_1": (32, 31, 0.5), "Q4_0": (32, 8, 1), "Q5_0": (32, 16, 1)}
#: Type → largest error in the root of the mean square, as a share of that of the weights: about that of as many bits.
LOSSES = {"F32": 0, "F16": 1e-3, "BF16": 4e-3, "Q6_K": 0.03, "Q5_K": 0.06, "Q4_K": 0.12, "IQ4_NL": 0.15, "Q3_K": 0.25,
          "Q2_K": 0.5}  # fmt: skip


def decoded(path: Path) -> dict[str, tuple[str, Any]]:
    """Tensor → the name of its type and its values."""
    package = pytest.importorskip("gguf")
    reader = package.GGUFReader(path)
    values = {
        tensor.name: (
            tensor.tensor_type.name,
            package.quants.dequantize(np.array(tensor.data), tensor.tensor_type).reshape(-1),
        )
        for tensor in reader.tensors
    }
    reader.tensors.clear()
    del reader  # it maps the file
    gc.collect()
    return values


def with_weights(path: Path, seed: int, spread: float) -> dict[str, Any]:
    """Write random weights into a model: of very different sizes in each block, with blocks of zeros."""
    path.write_bytes(gguf_files.llama(width=256, layers=1))
    chance, content, values = np.random.default_rng(seed), bytearray(path.read_bytes()), {}
    for tensor in gguf.read_header(path).tensors:
        blocks = max(1, tensor.weights // 256)
        sizes = np.exp(spread * chance.standard_normal((blocks, 1))) * (chance.random((blocks, 1)) > 0.1)
        drawn = (sizes * chance.standard_normal((blocks, tensor.weights // blocks)) / 8).astype(np.float32).reshape(-1)
        content[tensor.start : tensor.start + drawn.nbytes] = drawn.tobytes()
        values[tensor.name] = drawn
    path.write_bytes(content)
    return values


@pytest.mark.parametrize("kind", TYPES)
def test_the_weights_of_each_type_decode_to_those_of_the_model(kind: str, tmp_path: Path) -> None:
    before = with_weights(tmp_path / "model.gguf", seed=TYPES[kind], spread=TYPES[kind] % 2)
    target = tmp_path / "variant.gguf"
    facts = Gguf().apply(tmp_path / "model.gguf", target, settings(Gguf(), {"type": kind, "threads": "1"}), None)
    after = decoded(target)
    assert set(after) == set(before)
    for name, values in before.items():
        stored, found = after[name]
        if stored in STEPS:
            size, steps, share = STEPS[stored]
            blocks = values.reshape(-1, size)
            # 32 blocks of a scale in half precision: 11 bits of the largest value.
            low, high = blocks.min(axis=1), blocks.max(axis=1)
            largest = np.abs(blocks).max(axis=1)
            span = high - low if stored.endswith("_1") else (2 * largest if stored == "Q8_0" else largest)
            limit = share * span / steps + largest * 2e-3 + 1e-7
            assert (np.abs(found.reshape(-1, size) - blocks).max(axis=1) <= limit).all()
        else:
            assert np.sqrt(np.mean((found - values) ** 2)) <= LOSSES[stored] * np.sqrt(np.mean(values**2))
    sizes = {name: values.size for name, values in before.items()}
    account = facts["coverage"]["weights"]
    assert account["total"] == sum(sizes.values())
    assert account["changed"] == sum(sizes[name] for name, (stored, _) in after.items() if stored != "F32")
    bits = {stored: gguf.bytes_of(stored, 256) for stored, _ in after.values()}
    bytes_by_hand = sum(sizes[name] * bits[stored] / 256 for name, (stored, _) in after.items())
    assert sum(facts["tensor_bytes"].values()) == bytes_by_hand
    assert facts["bits_per_weight"]["after"] == pytest.approx(8 * bytes_by_hand / account["total"])


@pytest.mark.parametrize(("value", "count"), [(np.nan, 1), (-np.inf, 3)])
def test_weights_that_are_not_finite_are_refused_with_their_number(value: float, count: int, tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    with_weights(source, 1, 0.0)
    tensor = next(tensor for tensor in gguf.read_header(source).tensors if tensor.rank > 1)
    content = bytearray(source.read_bytes())
    content[tensor.start : tensor.start + 4 * count] = np.full(count, value, np.float32).tobytes()
    source.write_bytes(content)
    with pytest.raises(InputError, match=f"NaN or infinite: {count} of {tensor.weights} in {tensor.name}"):
        Gguf().apply(source, tmp_path / "out.gguf", settings(Gguf(), {"type": "Q8_0"}), None)


def test_a_type_that_the_model_has_already_changes_nothing_and_says_so(tmp_path: Path) -> None:
    with_weights(tmp_path / "model.gguf", 1, 0.0)
    facts = Gguf().apply(tmp_path / "model.gguf", tmp_path / "o.gguf", settings(Gguf(), {"type": "F32"}), None)
    assert facts["coverage"]["weights"]["changed"] == 0
    with pytest.raises(VariantError, match=r"would change 0\.0 % of the weights"):
        check_share("gguf", "model.gguf", facts, 0.01, same=False)


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
