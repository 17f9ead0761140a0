"""The worker: loads a model and answers the parent's requests, one after the other.

Python 3.6 grammar, the standard library and numpy; the runtime imports its own library. ``Handler`` does all of this
and needs no process of its own: with ``--no-isolation`` the parent calls it directly.
"""

import contextlib
import math
import os
import platform
import resource
import sys
import time
from array import array
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from edgeprof.worker import bursts, embedded_code, sandbox, standstill, steady, telemetry, tensors
from edgeprof.worker import scenario as scenarios
from edgeprof.worker.failures import MORE_MEMORY, OUT_OF_MEMORY, FailureError, error_text, failed_answer, user_traceback
from edgeprof.worker.input_file import read_inputs
from edgeprof.worker.inputs import check_feeds, own_feeds
from edgeprof.worker.runtime import LoadError, LoadOptions, Runtime, Session, TensorSpec
from edgeprof.worker.runtime_file import make_runtime
from edgeprof.worker.scenario import Scenario
from edgeprof.worker.wire import Connection
from edgeprof.worker.workload import INFERENCE, Burst, Workload, check_workloads

#: A warm-up has at least this many inferences.
MIN_INFERENCES = 10
#: It gives up after this many if it has also lasted ten times its minimum time, and in any case at its maximum time.
MAX_INFERENCES = 300

Answer = Dict[str, Any]
Call = Callable[[], Any]


class Handler:
    """One model, loaded once."""

    def __init__(self) -> None:
        telemetry.turn_off()
        self._runtime: Optional[Runtime] = None
        self._sessions: List[Session] = []
        self._workloads: Sequence[Workload] = (INFERENCE,)
        self._calls: Dict[str, List[Call]] = {}  # workload → one call a session
        self._bursts: Dict[str, Callable[[float], Burst]] = {}  # workload → the device's own repetition of it
        self._waking: Sequence[int] = ()  # for each session, how many calls of the last window have no latency
        self._latency_s: Dict[str, float] = {}  # workload → roughly how long one call takes
        self._queued: List[Optional[Call]] = []
        self._timed: Optional[Callable[[], Dict[str, float]]] = None
        self._feeds: Dict[str, Any] = {}
        self._target = ""
        self._options: Optional[LoadOptions] = None

    def handle(self, request: Dict[str, Any], blobs: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """Answer one request. Of all that a model may raise, only KeyboardInterrupt gets out of this method."""
        do = request.get("do")
        verbs: Dict[Any, Callable[[Dict[str, Any], Sequence[bytes]], Tuple[Answer, List[bytes]]]] = {
            "hello": self._hello,
            "load": self._load,
            "first": self._first,
            "warm_up": self._warm_up,
            "window": self._window,
            "device_times": self._device_times,
            "profile": self._profile,
            "isolate": self._isolate,
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
            answer = failed_answer(failure.kind, failure.message, failure.remedy)
            return (dict(answer, trace=user_traceback()) if failure.__cause__ is not None else answer), []
        except LoadError as error:
            if OUT_OF_MEMORY.search(error.message):
                return failed_answer("out_of_memory", error.message, error.remedy or MORE_MEMORY), []
            return failed_answer("load_failed", error.message, error.remedy), []
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a model may raise anything
            kind = "load_failed" if do == "load" else "runtime_error"
            remedy = None
            if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(error_text(error)):
                kind, remedy = "out_of_memory", MORE_MEMORY
            return dict(failed_answer(kind, error_text(error), remedy), trace=user_traceback()), []
        return dict(answer, ok=True), out

    def _hello(self, _: Dict[str, Any], __: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        return {"python": platform.python_version(), "pid": os.getpid()}, []

    def _load(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        runtime = make_runtime(request["runtime_file"], request["runtime_class"])
        available = runtime.availability()
        if available.version is None:
            raise LoadError(
                available.reason or "the library of {} is not installed for {}".format(runtime.name, sys.executable),
                available.remedy,
            )
        given = dict(request["options"])
        given["shapes"] = {name: tuple(int(n) for n in shape) for name, shape in given["shapes"].items()}
        options = LoadOptions(**given)
        embedded_code.allow_code(bool(request.get("allow_code")))
        start = time.monotonic()
        with contextlib.suppress(Exception, SystemExit):  # loading reports what is wrong with the library
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
        """Make the feeds, run one inference and check its outputs, and bind the call of the main workload."""
        session, options = self._session(), self._options
        assert options is not None
        assert self._runtime is not None
        if request["inputs"]:
            feeds = read_inputs(request["inputs"], session.inputs)
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
                or OUT_OF_MEMORY.search(error_text(error))
            ):
                raise
            raise FailureError("runtime_error", error_text(error), _real_inputs(session, self._feeds)) from error
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
        """Ask the session for its workloads and bind the main one, which windows repeat by default."""
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
        """Bind a workload that the device repeats by itself; False if this machine has to repeat its calls."""
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
        self._bind_streams(scenario.threads, workload)
        call = self._calls[workload.name][0]
        latencies = array("d")  # a quarter of a list's bytes: a fast model has hundreds of thousands
        begin = time.monotonic()
        verdict = None
        with scenarios.without_garbage_collection():
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
            fields, latencies = bursts.measure_window(
                self._bursts[workload.name], workload, request["seconds"], request["quiet_s"]
            ).to_wire()
            return fields, [latencies]
        self._bind_streams(scenario.threads, workload)
        calls = self._calls[workload.name][: scenario.threads]
        latency_s = self._latency_s[workload.name]
        for session in self._sessions:
            session.take_token_times()  # drop the times of calls outside windows
            session.take_stage_times()
        drains: List[Callable[[], None]] = []
        is_main = workload is self._workloads[0]
        if is_main and scenario.name == "offline" and self._bind_queued(len(calls)):
            calls = [call for call in self._queued if call is not None]
            drains = [session.synchronize for session in self._sessions[: len(calls)]]
        phase = request.get("phase")
        mark = standstill.Mark()
        window = scenarios.run_window(
            scenario, calls, request["seconds"], latency_s, drains, calls_in_loop=workload.calls_in_loop,
            quiet_s=request["quiet_s"], phase=None if phase is None else scenarios.Phase(*phase),
        )  # fmt: skip
        self._waking = window.waking
        window = window._replace(standstill=mark.standstill())
        count = window.calls * workload.units(scenario.batch)
        span = window.span._replace(count=count, unit=workload.unit, key=(workload.name,))
        fields, latencies = window._replace(span=span, queued=bool(drains)).to_wire()
        return fields, [latencies]

    def _bind_queued(self, count: int) -> bool:
        """Bind the queued calls of this many sessions; False if a session cannot keep a queue full."""
        while len(self._queued) < count:
            self._queued.append(self._sessions[len(self._queued)].bind_queued(self._feeds))
        return all(call is not None for call in self._queued[:count])

    def _device_times(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """Time some inferences by the device's own clock, apart from the windows: it costs some microseconds each."""
        if self._timed is None and not self._bursts:
            self._timed = self._session().bind_timed(self._feeds)
        if self._timed is None:
            return {"parts": []}, []
        timed = self._timed
        wake_s = min(scenarios.WAKE_S, request["seconds"] / 2)
        scenarios.closed_loop(timed, wake_s, scenarios.stamps_for(wake_s, self._latency_s[self._workloads[0].name]))
        times: Dict[str, "array[float]"] = {}
        end = time.monotonic() + request["seconds"]
        with scenarios.without_garbage_collection():
            for _i in range(request["most"]):
                for part, seconds in timed().items():
                    times.setdefault(part, array("d")).append(seconds)
                if time.monotonic() >= end:
                    break
        return {"parts": list(times)}, [values.tobytes() for values in times.values()]

    def _profile(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """Time the operators of the main workload for about ``seconds``; the answer has None if the runtime cannot."""
        latency_s = max(self._latency_s[self._workloads[0].name], 1e-6)
        calls = int(min(request["most"], max(request["least"], request["seconds"] / latency_s)))
        profile = self._session().profile_operators(self._feeds, calls)
        if profile is None:
            return {"operators": None}, []
        operators = [
            [str(operator.name), str(operator.type), float(operator.seconds)] for operator in profile.operators
        ]
        return {"operators": operators, "seconds": float(profile.seconds), "calls": calls}, []

    def _isolate(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """Offer operators of the main workload as further workloads; the answer has None if the runtime cannot."""
        isolated = self._session().isolate_operators(self._feeds, request["names"])
        if isolated is None:
            return {"workloads": None}, []
        assert self._options is not None
        batch = self._options.batch
        alone = [workload._replace(units_per_call=workload.units(1) * batch) for workload in isolated.workloads]
        workloads = [*self._workloads[:1], *alone]
        wrong = check_workloads(workloads)
        if wrong is not None:
            raise FailureError("load_failed", wrong)
        self._workloads = workloads
        return {"workloads": [list(workload) for workload in alone], "refused": isolated.refused}, []

    def _token_times(self, _: Dict[str, Any], __: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """The arrival times of the tokens of the requests in the last window that have a latency, over all sessions."""
        counts, seconds = array("q"), array("d")
        for session, waking in self._sessions_and_waking_calls():
            more_counts, more_seconds = session.take_token_times()
            counts.extend(more_counts[waking:])
            seconds.extend(more_seconds[sum(more_counts[:waking]) :])
        return {}, [counts.tobytes(), seconds.tobytes()]

    def _stage_times(self, request: Dict[str, Any], _: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        """The seconds of each stage in the frames of the last window that have a latency, over all sessions."""
        seconds = array("d")
        for session, waking in self._sessions_and_waking_calls():
            seconds.extend(session.take_stage_times()[waking * request["stages"] :])
        return {}, [seconds.tobytes()]

    def _sessions_and_waking_calls(self) -> Iterator[Tuple[Session, int]]:
        """Each session, and how many of its calls in the last window have no latency."""
        for number, session in enumerate(self._sessions):
            yield session, self._waking[number] if number < len(self._waking) else 0

    def _infer(self, request: Dict[str, Any], blobs: Sequence[bytes]) -> Tuple[Answer, List[bytes]]:
        session = self._session()
        inputs = session.inputs if session.judged_inputs is None else session.judged_inputs
        feeds = check_feeds(inputs, tensors.load(request["feeds"], blobs))
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

    def _bind_streams(self, count: int, workload: Workload) -> None:
        """Bind ``count`` calls of a workload, each on a session of its own, and run each new one once."""
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
    """Answer requests until ``close`` has been answered or the parent has closed its end."""
    handler = Handler()
    while True:
        try:
            request, blobs = connection.receive()
        except EOFError:
            return
        try:
            answer, out = handler.handle(request, blobs)
        except KeyboardInterrupt as error:  # only from the model itself: the terminal's does not reach this session
            answer, out = dict(failed_answer("runtime_error", error_text(error), None), trace=user_traceback()), []
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the model may have closed it, or the disk be full
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


def _time_calls(call: Call) -> float:
    """A first estimate of how long a call takes: the quickest of three, because the first one may also compile."""
    best = math.inf
    for _ in range(3):
        start = time.monotonic()
        call()
        best = min(best, time.monotonic() - start)
        if best > 1.0:  # further calls would cost more time than the estimate is worth
            break
    return best


def _real_inputs(session: Session, feeds: Dict[str, Any]) -> str:
    """The remedy where a model fails on inputs that edgeprof made."""
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
    return dict(facts, sandbox=sandbox.confined_by()) if sandbox.confined_by() else facts


def _spec_fields(spec: TensorSpec) -> List[Any]:
    shape = [n if n is None or isinstance(n, str) else int(n) for n in spec.shape]  # int: numpy has its own
    scale = None if spec.quantization is None else [float(spec.quantization[0]), int(spec.quantization[1])]
    return [str(spec.name), shape, str(spec.dtype), scale]
