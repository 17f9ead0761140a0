"""``edgeprof.bench``: the command ``edgeprof bench`` as a function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgeprof.artifact.artifact import short_name
from edgeprof.benchmark import conductor
from edgeprof.benchmark.language_request import language_request
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.benchmark.variants import model_requests
from edgeprof.compression.scratch import scratch
from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_dataset, load_metric
from edgeprof.library.in_process import offered
from edgeprof.library.progress import OneLine
from edgeprof.library.result import Result
from edgeprof.plugins import PluginHost
from edgeprof.results.store import Store
from edgeprof.roots import Roots

if TYPE_CHECKING:
    from edgeprof.benchmark.progress import Progress

#: A model file or ``module:attribute``, or a callable of this process.
Model: TypeAlias = str | os.PathLike[str] | Callable[..., Any]


def bench(
    models: Model | Iterable[Model] | Mapping[str, Model],
    *,
    dataset: str | os.PathLike[str] | None = None,
    metric: str = "top1",
    preprocess: Mapping[str, str] | None = None,
    variants: Sequence[str] = (),
    runtime: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    batch: int | Sequence[int] = 1,
    scenario: str = "single-stream",
    rate_hz: float | None = None,
    streams: int | None = None,
    preset: str = "default",
    windows: int | None = None,
    window_s: float | None = None,
    warmup_s: float | None = None,
    idle_s: float | None = None,
    inputs: Mapping[str, Sequence[int]] | None = None,
    input_data: str | os.PathLike[str] | None = None,
    options: Mapping[str, str] | None = None,
    prompt: int | Sequence[int] | None = None,
    generate: int | None = None,
    depth: int | Sequence[int] | None = None,
    context: int | None = None,
    kv: str | None = None,
    text: str | os.PathLike[str] | None = None,
    text_chunks: int | None = None,
    random_weights: bool = False,
    server_model: str | None = None,
    profile_ops: int | None = None,
    isolate_ops: int = 0,
    frames: str | os.PathLike[str] | None = None,
    sample_rate_hz: float = 100.0,
    sensors: Sequence[str] | None = None,
    rail: str | None = None,
    estimate_power_w: float | None = None,
    worker_python: str | os.PathLike[str] | None = None,
    isolated: bool = True,
    timeout_s: float = 120.0,
    seed: int = 0,
    strict: bool = False,
    save: bool = True,
    progress: bool | Progress | None = None,
    sysfs_root: str | os.PathLike[str] | None = None,
    procfs_root: str | os.PathLike[str] | None = None,
) -> Result:
    """Measure latency, throughput, joules, power, memory and accuracy of models on this device.

    Several models alternate, window by window, and are compared with the first. A model file runs in a separate
    process. A callable runs in this process, which its result states as the reason ``in_process``.

    Args:
        models: One model, several models, or a mapping from names to models.
        dataset: Labelled data, in a form that ``edgeprof bench --dataset`` accepts.
        metric: The metric of accuracy.
        preprocess: The declared preprocessing of the dataset.
        variants: Also measure these variants of each model file, such as ``prune-structured:amount=0.3+int8-static``.
        runtime: The runtime for the models; by default chosen by their content.
        device: ``cpu``, ``cuda:0`` …; by default the runtime's own default.
        threads: The runtime's number of threads.
        batch: Samples in one call; for language models requests at the same time, or several such numbers.
        scenario: ``single-stream``, ``multi-stream``, ``offline``, ``server`` or ``periodic``.
        rate_hz: Calls per second in ``server`` and ``periodic``.
        streams: Streams at the same time in ``multi-stream`` and ``periodic``.
        preset: ``quick``, ``default``, ``rigorous`` or ``mlperf-tiny``; the next four arguments override it.
        windows: Windows per workload.
        window_s: Seconds of one window.
        warmup_s: Seconds of the shortest warm-up.
        idle_s: Seconds of idle before and after.
        inputs: Input name → shape, for shapes that the model leaves open.
        input_data: An .npz file with real inputs.
        options: Other options that the runtime documents.
        prompt: Prompt tokens of a language model's request; by default 512. Each of several becomes a variant.
        generate: Tokens that the request generates; by default 128.
        depth: Tokens in the cache before the prompt; by default 0. Each of several becomes a variant.
        context: The capacity of the cache in tokens; by default the required one.
        kv: The type of the cache, such as ``q8_0``; by default the runtime's.
        text: A text file whose perplexity is requested.
        text_chunks: How many pieces of 512 tokens of the text are read; by default 6, and 0 for all.
        random_weights: Run a configuration (config.json) without weights, with random weights.
        server_model: The model of a server that is given by its URL; by default the server's only model.
        profile_ops: How many operators of each model get their own row, from a run outside the windows; by default the
            models are not profiled.
        isolate_ops: How many of them are also measured alone, in turns with the whole model.
        frames: For a pipeline: a video, a folder of images, a camera or a stream; by default the pipeline's own source.
        sample_rate_hz: Readings of each sensor per second.
        sensors: Only these sources; by default all that work.
        rail: The rail to use as the headline.
        estimate_power_w: Watts of one busy core, for an estimate if no sensor measures power.
        worker_python: The Python interpreter for model files.
        isolated: False runs model files in this process too.
        timeout_s: How many seconds a model may take longer than its requested work.
        seed: The seed of random inputs, arrivals and compressors.
        strict: Accept no estimate.
        save: Store the result on this device, where ``load("last")`` and ``edgeprof history`` find it.
        progress: Whether to show progress, by default on a terminal and in a notebook; or an object that receives it.
        sysfs_root: Read a captured or simulated tree instead of /sys.
        procfs_root: Read a captured or simulated tree instead of /proc.

    Raises:
        InputError: An argument, a path or a dataset cannot be used.
        UnavailableError: No installed runtime loads any of the models.
    """
    if input_data is not None and not Path(input_data).is_file():
        raise InputError(
            f"input_data {os.fspath(input_data)} is not a file", remedy="Give an .npz, one array per input."
        )
    lengths = {"prompt": prompt, "generate": generate, "depth": depth, "context": context}
    host = PluginHost.from_environment()
    data = None if dataset is None else load_dataset(os.fspath(dataset), host, dict(preprocess or {}))
    paths, callables = _sorted_out(models)
    if variants and not paths:
        raise InputError("variants are made of model files, and no model here is one", remedy="Leave variants out.")
    with scratch("variants") as folder, offered(callables) as targets:
        requests = model_requests(
            list(paths.values()),
            host,
            folder,
            data,
            names=[] if len(paths) == 1 and not callables else list(paths),
            chains=variants,
            seed=seed,
            timeout_s=timeout_s,
            isolated=isolated,
        )
        requests += [ModelRequest(target, name, in_process=True) for name, target in targets.items()]
        request = BenchRequest(
            models=requests,
            runtime=runtime,
            device=device,
            threads=threads,
            scenario=scenario,
            rate_hz=rate_hz,
            streams=streams,
            preset=preset,
            windows=windows,
            window_s=window_s,
            warmup_s=warmup_s,
            idle_s=idle_s,
            sample_rate_hz=sample_rate_hz,
            sensors=sensors,
            rail=rail,
            estimate_power_w=estimate_power_w,
            shapes={name: tuple(shape) for name, shape in (inputs or {}).items()},
            input_data=None if input_data is None else Path(input_data),
            dataset=data,
            metric=None if data is None else load_metric(metric, host),
            options=options or {},
            server_model=server_model,
            profile_ops=profile_ops,
            isolate_ops=isolate_ops,
            **language_request(
                {name: None if count is None else _listed(count) for name, count in lengths.items()},
                _listed(batch),
                kv=kv,
                text=None if text is None else os.fspath(text),
                text_chunks=text_chunks,
                random_weights=random_weights,
            ),
            frames=None if frames is None else os.fspath(frames),
            worker_python=None if worker_python is None else os.fspath(worker_python),
            isolated=isolated,
            timeout_s=timeout_s,
            strict=strict,
            seed=seed,
        )
        watcher = OneLine(progress) if progress is None or isinstance(progress, bool) else progress
        result = conductor.bench(request, host, Roots.resolve(sysfs_root, procfs_root), watcher)
    if save:
        Store().save(result)
    return Result.of(result)


def _listed(counts: int | Sequence[int]) -> Sequence[int]:
    return [counts] if isinstance(counts, int) else counts


def _sorted_out(
    models: Model | Iterable[Model] | Mapping[str, Model],
) -> tuple[dict[str, str], dict[str, Callable[..., Any]]]:
    """Return the model files and the callables, each by its name."""
    named: list[tuple[str | None, Model]]
    if isinstance(models, Mapping):
        named = list(models.items())
    elif isinstance(models, (str, os.PathLike)) or callable(models):
        named = [(None, models)]
    else:
        named = [(None, model) for model in models]
    paths: dict[str, str] = {}
    callables: dict[str, Callable[..., Any]] = {}
    for name, model in named:
        if isinstance(model, (str, os.PathLike)):
            spec = os.fspath(model)
            paths[_unused_name(name or short_name(spec), paths, callables)] = spec
        elif callable(model):
            own_name = getattr(model, "__name__", type(model).__name__)
            callables[_unused_name(name or own_name, paths, callables)] = model
        else:
            raise InputError(
                f"{model!r} is no model", remedy="Give a path, module:attribute, or something that can be called."
            )
    return paths, callables


def _unused_name(name: str, *taken: Mapping[str, Any]) -> str:
    """Return the name, with a number if it is in use."""
    unique, count = name, 1
    while any(unique in names for names in taken):
        count += 1
        unique = f"{name}#{count}"
    return unique
