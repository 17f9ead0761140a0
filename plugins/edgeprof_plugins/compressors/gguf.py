"""Converts GGUF models to another llama.cpp type, such as ``gguf:type=Q4_K_M``, as ``llama-quantize`` does."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.artifact import gguf
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker.runtime import install_command, library_version
from edgeprof_plugins.compressors.shared.coverage import Part, coverage, whole
from edgeprof_plugins.compressors.shared.finite import require_finite

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

#: llama.cpp's numbers for the types that need no importance matrix (llama.h, ``enum llama_ftype``).
TYPES = {
    "F32": 0,
    "F16": 1,
    "BF16": 32,
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q5_K_S": 16,
    "Q5_1": 9,
    "Q5_0": 8,
    "Q4_K_M": 15,
    "Q4_K_S": 14,
    "Q4_1": 3,
    "Q4_0": 2,
    "IQ4_NL": 25,
    "Q3_K_L": 13,
    "Q3_K_M": 12,
    "Q3_K_S": 11,
    "Q2_K": 10,
}
_EXACT = {"F32", "F16", "BF16"}


class Gguf(Compressor):
    """Gives the matrices another type; llama.cpp chooses for some of them a finer one than was asked for."""

    name = "gguf"
    version = "1"
    takes = ("gguf",)
    changes = ("precision",)
    parameters = (
        Parameter("type", "str", required=True, choices=tuple(TYPES), help="of the weights, as Q4_K_M"),
        Parameter("requantize", "bool", default=False, help="also from weights that are quantised already"),
        Parameter("threads", "int", default=0, minimum=0, help="threads that quantise; 0: as many as there are cores"),
    )

    def apply(
        self,
        source: Path,
        target: Path,
        parameters: Mapping[str, Any],
        data: Dataset | None,  # noqa: ARG002 - it needs no data
        *,
        seed: int = 0,  # noqa: ARG002 - nothing is random
    ) -> dict[str, Any]:
        kind = parameters["type"]
        header = _header(source)
        for part in _parts(source, header):
            _require_finite(source, part)
        coarse = sorted(set(header.tensor_bytes) - _EXACT)
        if coarse and not parameters["requantize"] and kind not in _EXACT:
            raise InputError(
                f"{source} is quantised already ({', '.join(coarse)}): what is lost is lost, and more would be",
                remedy="Begin with its F16 file, or write gguf:type=…,requantize=true.",
            )
        library = _quantize(source, target, TYPES[kind], parameters["threads"], allow=bool(coarse))
        after = gguf.read_header(target)
        return {
            "library": library,
            "bits_per_weight": {"before": header.bits_per_weight, "after": after.bits_per_weight},
            "tensor_bytes": after.tensor_bytes,
            "coverage": _coverage(header, after),
        }


_UNKNOWN = "a GGUF file does not hold the graph of its model"
_KEPT = "llama.cpp keeps its type"


def _coverage(before: gguf.GgufHeader, after: gguf.GgufHeader) -> dict[str, Any]:
    """The share of the weights whose type changed; matrices form one family, vectors (norms, biases) another."""
    kinds = {tensor.name: tensor.kind for tensor in after.tensors}
    parts = [
        Part(tensor.name, "matrix" if tensor.rank > 1 else "vector", tensor.weights, None) for tensor in before.tensors
    ]
    changed = whole(tensor.name for tensor in before.tensors if kinds.get(tensor.name) != tensor.kind)
    account = coverage(parts, changed, {}, _KEPT)
    account["macs"]["reason"] = _UNKNOWN
    return account


#: Types of real numbers → numpy's type; BF16 is read by its bits.
_REAL = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}


def _require_finite(source: Path, part: Path) -> None:
    for tensor in gguf.read_header(part).tensors:
        if tensor.kind in _REAL and tensor.weights:
            values = np.fromfile(part, _REAL[tensor.kind], tensor.weights, offset=tensor.start)
            if tensor.kind == "BF16":
                finite = np.where((values & 0x7F80) == 0x7F80, np.float32(np.nan), np.float32(0))
                require_finite(os.fspath(source), tensor.name, finite)
            else:
                require_finite(os.fspath(source), tensor.name, values)


def _parts(source: Path, header: gguf.GgufHeader) -> list[Path]:
    """The files of a model, of which a split one has several."""
    names = gguf.part_names(source.name, header.split[1]) if header.split is not None else None
    return [source.parent / name for name in names or [source.name]]


def _header(source: Path) -> gguf.GgufHeader:
    try:
        header = gguf.read_header(source)
        header = gguf.read_model(_parts(source, header))
    except (gguf.GgufError, OSError) as error:
        raise InputError(f"{source} {error}", remedy="Give the GGUF file of a whole model.") from None
    lack = gguf.shortcoming(header)
    if lack is not None:
        raise InputError(f"{source} {lack}", remedy="Give the GGUF file of a whole model.")
    return header


def _quantize(source: Path, target: Path, number: int, threads: int, *, allow: bool) -> str:
    """Write ``target`` with whichever installed package provides llama.cpp.

    Returns:
        The package and its version.

    Raises:
        InputError: llama.cpp cannot quantise this model.
        UnavailableError: no installed package provides llama.cpp.
    """
    paths = os.fspath(source), os.fspath(target)
    threads = threads or len(os.sched_getaffinity(0))
    for module, package, quantize in (
        ("llama_cpp", "llama-cpp-python", _with_llama_cpp_python),
        ("cyllama", "cyllama", _with_cyllama),
    ):
        version = library_version(module, package)
        if version is not None:
            if not quantize(*paths, number, threads, allow=allow) or not target.is_file():
                raise InputError(
                    f"llama.cpp cannot quantise {source} to this type",
                    remedy="Check that llama.cpp runs it (edgeprof bench), or give another type, such as Q8_0.",
                )
            return f"{package} {version}"
    raise UnavailableError(
        "gguf needs llama.cpp, and no package here brings it", remedy=install_command("llamacpp", "llama-cpp-python")
    )


def _with_llama_cpp_python(source: str, target: str, number: int, threads: int, *, allow: bool) -> bool:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = number, threads, allow
    return bool(llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)) == 0)


def _with_cyllama(source: str, target: str, number: int, threads: int, *, allow: bool) -> bool:
    from cyllama.llama import llama_cpp

    llama_cpp.disable_logging()
    params = llama_cpp.LlamaModelQuantizeParams()
    params.ftype, params.nthread, params.allow_requantize = number, threads, allow
    try:
        llama_cpp.model_quantize(source, target, params)
    except RuntimeError:
        return False
    return True
