"""Quantises float TFLite models with ai-edge-quantizer, which needs neither TensorFlow nor torch.

Each method uses one of the library's recipes. The names of the recipes have changed between versions, so each recipe is
looked up when it is used, and an error reports a recipe that the installed version does not have.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.compression.calibration_data import Calibration
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.compression.outputs import COMPARED
from edgeprof.errors import InputError, UnavailableError
from edgeprof.worker.runtime import install_command, library_version
from edgeprof_plugins.compressors.shared import exclusion
from edgeprof_plugins.compressors.tflite.exclude import alone, answers, compare, layer
from edgeprof_plugins.compressors.tflite.file import TfliteFile, modern
from edgeprof_plugins.compressors.tflite.layers import Inventory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgeprof.evaluation.dataset import Dataset

REMEDY = install_command("litert-compress", "ai-edge-quantizer")
#: The first version that has these recipes.
_OLDEST = (0, 4)

_EXCLUDE = Parameter("exclude", "str", default="", help="layers left in float: regular expressions, separated by |")
_FEWEST = Parameter(
    "min_weights", "int", default=0, minimum=0, maximum=1_000_000, help="layers with fewer weights stay in float"
)


class _Recipe(Compressor):
    """One of ai-edge-quantizer's recipes."""

    version = "1"
    takes = ("tflite",)
    parameters: Sequence[Parameter] = (_EXCLUDE, _FEWEST)
    #: The name of a function in ``ai_edge_quantizer.recipe``.
    recipe: str

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del seed  # nothing here is random
        aeq = _load_library()
        with TfliteFile(source) as model:
            before = model.dtypes()
            unsigned = self.needs_data != "no" and model.signature()[0] is None
            is_ready = not (unsigned or model.old() or model.unclear_names())
        if not before.get("float32") or before.get("int8") or before.get("uint8"):
            some = "has integer weights already" if before.get("float32") else "has no float32 weights to quantise"
            raise InputError(f"{source} {some}", remedy="Start from the float model.")
        with tempfile.TemporaryDirectory(prefix="edgeprof-tflite-") as folder, _silence_library():
            try:
                ready = source if is_ready else Path(folder) / "modern.tflite"
                if not is_ready:
                    modern(source, ready)
                with TfliteFile(ready, source=source) as model:
                    inventory, inputs, signature = Inventory(model), model.inputs(), model.signature()
                    outside = model.operators_outside()
                job = _Job(aeq, ready, Path(folder), inputs, signature, outside)
                quantised, facts = self._quantised(job, parameters, data)
            except (InputError, UnavailableError):
                raise
            except Exception as error:
                raise InputError(
                    f"{self.name} cannot quantise {source}: {_first_line(error)}",
                    remedy=f"Leave the layer in float: --with {self.name}:exclude=NAME.",
                ) from error
            with TfliteFile(quantised) as model:
                after = model.dtypes()
                account = inventory.by_types(model, self._layers_left(inventory, parameters, facts), _NOT_COVERED)
            shutil.copyfile(quantised, target)
        return {
            "quantizer": library_version("ai_edge_quantizer", "ai-edge-quantizer"),
            "weights": after,
            **facts,
            "coverage": account,
        }

    def _quantised(self, job: _Job, parameters: Mapping[str, Any], data: Dataset | None) -> tuple[Path, dict[str, Any]]:
        del data
        return job.make(self._recipe(job.aeq, parameters) + _exclusion_rows(parameters["exclude"].split("|"))), {}

    def _layers_left(
        self, inventory: Inventory, parameters: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> dict[str, str]:
        """Layer → why it was left unchanged, where that is not up to the recipe."""
        return _layers_excluded(inventory, parameters, facts)

    def _recipe(self, aeq: Any, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = [dict(row) for row in _recipe_named(aeq, self.recipe)()]
        for row in rows:
            row["op_config"] = {**row["op_config"], "min_weight_elements": parameters["min_weights"]}
        return rows


@dataclass
class _Job:
    """One model that may be quantised several times; the calibration result is reused.

    Attributes:
        aeq: The module ai_edge_quantizer.
        ready: The model, in a form that the library reads.
        folder: The folder for its variants.
        inputs: The inputs of the main graph.
        signature: The key of the main graph's signature, and the names of the inputs in it.
        outside: The outputs of all operators outside of the main graph, which cannot be calibrated.
        files_written: The number of variants so far.
        ranges: The calibration result.
    """

    aeq: Any
    ready: Path
    folder: Path
    inputs: dict[str, tuple[tuple[int | None, ...], str]]
    signature: tuple[str | None, dict[str, str]]
    outside: Sequence[str] = ()
    files_written: int = 0
    ranges: Any = None

    def make(self, rows: list[dict[str, Any]], calibration: Calibration | None = None) -> Path:
        """Write a new file, quantised by these rows of a recipe."""
        quantiser = self.aeq.quantizer.Quantizer(str(self.ready), rows)
        if calibration is not None and self.ranges is None and quantiser.need_calibration:
            self.ranges = self._calibrate(quantiser, rows, calibration)
        target = self.folder / f"{self.files_written}.tflite"
        self.files_written += 1
        target.write_bytes(bytes(quantiser.quantize(self.ranges).quantized_model))
        return target

    def _calibrate(self, quantiser: Any, rows: list[dict[str, Any]], calibration: Calibration) -> Any:
        """Measure the ranges: the smallest and largest value over all samples.

        By default the library averages the range of each sample with the previous ones, which makes the range of an
        input with few values per sample far too small. Versions that offer no alternative use that average.
        """
        key, names = self.signature
        data = {key: [{names.get(name, name): a for name, a in batch.items()} for batch in calibration.batches()]}
        try:
            from ai_edge_quantizer import calibrator, recipe_manager
            from ai_edge_quantizer.utils import qsv_utils

            manager = recipe_manager.RecipeManager()
            manager.load_quantization_recipe(rows)
            tool = calibrator.Calibrator(
                self.ready.read_bytes(), num_threads=1, qsv_update_func=qsv_utils.min_max_update
            )
        except (ImportError, AttributeError, TypeError):
            return quantiser.calibrate(data, num_threads=1)
        tool.calibrate(data, manager)
        return tool.get_model_qsvs()


class Int8Dynamic(_Recipe):
    """Stores weights as 8-bit integers; the range of activations is computed in each inference."""

    name = "int8-dynamic"
    changes = ("precision",)
    weight_bits = 8
    recipe = "dynamic_wi8_afp32"


class Int8Weight(_Recipe):
    """Stores weights as 8-bit integers; arithmetic stays in float."""

    name = "int8-weight"
    changes = ("precision",)
    weight_bits = 8
    recipe = "weight_only_wi8_afp32"


class Int4Weight(_Recipe):
    """Stores weights as 4-bit integers; arithmetic stays in float."""

    name = "int4-weight"
    changes = ("precision",)
    weight_bits = 4
    recipe = "weight_only_wi4_afp32"


class Fp16(_Recipe):
    """Stores weights as float16; arithmetic stays in float32 unless the delegate computes in float16."""

    name = "fp16"
    changes = ("precision",)
    weight_bits = 16
    recipe = "weight_only_wi8_afp32"

    def _recipe(self, aeq: Any, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = super()._recipe(aeq, parameters)
        for row in rows:
            row["algorithm_key"] = "float_casting"
            weights = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
            row["op_config"] = {**row["op_config"], "weight_tensor_config": weights}
        return rows


class Int8Static(_Recipe):
    """Makes weights 8-bit and activations 8-bit or 16-bit integers, with ranges from calibration samples."""

    name = "int8-static"
    changes = ("precision",)
    weight_bits = 8
    version = "2"
    needs_data = "calibration"
    parameters = (
        Parameter("activations", "str", default="int8", choices=("int8", "int16"), help="type of activations"),
        Parameter("io", "str", default="float32", choices=("float32", "int"), help="type of inputs and outputs"),
        Parameter("samples", "int", default=128, minimum=1, maximum=100_000, help="calibration samples used at most"),
        Parameter("exclude", "str", default="", help=f"{_EXCLUDE.help}; auto: the worst, as few as keep the budget"),
        _FEWEST,
        *exclusion.PARAMETERS,
    )

    def _layers_left(
        self, inventory: Inventory, parameters: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> dict[str, str]:
        outside = [name for name, (subgraph, _) in inventory.outputs.items() if subgraph]
        return {**dict.fromkeys(outside, _NO_SAMPLES), **super()._layers_left(inventory, parameters, facts)}

    def _recipe(self, aeq: Any, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        self.recipe = "static_wi8_ai16" if parameters["activations"] == "int16" else "static_wi8_ai8"
        rows = super()._recipe(aeq, parameters)
        # LiteRT's kernel multiplies two activations or takes one scale for constant weights; with several it gives 0.
        return [
            *rows,
            *({**row, "operation": "BATCH_MATMUL", "op_config": _with_one_scale(row["op_config"])} for row in rows),
        ]

    def _quantised(self, job: _Job, parameters: Mapping[str, Any], data: Dataset | None) -> tuple[Path, dict[str, Any]]:
        if data is None:
            raise InputError(f"{self.name} needs calibration data", remedy="Add --dataset SPEC.")
        calibration = Calibration(data, job.inputs, parameters["samples"])
        rows, ends = self._recipe(job.aeq, parameters), _float_ends() if parameters["io"] == "float32" else []

        outside = _exclusion_rows([layer(name) for name in job.outside])

        def make(excluded: Sequence[str]) -> Path:
            return job.make(rows + ends + outside + _exclusion_rows(excluded), calibration)

        samples = Calibration(data, job.inputs, COMPARED).batches()
        if parameters["exclude"] != exclusion.AUTO:
            quantised = make(parameters["exclude"].split("|"))
            return quantised, {**calibration.facts(), **compare(job.ready, quantised, samples)}
        whole = make([])
        judged = Calibration(data, job.inputs, exclusion.JUDGED)
        batches, count = judged.batches(), len(judged.chosen)
        judge = exclusion.Judge.of(answers(job.ready, batches, count), judged, parameters)

        def only(name: str) -> Path:
            return job.make([{**row, "regex": layer(name)} for row in rows] + ends + outside)

        def attempt(excluded: Sequence[str]) -> tuple[Path, list[Any]]:
            quantised = make([layer(name) for name in excluded]) if excluded else whole
            return quantised, answers(quantised, batches, count)

        best, exclusions = exclusion.search(
            self.name, judge, lambda: alone(job.ready, only, batches[: exclusion.FOLLOWED]), attempt
        )
        return best, {**calibration.facts(), **exclusions, **compare(job.ready, best, samples)}


def _with_one_scale(settings: Mapping[str, Any]) -> dict[str, Any]:
    weights = {**settings["weight_tensor_config"], "granularity": "TENSORWISE"}
    return {**settings, "weight_tensor_config": weights}


_NOT_COVERED = "ai-edge-quantizer's recipe does not cover it"
_NO_SAMPLES = "it is in a branch, a body or another signature, which no samples reach"


def _layers_excluded(inventory: Inventory, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """Layer → why a parameter excludes it."""
    patterns = [re.compile(layer(name)) for name in facts.get("excluded", [])]
    if parameters["exclude"] != exclusion.AUTO:
        patterns += [re.compile(pattern) for pattern in filter(None, parameters["exclude"].split("|"))]
    why = {}
    for part in inventory.parts:
        if part.weights and part.name in inventory.weights and part.weights < parameters["min_weights"]:
            why[part.name] = f"it has fewer than {parameters['min_weights']} weights"
        if any(pattern.search(part.name) for pattern in patterns):
            why[part.name] = "excluded"
    return why


def _float_ends() -> list[dict[str, Any]]:
    return [
        {"regex": ".*", "operation": end, "algorithm_key": "no_quantize", "op_config": {}}
        for end in ("INPUT", "OUTPUT")
    ]


def _exclusion_rows(expressions: Sequence[str]) -> list[dict[str, Any]]:
    """Recipe rows that exclude layers; a later row overrides an earlier one."""
    return [
        {"regex": expression, "operation": "*", "algorithm_key": "no_quantize", "op_config": {}}
        for expression in filter(None, expressions)
    ]


def _load_library() -> Any:
    version = library_version("ai_edge_quantizer", "ai-edge-quantizer", "ai-edge-quantizer-nightly")
    if version is None:
        raise UnavailableError("quantising TFLite models needs ai-edge-quantizer", remedy=REMEDY)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST:
        raise UnavailableError(
            f"ai-edge-quantizer {version} is too old; {'.'.join(map(str, _OLDEST))} or later is needed", remedy=REMEDY
        )
    try:
        with _silence_library():
            import ai_edge_quantizer
            from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise UnavailableError(f"ai-edge-quantizer {version} cannot be imported: {error}", remedy=REMEDY) from None
    del quantizer, recipe
    return ai_edge_quantizer


def _recipe_named(aeq: Any, name: str) -> Any:
    recipe_function = getattr(aeq.recipe, name, None)
    if recipe_function is None:
        raise UnavailableError(f"this version of ai-edge-quantizer has no recipe {name}", remedy=REMEDY)
    return recipe_function


@contextlib.contextmanager
def _silence_library() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]
