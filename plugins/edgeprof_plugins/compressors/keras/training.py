"""Quantisation-aware training with tensorflow-model-optimization, which takes models of Keras 2 (tf_keras) only."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.calibration_data import Calibration
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.compression.progress import report
from edgeprof.errors import InputError, UnavailableError, VariantError
from edgeprof.reasons import Code
from edgeprof.worker.runtime import library_version
from edgeprof_plugins.compressors.keras.convert import BATCH, convert, stored_types
from edgeprof_plugins.compressors.keras.model import FixedModel, quiet, require_tensorflow, version
from edgeprof_plugins.runtimes.keras import runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprof.evaluation.dataset import Dataset

_REMEDY = "pip install tf-keras 'tensorflow-model-optimization>=0.8'"


class Qat(Compressor):
    """Trains with the rounding of 8-bit weights and activations in place, and converts the result to TFLite."""

    name = "qat"
    version = "1"
    takes = ("keras",)
    gives = "tflite"
    changes = ("precision", "weights")
    weight_bits = 8
    needs_data = "training"
    parameters = (
        Parameter("epochs", "int", default=3, minimum=1, maximum=10_000, help="passes over the training data"),
        Parameter("lr", "float", default=1e-4, minimum=1e-8, maximum=10.0, help="learning rate of Adam"),
        Parameter("minibatch", "int", default=64, minimum=1, maximum=65536, help="samples of one step"),
        BATCH,
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        if data is None:
            raise InputError(f"{self.name} needs training data", remedy="Add --dataset SPEC.")
        tf = require_tensorflow(source)
        keras, optimization = _libraries()
        keras.utils.set_random_seed(seed)
        with quiet():
            model = _open(keras, source)
            plain = _fixed(tf, model, source, parameters["batch"])
            try:
                prepared = optimization.quantization.keras.quantize_model(model)
            except (ValueError, RuntimeError, TypeError) as error:
                line = str(error).strip().partition("\n")[0][:300]
                raise InputError(
                    f"tensorflow-model-optimization cannot prepare {source} for training: {line}",
                    remedy="Use int8-static, which needs no training.",
                ) from error
        facts = self._train(keras, prepared, plain, parameters, data)
        trained = _fixed(tf, prepared, source, parameters["batch"])
        with tempfile.TemporaryDirectory(prefix="edgeprof-keras-") as folder:
            before = Path(folder) / "float.tflite"
            before.write_bytes(_tflite(plain, Path(folder) / "plain", quantised=False))
            target.write_bytes(_tflite(trained, Path(folder) / "trained", quantised=True))
            return {"converter": version(tf), "batch": parameters["batch"], **facts, **stored_types(before, target)}

    def _train(
        self, keras: Any, prepared: Any, plain: FixedModel, parameters: Mapping[str, Any], data: Dataset
    ) -> dict[str, Any]:
        labels = np.asarray(data.labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise InputError(f"{self.name} trains classifiers: the labels of {data.name} are no class numbers")
        batches = Calibration(data, plain.inputs, len(data)).batches(1)
        arrays = [np.concatenate([batch[name] for batch in batches]) for name in plain.inputs]
        given = arrays if len(arrays) > 1 else arrays[0]
        with quiet():
            scores = np.asarray(prepared.predict(given, batch_size=parameters["minibatch"], verbose=0))
            is_probability = bool((scores >= 0).all() and np.allclose(scores.sum(axis=-1), 1, atol=1e-3))
            prepared.compile(
                keras.optimizers.Adam(parameters["lr"]),
                keras.losses.SparseCategoricalCrossentropy(from_logits=not is_probability),
            )
        loss = float("nan")
        for epoch in range(parameters["epochs"]):
            with quiet():
                history = prepared.fit(given, labels, batch_size=parameters["minibatch"], epochs=1, verbose=0)
            loss = float(history.history["loss"][-1])
            if not np.isfinite(loss):
                raise VariantError(
                    f"{self.name} diverged in epoch {epoch + 1}: the loss is {loss}",
                    remedy=f"Lower the learning rate: {self.name}:lr={parameters['lr'] / 10:g}.",
                    code=Code.NAN_OUTPUT,
                )
            report(f"epoch {epoch + 1}/{parameters['epochs']}: loss {loss:.4f}", (epoch + 1) / parameters["epochs"])
        return {
            "trained_on": data.name,
            "samples": len(data),
            "preprocessing": data.preprocessing,
            "declared": data.declared,
            "fingerprint": data.fingerprint(),
            "labels_sha256": hashlib.sha256(labels.tobytes()).hexdigest(),
            "loss": round(loss, 6),
            "library": f"tensorflow-model-optimization {library_version('tensorflow_model_optimization')}",
        }


def _libraries() -> tuple[Any, Any]:
    """Return tf_keras and tensorflow_model_optimization.

    Raises:
        UnavailableError: One of them cannot be imported.
    """
    try:
        with quiet():
            import tensorflow_model_optimization
            import tf_keras
    except ImportError as error:
        raise UnavailableError(
            f"qat of Keras models needs tf_keras and tensorflow-model-optimization ({error})", remedy=_REMEDY
        ) from None
    return tf_keras, tensorflow_model_optimization


def _open(keras: Any, source: Path) -> Any:
    try:
        return keras.models.load_model(os.fspath(source), compile=False)
    except Exception as error:
        raise InputError(
            f"tf_keras, which qat needs, does not load {source}; a model that Keras 3 saved is one that it cannot load",
            remedy="Use int8-static, or save the model with tf_keras (TF_USE_LEGACY_KERAS=1).",
        ) from error


def _fixed(tf: Any, model: Any, source: Path, batch: int) -> FixedModel:
    session = runtime.session_of(tf, model)
    return FixedModel(tf, session, os.fspath(source), batch)


def _tflite(model: FixedModel, folder: Path, *, quantised: bool) -> bytes:
    model.save(folder)

    def configure(converter: Any) -> None:
        if quantised:
            converter.optimizations = [model.tf.lite.Optimize.DEFAULT]

    return convert(model, folder, configure)
