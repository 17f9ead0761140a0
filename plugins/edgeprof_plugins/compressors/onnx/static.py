"""Static int8 quantisation of ONNX models: QDQ nodes with ranges calibrated on samples (ONNX Runtime's quantiser)."""

from __future__ import annotations

import inspect
import itertools
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.calibration_data import Calibration
from edgeprof.compression.compressor import Compressor, Parameter
from edgeprof.compression.outputs import COMPARED, compare_outputs
from edgeprof.errors import InputError
from edgeprof_plugins.compressors.onnx.exclude import alone, answers, run
from edgeprof_plugins.compressors.onnx.file import OnnxFile
from edgeprof_plugins.compressors.onnx.int8 import WEIGHTS_ONLY
from edgeprof_plugins.compressors.onnx.inventory import Inventory
from edgeprof_plugins.compressors.onnx.normal import FLOATS
from edgeprof_plugins.compressors.onnx.prepare import (
    check_nodes,
    first_line,
    has_two_files,
    plain_gemms,
    prepared,
    quantization,
    quiet,
    reduces_range,
)
from edgeprof_plugins.compressors.shared import exclusion
from edgeprof_plugins.compressors.shared.coverage import EXCLUDED
from edgeprof_plugins.compressors.shared.exclusion import AUTO, FOLLOWED, JUDGED, Judge, search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset

_DTYPES = {1: "float32", 10: "float16", 11: "float64", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool"}


class Int8Static(Compressor):
    """Makes weights and activations 8-bit integers, with ranges from calibration samples."""

    name = "int8-static"
    changes = ("precision",)
    weight_bits = 8
    version = "3"
    takes = ("onnx",)
    for_target = True
    needs_data = "calibration"
    parameters = (
        Parameter(
            "method",
            "str",
            default="minmax",
            choices=("minmax", "entropy", "percentile"),
            help="how ranges are taken from the calibration samples",
        ),
        Parameter("percentile", "float", default=99.99, minimum=90.0, maximum=100.0, help="of method=percentile"),
        Parameter("per_channel", "bool", default=True, help="a weight scale for each output channel"),
        # On x86, ONNX Runtime leaves additions of signed activations in float; it fuses unsigned ones everywhere.
        Parameter(
            "activations", "str", default="uint8", choices=("uint8", "int8", "int16"), help="type of activations"
        ),
        Parameter("reduce_range", "bool", help="7-bit weights; by itself for x86 without VNNI, where 8 bits saturate"),
        Parameter("samples", "int", default=128, minimum=1, maximum=100_000, help="calibration samples used at most"),
        Parameter(
            "exclude",
            "str",
            default="",
            help="nodes left in float, separated by spaces or |; name* for several; auto: the worst, as few as keep the"
            " budget",
        ),
        *exclusion.PARAMETERS,
    )

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        del seed
        if data is None:
            raise InputError("int8-static needs calibration data", remedy="Add --dataset SPEC.")
        with tempfile.TemporaryDirectory(prefix="edgeprof-onnx-") as folder:
            ready = prepared(source, Path(folder))
            with OnnxFile(ready) as model:
                inventory = Inventory(model, source)
            ready = plain_gemms(ready, Path(folder) / "plain-gemms.onnx")
            calibration = Calibration(data, _model_inputs(ready), parameters["samples"])
            reduced = reduces_range(parameters)
            unfit = _unfit_nodes(ready, per_channel=parameters["per_channel"])
            quantise = _make_quantiser(ready, Path(folder), calibration, {**parameters, "reduce_range": reduced}, unfit)

            def make(excluded: Sequence[str]) -> Path:
                try:
                    return quantise(excluded)
                except InputError:
                    raise
                except Exception as error:  # noqa: BLE001 - the quantiser raises many types of errors
                    raise _quantiser_error(source, ready, error) from None

            if parameters["exclude"] == AUTO:
                best, exclusions = _fewest_in_float(self.name, ready, make, calibration, parameters)
            else:
                exclusions = {"excluded": check_nodes(ready, parameters["exclude"])}
                best = make(exclusions["excluded"])
            _copy_model(best, target)
            account = _integer_account(inventory, target, exclusions["excluded"], unfit)
            likeness = _compare(ready, best, Calibration(data, calibration.inputs, COMPARED).batches())
            return {**calibration.facts(), "reduce_range": reduced, **exclusions, **likeness, "coverage": account}


def _fewest_in_float(
    name: str,
    ready: Path,
    make: Callable[[Sequence[str]], Path],
    calibration: Calibration,
    parameters: Mapping[str, Any],
) -> tuple[Path, dict[str, Any]]:
    """The variant of ``exclude=auto``, and the facts of the search."""
    judged = Calibration(calibration.data, calibration.inputs, JUDGED)
    batches, count = judged.batches(), len(judged.chosen)
    judge = Judge.of(answers(ready, batches, count), judged, parameters)

    def attempt(excluded: Sequence[str]) -> tuple[Path, list[npt.NDArray[Any]]]:
        quantised = make(excluded)
        return quantised, answers(quantised, batches, count)

    return search(name, judge, lambda: alone(ready, make([]), batches[:FOLLOWED]), attempt)


def _compare(ready: Path, quantised: Path, batches: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, Any]:
    """How close the outputs of the quantised model are to those of the float model; {} if it does not run."""
    try:
        before, after = (run(path, batches, as_written=True) for path in (ready, quantised))
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors share no type; the runtime says why when it loads the variant
        return {}
    return compare_outputs(pair for outputs in zip(before, after, strict=True) for pair in zip(*outputs, strict=True))


def _unfit_nodes(ready: Path, *, per_channel: bool) -> dict[str, str]:
    """Node on which ONNX Runtime's quantiser fails → why."""
    unfit = {}
    with OnnxFile(ready) as model:
        for node in model.model.graph.node:
            if any(model.has(name) and not math.prod(model.header(name).dims) for name in node.input):
                unfit[node.name] = "its weights have no values"
            elif (
                per_channel
                and node.op_type == "ConvTranspose"
                and any(a.name == "group" and a.i > 1 for a in node.attribute)
            ):
                unfit[node.name] = _GROUPED
    return unfit


_GROUPED = "ONNX Runtime's quantiser takes no grouped transposed convolution unless per_channel=false"


def _quantiser_error(source: Path, ready: Path, error: Exception) -> InputError:
    """The sentence for an error of ONNX Runtime's quantiser."""
    with OnnxFile(ready) as model:
        constants = [name for name in model.order if model.header(name).data_type in FLOATS]
        endless = next((name for name in constants if not np.isfinite(model.array(name)).all()), None)
        node = next((node for node in model.model.graph.node if endless in node.input), None)
    if node is not None:
        return InputError(
            f"{source} adds infinite values in {node.name}: a range without end has no steps",
            remedy="Use a large finite value in their place, or a method without ranges: int8-dynamic, int8-weight.",
        )
    return InputError(
        f"ONNX Runtime cannot quantise {source}: {first_line(error)}",
        remedy="Leave the node that it means in float (exclude=NODE), or use int8-dynamic or int8-weight.",
    )


def _integer_account(
    inventory: Inventory, quantised: Path, excluded: Sequence[str], unfit: Mapping[str, str]
) -> dict[str, Any]:
    """The coverage in integers: nodes whose two factors both come from a DequantizeLinear, which runtimes fuse."""
    with OnnxFile(quantised) as model:
        nodes = list(model.model.graph.node)
    ends = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    fed = {node.name: sum(name in ends for name in list(node.input)[:2]) for node in nodes}
    changed = [part for place, part in inventory.names.items() if place[0] == 0 and fed.get(part) == 2]
    why = inventory.by_operator(dict.fromkeys(("LSTM", "GRU", "RNN"), "ONNX Runtime has no static 8-bit kernel for it"))
    inner = {part: "it is in a branch or a body" for place, part in inventory.names.items() if place[0] != 0}
    why |= {**inner, **unfit, **dict.fromkeys(excluded, EXCLUDED)}
    account = inventory.by_nodes(changed, why, "ONNX Runtime's quantiser leaves it in float")
    return account | {"remedy": "Use int8-static:per_channel=false." if _GROUPED in unfit.values() else WEIGHTS_ONLY}


def _make_quantiser(
    ready: Path, folder: Path, calibration: Calibration, parameters: Mapping[str, Any], unfit: Iterable[str]
) -> Callable[[Sequence[str]], Path]:
    """Return a function: nodes to leave in float → a new file.

    Ranges are measured only once, if this ONNX Runtime can cache them.
    """
    tools = quantization()
    batches = calibration.batches()
    wide = parameters["activations"] == "int16"
    kinds = {"int8": tools.QuantType.QInt8, "uint8": tools.QuantType.QUInt8, "int16": tools.QuantType.QInt16}
    methods = tools.CalibrationMethod
    options: dict[str, Any] = {
        # One batch at a time: otherwise ONNX Runtime would hold every activation of every sample in memory.
        "CalibStridedMinMax": 1,
        "CalibPercentile": parameters["percentile"],
        # Asymmetric: a zero point at the end of the range lets Relu and Clip be fused into the preceding layer.
        "ActivationSymmetric": False,
        "WeightSymmetric": True,
        "UseQDQContribOps": wide,
    }
    if parameters["method"] == "minmax":
        del options["CalibPercentile"]
    known = inspect.signature(tools.quantize_static).parameters
    cache = {"calibration_cache_path": folder / "ranges.json"} if "calibration_cache_path" in known else {}
    numbers = itertools.count()

    def make(excluded: Sequence[str]) -> Path:
        target = folder / f"quantised-{next(numbers)}.onnx"
        with quiet():
            tools.quantize_static(
                ready,
                target,
                _make_reader(tools, batches),
                quant_format=tools.QuantFormat.QDQ,
                per_channel=parameters["per_channel"],
                reduce_range=parameters["reduce_range"],
                activation_type=kinds[parameters["activations"]],
                weight_type=tools.QuantType.QInt8,
                nodes_to_exclude=[*unfit, *excluded],
                calibrate_method={
                    "minmax": methods.MinMax,
                    "entropy": methods.Entropy,
                    "percentile": methods.Percentile,
                }[parameters["method"]],
                extra_options=options,
                use_external_data_format=has_two_files(ready),
                **cache,
            )
        return _kept_in_float(target, [*unfit, *excluded])

    return make


def _copy_model(source: Path, target: Path) -> None:
    """Copy a model with its weights, which ONNX Runtime may have written into another file."""
    with OnnxFile(source) as model:
        model.write(target)


def _kept_in_float(path: Path, excluded: Sequence[str]) -> Path:
    """Return a copy of a quantised model in which runtimes do not fuse excluded nodes with quantised neighbours.

    A runtime computes a node in integers if both factors come from a DequantizeLinear, even if the node is excluded. A
    Sum with one input, which returns that input, is inserted: no runtime looks behind it for a DequantizeLinear.
    """
    import onnx

    if not excluded:
        return path
    target = path.with_suffix(".apart.onnx")
    with OnnxFile(path) as model:
        graph = model.model.graph
        ends = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
        nodes = []
        for node in graph.node:
            factors = [name for name in node.input if name][:2]
            if node.name in excluded and ends.issuperset(factors):
                apart = f"{node.output[0]}_in_float"
                nodes.append(onnx.helper.make_node("Sum", factors[:1], [apart], name=f"{node.name}_in_float"))
                node.input[list(node.input).index(factors[0])] = apart
            nodes.append(type(node).FromString(node.SerializeToString()))
        del graph.node[:]
        graph.node.extend(nodes)
        model.write(target)
    return target


def _model_inputs(path: Path) -> dict[str, tuple[tuple[int | None, ...], str]]:
    with OnnxFile(path) as model:
        return {
            value.name: (
                tuple(
                    int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None
                    for d in value.type.tensor_type.shape.dim
                ),
                _DTYPES.get(value.type.tensor_type.elem_type, "float32"),
            )
            for value in model.model.graph.input
            if not model.has(value.name)
        }


def _make_reader(tools: Any, batches: list[dict[str, npt.NDArray[np.generic]]]) -> Any:
    """Create an ONNX Runtime CalibrationDataReader that reads batches in strides."""

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(batches)

        def __len__(self) -> int:
            return len(batches)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(batches[start_index:end_index])

        def get_next(self) -> Any:
            return next(self._left, None)

    return Reader()
