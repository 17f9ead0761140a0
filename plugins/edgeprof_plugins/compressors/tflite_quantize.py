"""Quantised TFLite models by ai-edge-quantizer, which takes the float .tflite and needs neither TensorFlow nor torch.

What each method asks of it is one of its own recipes; the recipe's names have changed between its versions, so each is
looked up when it is used and a version without it is named.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

from edgeprof.compression.calibration import Calibration
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.errors import InputError, UnavailableError
from edgeprof.workload.runtime import install_command, library_version
from edgeprof_plugins.compressors.tflite_file import TfliteFile, with_signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset

REMEDY = install_command("litert-compress", "ai-edge-quantizer")
#: The first version whose recipes these are.
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
    #: Of a function in ``ai_edge_quantizer.recipe``.
    recipe: str

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del seed  # nothing here is drawn
        aeq = _library()
        with TfliteFile(source) as model:
            before = model.dtypes()
            inputs = model.inputs()
            signature = model.signature()
        if not before.get("float32"):
            raise InputError(f"{source} has no float32 weights to quantise", remedy="Start from the float model.")
        facts: dict[str, Any] = {}
        with _quiet():
            try:
                ready = source
                if self.needs_data != "no" and signature[0] is None:
                    ready = target.with_name(f"{target.name}.signed")
                    with_signature(source, ready)
                    signature = ("serving_default", {})
                quantiser = aeq.quantizer.Quantizer(str(ready), self._recipe(aeq, parameters))
                found = None
                if quantiser.need_calibration:
                    found = self._calibrate(quantiser, parameters, data, inputs, signature, facts)
                made = quantiser.quantize(found)
            except (InputError, UnavailableError):
                raise
            except Exception as error:
                raise InputError(
                    f"{self.name} cannot quantise {source}: {_first_line(error)}",
                    remedy=f"Leave the layer in float: --with {self.name}:exclude=NAME.",
                ) from error
            finally:
                target.with_name(f"{target.name}.signed").unlink(missing_ok=True)
        target.write_bytes(bytes(made.quantized_model))
        with TfliteFile(target) as model:
            after = model.dtypes()
        if after == before:
            target.unlink()
            raise InputError(
                f"{self.name} changes nothing in {source}: it has no operator that the recipe covers",
                remedy="Look at its operators: edgeprof diagnose MODEL.",
            )
        return {"quantizer": library_version("ai_edge_quantizer", "ai-edge-quantizer"), "weights": after, **facts}

    def _recipe(self, aeq: Any, parameters: Mapping[str, Any]) -> Any:
        rows = [dict(row) for row in _named(aeq, self.recipe)()]
        for row in rows:
            row["op_config"] = {**row["op_config"], "min_weight_elements": parameters["min_weights"]}
        return rows + _excluded(parameters["exclude"])

    def _calibrate(  # noqa: PLR0917 - called once, above
        self,
        quantiser: Any,
        parameters: Mapping[str, Any],
        data: Dataset | None,
        inputs: dict[str, tuple[tuple[int | None, ...], str]],
        signature: tuple[str | None, dict[str, str]],
        facts: dict[str, Any],
    ) -> Any:
        if data is None:
            raise InputError(f"{self.name} needs calibration data", remedy="Add --dataset SPEC.")
        calibration = Calibration(data, inputs, parameters.get("samples", 128))
        key, names = signature
        batches = [{names.get(name, name): a for name, a in batch.items()} for batch in calibration.batches()]
        facts.update(calibration.facts())
        return quantiser.calibrate({key: batches}, num_threads=1)


class Int8Dynamic(_Recipe):
    name = "int8-dynamic"
    recipe = "dynamic_wi8_afp32"


class Int8Weight(_Recipe):
    name = "int8-weight"
    recipe = "weight_only_wi8_afp32"


class Int4Weight(_Recipe):
    name = "int4-weight"
    recipe = "weight_only_wi4_afp32"


class Fp16(_Recipe):
    name = "fp16"
    recipe = "weight_only_wi8_afp32"

    def _recipe(self, aeq: Any, parameters: Mapping[str, Any]) -> Any:
        rows = [dict(row) for row in _named(aeq, self.recipe)()]
        for row in rows:
            row["algorithm_key"] = "float_casting"
            weights = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
            row["op_config"] = {
                **row["op_config"],
                "weight_tensor_config": weights,
                "min_weight_elements": parameters["min_weights"],
            }
        return rows + _excluded(parameters["exclude"])


class Int8Static(_Recipe):
    name = "int8-static"
    needs_data = "calibration"
    parameters = (
        Parameter("activations", "str", default="int8", choices=("int8", "int16"), help="type of activations"),
        Parameter("io", "str", default="float32", choices=("float32", "int"), help="type of inputs and outputs"),
        Parameter("samples", "int", default=128, minimum=1, maximum=100_000, help="calibration samples used at most"),
        _EXCLUDE,
        _FEWEST,
    )

    def _recipe(self, aeq: Any, parameters: Mapping[str, Any]) -> Any:
        self.recipe = "static_wi8_ai16" if parameters["activations"] == "int16" else "static_wi8_ai8"
        rows: list[dict[str, Any]] = super()._recipe(aeq, parameters)
        if parameters["io"] == "float32":
            rows += [
                {"regex": ".*", "operation": end, "algorithm_key": "no_quantize", "op_config": {}}
                for end in ("INPUT", "OUTPUT")
            ]
        return rows


def _excluded(text: str) -> list[dict[str, Any]]:
    """Rows that take layers out again; a later row wins."""
    return [
        {"regex": expression, "operation": "*", "algorithm_key": "no_quantize", "op_config": {}}
        for expression in filter(None, text.split("|"))
    ]


def _library() -> Any:
    version = library_version("ai_edge_quantizer", "ai-edge-quantizer", "ai-edge-quantizer-nightly")
    if version is None:
        raise UnavailableError("quantising TFLite models needs ai-edge-quantizer", remedy=REMEDY)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST:
        raise UnavailableError(
            f"ai-edge-quantizer {version} is too old; {'.'.join(map(str, _OLDEST))} or later is needed", remedy=REMEDY
        )
    try:
        with _quiet():
            import ai_edge_quantizer
            from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise UnavailableError(f"ai-edge-quantizer {version} cannot be imported: {error}", remedy=REMEDY) from None
    del quantizer, recipe
    return ai_edge_quantizer


def _named(aeq: Any, name: str) -> Any:
    found = getattr(aeq.recipe, name, None)
    if found is None:
        raise UnavailableError(f"this version of ai-edge-quantizer has no recipe {name}", remedy=REMEDY)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]
