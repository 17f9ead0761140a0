"""Run a variant and its baseline in turns: how long they take, and what they answer to the same samples."""

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
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgeprof.artifact import Artifact
    from edgeprof.diagnosis.checks import Evidence
    from edgeprof.diagnosis.inputs import Inputs
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.plugins import PluginHost
    from edgeprof.worker.graph import Graph
    from edgeprof.worker.runtime import TensorSpec

    Array = npt.NDArray[Any]

#: Samples whose answers are compared with the baseline's.
_SAMPLES = 256
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
) -> None:
    """Times in turns (variant, baseline, baseline, variant) and answers to the same samples.

    Args:
        e: What is found goes here; its graphs tell which sizes are open.
        models: The variant and, if there is one, its baseline.
        host: The plugins.
        data: The samples; None: nothing is answered.
        inputs: What the models are loaded with.
        measure_s: Seconds to time each model; 0: nothing is timed.
        timeout_s: For each step of a worker.
    """
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_worker(one, host, timeout_s, inputs, graph))
            for one, graph in zip(models, (e.graph, e.baseline), strict=False)
        ]
        loaded = [worker.load() for worker in workers]
        if loaded[0].problems:
            raise VariantError(loaded[0].problems[0][1], code=Code.NAN_OUTPUT)
        check_same_inputs(*(one.inputs for one in loaded))
        if measure_s:
            medians = _times(workers, measure_s)
            e.latency_s = medians[0]
            e.speed_up = medians[1] / medians[0] if len(medians) > 1 else None
        if data is None:
            return
        answers = [top_answers(worker, one.inputs, data) for worker, one in zip(workers, loaded, strict=True)]
        if len(answers) > 1 and answers[0].size and answers[1].size:
            same = answers[0] == answers[1]
            e.agreement = (float(same.mean()), len(same))
        e.batch_error = _batch_error(workers[0], loaded[0].inputs, data)


def check_same_inputs(mine: Sequence[TensorSpec], baseline: Sequence[TensorSpec] | None = None) -> None:
    """A variant takes what its baseline takes, in whatever layout, type and batch."""
    told = [spec.shape for spec in (*mine, *(baseline or ()))]
    if baseline is None or ANY_SHAPE in told or not all(isinstance(size, int) for one in told for size in one[1:]):
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


def _worker(artifact: Artifact, host: PluginHost, timeout_s: float, inputs: Inputs, graph: Graph | None) -> Worker:
    runtime = choose_runtime(host, artifact)
    return Worker(
        WorkerSpec.of(
            runtime,
            artifact.target,
            LoadOptions(runtime.default_device, None, 1, inputs.shapes_for(graph), {}, dict(inputs.dtypes)),
            inputs=inputs.data,
            timeout_s=timeout_s,
        )
    )


def _times(workers: Sequence[Worker], seconds: float) -> list[float]:
    """Median latency of each, in turns, so that a drift falls on all alike."""
    latencies: list[list[Array]] = [[] for _ in workers]
    order = list(range(len(workers)))
    for worker in workers:
        worker.warm_up(0.3, max(1.0, seconds))
    for turn in (order, order[::-1]):
        for index in turn:
            window = workers[index].window(Scenario(), seconds / 2)
            latencies[index].append(np.asarray(window.latencies))
    return [float(np.median(np.concatenate(one))) for one in latencies]


def spread_samples(data: Dataset, count: int) -> Iterator[dict[str, Array]]:
    """Evenly spread ones: a dataset may be sorted by class."""
    chosen = set(np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)).tolist())
    for position, batch in enumerate(data.batches(1)):
        if position in chosen:
            yield dict(batch)


def top_answers(worker: Worker, inputs: Sequence[Any], data: Dataset) -> npt.NDArray[np.intp]:
    """The top-1 answers to up to 256 samples; none where boxes, embeddings or tokens are answered and not a class."""
    size = evaluate.batch_size(inputs, 1)
    found: list[int] = []
    if data.labels.dtype.names and not are_absent(data.labels):
        return np.asarray(found, np.intp)
    for sample in spread_samples(data, _SAMPLES):
        feeds, _ = evaluate.feeds(sample, inputs, data, size)
        first = next(iter(worker.infer(feeds).values()))
        if first.ndim < 1 or first.shape[0] != size:
            raise InputError("its outputs do not begin with the batch, so answers cannot be compared")
        if first.size == size and first.dtype.kind in "iu":  # the class itself
            found.append(int(first.reshape(-1)[0]))
            continue
        if first.dtype.kind not in "iuf" or first[0].size < 2 or first[0].size != max(first.shape[1:]):
            break
        found.append(int(first[0].reshape(-1).argmax()))
    return np.asarray(found, np.intp)


def _batch_error(worker: Worker, inputs: Sequence[Any], data: Dataset) -> float | None:
    """The largest relative difference between a batch's answers and its samples' own; None for a fixed batch."""
    if any(isinstance(spec.shape[0], int) for spec in inputs if spec.shape):
        return None
    samples = list(spread_samples(data, _BATCH))
    if len(samples) < 2:
        return None
    alone = []
    for sample in samples:
        feeds, _ = evaluate.feeds(sample, inputs, data, 1)
        alone.append(next(iter(worker.infer(feeds).values())))
    together = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    feeds, _ = evaluate.feeds(together, inputs, data, len(samples))
    batch = next(iter(worker.infer(feeds).values())).astype(np.float64)
    single = np.concatenate(alone).astype(np.float64)
    if batch.shape != single.shape:
        return None
    scale = float(np.abs(single).max()) or 1.0
    return float(np.abs(batch - single).max()) / scale
