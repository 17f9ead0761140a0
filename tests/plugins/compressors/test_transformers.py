"""Language models in Hugging Face's format with fewer bits: by torchao, and by onnxruntime-genai's model builder.

``make test-runtimes`` has the libraries (``language``); without them only refusals are tested.
"""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.compression.variant import make_variant, parse_chain, settings
from edgeprof.errors import InputError, UnavailableError, VariantError
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.plugins import PluginHost
from edgeprof.testing.compressors import check_compressor
from edgeprof.worker.runtime import LoadOptions
from edgeprof_plugins.compressors.onnxruntime_genai import OnnxRuntimeGenai
from edgeprof_plugins.compressors.transformers import Int8Weight
from tests.plugins.language_models import byte_llama

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)  # importing PyTorch and transformers takes long on a busy machine
TEXT = b"Joules per token, and how likely each token is: " * 4


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed (make test-runtimes)")


TORCHAO = needs("transformers", "torch", "torchao")
GENAI = needs("transformers", "torch", "onnxruntime_genai", "onnx_ir")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_llama(tmp_path_factory.mktemp("models") / "hf")


def likelihoods(path: Path) -> Any:
    """The log-likelihoods of a text, by the runtime of the folder's format."""
    kind = recognise(str(path)).format
    runtime = PluginHost.from_environment().of("runtimes")[kind]()
    options = LoadOptions("cpu", 1, 1, {}, {"prompt": "24", "generate": "8", "chunk": "96"})
    with Worker(WorkerSpec.of(runtime, str(path), options, timeout_s=250.0)) as worker:
        loaded = worker.load()
        tokens, _ = worker.text_tokens(TEXT)
        return worker.log_likelihoods(tokens[:96], 49), loaded


@TORCHAO
def test_int8_weights_keep_the_contract_of_a_compressor(folder: Path) -> None:
    check_compressor(Int8Weight(), folder)


@TORCHAO
def test_int8_weights_take_a_byte_each_and_leave_a_text_nearly_as_likely(folder: Path, tmp_path: Path) -> None:
    variant, (step,) = make_variant(
        recognise(str(folder)), parse_chain("int8-weight:exclude=*.down_proj"),
        PluginHost.from_environment().of("compressors"), tmp_path / "out",
    )  # fmt: skip
    facts = step["facts"]
    assert facts["layers"] == 12
    assert facts["excluded"] == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    assert {"excluded", "biases, norms and other constants"} < set(facts["coverage"]["left"])
    assert 0.4 < facts["coverage"]["macs"]["share"] < 1
    assert all(value > 35 for value in facts["sqnr_db"].values())  # 8 bits: about 6 dB a bit, less the range's reserve
    assert facts["worst"] in facts["sqnr_db"]
    original, _ = likelihoods(folder)
    quantised, loaded = likelihoods(variant.path)
    assert 0 < np.abs(original - quantised).mean() < 0.1
    rows = 2 * (64 + 32 + 32 + 64 + 128 + 128)  # torchao also stores a zero point of one byte for each row
    assert loaded.language["tensor_bytes"]["int8"] == facts["coverage"]["weights"]["changed"] + rows
    assert variant.size_bytes < recognise(str(folder)).size_bytes


@TORCHAO
def test_what_is_quantised_already_and_layers_that_do_not_exist_are_refused(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8"
    Int8Weight().apply(folder, target, settings(Int8Weight(), {"group": "32"}), None)
    with pytest.raises(InputError, match=r"is quantised already \(by torchao\)"):
        Int8Weight().apply(target, tmp_path / "again", settings(Int8Weight(), {}), None)
    with pytest.raises(InputError, match="is no dense layer of this model"):
        Int8Weight().apply(folder, tmp_path / "other", settings(Int8Weight(), {"exclude": "nothing"}), None)
    with pytest.raises(VariantError, match=r"would change 0\.0 % of the weights"):
        make_variant(
            recognise(str(folder)), parse_chain("int8-weight:group=4096"),
            PluginHost.from_environment().of("compressors"), tmp_path / "out", isolated=False,
        )  # fmt: skip


@GENAI
@pytest.mark.parametrize(("kind", "most"), [("int4", 1.5), ("int8", 0.1)])
def test_the_model_builder_writes_a_folder_that_its_runtime_finds_about_as_likely(
    folder: Path, tmp_path: Path, kind: str, most: float
) -> None:
    variant, (step,) = make_variant(
        recognise(str(folder)), parse_chain(f"onnxruntime-genai:type={kind},compute=float32"),
        PluginHost.from_environment().of("compressors"), tmp_path / "out",
    )  # fmt: skip
    assert variant.format == "onnxruntime-genai"
    assert step["facts"]["coverage"]["weights"]["share"] > 0.7
    original, _ = likelihoods(folder)
    built, _ = likelihoods(variant.path)
    assert 0 < np.abs(original - built).mean() < most


@GENAI
def test_the_model_builder_keeps_the_contract_of_a_compressor(folder: Path) -> None:
    check_compressor(OnnxRuntimeGenai(), folder, parameters={"type": "int4", "block": 32})


@GENAI
def test_each_weight_that_the_builder_packed_is_the_original_within_one_step(folder: Path, tmp_path: Path) -> None:
    import onnx
    from safetensors.numpy import load_file

    target = tmp_path / "int4"
    OnnxRuntimeGenai().apply(folder, target, settings(OnnxRuntimeGenai(), {"type": "int4"}), None)
    model = onnx.load(str(target / "model.onnx"))
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = load_file(folder / "model.safetensors")
    compared = 0
    for node in model.graph.node:
        name = f"model.layers.{node.name.split('.')[1][:1]}.mlp.down_proj.weight" if "down_proj" in node.name else ""
        if node.op_type != "MatMulNBits" or name not in weights:
            continue
        packed, scales = arrays[node.input[1]], np.abs(arrays[node.input[2]]).reshape(len(weights[name]), -1)
        nibbles = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1).astype(np.float32)
        restored = (nibbles - 8) * arrays[node.input[2]].reshape(*packed.shape[:2], 1)
        error = np.abs(restored.reshape(weights[name].shape) - weights[name]).reshape(*packed.shape[:2], -1)
        assert (error <= 1.01 * scales[..., None]).all()
        compared += 1
    assert compared == 2


def test_a_model_of_an_architecture_that_the_builder_lacks_and_a_strange_block_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="block=48 is no power of two"):
        OnnxRuntimeGenai().apply(tmp_path, tmp_path / "out", settings(OnnxRuntimeGenai(), {"block": "48"}), None)


@pytest.mark.parametrize("compressor", [Int8Weight(), OnnxRuntimeGenai()])
def test_without_weights_or_without_the_library_there_is_one_sentence(compressor: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="without its weights"):
        compressor.apply(tmp_path, tmp_path / "out", settings(compressor, {}), None)


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path: Path) -> None:
    from edgeprof_plugins.compressors.transformers import require_libraries

    with pytest.raises(UnavailableError, match="int8-weight needs no_such_module, which is not installed") as caught:
        require_libraries("int8-weight", "transformers-compress", ("json", "no_such_module"))
    assert "torchao" in caught.value.remedy or "edgeprof[transformers-compress]" in caught.value.remedy
