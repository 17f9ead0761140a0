"""Builds a TensorRT engine of a chosen precision from an ONNX model; a separate worker builds, loads and runs it once.

It is the same kind of worker as in a benchmark. A crash, a hang or a full GPU therefore affects this variant only, and
TensorRT may be installed in another Python (``python=/usr/bin/python3`` on a Jetson).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError, VariantError
from edgeprof.launch.interpreter import probe
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.reasons import Code
from edgeprof.worker.runtime import LoadOptions, library_version
from edgeprof_plugins.runtimes.tensorrt import runtime
from edgeprof_plugins.runtimes.tensorrt.build import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof.evaluation.dataset import Dataset

#: The interpreter that has the vendor's TensorRT when this Python does not.
SYSTEM_PYTHON = "/usr/bin/python3"
_INT8 = ("int8", "best")
#: Parameters that are passed to the runtime as options of the same name.
_PASSED = ("precision", "workspace_mib", "max_batch", "dla_core", "timing_cache", "calibration_cache")


class Engine(Compressor):
    """Builds a TensorRT engine of the chosen precision for this GPU."""

    name = "tensorrt"
    changes = ("precision",)
    version = "1"
    takes = ("onnx",)
    gives = "tensorrt"
    parameters = (
        Parameter("precision", "str", choices=tuple(PRECISIONS), help="of the layers; best: int8 and fp16"),
        Parameter("sparsity", "bool", default=False, help="use 2:4 sparse weights where the weights are so"),
        Parameter("tf32", "bool", default=True, help="TF32 for fp32 layers"),
        Parameter("batch", "int", default=1, minimum=1, help="batch that kernels are chosen for"),
        Parameter("max_batch", "int", minimum=1, help="largest batch of the engine"),
        Parameter("workspace_mib", "int", minimum=1, help="most memory a layer may use, MiB"),
        Parameter("dla_core", "int", minimum=0, help="number of the DLA core; layers it cannot run go to the GPU"),
        Parameter("timing_cache", "str", help="file of kernel timings, made where there is none"),
        Parameter("calibration_cache", "str", help="file of int8 scales, made where there is none"),
        Parameter("samples", "int", default=128, minimum=1, maximum=100_000, help="calibration samples used at most"),
        Parameter("device", "str", default="cuda", help="cuda, or cuda:N"),
        Parameter("python", "str", help="the Python that has TensorRT"),
        Parameter("timeout_s", "float", default=3600.0, minimum=1.0, help="seconds that a build may take"),
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        precision = parameters.get("precision")
        options = {key: str(parameters[key]) for key in _PASSED if parameters.get(key) is not None}
        options.update(
            sparsity=str(int(parameters["sparsity"])), tf32=str(int(parameters["tf32"])), cache="0", save=str(target)
        )
        with tempfile.TemporaryDirectory(prefix="edgeprof-tensorrt-") as folder:
            if precision in _INT8 and data is not None:
                options["calibration"] = str(_save_samples(data, parameters["samples"], Path(folder) / "samples.npz"))
            spec = WorkerSpec(
                runtime_file=Path(runtime.__file__),
                runtime_class=runtime.TensorRT.__qualname__,
                target=str(source.resolve()),
                options=LoadOptions(
                    device=parameters["device"],
                    threads=None,
                    batch=parameters["batch"],
                    shapes={},
                    options=options,
                ),
                python=_tensorrt_python(parameters.get("python")),
                timeout_s=parameters["timeout_s"],
                seed=seed,
                label=source.name,
            )
            with Worker(spec) as worker:
                loaded = worker.load()
        if not target.is_file():
            raise VariantError(f"TensorRT built {source.name} and left no engine", code=Code.LOAD_FAILED)
        facts: dict[str, Any] = {
            key: loaded.facts[key] for key in ("tensorrt", "gpu", "precision", "build_s", "layers")
        }
        if "calibration" in options and data is not None:
            facts |= {"calibration": data.name, "samples": min(parameters["samples"], len(data))}
            facts |= {"preprocessing": data.preprocessing, "declared": data.declared, "fingerprint": data.fingerprint()}
        return facts


def _tensorrt_python(given: str | None) -> str | None:
    """The interpreter that has TensorRT; None for the current one."""
    if given is not None:
        return probe(given)
    here = any(library_version(module, *names) is not None for module, names in runtime.MODULES)
    if here or not os.access(SYSTEM_PYTHON, os.X_OK):
        return None
    try:
        return probe(SYSTEM_PYTHON)
    except InputError:  # it cannot be probed without numpy; the current Python then reports that TensorRT is missing
        return None


def _save_samples(data: Dataset, most: int, path: Path) -> Path:
    """Save samples spread evenly over the dataset, so that a dataset sorted by class is covered completely."""
    if len(data) == 0:
        raise InputError(f"{data.name} has no samples to calibrate with")
    wanted = set(np.unique(np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(int)).tolist())
    samples: dict[str, list[Any]] = {}
    for position, batch in enumerate(data.batches(1)):
        if position in wanted:
            for name, array in batch.items():
                samples.setdefault(name or "input", []).append(array)
    arrays: dict[str, Any] = {name: np.concatenate(batch) for name, batch in samples.items()}
    np.savez(path, **arrays)
    return path
