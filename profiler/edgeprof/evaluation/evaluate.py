"""Run a dataset through a model on the device, and compute the score of its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError, VariantError, unknown
from edgeprof.evaluation.preprocess import quantised
from edgeprof.reasons import Code
from edgeprof.worker.dtypes import carrier_dtype, given_dtype, is_foreign
from edgeprof.worker.runtime import ANY_DTYPE, ANY_SHAPE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.evaluation.metric import Metric, Score
    from edgeprof.worker.runtime import TensorSpec

    Feeds = dict[str, npt.NDArray[Any]]


def evaluate(
    infer: Callable[[Feeds], Feeds],
    inputs: Sequence[TensorSpec],
    dataset: Dataset,
    metric: Metric,
    batch: int = 1,
    *,
    outputs: Sequence[TensorSpec] = (),
) -> Score:
    """Return the score of a model on a dataset.

    Args:
        infer: One inference, which maps input name → array to output name → array (``Worker.infer``).
        inputs: The model's inputs. Their first dimension is the batch; if it is a number, batches have this size, and
            the last one is filled with copies whose outputs are discarded.
        dataset: Labelled samples.
        metric: The metric, which judges all samples together.
        batch: Samples per inference if the model leaves the batch open.
        outputs: The model's outputs, if known: integers with a scale and a zero point are judged as the real numbers
            that they represent.

    Raises:
        InputError: Dataset and model, or outputs and metric, do not fit; the message names the shapes.
        VariantError: The model gave NaN (``nan_output``), or ``infer`` failed.
    """
    by_name = {spec.name: spec for spec in inputs}
    scales = _output_scales(outputs)
    size = batch_size(inputs, batch)
    collected: dict[str, list[npt.NDArray[Any]]] = {}
    done = 0
    for samples in dataset.batches(size):
        feeds, count = _make_feeds(samples, by_name, dataset, size)
        arrays = infer(feeds)
        for name, array in arrays.items():
            _check_output(name, array, done)
        answers = _outputs_for_metric(arrays, scales, metric, size, count)
        for name, array in metric.reduce(answers, dataset.labels[done : done + count]).items():
            collected.setdefault(name, []).append(array)
        done += count
    if done != len(dataset.labels):
        raise InputError(f"{dataset.name} has {len(dataset.labels)} labels but {done} samples")
    return metric.score({name: np.concatenate(parts) for name, parts in collected.items()}, dataset.labels)


def check(inputs: Sequence[TensorSpec], dataset: Dataset, batch: int = 1) -> None:
    """Check, before anything is measured, that a model takes a dataset's samples of every form.

    Raises:
        InputError: The model does not; the message names both shapes.
    """
    size = batch_size(inputs, batch)
    for samples in dataset.representatives():
        _make_feeds(samples, {spec.name: spec for spec in inputs}, dataset, size)


def rehearse(
    infer: Callable[[Feeds], Feeds],
    inputs: Sequence[TensorSpec],
    dataset: Dataset,
    metric: Metric,
    batch: int = 1,
    *,
    outputs: Sequence[TensorSpec] = (),
) -> None:
    """Check with one sample, before anything is measured, that a metric can judge the model's outputs for a dataset.

    The arguments are those of ``evaluate``.

    Raises:
        InputError: See ``evaluate``.
    """
    size = batch_size(inputs, batch)
    for samples in dataset.representatives():
        feeds, count = _make_feeds(samples, {spec.name: spec for spec in inputs}, dataset, size)
        metric.rehearse(_outputs_for_metric(infer(feeds), _output_scales(outputs), metric, size, count), dataset.labels)
        return


def _output_scales(outputs: Sequence[TensorSpec]) -> dict[str, tuple[float, int]]:
    return {spec.name: spec.quantization for spec in outputs if spec.quantization is not None}


def _outputs_for_metric(
    answers: Feeds, scales: Mapping[str, tuple[float, int]], metric: Metric, size: int, count: int
) -> Feeds:
    """Return the outputs for a metric: of the named output, or by default of all, those with a row for each sample.

    Raises:
        InputError: There are none.
    """
    chosen = answers if metric.output is None else _named_output(answers, metric.output)
    whole = {name: array for name, array in chosen.items() if array.ndim and len(array) == size}
    if not whole and chosen:
        name, array = next(iter(chosen.items()))
        raise InputError(
            f"the model's output {name} has the shape {array.shape}, not one row for each of {size} samples",
            remedy="Only models whose outputs begin with the batch can be judged.",
        )
    return {name: _dequantise_array(array[:count], scales.get(name)) for name, array in whole.items()}


def _named_output(answers: Feeds, name: str) -> Feeds:
    """Return the output with this name, or with this number, counted from 0."""
    if name in answers:
        return {name: answers[name]}
    if name.isdecimal() and int(name) < len(answers):
        return dict([list(answers.items())[int(name)]])
    raise unknown("output of the model", name, answers)


def feeds(samples: Feeds, inputs: Sequence[TensorSpec], dataset: Dataset, size: int = 1) -> tuple[Feeds, int]:
    """Return a dataset's batch in the form that a model takes, filled up to ``size``, and the number of real samples.

    Raises:
        InputError: Dataset and model do not fit; the message names the shapes.
    """
    return _make_feeds(samples, {spec.name: spec for spec in inputs}, dataset, size)


def batch_size(inputs: Sequence[TensorSpec], batch: int) -> int:
    """Return the model's fixed batch size; without one, the given batch."""
    fixed = {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], int)}
    if len(fixed) > 1:
        raise InputError(
            f"the model's inputs have different first dimensions ({', '.join(map(str, sorted(fixed)))}): which of them"
            " is the batch cannot be told",
            remedy="Judge this model with a program of your own: edgeprof bench app.py:function",
        )
    return fixed.pop() if fixed else max(1, batch)


def _make_feeds(
    samples: dict[str, npt.NDArray[Any]], inputs: dict[str, TensorSpec], dataset: Dataset, size: int
) -> tuple[Feeds, int]:
    """Return arrays by the model's input names, checked against the inputs and filled up to a whole batch."""
    if set(samples) == {""}:
        if len(inputs) != 1:
            raise InputError(
                f"{dataset.name} has one array per sample, but the model takes {len(inputs)} inputs:"
                f" {', '.join(inputs)}",
                remedy="Give an .npz with one array per input, named as the inputs, and the labels.",
            )
        samples = {next(iter(inputs)): samples[""]}
    required = {name for name, spec in inputs.items() if not spec.dtype.startswith("optional")}
    missing, extra = required - set(samples), set(samples) - set(inputs)
    if missing or extra:
        raise InputError(
            f"the model takes {', '.join(sorted(inputs))}; {dataset.name} offers {', '.join(sorted(samples))}",
            remedy="Name the arrays as the inputs.",
        )
    feeds: Feeds = {}
    count = 0
    for name, given in samples.items():
        spec, array = inputs[name], np.asarray(given)
        count = len(array)
        _check_shape(array, spec, dataset)
        feeds[name] = _fill_batch(_cast_to_input(array, spec, dataset, several=len(inputs) > 1), size)
    return feeds, count


def _check_shape(array: npt.NDArray[Any], spec: TensorSpec, dataset: Dataset) -> None:
    if tuple(spec.shape) == ANY_SHAPE:
        return
    wanted = tuple(spec.shape)[1:]
    given = array.shape[1:]
    if len(given) == len(wanted) and all(not isinstance(w, int) or w == g for w, g in zip(wanted, given, strict=True)):
        return
    raise InputError(
        f"the model's input {spec.name} takes samples of shape {_shape_text(wanted)}, but those of {dataset.name} are"
        f" {_shape_text(given)}",
        remedy="Declare preprocessing, as --preprocess layout=NCHW, resize=HxW or shape=AxBxC.",
    )


def _shape_text(dims: Sequence[object]) -> str:
    return " × ".join("?" if dim is None else str(dim) for dim in dims) or "()"


def _cast_to_input(array: npt.NDArray[Any], spec: TensorSpec, dataset: Dataset, *, several: bool) -> npt.NDArray[Any]:
    dtype = given_dtype(spec.dtype)
    if dtype.startswith(("sequence", "map")):
        raise InputError(
            f"the model's input {spec.name} has the type {dtype}, and the samples of a dataset are arrays",
            remedy="Judge this model with a program of your own: edgeprof bench app.py:function",
        )
    if dataset.quantise == "input":
        if spec.quantization is not None and np.dtype(dtype).kind in "iu":
            scale, zero_point = spec.quantization
            return quantised(array, scale, zero_point, dtype)
        if dtype.startswith("float"):
            # One file serves a float model and its quantised variant; the float model takes the real numbers unchanged.
            return array.astype(dtype, copy=False)
        raise InputError(
            f"quantise=input: the model's input {spec.name} is {dtype} without a scale and a zero point",
            remedy="Declare scale, mean and dtype instead.",
        )
    if array.dtype.kind in "SU" and dtype == "object":
        return array.astype(object)
    if is_foreign(dtype) and array.dtype.kind == "f" and carrier_dtype(dtype) == "float32":
        return array.astype(np.float32)
    if dtype not in {ANY_DTYPE, str(array.dtype)}:
        quantisable = spec.quantization is not None and np.dtype(dtype).kind in "iu"
        if several:  # an .npz with an array for each input, which get no preprocessing
            remedy = f"Save the array as {carrier_dtype(dtype) or dtype}."
            raise InputError(
                f"the model's input {spec.name} takes {dtype}, but {dataset.name} has {array.dtype}", remedy=remedy
            )
        raise InputError(
            f"the model's input {spec.name} takes {dtype}, but {dataset.name} has {array.dtype}",
            remedy=f"Declare --preprocess dtype={dtype} if the numbers are meant as they are"
            + (", or quantise=input for the input's own scale and zero point." if quantisable else "."),
        )
    return array


def _fill_batch(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    if len(array) == size:
        return np.ascontiguousarray(array)
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _check_output(name: str, array: npt.NDArray[Any], done: int) -> None:
    scores = array
    if array.dtype.kind == "O":  # maps from class to score
        maps = [item for item in array.reshape(-1) if isinstance(item, dict)]
        scores = np.array([value for item in maps for value in item.values() if isinstance(value, float)], np.float64)
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        raise VariantError(
            f"the model's output {name} has NaN for samples from number {done} on: no accuracy can be told",
            remedy="Check the preprocessing, or the precision that the model was converted to.",
            code=Code.NAN_OUTPUT,
        )


def _dequantise_array(array: npt.NDArray[Any], scale: tuple[float, int] | None) -> npt.NDArray[Any]:
    """Convert quantised integers to real numbers (q − z) · s as float32; other types are returned unchanged."""
    if scale is None or array.dtype.kind not in "iu":
        return array
    real: npt.NDArray[Any] = (array.astype(np.float32) - np.float32(scale[1])) * np.float32(scale[0])
    return real
