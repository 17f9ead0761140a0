"""The request for a benchmark, and its models; each is recognised, named and given a runtime before anything runs."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeprof.artifact import gguf, language_folders
from edgeprof.artifact.recognition import SERVER
from edgeprof.benchmark import operators
from edgeprof.compression.recipe import recipe_beside
from edgeprof.errors import InputError, UnavailableError, VariantError
from edgeprof.launch.choose import choose_runtime, examine, named_runtime, own_formats
from edgeprof.worker.language import GENERATE, PROMPT
from edgeprof.worker.runtime import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgeprof.artifact import Artifact
    from edgeprof.errors import EdgeprofError
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.evaluation.metric import Metric
    from edgeprof.evaluation.perplexity import Text
    from edgeprof.plugins import PluginHost
    from edgeprof.worker.runtime import Runtime


#: Formats that are folders of a language model.
LANGUAGE_FOLDERS = ("transformers", "openvino-genai", "onnxruntime-genai", "ctranslate2")


@dataclass(frozen=True)
class ModelRequest:
    """One model or variant to benchmark: what to load, its name, and how it was made."""

    spec: str
    name: str | None = None
    recipe: list[dict[str, Any]] = field(default_factory=list)
    #: Set if making this variant failed: it is reported, not run; ``spec`` is then the model it should be made from.
    failure: VariantError | None = None
    #: Whether it is a callable of this process, which runs in this process even if the other models do not.
    in_process: bool = False


@dataclass(frozen=True)
class BenchRequest:
    """The whole request: the flags of ``edgeprof bench``, resolved but not interpreted."""

    models: Sequence[ModelRequest]
    runtime: str | None = None
    device: str | None = None  # None: the runtime's own default
    threads: int | None = None
    batch: int = 1
    scenario: str = "single-stream"
    rate_hz: float | None = None
    streams: int | None = None
    #: How many frames of a camera may wait (``periodic``).
    queue: int = 0
    #: Further rates and streams at which the main workload is measured; their windows alternate with the first.
    further: Sequence[tuple[float, int]] = ()
    preset: str = "default"
    windows: int | None = None
    window_s: float | None = None
    warmup_s: float | None = None
    idle_s: float | None = None
    sample_rate_hz: float | None = None
    sensors: Sequence[str] | None = None
    rail: str | None = None
    estimate_power_w: float | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    input_data: Path | None = None
    dataset: Dataset | None = None
    metric: Metric | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    #: For language models: the given ones of ``prompt``, ``generate``, ``depth`` and ``context``, in tokens.
    language: Mapping[str, int] = field(default_factory=dict)
    #: Those of ``prompt``, ``depth`` and ``batch`` that are lists: each combination becomes a separate row.
    sweep: Mapping[str, Sequence[int]] = field(default_factory=dict)
    #: Further options for a language model's runtime: ``kv`` (the type of its cache), ``prefill_threads``,
    #: ``random_weights``; rejected for other models.
    language_options: Mapping[str, str] = field(default_factory=dict)
    #: The text whose perplexity is requested.
    text: Text | None = None
    #: For pipelines: the source of the frames; None for the pipeline's own source.
    frames: str | None = None
    #: The model of a server that is given by its URL; None for the server's only model.
    server_model: str | None = None
    worker_python: str | None = None
    isolated: bool = True
    timeout_s: float = 120.0
    strict: bool = False
    seed: int = 0
    #: How many operators of each model get their own row; None: the models are not profiled.
    profile_ops: int | None = None
    #: How many operators of each model are measured alone, in turns with the whole model; 0 for none.
    isolate_ops: int = 0
    #: Lower the averaging of INA3221s for the run, as root.
    fast_sensor: bool = False

    @property
    def operators_kept(self) -> int | None:
        """How many operators get their own row, among them those that are measured alone; None: none is profiled."""
        if not self.isolate_ops:
            return self.profile_ops
        return max(self.profile_ops or operators.KEPT, self.isolate_ops)

    @property
    def inputs_from(self) -> str | None:
        """The file or source of the inputs; None if they are random or a pipeline's own."""
        return self.frames if self.input_data is None else str(self.input_data)


@dataclass
class Candidate:
    """A recognised model and the runtime that will load it, or the reason why there is nothing to run."""

    name: str
    recipe: list[dict[str, Any]]
    artifact: Artifact
    runtime: Runtime | None
    failure: VariantError | None = None
    in_process: bool = False
    #: The values of this row, one from each list in ``BenchRequest.sweep``.
    lengths: Mapping[str, int] = field(default_factory=dict)

    @functools.cached_property
    def history(self) -> list[dict[str, Any]]:
        """How the model was made, in this run or by an earlier ``edgeprof compress``, as far as it is known."""
        return self.recipe or recipe_beside(self.artifact)


def _check_kind(request: BenchRequest, artifact: Artifact, runtime: Runtime) -> None:
    """Check that the request's flags suit the kind of the model.

    Raises:
        InputError: A flag for language models was given for another model, or frames for something else than a program.
    """
    names = [*request.language, *(name for name in request.sweep if name != "batch"), *request.language_options]
    flags = {"prefill_threads": "--threads N:M", "random_weights": "--random-weights"}
    asked = [flags.get(name, f"--{name}") for name in dict.fromkeys(names)]
    asked += ["--batch with a list"] if "batch" in request.sweep else []
    asked += ["--text"] if request.text is not None else []
    if asked and not runtime.is_for_language:
        given = ", ".join(asked)
        raise InputError(
            f"{given} is meant for language models, and {artifact.spec} is none",
            remedy=f"Leave {given} out; --input and --batch say how large the inputs of other models are.",
        )
    if request.further and runtime.is_for_language:
        raise InputError(
            f"--rate and --streams with a list are not for language models, as {artifact.spec} is one",
            remedy="Run edgeprof bench once for each.",
        )
    random_weights = "random_weights" in request.language_options
    if artifact.format in LANGUAGE_FOLDERS and artifact.path is not None:
        language_folders.check(artifact.spec, artifact.path, artifact.format, random_weights=random_weights)
    elif random_weights:
        raise InputError(
            f"--random-weights is for a bare config.json, and {artifact.spec} is {artifact.format}",
            remedy="Leave --random-weights out.",
        )
    if artifact.format == "gguf":
        _check_context(request, artifact)
    if request.frames is not None:
        require_pipeline(artifact)


def require_pipeline(artifact: Artifact) -> None:
    """Check that a model for which frames were given may be a pipeline.

    Raises:
        InputError: It is no program.
    """
    if artifact.format != "python":
        raise InputError(
            f"--frames is meant for a pipeline, and {artifact.spec} is none",
            remedy="Leave --frames out, or give app.py:pipeline.",
        )


def _check_context(request: BenchRequest, artifact: Artifact) -> None:
    """Check that the requests fit the context for which the model was trained.

    Raises:
        InputError: The requests are longer, and no longer context was requested.
    """
    trained = gguf.read_model(artifact.files).context_length
    if trained is None or "context" in request.language:
        return
    longest = {"prompt": PROMPT, "generate": GENERATE, "depth": 0, **request.language}
    longest.update({name: max(counts) for name, counts in request.sweep.items() if name in longest})
    needed = sum(longest[name] for name in ("prompt", "generate", "depth"))
    if needed > trained:
        raise InputError(
            f"a prompt of {longest['prompt']} tokens and {longest['generate']} generated ones at a depth of "
            f"{longest['depth']} are {needed} tokens, and the context of {artifact.spec} is {trained}",
            remedy=f"Give shorter requests, or --context {needed} to go beyond what the model was trained for.",
        )


def _free_name(name: str, taken: set[str]) -> str:
    """Return the name, with a number if it is in use, and add it to ``taken``."""
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}#{count}"
    taken.add(unique)
    return unique


def _combinations(sweep: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """Return each combination of the lists, the last list changing fastest; one empty combination without lists."""
    return [dict(zip(sweep, counts, strict=True)) for counts in itertools.product(*sweep.values())]


def input_shapes(texts: Sequence[str]) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Parse texts such as ``NAME=1x3x224x224[:float32]`` (or with commas) into shapes and dtypes by name.

    Raises:
        InputError: A text does not have this form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for text in texts:
        # A TensorFlow name ends in ":0", so the shape is what follows the last "=".
        name, _, rest = text.rpartition("=")
        dims, _, dtype = rest.partition(":")
        try:
            shape = tuple(int(d) for d in dims.replace(",", "x").split("x")) if dims not in {"", "scalar"} else ()
        except ValueError:
            shape = (0,)
        if not name or any(d < 1 for d in shape):
            raise InputError(f"the input {text!r} is not NAME=SHAPE[:DTYPE]", remedy="Write it as x=1x3x32x32:float32.")
        shapes[name] = shape
        if dtype:
            dtypes[name] = dtype
    return shapes, dtypes


def candidates(request: BenchRequest, host: PluginHost) -> list[Candidate]:
    """Return the models, each recognised, with a unique name and a runtime.

    If one of several is not a model, or no installed runtime loads it, the others are still measured.

    Raises:
        InputError: A path or a runtime does not exist.
        EdgeprofError: There is nothing to run; the message is the first model's reason.
    """
    if not request.models:
        raise InputError("no model was given", remedy="edgeprof bench MODEL [MODEL …]")
    if request.text is not None and request.dataset is not None:
        raise InputError("--text and --dataset each judge a model in their own way", remedy="Leave one of them out.")
    taken: set[str] = set()
    named = None if request.runtime is None else named_runtime(host, request.runtime)
    formats = own_formats(host)
    recognised: list[Candidate] = []
    refusals: list[EdgeprofError | None] = []
    for model in request.models:
        refusal: EdgeprofError | None
        artifact, refusal = examine(model.spec, formats)
        name = model.name or artifact.name
        runtime = None
        if model.failure is not None:  # a variant that was not made has no size and no checksum
            artifact, refusal = replace(artifact, size_bytes=None, sha256=None, files=()), model.failure
        elif refusal is None:
            try:
                runtime = choose_runtime(host, artifact, named, foreign_python=request.worker_python is not None)
                _check_kind(request, artifact, runtime)
            except (InputError, UnavailableError) as error:
                refusal = error
        refusals.append(refusal)
        failure = None if refusal is None else VariantError.of(refusal)
        for lengths in _combinations(request.sweep) if refusal is None else [{}]:
            row = ",".join(f"{flag}={count}" for flag, count in lengths.items())
            unique = _free_name(f"{name} {row}" if row else name, taken)
            recognised.append(Candidate(unique, model.recipe, artifact, runtime, failure, model.in_process, lengths))
    if refusals[0] is not None and None not in refusals:
        raise refusals[0]
    return recognised


def load_options(request: BenchRequest, candidate: Candidate) -> LoadOptions:
    """Return the options with which the runtime of a candidate loads it."""
    served, lengths = request.server_model, {**request.language, **candidate.lengths}
    batch = lengths.pop("batch", request.batch)
    text = request.text
    return LoadOptions(
        device=request.device or (candidate.runtime.default_device if candidate.runtime else "cpu"),
        threads=request.threads,
        batch=batch,
        shapes=dict(request.shapes),
        dtypes=dict(request.dtypes),
        options={
            **request.options,
            **{name: str(count) for name, count in lengths.items()},
            **request.language_options,
            **({} if text is None else {"chunk": str(text.chunk)}),
            **({} if request.frames is None else {"frames": request.frames}),
            **({"model": served} if served and candidate.artifact.format == SERVER else {}),
        },
    )
