"""Opens Keras models and SavedModels for the compressors, and writes them with fixed sizes for the converter."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker.runtime import LoadError, install_command, library_version
from edgeprof_plugins.compressors.shared.silence import silence_stderr
from edgeprof_plugins.runtimes.keras import runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

REMEDY = install_command("keras-compress", "tensorflow ai-edge-litert")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what TensorFlow prints; the problems that matter are raised as exceptions."""
    with silence_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def load_errors_are_input_errors() -> Iterator[None]:
    """Raise the LoadError of a runtime as the error of a compressor."""
    try:
        yield
    except LoadError as error:
        raise InputError(error.message, remedy=error.remedy) from error


def require_tensorflow(source: Path) -> Any:
    """Return TensorFlow, after the model was searched for code.

    Raises:
        InputError: The model carries code, or is not complete.
        UnavailableError: TensorFlow is not installed, or cannot be imported.
    """
    with load_errors_are_input_errors():
        runtime.refuse_code(os.fspath(source))
    if library_version("tensorflow", *runtime.DISTRIBUTIONS) is None:
        raise UnavailableError("compressing Keras models needs TensorFlow", remedy=REMEDY)
    try:
        with quiet():
            return runtime.import_tensorflow()
    except LoadError as error:
        raise UnavailableError(error.message, remedy=REMEDY) from None


def version(tf: Any) -> str:
    """Return the name and the version of the library, for the provenance."""
    return f"tensorflow {tf.__version__}"


class FixedModel:
    """A model whose sizes are all fixed, as one function of its inputs by name.

    Args:
        tf: The module tensorflow.
        session: The open model.
        label: The name of the model for messages.
        batch: The size in place of an open first size.

    Raises:
        InputError: Another size is open.

    Attributes:
        inputs: Input name → (shape, dtype).
    """

    def __init__(self, tf: Any, session: runtime.TensorFlowSession, label: str, batch: int) -> None:
        self.tf, self.label = tf, label
        self.inputs: dict[str, tuple[tuple[int, ...], str]] = {}
        for spec in session.inputs:
            given = [batch if position == 0 and size is None else size for position, size in enumerate(spec.shape)]
            sizes = [size for size in given if isinstance(size, int)]
            if len(sizes) < len(given):
                raise InputError(
                    f"the input {spec.name} of {label} has an open size besides its batch, which TFLite needs fixed",
                    remedy="Build the network with keras.Input(shape) of fixed sizes, load its weights, and save it.",
                )
            self.inputs[spec.name] = (tuple(sizes), spec.dtype)

        def function(**tensors: Any) -> Any:
            return session.call(*(tensors[name] for name in self.inputs))

        specs = {n: tf.TensorSpec(shape, dtype, name=n) for n, (shape, dtype) in self.inputs.items()}
        self._module = tf.Module()
        self._module.loaded = session.loaded
        with quiet():
            self._concrete = tf.function(function, autograph=False).get_concrete_function(**specs)
        # Keras's own tracking of them is not understood by the converter, which would leave them variables in the file.
        self._module.tracked = list(self._concrete.graph.variables)

    @classmethod
    def open(cls, source: Path, batch: int) -> FixedModel:
        """Open a model file, or the folder of a SavedModel.

        Raises:
            InputError: The model cannot be loaded, or carries code.
            UnavailableError: TensorFlow is not installed.
        """
        tf = require_tensorflow(source)
        with load_errors_are_input_errors(), quiet():
            session = runtime.open_session(tf, os.fspath(source))
        return cls(tf, session, os.fspath(source), batch)

    def save(self, folder: Path) -> None:
        """Write a SavedModel with this one signature."""
        with quiet():
            self.tf.saved_model.save(self._module, os.fspath(folder), signatures=self._concrete)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name."""
        tensors = {name: self.tf.constant(feeds[name], dtype=dtype) for name, (_, dtype) in self.inputs.items()}
        return {name: np.array(value.numpy()) for name, value in self._concrete(**tensors).items()}
