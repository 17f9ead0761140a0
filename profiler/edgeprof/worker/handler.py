"""The worker: loads a model and answers the parent's requests, one after the other.

Python 3.6 grammar, the standard library and numpy; the runtime brings its own. ``Handler`` is the whole of it and knows
no process: with ``--no-isolation`` the parent calls it directly.
"""

import contextlib
import importlib.util
import math
import operator
import os
import platform
import re
import resource
import sys
import time
import traceback
import types
import zlib
from array import array
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edgeprof.worker import bursts, embedded_code, sandbox, standstill, steady, telemetry, tensors
from edgeprof.worker import scenario as scenarios
from edgeprof.worker.arrays import ArraysError, read_arrays
from edgeprof.worker.inputs import check_feeds, own_feeds
from edgeprof.worker.runtime import LoadError, LoadOptions, Runtime, Session, TensorSpec
from edgeprof.worker.scenario import Scenario
from edgeprof.worker.wire import Connection
from edgeprof.worker.workload import INFERENCE, Burst, Workload, check_workloads

#: A warm-up has at least so many inferences ...
MIN_INFERENCES = 10
#: ... and gives up after so many, if it has also lasted ten times its minimum; in any case at its maximum.
MAX_INFERENCES = 300

#: How long a model runs before each window without being measured.
WAKE_S = 0.05

#: What libraries write when memory is short: Python, C++, the kernel, torch, CUDA, TensorFlow.
OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|bad allocation|out of memory|cannot allocate memory|can't allocate memory"
    r"|failed to allocate memory|OUT_OF_MEMORY|RESOURCE_EXHAUSTED|unable to allocate",
    re.IGNORECASE,
)

MORE_MEMORY = "Use a smaller batch or variant, or give it more memory."

Answer = Dict[str, Any]
Call = Callable[[], Any]


class FailureError(Exception):
    """A request that cannot be answered, with the code that the result file will carry."""

    def __init__(self, kind: str, message: str, remedy: Optional[str] = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.remedy = remedy


class Handler:
    """One model, loaded once."""

    def __init__(self) -> None:
        telemetry.turn_off()
        self._runtime: Optional[Runtime] = None
        self._sessions: List[Session] = []
        self._workloads: Sequence[Workload] = (INFERENCE,)
        self._calls: Dict[str, List[Call]] = {}  # workload → one call a session
        self._bursts: Dict[str, Callable[[float], Burst]] = {}  # workload → the device's own repetition of it
        self._latency_s: Dict[str, float] = {}  # workload → about what a call takes
        self._queued: List[Optional[Call]] = []
        self._timed: Optional[Callable[[], Dict[str, float]]] = None
        self._feeds: Dict[str, Any] = {}
        self._target = ""
        self._options: Optional[LoadOptions] = None

    def handle(self, request: Dict[str, Any], blobs: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """Answer one request. Nothing that the model does wrong gets out of here but KeyboardInterrupt."""
        do = request.get("do")
        verbs: Dict[Any, Callable[[Dict[str, Any], Sequence[bytes]], Tuple[Answer, List[bytes]]]] = {
            "hello": self._hello,
            "load": self._load,
            "first": self._first,
            "warm_up": self._warm_up,
            "window": self._window,
            "device_times": self._device_times,
            "profile": self._profile,
            "token_times": self._token_times,
            "stage_times": self._stage_times,
            "infer": self._infer,
            "text_tokens": self._text_tokens,
            "log_likelihoods": self._log_likelihoods,
            "gpu_peak": self._gpu_peak,
            "close": self._close,
        }
        try:
            answer, out = verbs[do](request, blobs)
        except FailureError as failure:
            answer = _failed_answer(failure.kind, failure.message, failure.remedy)
            return (dict(answer, trace=_user_traceback()) if failure.__cause__ is not None else answer), []
        except LoadError as error:
            return _failed_answer("load_failed", error.message, error.remedy), []
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a model may raise anything
            kind = "load_failed" if do == "load" else "runtime_error"
            remedy = None
            if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(_error_text(error)):
                kind, remedy = "out_of_memory", MORE_MEMORY
            return dict(_failed_answer(kind, _error_text(error), remedy), trace=_user_traceback()), []
        return dict(answer, ok=True), out

    def _hello(self, _: Dict[str, Any], __: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        return {"python": platform.python_version(), "pid": os.getpid()}, []

    def _load(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        runtime = _make_runtime(request["runtime_file"], request["runtime_class"])
        available = runtime.availability()
        if available.version is None:
            raise LoadError(
                available.reason or "the library of {} is not installed for {}".format(runtime.name, sys.executable),
                available.remedy,
            )
        given = dict(request["options"])
        given["shapes"] = {name: tuple(int(n) for n in shape) for name, shape in given["shapes"].items()}
        options = LoadOptions(**given)
        embedded_code.allow(bool(request.get("allow_code")))
        start = time.monotonic()
        with contextlib.suppress(Exception, SystemExit):  # what is wrong with the library, loading says
            runtime.import_library()
        library_rss = _resident_bytes()
        session = runtime.load(request["target"], options)
        load_s = time.monotonic() - start
        self._runtime, self._options, self._target = runtime, options, request["target"]
        self._sessions = [session]
        return {
            "inputs": [_spec_fields(spec) for spec in session.inputs],
            "outputs": [_spec_fields(spec) for spec in session.outputs],
            "version": session.version or available.version,
            "facts": _session_facts(session),
            "load_s": load_s,
            "library_rss": library_rss,
        }, []

    def _first(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """The feeds, one inference whose outputs are looked at, and the call of the main workload."""
        session, options = self._session(), self._options
        assert options is not None
        assert self._runtime is not None
        if request["inputs"]:
            feeds = _read_inputs(request["inputs"], session.inputs)
        else:
            feeds = own_feeds(session, options, request["seed"], request.get("fits"))
        self._feeds = check_feeds(session.inputs, feeds)
        start = time.monotonic()
        try:
            outputs = session.run(self._feeds)
        except Exception as error:
            if (
                request["inputs"]
                or isinstance(error, (LoadError, MemoryError))
                or OUT_OF_MEMORY.search(_error_text(error))
            ):
                raise
            raise FailureError("runtime_error", _error_text(error), _real_inputs(session, self._feeds)) from error
        first_s = time.monotonic() - start
        problems = tensors.not_finite(_outputs_by_name(outputs))
        self._bind_main(session, first_s)
        return {
            "first_s": first_s,
            "problems": problems,
            "devices": self._devices(),
            "facts": _session_facts(session),  # binding may add to them
            "shapes": {name: list(value.shape) for name, value in self._feeds.items()},
            "workloads": [list(workload) for workload in self._workloads],
            "language": session.language(),
            "microcontroller": session.microcontroller(),
            "pipeline": session.pipeline(),
        }, []

    def _bind_main(self, session: Session, first_s: float) -> None:
        """Bind what windows repeat by default, and ask what else the session can be asked for."""
        self._workloads = [Workload(*workload) for workload in session.workloads()]
        wrong = check_workloads(self._workloads)
        if wrong is not None:
            raise FailureError("load_failed", wrong)
        main = self._workloads[0]
        if self._bind_burst(main):
            return
        call = session.bind_workload(main.name, self._feeds)
        self._calls = {main.name: [call]}
        self._latency_s = {main.name: first_s if first_s > 1.0 else _time_calls(call)}

    def _workload(self, name: Optional[str]) -> Workload:
        """The workload of that name; the main one for None."""
        for workload in self._workloads:
            if name is None or workload.name == name:
                return workload
        names = ", ".join(workload.name for workload in self._workloads)
        raise FailureError("load_failed", "this model has no workload {!r}; it has: {}".format(name, names))

    def _bind_burst(self, workload: Workload) -> bool:
        """Whether the device repeats a workload by itself; binds it on the first time."""
        if workload.name not in self._bursts:
            burst = self._session().bind_burst(workload.name, self._feeds)
            if burst is None:
                return False
            self._bursts[workload.name] = burst
        return True

    def _warm_up(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        scenario, workload = Scenario(**request["scenario"]), self._workload(request.get("workload"))
        if self._bind_burst(workload):
            bursts.require_closed_loop(scenario)
            return bursts.warm_up(self._bursts[workload.name], request["min_s"], request["max_s"]), []
        self._streams(scenario.threads, workload)
        call = self._calls[workload.name][0]
        latencies = array("d")  # a quarter of a list's bytes: a fast model has hundreds of thousands
        begin = time.monotonic()
        verdict = None
        with scenarios.quiet():
            while True:
                spent = time.monotonic() - begin
                # Look again after a quarter more, so that looking stays a small part of the time.
                seconds = max(0.25 * spent, 0.05 * request["min_s"])
                if spent < request["min_s"]:
                    seconds = min(seconds, request["min_s"] - spent)
                stamps = scenarios.stamps_for(seconds, self._latency_s[workload.name])
                count = scenarios.closed_loop(call, min(seconds, max(0.0, request["max_s"] - spent)), stamps)
                latencies.extend(stamps[i + 1] - stamps[i] for i in range(count))
                spent = time.monotonic() - begin
                last = spent >= request["max_s"] or (
                    len(latencies) >= MAX_INFERENCES and spent >= 10 * request["min_s"]
                )
                if last or (len(latencies) >= MIN_INFERENCES and spent >= request["min_s"]):
                    verdict = steady.judge(latencies)
                    if last or verdict.steady:
                        break
        self._latency_s[workload.name] = verdict.latency_s
        enough = len(latencies) >= MIN_INFERENCES
        reason = verdict.reason
        if not enough:
            calls = "inferences" if workload.name == INFERENCE.name else "calls of " + workload.name
            reason = "only {} {} fit into {:g} s of warm-up".format(len(latencies), calls, request["max_s"])
        return {
            "reached": verdict.steady and enough,
            "inferences": len(latencies),
            "seconds": spent,
            "latency_s": verdict.latency_s,
            "reason": reason,
        }, []

    def _window(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        scenario, workload = Scenario(**request["scenario"]), self._workload(request.get("workload"))
        if self._bind_burst(workload):
            bursts.require_closed_loop(scenario)
            fields, latencies = bursts.window(self._bursts[workload.name], workload, request["seconds"]).to_wire()
            return fields, [latencies]
        self._streams(scenario.threads, workload)
        calls = self._calls[workload.name][: scenario.threads]
        latency_s = self._latency_s[workload.name]
        for call in calls:
            _wake_up(call, latency_s)
        for session in self._sessions:
            session.take_token_times()  # those of the waking are no measurement
            session.take_stage_times()
        drains: List[Callable[[], None]] = []
        is_main = workload is self._workloads[0]
        if is_main and scenario.name == "offline" and self._queue(len(calls)):
            calls = [call for call in self._queued if call is not None]
            drains = [session.synchronize for session in self._sessions[: len(calls)]]
        mark = standstill.Mark()
        window = scenarios.run(
            scenario, calls, request["seconds"], latency_s, drains, calls_in_loop=workload.calls_in_loop
        )
        window = window._replace(standstill=mark.standstill())
        count = window.calls * workload.units(scenario.batch)
        span = window.span._replace(count=count, unit=workload.unit, key=(workload.name,))
        fields, latencies = window._replace(span=span, queued=bool(drains)).to_wire()
        return fields, [latencies]

    def _queue(self, count: int) -> bool:
        """Whether the sessions can be kept with a full queue; binds them on the first time."""
        while len(self._queued) < count:
            self._queued.append(self._sessions[len(self._queued)].bind_queued(self._feeds))
        return all(call is not None for call in self._queued[:count])

    def _device_times(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """Some inferences with the device's own clock, apart from the windows: looking costs some microseconds each."""
        if self._timed is None and not self._bursts:
            self._timed = self._session().bind_timed(self._feeds)
        if self._timed is None:
            return {"parts": []}, []
        _wake_up(self._timed, self._latency_s[self._workloads[0].name])
        times: Dict[str, "array[float]"] = {}
        end = time.monotonic() + request["seconds"]
        with scenarios.quiet():
            for _i in range(request["most"]):
                for part, seconds in self._timed().items():
                    times.setdefault(part, array("d")).append(seconds)
                if time.monotonic() >= end:
                    break
        return {"parts": list(times)}, [values.tobytes() for values in times.values()]

    def _profile(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """What the operators of the main workload take, over about so many seconds; no operators: nothing tells."""
        latency_s = max(self._latency_s[self._workloads[0].name], 1e-6)
        calls = int(min(request["most"], max(request["least"], request["seconds"] / latency_s)))
        profile = self._session().profile_operators(self._feeds, calls)
        if profile is None:
            return {"operators": None}, []
        operators = [
            [str(operator.name), str(operator.type), float(operator.seconds)] for operator in profile.operators
        ]
        return {"operators": operators, "seconds": float(profile.seconds), "calls": calls}, []

    def _token_times(self, _: Dict[str, Any], __: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """When the tokens of the requests since the last look came, of all sessions together."""
        counts, seconds = array("q"), array("d")
        for session in self._sessions:
            more_counts, more_seconds = session.take_token_times()
            counts.extend(more_counts)
            seconds.extend(more_seconds)
        return {}, [counts.tobytes(), seconds.tobytes()]

    def _stage_times(self, _: Dict[str, Any], __: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """The seconds of each stage in each frame since the last look, of all sessions together."""
        seconds = array("d")
        for session in self._sessions:
            seconds.extend(session.take_stage_times())
        return {}, [seconds.tobytes()]

    def _infer(self, request: Dict[str, Any], blobs: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        session = self._session()
        feeds = check_feeds(session.inputs, tensors.load(request["feeds"], blobs))
        why_dependent = session.reset()
        headers, out = tensors.dump(_outputs_by_name(session.run(feeds)))
        return {"outputs": headers, "kept": why_dependent}, out

    def _text_tokens(self, _: Dict[str, Any], blobs: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        read = self._session().text_tokens(blobs[0].decode("utf-8"))
        if read is None:
            return {"known": False, "begin": None}, []
        tokens, begin = read
        return {"known": True, "begin": begin}, [array("q", [int(token) for token in tokens]).tobytes()]

    def _log_likelihoods(self, request: Dict[str, Any], blobs: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        tokens = array("q")
        tokens.frombytes(blobs[0])
        values = self._session().log_likelihoods(list(tokens), request["first"])
        return {}, [array("d", [float(value) for value in values]).tobytes()]

    def _gpu_peak(self, _: Dict[str, Any], __: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        peaks = [session.gpu_peak_bytes() for session in self._sessions]
        known = [int(peak) for peak in peaks if peak is not None]
        return {"bytes": max(known) if known else None}, []

    def _close(self, _: Dict[str, Any], __: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        self._bursts = {}
        self._calls, self._queued, self._timed, self._feeds = {}, [], None, {}
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.close()
        return {}, []

    def _session(self) -> Session:
        if not self._sessions:
            raise FailureError("load_failed", "no model is loaded")
        return self._sessions[0]

    def _devices(self) -> List[str]:
        assert self._runtime is not None
        try:
            return [str(device) for device in self._runtime.devices()]
        except Exception:  # noqa: BLE001 - a list that is only shown must not fail a model that runs
            return []

    def _streams(self, count: int, workload: Workload) -> None:
        """See that there are so many calls of a workload, each on a session of its own, and that each has run once."""
        self._session()
        self._load_sessions(count)
        calls = self._calls.setdefault(workload.name, [])
        for session in self._sessions[len(calls) : count]:
            call = session.bind_workload(workload.name, self._feeds)
            call()
            calls.append(call)
        if workload.name not in self._latency_s:
            self._latency_s[workload.name] = _time_calls(calls[0])

    def _load_sessions(self, count: int) -> None:
        while len(self._sessions) < count:
            assert self._runtime is not None
            assert self._options is not None
            if not self._runtime.concurrent:
                raise FailureError(
                    "load_failed",
                    "the runtime {} cannot run {} streams at once".format(self._runtime.name, count),
                    "Use --scenario single-stream, or one stream.",
                )
            self._sessions.append(self._runtime.load(self._target, self._options))


def serve(connection: Connection) -> None:
    """Answer until ``close`` has been answered or nobody asks any more."""
    handler = Handler()
    while True:
        try:
            request, blobs = connection.receive()
        except EOFError:
            return
        try:
            answer, out = handler.handle(request, blobs)
        except KeyboardInterrupt as error:  # only from the model itself: the terminal's does not reach this session
            answer, out = dict(_failed_answer("runtime_error", _error_text(error), None), trace=_user_traceback()), []
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a model may have closed it; a full disk is not its end
                stream.flush()
        connection.send(dict(answer, id=request.get("id")), out)
        if request.get("do") == "close":
            return


def _resident_bytes() -> Optional[int]:
    """Resident memory of this process; None where the kernel does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None


def _wake_up(call: Call, latency_s: float) -> None:
    """Get caches, thread pools and clocks back from the idle time or the other variant before this window.

    A call of more than a second brings its own warmth.
    """
    if latency_s < 1.0:
        scenarios.closed_loop(call, WAKE_S, scenarios.stamps_for(WAKE_S, latency_s))


def _time_calls(call: Call) -> float:
    """A first idea of what a call takes: the quickest of three, as the very first may also compile."""
    best = math.inf
    for _ in range(3):
        start = time.monotonic()
        call()
        best = min(best, time.monotonic() - start)
        if best > 1.0:  # as long as this, another look costs more than it tells
            break
    return best


def _make_runtime(path: str, class_name: str) -> Runtime:
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or spec.loader is None:
        raise FailureError("load_failed", "the runtime file {} is no Python file".format(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickling and typing look modules up by name
    spec.loader.exec_module(module)
    runtime: Runtime = operator.attrgetter(class_name)(module)()
    return runtime


def _module_name(path: str) -> str:
    """The name under which a runtime file can import its neighbours, as in ``from ..nvidia import cuda``.

    The packages around the file get stand-ins whose own code does not run: a plugin's ``__init__.py`` may need what
    this Python lacks. A file that lies in no package gets one for its folder.
    """
    folder, file = os.path.split(os.path.abspath(path))
    inner: List[str] = []  # names of the packages between the outermost one and the file
    while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.isfile(
        os.path.join(os.path.dirname(folder), "__init__.py")
    ):
        folder, name = os.path.split(folder)
        inner.insert(0, name)
    package = "edgeprof_runtime_{:08x}".format(zlib.crc32(folder.encode("utf-8", "surrogateescape")))
    _stand_in(package, folder)
    for name in inner:
        package, folder = package + "." + name, os.path.join(folder, name)
        _stand_in(package, folder)
    return package + "." + re.sub(r"\W", "_", os.path.splitext(file)[0])


def _stand_in(package: str, folder: str) -> None:
    module: Any = types.ModuleType(package)
    module.__path__ = [folder]
    sys.modules.setdefault(package, module)


def _read_inputs(path: str, specs: Sequence[TensorSpec]) -> Dict[str, Any]:
    """The arrays of an .npz by name; arrays that were saved without names go to the inputs in their order."""
    try:
        arrays = read_arrays(path)
    except (OSError, ArraysError) as error:
        raise LoadError(
            "the inputs in {} cannot be read: {}".format(path, error),
            "Save them with numpy.savez(FILE, **{input name: array}), without Python objects.",
        ) from error
    arrays = _join_sequences(arrays, specs)
    if len(arrays) == len(specs) and all(re.match(r"arr_\d+$", name) for name in arrays):
        return {spec.name: arrays["arr_{}".format(i)] for i, spec in enumerate(specs)}
    return arrays


def _join_sequences(arrays: Dict[str, Any], specs: Sequence[TensorSpec]) -> Dict[str, Any]:
    """The same with the arrays NAME.0, NAME.1 … together as the sequence NAME, where the model takes one."""
    gathered = dict(arrays)
    for spec in specs:
        if "sequence" in spec.dtype and spec.name not in arrays:
            parts: List[Any] = []
            while "{}.{}".format(spec.name, len(parts)) in gathered:
                parts.append(gathered.pop("{}.{}".format(spec.name, len(parts))))
            if parts:
                gathered[spec.name] = tensors.objects(parts)
    return gathered


def _real_inputs(session: Session, feeds: Dict[str, Any]) -> str:
    """What to do where a model fails on inputs that edgeprof made."""
    names = ", ".join("{}: array".format(name) for name in list(feeds)[:4]) or "name: array"
    whose = "its own example inputs" if session.examples is not None else "random inputs"
    return (
        "It was fed {}, and not every model can take those (indices, lengths, sample rates, masks). Give it real ones: "
        "--input-data FILE.npz, from numpy.savez('FILE.npz', **{{{}}}).".format(whose, names)
    )


def _outputs_by_name(outputs: Any) -> Dict[str, Any]:
    if not isinstance(outputs, dict):
        raise FailureError("bad_output", "the model returned {}, not named arrays".format(type(outputs).__name__))
    return {str(name): value for name, value in outputs.items()}


def _session_facts(session: Session) -> Dict[str, str]:
    facts = {str(key): str(value) for key, value in session.facts.items()}
    return dict(facts, sandbox=sandbox.entered()) if sandbox.entered() else facts


def _spec_fields(spec: TensorSpec) -> List[Any]:
    shape = [n if n is None or isinstance(n, str) else int(n) for n in spec.shape]  # int: numpy has its own
    scale = None if spec.quantization is None else [float(spec.quantization[0]), int(spec.quantization[1])]
    return [str(spec.name), shape, str(spec.dtype), scale]


def _failed_answer(kind: str, message: str, remedy: Optional[str]) -> Answer:
    return {"ok": False, "kind": kind, "message": message, "remedy": remedy}


#: First lines that say nothing of the error itself, which stands further down.
_PREAMBLES = ("The following operation failed in the TorchScript interpreter",)


def _error_text(error: BaseException) -> str:
    """``ValueError: text``, its first line that says what went wrong, cut where it goes on for ever."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    first = lines[0] if lines else ""
    if first.startswith(_PREAMBLES):
        named = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception): ", line)]
        if named:
            return named[-1][:400]
    text = "{}: {}".format(type(error).__name__, first) if first else type(error).__name__
    return text if len(text) <= 400 else text[:400] + " …"


def _user_traceback() -> str:
    """The traceback from where edgeprof's own frames end."""
    kind, error, tb = sys.exc_info()
    worker_folder = os.path.dirname(os.path.abspath(__file__))
    rest = tb
    while rest is not None and os.path.dirname(rest.tb_frame.f_code.co_filename) == worker_folder:
        rest = rest.tb_next
    return "".join(traceback.format_exception(kind, error, rest or tb))
