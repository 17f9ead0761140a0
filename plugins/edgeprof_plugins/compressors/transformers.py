"""int8 weights for language models in Hugging Face's format, by torchao and transformers.

Only weights are quantised: a dense layer converts them to the type of its input when it runs. This saves memory and
memory traffic, and no arithmetic. torchao's int4 kernels for processors keep the weights in the layout of one kind of
processor, which a safetensors file cannot hold, so that there is no int4 here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import struct
from typing import TYPE_CHECKING, Any

from edgeprof.artifact import language_folders
from edgeprof.compression.compressor import Compressor
from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker.runtime import install_command, library_version
from edgeprof_plugins.compressors.shared.coverage import EXCLUDED, Part, coverage, whole
from edgeprof_plugins.compressors.shared.magnitude import sqnr_db, worst
from edgeprof_plugins.compressors.torch.base import EXCLUDE
from edgeprof_plugins.compressors.torch.model import names, quiet
from edgeprof_plugins.compressors.torch.weight_only import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

_OUTPUT = "transformers leaves the layer that makes tokens of states in float"
_SIZE = "its rows are no multiple of the group"
_TABLE = "a table that is looked up, not multiplied"
_OTHER = "biases, norms and other constants"


class Int8Weight(Compressor):
    name = "int8-weight"
    version = "1"
    takes = ("transformers",)
    changes = ("precision",)
    weight_bits = 8
    parameters = (GROUP, EXCLUDE)

    def apply(
        self,
        source: Path,
        target: Path,
        parameters: Mapping[str, Any],
        data: Dataset | None,  # noqa: ARG002 - it needs no data
        *,
        seed: int = 0,  # noqa: ARG002 - nothing is drawn
    ) -> dict[str, Any]:
        check_folder(self.name, source)
        require_libraries(self.name, "transformers-compress", ("torch", "transformers", "torchao"))
        with one_sentence(source):
            return _quantise(source, target, parameters["group"], parameters["exclude"])


def _quantise(source: Path, target: Path, group: int, exclude: str) -> dict[str, Any]:
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, PerGroup, PerRow
    from transformers import TorchAoConfig

    original = _load(source)
    layers = {name: module for name, module in original.named_modules() if isinstance(module, torch.nn.Linear)}
    left = dict.fromkeys(names(layers, exclude, "dense layer"), EXCLUDED)
    left |= {name: _SIZE for name, layer in layers.items() if group and layer.in_features % group}
    method = Int8WeightOnlyConfig(granularity=PerGroup(group) if group else PerRow(), set_inductor_config=False)
    output = [name for name, module in layers.items() if module is original.get_output_embeddings()]
    config = TorchAoConfig(method, modules_to_not_convert=sorted({*left, *output}))
    quantised = _load(source, quantization_config=config)
    before = dict(original.named_parameters())
    sqnr: dict[str, float | None] = {}
    for name, parameter in quantised.named_parameters():
        if hasattr(parameter, "dequantize") and hasattr(parameter, "qdata"):
            values, restored = before[name].detach().float(), parameter.dequantize().detach().float()
            sqnr[name] = sqnr_db(values.numpy(), restored.numpy())
    head = original.get_output_embeddings()
    parts = [_part(name, parameter, layers, head) for name, parameter in before.items()]
    why = {f"{name}.weight": reason for name, reason in (dict.fromkeys(output, _OUTPUT) | left).items()}
    account = coverage(parts, whole(sqnr), why, _OTHER)
    quantised.save_pretrained(target)
    for path in sorted(target.glob("*.safetensors")):
        _sort_metadata(path)
    copy_texts(source, target)
    return {
        "library": f"torchao {library_version('torchao')}",
        "layers": len(sqnr),
        "left": len(layers) - len(sqnr),
        "excluded": sorted(name for name, reason in left.items() if reason == EXCLUDED),
        "sqnr_db": sqnr,
        "worst": worst(sqnr),
        "coverage": account | {"remedy": "Exclude less, or give a group that divides the rows."},
    }


def _load(source: Path, **options: Any) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype="auto", use_safetensors=True, local_files_only=True, trust_remote_code=False, **options
    ).eval()


def _part(name: str, parameter: Any, layers: Mapping[str, Any], head: Any) -> Part:
    """The part of the account that a parameter is; multiply-accumulates are counted for one token."""
    count = int(parameter.numel())
    if head is not None and parameter is head.weight:  # often the embedding too, under whose name it is stored
        return Part(name, "Linear", count, count, _OUTPUT)
    if name.removesuffix(".weight") in layers and name.endswith(".weight"):
        return Part(name, "Linear", count, count)
    if parameter.ndim == 2:
        return Part(name, "Embedding", count, 0, _TABLE)
    return Part(name, "other", count, 0, _OTHER)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, whose order differs from run to run.

    The file begins with the length of its header, a JSON object that may end in spaces (huggingface/safetensors README,
    "Format").
    """
    with path.open("r+b") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"the header of {path.name} cannot be sorted in its place")
        file.seek(8)
        file.write(text.ljust(length))


def require_libraries(name: str, extra: str, modules: Sequence[str]) -> None:
    """
    Raises:
        UnavailableError: a module is not installed.
    """
    missing = [module for module in modules if library_version(module) is None]
    if missing:
        raise UnavailableError(
            f"{name} needs {missing[0]}, which is not installed", remedy=install_command(extra, " ".join(modules))
        )


def check_folder(name: str, source: Path) -> None:
    """
    Raises:
        InputError: the folder holds no whole model, or one whose weights are quantised already.
    """
    language_folders.check(os.fspath(source), source, "transformers", random_weights=False)
    quantised = language_folders.read_config(os.fspath(source), source).get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "another method") if isinstance(quantised, dict) else "another method"
        raise InputError(
            f"{source} is quantised already (by {method}), and {name} takes weights in float",
            remedy="Begin with the model that it was made from.",
        )


@contextlib.contextmanager
def one_sentence(source: Path) -> Iterator[None]:
    """Use transformers without its network, and without its output; turn its errors into one sentence.

    Raises:
        InputError: the model cannot be used.
    """
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import transformers

            transformers.logging.set_verbosity_error()
            transformers.utils.logging.disable_progress_bar()
            yield
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, NotImplementedError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(f"{source} cannot be compressed: {lines[0]}") from error


def copy_texts(source: Path, target: Path) -> None:
    """Copy the tokenizer and the other texts of a model, except those that the target already has."""
    for path in language_folders.files_of(source, "transformers"):
        place = target / path.name
        if path.suffix != ".safetensors" and not path.name.endswith(".index.json") and not place.exists():
            shutil.copyfile(path, place)
