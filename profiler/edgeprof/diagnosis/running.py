"""Run a variant and its baseline alternately: their latencies, and their outputs for the same samples."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError, VariantError
from edgeprof.evaluation import evaluate
from edgeprof.evaluation.labels import are_absent
from edgeprof.launch.choose import choose_runtime
from edgeprof.launch.supervisor import Worker, WorkerSpec
from edgeprof.reasons import Code
from edgeprof.worker.runtime import ANY_SHAPE, LoadOptions
from edgeprof.worker.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.artifact import Artifact
    from edgeprof.diagnosis.checks import Evidence
    from edgeprof.diagnosis.inputs import Inputs
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.launch.loaded import Loaded
    from edgeprof.plugins import PluginHost
    from edgeprof.worker.graph import Graph
    from edgeprof.worker.runtime import Runtime, TensorSpec

    Array = npt.NDArray[Any]

#: Samples for which the outputs are compared with the baseline's.
_SAMPLES = 256
#: Requests of a language model, in tokens: long enough to compare settings, and quick.
_SHORT_REQUESTS = {"prompt": "32", "generate": "8"}
_BATCH = 4


def run(
    e: Evidence,
    models: Sequence[Artifact],
    host: PluginHost,
    data: Dataset | None,
    *,
    inputs: Inputs,
    measure_s: float,
    timeout_s: float,
    named: Runtime | None = None,
) -> None:
    """Time the models alternately (variant, baseline, baseline, variant), and compare their outputs.

    Args:
        e: The evidence that receives the findings; its graphs determine which sizes are open.
        models: The variant and, if there is one, its baseline.
        host: The plugins.
        data: The samples; with None no outputs are compared.
        inputs: The inputs for loading the models.
        measure_s: Seconds to time each model; with 0 nothing is timed.
        timeout_s: The time limit of each step of a worker, seconds.
        named: The requested runtime; by default the one for the model's format.
    """

    def worker(model: Artifact, graph: Graph | None, options: Mapping[str, str] | None = None) -> Worker:
        runtime = choose_runtime(host, model, named)
        shapes = inputs.shapes_for(graph)
        frames = {} if inputs.frames is None else {"frames": inputs.frames}
        requests = _SHORT_REQUESTS if runtime.is_for_language else {}
        given = {**frames, **requests, **inputs.options, **(options or {})}
        device = inputs.device or runtime.default_device
        loading = LoadOptions(device, None, 1, shapes, given, dict(inputs.dtypes))
        return Worker(WorkerSpec.of(runtime, model.target, loading, inputs=inputs.data, timeout_s=timeout_s))

    with contextlib.ExitStack() as stack:
        graphs = (e.graph, e.baseline)
        workers = [stack.enter_context(worker(model, graph)) for model, graph in zip(models, graphs, strict=False)]
        loaded = [worker_process.load() for worker_process in workers]
        if loaded[0].problems:
            raise VariantError(loaded[0].problems[0][1], code=Code.NAN_OUTPUT)
        check_same_inputs(*(model.inputs for model in loaded))
        if measure_s:
            medians = _median_latencies(workers, measure_s)
            e.stages, *baseline_stages = map(_stage_seconds, workers, loaded)
            e.baseline_stages = baseline_stages[0] if baseline_stages else {}
            e.latency_s = medians[0]
            e.speed_up = medians[1] / medians[0] if len(medians) > 1 else None
        if data is not None:
            if len(workers) > 1:
                _compare_answers(e, workers, loaded, data)
            if loaded[0].pipeline is None:  # a pipeline takes one frame
                e.batch_error = _batch_error(workers[0], loaded[0].inputs, data)
    if measure_s:
        _compare_settings(
            e, choose_runtime(host, models[0], named), lambda options: worker(models[0], e.graph, options), measure_s
        )


def _compare_settings(
    e: Evidence, runtime: Runtime, worker: Callable[[Mapping[str, str]], Worker], measure_s: float
) -> None:
    """Compare settings of the library with its defaults, each pair in workers of its own."""
    for option, value, words in runtime.costly_options:
        with contextlib.suppress(VariantError):  # this model or release does not support the option
            e.costly[f"{option}={value}"] = (words, *_times_apart([worker({}), worker({option: value})], measure_s))
    for option, value, words in runtime.saving_options:
        with contextlib.suppress(VariantError):
            usual, saving = _resident_bytes(worker({})), _resident_bytes(worker({option: value}))
            if usual and saving:
                e.resident[f"{option}={value}"] = (words, usual, saving)


def check_same_inputs(mine: Sequence[TensorSpec], baseline: Sequence[TensorSpec] | None = None) -> None:
    """Check that a variant has the same inputs as its baseline, in any layout, type and batch.

    Raises:
        InputError: The inputs differ.
    """
    shapes = [spec.shape for spec in (*mine, *(baseline or ()))]
    if (
        baseline is None
        or ANY_SHAPE in shapes
        or not all(isinstance(size, int) for shape in shapes for size in shape[1:])
    ):
        return
    sizes, theirs = (
        [sorted(str(size) for size in spec.shape if isinstance(size, int) and size != 1) for spec in inputs]
        for inputs in (mine, baseline)
    )
    if sorted(sizes) != sorted(theirs):
        named = [", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs) for inputs in (mine, baseline)]
        raise InputError(
            f"it takes {named[0]} where its baseline takes {named[1]}, so that nothing is compared",
            remedy="Give the model that it was made from as --baseline.",
        )


def _times_apart(workers: Sequence[Worker], seconds: float) -> tuple[float, float]:
    """Return the median latencies (s) of two workers that are not loaded yet, and close them afterwards."""
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker).load()
        first_s, second_s = _median_latencies(workers, seconds)
        return first_s, second_s


def _resident_bytes(worker: Worker) -> int | None:
    """Load a worker and return its resident memory after the first inference (None: unknown); close it afterwards."""
    with worker:
        worker.load()
        return worker.memory().rss


def _median_latencies(workers: Sequence[Worker], seconds: float) -> list[float]:
    """Return the median latency (s) of each worker, timed alternately so that a drift affects all equally."""
    latencies: list[list[Array]] = [[] for _ in workers]
    order = list(range(len(workers)))
    for worker in workers:
        worker.warm_up(0.3, max(1.0, seconds))
    for turn in (order, order[::-1]):
        for index in turn:
            window = workers[index].window(Scenario(), seconds / 2)
            latencies[index].append(np.asarray(window.latencies))
    return [float(np.median(np.concatenate(windows))) for windows in latencies]


def _stage_seconds(worker: Worker, loaded: Loaded) -> dict[str, float]:
    """Return the mean seconds of each stage in the frames since the last call; empty for a model without stages."""
    if loaded.pipeline is None:
        return {}
    names = [str(stage["name"]) for stage in loaded.pipeline["stages"]]
    times = worker.stage_times(len(names))
    return dict(zip(names, times.mean(axis=0).tolist(), strict=True)) if len(times) else {}


def spread_samples(data: Dataset, count: int) -> Iterator[dict[str, Array]]:
    """Yield evenly spread samples, because a dataset may be sorted by class."""
    chosen = set(np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)).tolist())
    for position, batch in enumerate(data.batches(1)):
        if position in chosen:
            yield dict(batch)


def _compare_answers(e: Evidence, workers: Sequence[Worker], loaded: Sequence[Loaded], data: Dataset) -> None:
    """Compare both models' outputs for up to 256 samples: agreement of classes, and noise of all outputs."""
    sizes = [evaluate.batch_size(model.judged_inputs, 1) for model in loaded]
    tops: list[list[int | None]] = [[], []]
    noise: dict[str, list[float]] = {}
    distributions = True
    for sample in spread_samples(data, _SAMPLES):
        outputs = []
        for worker, model, size in zip(workers, loaded, sizes, strict=True):
            feeds, _ = evaluate.feeds(sample, model.judged_inputs, data, size)
            outputs.append(_real_outputs(worker.infer(feeds), model, size))
        for name, truth, held in zip(outputs[1], outputs[1].values(), outputs[0].values(), strict=False):
            if _are_numbers(truth, held):
                exact = truth.astype(np.float64)
                sums = noise.setdefault(name, [0.0, 0.0])
                sums[0] += float(np.square(exact).sum())
                sums[1] += float(np.square(exact - held).sum())
        firsts = [next(iter(answer.values())) for answer in outputs]
        if not _is_distribution(firsts[1]):
            distributions = False
        for classes, first, size in zip(tops, firsts, sizes, strict=True):
            classes.append(top_answer(first, size))
    e.output_db = {name: _signal_to_noise_db(signal, lost) for name, (signal, lost) in noise.items() if signal}
    known = [classes for classes in tops if classes and None not in classes]
    if len(known) == 2 and answers_are_classes(data.labels, firsts[1], distributions=distributions):
        e.agreement = (sum(a == b for a, b in zip(*known, strict=True)) / len(known[0]), len(known[0]))


def _signal_to_noise_db(signal: float, noise: float) -> float:
    return float(10 * np.log10(signal / noise)) if noise else float("inf")


def _real_outputs(outputs: Mapping[str, Any], loaded: Loaded, size: int) -> dict[str, Array]:
    """Return one sample's outputs, with integers that have a scale converted to the real numbers they represent."""
    scales = {spec.name: spec.quantization for spec in loaded.outputs if spec.quantization is not None}
    real = {}
    for name, array in outputs.items():
        value = array[:1] if isinstance(array, np.ndarray) and array.ndim and len(array) == size else array
        if name in scales and value.dtype.kind in "iu":
            value = (value.astype(np.float32) - np.float32(scales[name][1])) * np.float32(scales[name][0])
        real[name] = value
    return real


def _are_numbers(truth: Any, held: Any) -> bool:
    """Return whether two outputs are finite numbers of the same shape."""
    if not (isinstance(truth, np.ndarray) and isinstance(held, np.ndarray)) or truth.shape != held.shape:
        return False
    real = truth.dtype.kind == "f" and held.dtype.kind in "fiu"
    return real and all(bool(np.isfinite(output).all()) for output in (truth, held))


def top_answer(output: Any, size: int) -> int | None:
    """Return the class that an output gives for its first sample; None if it has no scores per class."""
    if not isinstance(output, np.ndarray) or output.ndim < 1 or output.dtype.kind not in "iuf":
        return None
    first = output[0]
    if first.size == 1 and output.dtype.kind in "iu":  # the class itself
        return int(first.reshape(-1)[0])
    if len(output) not in {1, size} or first.size < 2 or first.size != max(output.shape[1:]):
        return None
    return int(first.reshape(-1).argmax())


def _is_distribution(output: Any) -> bool:
    """Return whether the numbers are probabilities: not negative, with the sum 1."""
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or output.size < 2:
        return False
    return bool(output.min() >= -1e-3 and abs(float(output.sum()) - 1) < 0.05)


def answers_are_classes(labels: Array, output: Array, *, distributions: bool) -> bool:
    """Return whether an output scores classes, and not coordinates, boxes or embeddings.

    The labels decide it, or without labels the output's numbers.

    Args:
        labels: The dataset's labels.
        output: The first output for one sample.
        distributions: Whether the output was probabilities for all samples.
    """
    if are_absent(labels):
        return distributions or output.dtype.kind in "iu"
    if labels.dtype.names or labels.dtype.kind not in "iub":
        return False
    count = output[0].size
    if labels.ndim == 1:
        return count == 1 or bool(len(labels) and labels.min() >= 0 and labels.max() < count)
    return labels.ndim == 2 and labels.shape[1] == count and bool((labels.sum(axis=1) == 1).all())


def _batch_error(worker: Worker, inputs: Sequence[Any], data: Dataset) -> float | None:
    """Return the largest relative difference between a batch's outputs and those of its samples one by one.

    The result is None for a fixed batch, or if the first output has no numbers for each sample (a word, a map, one loss
    for all).
    """
    if any(isinstance(spec.shape[0], int) for spec in inputs if spec.shape):
        return None
    samples = list(spread_samples(data, _BATCH))
    if len(samples) < 2:
        return None
    together = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    answers = []
    for feeds_of, size in [*((sample, 1) for sample in samples), (together, len(samples))]:
        feeds, _ = evaluate.feeds(feeds_of, inputs, data, size)
        first: Any = next(iter(worker.infer(feeds).values()))
        if (
            not isinstance(first, np.ndarray)
            or first.dtype.kind not in "biuf"
            or not first.ndim
            or len(first) != size
            or not first.size
        ):
            return None
        answers.append(first.astype(np.float64))
    *alone, batch = answers
    if any(answer.shape[1:] != batch.shape[1:] for answer in alone):
        return None
    single = np.concatenate(alone)
    scale = float(np.abs(single).max()) or 1.0
    return float(np.abs(batch - single).max()) / scale
