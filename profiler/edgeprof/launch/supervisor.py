"""The parent's side of a worker: send it requests, and return its answers or raise its failures."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.artifact.artifact import short_name
from edgeprof.errors import InputError, VariantError, unknown
from edgeprof.installation import mended_for
from edgeprof.launch.fitting import fits
from edgeprof.launch.loaded import Loaded, Warmup
from edgeprof.launch.process import WorkerProcess, without_surrogates
from edgeprof.launch.worker_memory import WorkerMemory, memory_of, reset_peak
from edgeprof.reasons import Code
from edgeprof.worker import sandbox, tensors
from edgeprof.worker.embedded_code import is_code_allowed
from edgeprof.worker.handler import Handler
from edgeprof.worker.runtime import IsolatedOperators, LoadOptions, OperatorProfile, OperatorTime, TensorSpec
from edgeprof.worker.scenario import OPEN, SCENARIOS, Phase, Scenario, Window
from edgeprof.worker.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgeprof.worker.runtime import Runtime

#: How long a warm-up lasts at least and at most, seconds (measurement.md, A2.4).
WARMUP_MIN_S = 1.0
WARMUP_MAX_S = 60.0


@dataclass(frozen=True)
class WorkerSpec:
    """What to load, and under which conditions.

    Attributes:
        runtime_file: The Python file of the runtime.
        runtime_class: The name of the Runtime in it.
        target: The model for ``Runtime.load``.
        options: The options for ``Runtime.load``.
        inputs: An .npz with one set of inputs; None: random inputs from ``seed``.
        python: The interpreter that runs the worker; None: this one.
        timeout_s: How long (s) a request may take beyond its own duration; not enforced without isolation.
        memory_limit_bytes: The limit of the worker's data (RLIMIT_DATA); None: no limit.
        isolated: False runs the model in this process.
        seed: Seeds the random inputs.
        label: The name of the variant in messages; by default the name of the target.
        crash_remedy: ``Runtime.crash_remedy``: what may help where loading crashes.
    """

    runtime_file: Path
    runtime_class: str
    target: str
    options: LoadOptions
    inputs: Path | None = None
    python: str | None = None
    timeout_s: float = 60.0
    memory_limit_bytes: int | None = None
    isolated: bool = True
    seed: int = 0
    label: str = ""
    crash_remedy: str | None = None

    @classmethod
    def of(cls, runtime: Runtime, target: str, options: LoadOptions, **conditions: Any) -> WorkerSpec:
        """The specification of a worker that loads ``target`` with a runtime, whose file it imports by path.

        Args:
            runtime: The runtime, as a plugin's factory made it.
            target: The model for ``Runtime.load``.
            options: The options for ``Runtime.load``.
            conditions: The other attributes.
        """
        file = Path(inspect.getfile(type(runtime)))
        return cls(file, type(runtime).__qualname__, target, options, crash_remedy=runtime.crash_remedy, **conditions)


class Worker:
    """A model in a process of its own (or, not isolated, in this one).

    Use it as a context manager, and call ``load`` first. Every method that asks the worker raises VariantError if the
    model fails; after ``crashed``, ``timeout`` and a kill for lack of memory the worker has ended. Only one thread at a
    time may call it.

    Attributes:
        kept: The state that ``infer`` could not reset before its last run, as a sentence; None if the model started
            fresh.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._label = spec.label or short_name(spec.target) or spec.target
        self._process: WorkerProcess | None = None
        self._handler: Handler | None = None
        self._windows: dict[str | None, int] = {}  # workload → windows so far
        self.kept: str | None = None

    def __enter__(self) -> Worker:  # noqa: PYI034 - Self is not in the typing of 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The ID of the process in which the model runs."""
        return os.getpid() if self._process is None else self._process.pid

    @property
    def last_words(self) -> str:
        """The end of what the model has written to stdout and stderr so far; empty without isolation."""
        return "" if self._process is None else self._process.last_words()

    def load(self) -> Loaded:
        """Start the worker, load the model and run it once.

        Raises:
            InputError: ``python`` cannot be used.
            VariantError: the model cannot be loaded or run.
        """
        self.close()
        spec = self._spec
        if spec.python is not None and not spec.isolated:
            raise InputError(
                "--worker-python needs a worker process, and --no-isolation forbids it", remedy="Leave one of them out."
            )
        if sandbox.is_asked_for() and not spec.isolated:
            raise InputError("--sandbox needs a worker process, and --no-isolation forbids it", remedy="Leave one out.")
        if spec.isolated:
            threads = spec.options.threads
            # For libraries that read it when they are imported (OpenBLAS under numpy, OpenMP under torch).
            names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
            environ = {name: str(threads) for name in names if threads and name not in os.environ}
            self._process = WorkerProcess(self._label, spec.python, spec.memory_limit_bytes, environ)
        else:
            self._handler = Handler()
            reset_peak()
        with self._understood("loading"):
            return self._load_and_run_once()

    def _load_and_run_once(self) -> Loaded:
        spec = self._spec
        hello, _ = self._ask({"do": "hello"}, doing="its start")
        base = memory_of(self.pid)["VmRSS"]
        request = {
            "do": "load",
            "runtime_file": str(spec.runtime_file),
            "runtime_class": spec.runtime_class,
            "target": spec.target,
            "options": spec.options._asdict(),
            "allow_code": is_code_allowed(),
        }
        try:
            loaded, _ = self._ask(request, doing="loading")
        except VariantError as error:
            if error.code == Code.CRASHED and spec.crash_remedy:
                error.remedy = spec.crash_remedy
            raise
        rss = memory_of(self.pid)["VmRSS"]
        inputs = None if spec.inputs is None else str(spec.inputs)
        fitting = fits(Path(spec.target)) if inputs is None and spec.target.endswith(".onnx") else {}
        request = {"do": "first", "inputs": inputs, "seed": spec.seed, "fits": fitting}
        first, _ = self._ask(request, doing="its first inference")
        return Loaded(
            inputs=[_spec(item) for item in loaded["inputs"]],
            outputs=[_spec(item) for item in loaded["outputs"]],
            version=loaded["version"],
            facts=first["facts"],
            devices=first["devices"],
            load_s=loaded["load_s"],
            rss_bytes=rss,
            base_rss_bytes=base,
            library_rss_bytes=loaded["library_rss"] if spec.isolated else None,
            python=hello["python"],
            first_inference_s=first["first_s"],
            shapes={name: tuple(shape) for name, shape in first["shapes"].items()},
            problems=[(code, sentence) for code, sentence in first["problems"]],
            workloads=[Workload(*workload) for workload in first["workloads"]],
            language=first["language"],
            peak_rss_bytes=memory_of(self.pid)["VmHWM"],
            microcontroller=first["microcontroller"],
            pipeline=first["pipeline"],
        )

    def warm_up(
        self,
        min_s: float = WARMUP_MIN_S,
        max_s: float = WARMUP_MAX_S,
        scenario: Scenario | None = None,
        workload: str | None = None,
    ) -> Warmup:
        """Run a workload back to back until its latency is steady: at least ``min_s`` and 10 calls, at most ``max_s``.

        With a scenario of several streams, all their sessions are loaded and run once first. By default the main
        workload is warmed up.
        """
        request: dict[str, Any] = {"do": "warm_up", "min_s": min_s, "max_s": max(min_s, max_s), "workload": workload}
        request["scenario"] = (scenario or Scenario())._asdict()
        answer, _ = self._ask(request, doing="warm-up", extra_s=max(min_s, max_s))
        with self._understood("warm-up"):
            warmup = Warmup(**{key: answer[key] for key in ("reached", "inferences", "seconds", "latency_s", "reason")})
            _require_numbers(warmup.inferences, warmup.seconds, warmup.latency_s)
            return warmup

    def window(
        self,
        scenario: Scenario,
        seconds: float,
        workload: str | None = None,
        *,
        quiet_s: float = 0.0,
        phase: Phase | None = None,
    ) -> Window:
        """Run one window of a workload (by default the main one) and wait for its end.

        Each Poisson window of a worker has other arrivals; the n-th windows of two workers have the same ones.

        Args:
            scenario: How its calls follow one another.
            seconds: Its length.
            workload: The workload's name.
            quiet_s: For how long the worker does nothing directly before the window and directly after it.
            phase: When the window may start; None for at once.

        Raises:
            InputError: a scenario that does not exist, or one without the rate that it needs.
        """
        _check(scenario)
        number = self._windows.get(workload, 0)
        self._windows[workload] = number + 1
        load = scenario._replace(seed=scenario.seed + number)
        request = {
            "do": "window", "scenario": load._asdict(), "seconds": seconds, "workload": workload,
            "quiet_s": quiet_s, "phase": phase,
        }  # fmt: skip
        doing = f"a window of the scenario {scenario.name}"
        extra_s = seconds + 2 * quiet_s + (phase.period_s if phase else 0.0)
        asked_s = time.monotonic()
        fields, blobs = self._ask(request, doing=doing, extra_s=extra_s)
        with self._understood(doing):
            window = Window.from_wire(fields, blobs[0])
            _require_window(window, asked_s, time.monotonic())
        still_s = 0.0 if self._process is None else self._process.stood_still_s
        if window.standstill is None and still_s > 0:
            return window._replace(standstill=f"stood still for {still_s:.1f} s (a frozen container?)")
        return window

    def device_times(self, seconds: float = 0.2, most: int = 200) -> dict[str, npt.NDArray[np.float64]]:
        """Time some inferences, apart from the windows, by the device's own clock.

        Returns:
            Part (``Session.bind_timed``) → its seconds in each inference; empty if the runtime has no such clock.
        """
        request = {"do": "device_times", "seconds": seconds, "most": most}
        answer, blobs = self._ask(request, doing="timing on the device", extra_s=seconds)
        with self._understood("timing on the device"):
            parts = zip(answer["parts"], blobs, strict=True)
            return {str(part): np.frombuffer(blob, dtype=np.float64) for part, blob in parts}

    def profile(self, seconds: float = 1.0, least: int = 10, most: int = 500) -> OperatorProfile | None:
        """Profile the operators of the main workload; None if the runtime has no profiler.

        The worker must be thrown away afterwards, because the library may have loaded the model once more.

        Args:
            seconds: Roughly how long to profile.
            least: The least number of calls, however long they take.
            most: The largest number of calls.
        """
        request = {"do": "profile", "seconds": seconds, "least": least, "most": most}
        answer, _ = self._ask(request, doing="the profile of its operators", extra_s=4 * seconds)
        with self._understood("the profile of its operators"):
            if answer["operators"] is None:
                return None
            operators = [OperatorTime(str(name), str(kind), took) for name, kind, took in answer["operators"]]
            _require_numbers(answer["seconds"], *(operator.seconds for operator in operators))
            return OperatorProfile(operators, answer["seconds"])

    def isolate(self, names: Sequence[str]) -> IsolatedOperators | None:
        """Offer operators of the model as further workloads, each alone; None if the runtime cannot.

        Args:
            names: Names of operators from a profile.

        Returns:
            The workloads; their unit is the inference, so that figures are per inference and operator.
        """
        answer, _ = self._ask({"do": "isolate", "names": list(names)}, doing="cutting out its operators")
        with self._understood("cutting out its operators"):
            if answer["workloads"] is None:
                return None
            workloads = [Workload(*workload) for workload in answer["workloads"]]
            return IsolatedOperators(workloads, {str(name): str(why) for name, why in answer["refused"].items()})

    def token_times(self) -> list[npt.NDArray[np.float64]]:
        """For each request of the last window that has a latency: the seconds until each of its tokens."""
        _, blobs = self._ask({"do": "token_times"}, doing="the look at its tokens")
        with self._understood("the look at its tokens"):
            counts, seconds = np.frombuffer(blobs[0], np.int64), np.frombuffer(blobs[1], np.float64)
            if (counts < 0).any() or counts.sum() != len(seconds) or not np.isfinite(seconds).all():
                raise ValueError("its tokens are not those that were timed")
            return np.split(seconds, np.cumsum(counts)[:-1]) if len(counts) else []

    def stage_times(self, stages: int) -> npt.NDArray[np.float64]:
        """The seconds of each stage in each frame of the last window that has a latency.

        Args:
            stages: How many stages the pipeline has.

        Returns:
            Seconds, shape ``(frames, stages)``.
        """
        _, blobs = self._ask({"do": "stage_times", "stages": stages}, doing="the look at its stages")
        with self._understood("the look at its stages"):
            seconds = np.frombuffer(blobs[0], np.float64).reshape(-1, stages)
            if not np.isfinite(seconds).all() or (seconds < 0).any():
                raise ValueError("its stages are not those that were timed")
            return seconds

    def infer(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run once on these inputs, as if nothing had run before (see ``kept``), and return the outputs by name."""
        headers, blobs = tensors.dump(dict(feeds))
        answer, out = self._ask({"do": "infer", "feeds": headers}, blobs, doing="inference on the dataset")
        with self._understood("inference on the dataset"):
            self.kept = answer["kept"]
            return tensors.load(answer["outputs"], out)

    def text_tokens(self, text: bytes) -> tuple[npt.NDArray[np.int64], int | None] | None:
        """Tokenize a text (UTF-8), and name the token that begins each piece of it (``Session.text_tokens``).

        Returns:
            None if the runtime cannot compute likelihoods.
        """
        answer, blobs = self._ask({"do": "text_tokens"}, [text], doing="reading the text")
        with self._understood("reading the text"):
            if not answer["known"]:
                return None
            begin = answer["begin"]
            return np.frombuffer(blobs[0], np.int64), None if begin is None else int(begin)

    def log_likelihoods(self, tokens: npt.NDArray[np.int64], first: int) -> npt.NDArray[np.float64]:
        """``Session.log_likelihoods`` of a piece of a text: one number for each token from ``tokens[first]`` on."""
        request = {"do": "log_likelihoods", "first": first}
        _, blobs = self._ask(request, [tokens.tobytes()], doing="reading the text")
        with self._understood("reading the text"):
            values = np.frombuffer(blobs[0], np.float64)
            if len(values) != len(tokens) - first:
                raise ValueError("its likelihoods are not those that were asked for")
            return values

    def memory(self) -> WorkerMemory:
        """The memory of the worker's process now."""
        answer, _ = self._ask({"do": "gpu_peak"}, doing="the look at its memory")
        now = memory_of(self.pid)
        with self._understood("the look at its memory"):
            if answer["bytes"] is not None:
                _require_numbers(answer["bytes"])
            return WorkerMemory(now["VmRSS"], now["VmHWM"], answer["bytes"], now["RssAnon"], now["RssFile"])

    def close(self) -> None:
        """End the worker and release everything; safe to call twice."""
        if self._process is not None:
            self._process.close()
        elif self._handler is not None:
            self._handler.handle({"do": "close"}, ())
            self._handler = None

    @contextlib.contextmanager
    def _understood(self, doing: str) -> Iterator[None]:
        """A context that reads an answer: an error in it ends this worker and fails only this model.

        Raises:
            VariantError: the answer has not the expected form; the worker has ended then.
        """
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            if self._process is None:
                raise
            raise self._process.garbled(doing, error) from error

    def _ask(
        self, message: dict[str, Any], blobs: Sequence[bytes] = (), *, doing: str, extra_s: float = 0.0
    ) -> tuple[dict[str, Any], list[bytes]]:
        if self._process is not None:
            limit = self._spec.timeout_s + extra_s
            answer, out = self._process.request(message, blobs, doing=doing, limit_s=limit)
        elif self._handler is not None:
            answer, out = self._handler.handle(message, blobs)
            answer = without_surrogates(answer)
        else:
            raise VariantError(f"{self._label} is not loaded", code=Code.LOAD_FAILED)
        if not answer["ok"]:
            words = "\n".join(part for part in (self.last_words, answer.get("trace", "").strip()) if part)
            sentence = str(answer["message"])
            if not self._is_named_in(sentence):
                sentence = f"{self._label}: {sentence}"
            raise VariantError(sentence, remedy=self._remedy(answer["remedy"]), code=answer["kind"], last_words=words)
        return answer, out

    def _is_named_in(self, sentence: str) -> bool:
        """Whether a sentence of the runtime names the model; a label such as ``model`` may be a mere word in it."""
        is_file_name = "." in self._label
        return (
            sentence.startswith(self._label)
            or self._spec.target in sentence
            or (is_file_name and self._label in sentence)
        )

    def _remedy(self, remedy: str | None) -> str | None:
        """The worker's remedy, with installation commands changed for the interpreter of ``--worker-python``."""
        return mended_for(remedy, self._spec.python) if remedy and self._spec.python else remedy


def _check(scenario: Scenario) -> None:
    if scenario.name not in SCENARIOS:
        raise unknown("scenario", scenario.name, SCENARIOS)
    if scenario.name in OPEN and not (scenario.rate_hz and scenario.rate_hz > 0):
        raise InputError(
            f"--scenario {scenario.name} needs a rate above 0", remedy=f"As: --scenario {scenario.name} --rate 30"
        )


def _require_numbers(*values: Any) -> None:
    """
    Raises:
        ValueError: one of them is no finite number, or is negative.
    """
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{value!r} is no number")


def _require_window(window: Window, asked_s: float, answered_s: float) -> None:
    """
    Raises:
        ValueError: the window does not lie between question and answer, or its calls are not those that were timed.
    """
    span, latencies = window.span, np.frombuffer(window.latencies, dtype=np.float64)
    _require_numbers(window.calls, span.count, window.busy_s, window.cpu_s, *window.waking)
    if not asked_s <= span.start_s <= span.end_s <= answered_s:
        raise ValueError("a window was not when it was asked for")
    _require_numbers(span.edge_s, *([] if window.device_s is None else [window.device_s]))
    if (
        len(latencies) != (0 if window.is_burst else window.calls - sum(window.waking))
        or not np.isfinite(latencies).all()
        or (latencies < 0).any()
    ):
        raise ValueError("its calls are not those that were timed")


def _spec(item: Sequence[Any]) -> TensorSpec:
    name, shape, dtype, quantization = item
    return TensorSpec(name, tuple(shape), dtype, None if quantization is None else tuple(quantization))
