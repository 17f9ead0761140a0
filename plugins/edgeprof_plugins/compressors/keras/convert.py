"""Converts Keras models and SavedModels to TFLite with TensorFlow's converter: in float, or quantised.

Each file is also converted in float, and the layers of both files are compared: what the converter left in float, and
was not asked to, is in the provenance.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.calibration_data import Calibration
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.compression.outputs import COMPARED
from edgeprof.errors import InputError, UnavailableError, VariantError
from edgeprof.reasons import Code
from edgeprof_plugins.compressors.keras.model import REMEDY, FixedModel, quiet, version
from edgeprof_plugins.compressors.shared.coverage import coverage, partial, whole
from edgeprof_plugins.compressors.tflite.exclude import compare
from edgeprof_plugins.compressors.tflite.file import TfliteFile
from edgeprof_plugins.compressors.tflite.layers import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgeprof.evaluation.dataset import Dataset

BATCH = Parameter(
    "batch", "int", default=1, minimum=1, maximum=4096, help="samples at once, where the model leaves it open"
)
#: The largest allowed difference between outputs of the file and of the model, as a share of the largest output.
_TOLERANCE = 1e-3
#: TensorFlow's converter leaves smaller weights in float when it stores only weights in fewer bits
#: (quantize_weights.cc, kWeightsMinNumElementsDefault).
_FEWEST = 1024
_LEFT = "TensorFlow's converter leaves it in float"


@dataclass(frozen=True)
class Job:
    """One model in three forms.

    Attributes:
        model: The model.
        saved: The folder of the same as a SavedModel.
        plain: The same in float as a TFLite file.
    """

    model: FixedModel
    saved: Path
    plain: Path


class ConverterMethod(Compressor):
    """One setting of TensorFlow's converter."""

    version = "1"
    takes = ("keras", "savedmodel")
    gives = "tflite"
    parameters: Sequence[Parameter] = (BATCH,)

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        model = FixedModel.open(source, parameters["batch"])
        with tempfile.TemporaryDirectory(prefix="edgeprof-keras-") as folder:
            saved, plain = Path(folder) / "saved", Path(folder) / "float.tflite"
            model.save(saved)
            plain.write_bytes(convert(model, saved, lambda _: None))
            content, facts = self.content(Job(model, saved, plain), parameters, data, seed)
            target.write_bytes(content)
            facts = {"converter": version(model.tf), "batch": parameters["batch"], **facts}
            return facts if self.changes == () else {**facts, **stored_types(plain, target)}

    @abstractmethod
    def content(
        self, job: Job, parameters: Mapping[str, Any], data: Dataset | None, seed: int
    ) -> tuple[bytes, dict[str, Any]]:
        """Return the content of the variant's file, and facts for the provenance.

        Args:
            job: The model and its conversion in float.
            parameters: The parameters of the step.
            data: The calibration data.
            seed: The seed of the step.
        """


class ExportTflite(ConverterMethod):
    """Converts to TFLite in float, and compares the outputs of the file with those of the model."""

    name = "export-tflite"

    def content(
        self, job: Job, parameters: Mapping[str, Any], data: Dataset | None, seed: int
    ) -> tuple[bytes, dict[str, Any]]:
        del parameters, data
        return job.plain.read_bytes(), {"largest_difference": _largest_difference(job.model, job.plain, seed)}


class Int8Dynamic(ConverterMethod):
    """Stores weights as 8-bit integers; the range of activations is computed in each inference."""

    name = "int8-dynamic"
    changes = ("precision",)
    weight_bits = 8

    def content(
        self, job: Job, parameters: Mapping[str, Any], data: Dataset | None, seed: int
    ) -> tuple[bytes, dict[str, Any]]:
        del parameters, data, seed

        def configure(converter: Any) -> None:
            converter.optimizations = [job.model.tf.lite.Optimize.DEFAULT]

        return convert(job.model, job.saved, configure), {}


class Fp16(ConverterMethod):
    """Stores weights as float16; arithmetic stays in float32 unless the delegate computes in float16."""

    name = "fp16"
    changes = ("precision",)
    weight_bits = 16

    def content(
        self, job: Job, parameters: Mapping[str, Any], data: Dataset | None, seed: int
    ) -> tuple[bytes, dict[str, Any]]:
        del parameters, data, seed

        def configure(converter: Any) -> None:
            converter.optimizations = [job.model.tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [job.model.tf.float16]

        return convert(job.model, job.saved, configure), {}


class Int8Static(ConverterMethod):
    """Makes weights 8-bit and activations 8-bit or 16-bit integers, with ranges from calibration samples."""

    name = "int8-static"
    changes = ("precision",)
    weight_bits = 8
    needs_data = "calibration"
    parameters = (
        Parameter("activations", "str", default="int8", choices=("int8", "int16"), help="type of activations"),
        Parameter("io", "str", default="float32", choices=("float32", "int"), help="type of inputs and outputs"),
        Parameter("samples", "int", default=128, minimum=1, maximum=100_000, help="calibration samples used at most"),
        BATCH,
    )

    def content(
        self, job: Job, parameters: Mapping[str, Any], data: Dataset | None, seed: int
    ) -> tuple[bytes, dict[str, Any]]:
        del seed
        if data is None:
            raise InputError(f"{self.name} needs calibration data", remedy="Add --dataset SPEC.")
        calibration = Calibration(data, job.model.inputs, parameters["samples"])
        batches = calibration.batches(parameters["batch"])
        tf = job.model.tf
        kinds = tf.lite.OpsSet
        wide = parameters["activations"] == "int16"

        def samples() -> Iterator[dict[str, Any]]:
            yield from batches

        def configure(converter: Any) -> None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = samples
            integer = (
                kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
                if wide
                else kinds.TFLITE_BUILTINS_INT8
            )
            converter.target_spec.supported_ops = [integer, kinds.TFLITE_BUILTINS]
            if parameters["io"] == "int":
                converter.inference_input_type = converter.inference_output_type = tf.int16 if wide else tf.int8

        content = convert(job.model, job.saved, configure)
        quantised = job.plain.with_name("quantised.tflite")
        quantised.write_bytes(content)
        compared = Calibration(data, job.model.inputs, COMPARED).batches(parameters["batch"])
        likeness = compare(job.plain, quantised, *(_by_tensor(file, compared) for file in (job.plain, quantised)))
        return content, {**calibration.facts(), **likeness}


def _by_tensor(file: Path, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rename the inputs of the signature as the tensors of the file are named."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        inputs = Interpreter(os.fspath(file)).get_signature_runner().get_input_details()
    return [{inputs[name]["name"]: array for name, array in batch.items()} for batch in batches]


def convert(model: FixedModel, saved: Path, configure: Callable[[Any], None]) -> bytes:
    """Convert a SavedModel that ``FixedModel.save`` wrote.

    Args:
        model: The model.
        saved: The folder.
        configure: Sets attributes of the converter.

    Raises:
        InputError: The converter cannot express the model.
    """
    with quiet():
        converter = model.tf.lite.TFLiteConverter.from_saved_model(os.fspath(saved))
        configure(converter)
        try:
            return bytes(converter.convert())
        except Exception as error:
            raise _refusal(model, error) from error


def _refusal(model: FixedModel, error: Exception) -> InputError:
    text = str(error)
    lacking = re.findall(r"(?:Select TensorFlow|TF Select|Flex|Custom) ops: ([^\n]+)", text)
    if lacking:
        return InputError(
            f"{model.label} has operators that TFLite lacks: {', '.join(dict.fromkeys(lacking))[:300]}",
            remedy="Replace these layers, or ship the model as it is: prune and cluster keep its format.",
        )
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return InputError(f"TensorFlow's converter cannot express {model.label}: {line[:300]}")


def stored_types(plain: Path, quantised: Path) -> dict[str, Any]:
    """Return the types of the variant's weights, and the coverage: which layers are no longer float32.

    The two files are conversions of one network. Their tensors have different indices and names, but their layers come
    in the same order, so each layer is compared with the next one of the same operator and shapes.
    """
    with TfliteFile(plain) as before, TfliteFile(quantised) as after:
        inventory, later = Inventory(before), Inventory(after)
        waiting: dict[Any, list[str]] = {}
        for name in later.weights:
            waiting.setdefault(_kind(later, name), []).append(name)
        stored, changed, why = {}, [], {}
        for name, constants in inventory.weights.items():
            same = waiting.get(_kind(inventory, name))
            if not same:
                why[name] = "TensorFlow's converter replaced it with other operators"
                continue
            partner = same.pop(0)
            if constants:
                pairs = zip(constants, later.weights[partner], strict=True)
                stored[name] = [(math.prod(c.shape), other.dtype != c.dtype) for c, other in pairs]
                if math.prod(constants[0].shape) < _FEWEST:
                    why[name] = f"it has fewer than {_FEWEST:,} weights, which TensorFlow's converter leaves in float"
            elif after.dtype(*later.outputs[partner]).startswith("int"):
                changed.append(name)
        changed += _changed_constants(inventory, before, later, after)
        account = coverage(inventory.parts, {**whole(changed), **partial(stored)}, why, _LEFT)
        return {"weights": after.dtypes(), "coverage": account}


def _changed_constants(inventory: Inventory, before: TfliteFile, later: Inventory, after: TfliteFile) -> list[str]:
    """Return the biases, tables and other constants that are no longer float32; shapes pair those of the two files."""
    multiplied = {constant.place for constants in later.weights.values() for constant in constants}
    waiting: dict[tuple[int, ...], list[str]] = {}
    for place, constant in after.constants():
        if place not in multiplied:
            waiting.setdefault(constant.shape, []).append(constant.dtype)
    others = {part.name for part in inventory.parts if part.name not in inventory.weights}
    shapes = {constant.name: constant.shape for _, constant in before.constants() if constant.name in others}
    return [name for name, shape in shapes.items() if (waiting.get(shape) or ["float32"]).pop(0) != "float32"]


def _kind(inventory: Inventory, name: str) -> Any:
    part = next(part for part in inventory.parts if part.name == name)
    return part.family, tuple(constant.shape for constant in inventory.weights[name])


def _largest_difference(model: FixedModel, file: Path, seed: int) -> float:
    """Return the largest difference between the outputs for random inputs, divided by the largest output.

    Raises:
        VariantError: the result is above 1e-3, or NaN.
    """
    draw = np.random.default_rng(seed)
    feeds = {
        name: draw.standard_normal(shape).astype(dtype)
        if np.dtype(dtype).kind == "f"
        else np.zeros(shape, dtype)  # an index or a setting: other values may be out of range
        for name, (shape, dtype) in model.inputs.items()
    }
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UnavailableError(f"compressing Keras models needs ai-edge-litert ({error})", remedy=REMEDY) from None
    with quiet():
        runner = Interpreter(os.fspath(file)).get_signature_runner()
        answers, wanted = runner(**feeds), model.run(feeds)
    worst = 0.0
    for name, exact in wanted.items():
        off = float(np.abs(answers[name].astype(np.float64) - exact.astype(np.float64)).max(initial=0.0))
        worst = max(worst, off / max(float(np.abs(exact).max(initial=0.0)), 1e-12))
        if not worst <= _TOLERANCE:
            raise VariantError(
                f"the file that TensorFlow's converter makes of {model.label} gives other outputs than the model:"
                f" {worst:.3g} of the largest, where {_TOLERANCE:g} is allowed",
                code=Code.BAD_OUTPUT,
            )
    return worst
