"""Pruning and weight sharing of Keras models: .keras stays .keras, and .h5 stays .h5."""

from __future__ import annotations

import os
import tempfile
import zipfile
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Compressor
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.keras.inventory import Inventory, Kernel
from edgeprof_plugins.compressors.keras.model import load_errors_are_input_errors, quiet, require_tensorflow, version
from edgeprof_plugins.compressors.shared import kmeans, magnitude
from edgeprof_plugins.compressors.shared.kmeans import codebook, nearest
from edgeprof_plugins.compressors.shared.magnitude import Pruning, sqnr_db, worst
from edgeprof_plugins.runtimes.keras import runtime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset

#: The time in the entries of an archive, so that the same model gives the same bytes; the first that a zip can store.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class KernelMethod(Compressor):
    """Changes the kernels of a model."""

    version = "1"
    takes = ("keras",)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del data, seed
        tf = require_tensorflow(source)
        with load_errors_are_input_errors(), quiet():
            session = runtime.open_session(tf, os.fspath(source))
            inventory = Inventory(session.loaded, lambda: _trace(tf, session))
        if not inventory.kernels:
            raise InputError(
                f"{self.name} finds no weights that it could change in {source}", remedy="Start from the float model."
            )
        changed, why, facts = self.change(inventory.kernels, parameters)
        with quiet():
            _save(session.loaded, source, target)
        return {"library": version(tf), **facts, "coverage": inventory.by_names(changed, why)}

    @abstractmethod
    def change(
        self, kernels: Sequence[Kernel], parameters: Mapping[str, Any]
    ) -> tuple[list[str], dict[str, str], dict[str, Any]]:
        """Change the variables of kernels.

        Returns:
            The names of the changed kernels; the name of a kernel → why it was left; facts for the provenance.
        """


class Prune(KernelMethod):
    """Sets the share ``amount`` of the weights, those with the smallest magnitudes, to zero."""

    name = "prune"
    changes = ("sparsity",)
    parameters = magnitude.PARAMETERS

    def change(
        self, kernels: Sequence[Kernel], parameters: Mapping[str, Any]
    ) -> tuple[list[str], dict[str, str], dict[str, Any]]:
        pruning = Pruning.of(parameters, lambda: (_values(kernel) for kernel in kernels))
        for kernel in kernels:
            kernel.variable.assign(pruning.prune(kernel.name, _values(kernel)))
        why = dict.fromkeys(pruning.changed, "it has as many zeros already")
        return [name for name, changed in pruning.changed.items() if changed], why, pruning.facts()


class Cluster(KernelMethod):
    """Replaces each layer's weights with the ``n`` values of a codebook (``shared.kmeans``)."""

    name = "cluster"
    changes = ("values",)
    parameters = (kmeans.COUNT,)

    def change(
        self, kernels: Sequence[Kernel], parameters: Mapping[str, Any]
    ) -> tuple[list[str], dict[str, str], dict[str, Any]]:
        n, changed = parameters["n"], []
        sqnr: dict[str, float | None] = {}
        for kernel in kernels:
            values = _values(kernel)
            if values.size <= n:
                continue
            codes = codebook(values, n)
            shared = codes[nearest(values, codes)].astype(values.dtype)
            sqnr[kernel.name] = sqnr_db(values, shared)
            changed += [kernel.name] if (shared != values).any() else []
            kernel.variable.assign(shared)
        why = {kernel.name: f"it has no more than {n} values" for kernel in kernels}
        return changed, why, {"layers": len(sqnr), "n": n, "sqnr_db": sqnr, "worst": worst(sqnr)}


def _values(kernel: Kernel) -> npt.NDArray[Any]:
    return np.array(kernel.variable.numpy())


def _trace(tf: Any, session: runtime.TensorFlowSession) -> None:
    """Run the model symbolically for one sample."""
    specs = []
    for spec in session.inputs:
        sizes = list(spec.shape)
        if sizes and sizes[0] is None:
            sizes[0] = 1
        specs.append(tf.TensorSpec(sizes, spec.dtype))
    session.function.get_concrete_function(*specs)


def _save(model: Any, source: Path, target: Path) -> None:
    """Write the model in the format of ``source``; the same model gives the same bytes."""
    if not zipfile.is_zipfile(source):
        model.save(os.fspath(target.with_suffix(".h5")))
        target.with_suffix(".h5").replace(target)
        return
    with tempfile.TemporaryDirectory(prefix="edgeprof-keras-") as folder:
        saved = Path(folder) / "model.keras"
        model.save(os.fspath(saved))
        with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(source) as before, target.open("wb") as file:
            dated = set(before.namelist()) & {"metadata.json"}  # it holds the time of saving
            with zipfile.ZipFile(file, "w") as packed:
                for name in sorted(archive.namelist()):
                    content = (before if name in dated else archive).read(name)
                    packed.writestr(zipfile.ZipInfo(name, _EPOCH), content)
