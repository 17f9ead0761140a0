"""Profile the operators of an ONNX model with ONNX Runtime's profiler, which writes a file. Python 3.6 grammar."""

import json
import os
import shutil
import tempfile
import time
from typing import Any, Callable, Dict, List, Tuple

from edgeprof.worker.runtime import OperatorProfile, OperatorTime

#: Number of inferences before the profiled ones.
WARM_UP = 3
#: The most inferences to profile: the profiler keeps a million events and drops later ones.
MOST_CALLS = 300
_SUFFIX = "_kernel_time"


class Kernel:
    """One execution of an operator.

    Args:
        event: What the profiler recorded.
        is_inside: Whether the operator belongs to a graph that another operator contains.
    """

    def __init__(self, event: Dict[str, Any], is_inside: bool) -> None:
        arguments = event.get("args", {})
        self.type = str(arguments.get("op_name", ""))
        self.name = event["name"][: -len(_SUFFIX)] or "{}_{}".format(self.type, arguments.get("node_index", "?"))
        self.seconds = event["dur"] * 1e-6  # kernels() subtracts that of the operators of a graph that it contains
        self.is_inside = is_inside


def profile(options: Any, make: Callable[[Any], Tuple[Callable[[], Any], Any]], calls: int) -> OperatorProfile:
    """Run a session with the profiler enabled.

    Args:
        options: ONNX Runtime's SessionOptions, in which the profiler is enabled.
        make: Creates, from options, a function that runs one inference, and the InferenceSession.
        calls: Number of inferences to profile.
    """
    calls = min(calls, MOST_CALLS)
    folder = tempfile.mkdtemp(prefix="edgeprof-profile-")
    try:
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        run, session = make(options)
        for _ in range(WARM_UP):
            run()
        start = time.monotonic()
        for _ in range(calls):
            run()
        seconds = (time.monotonic() - start) / calls
        executed = kernels(session.end_profiling(), calls)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sums: Dict[Tuple[str, str], float] = {}
    for kernel in executed:
        sums[kernel.name, kernel.type] = sums.get((kernel.name, kernel.type), 0.0) + kernel.seconds
    return OperatorProfile([OperatorTime(name, kind, total / calls) for (name, kind), total in sums.items()], seconds)


def kernels(path: str, calls: int = 1) -> List[Kernel]:
    """Read from a profile the operators that were executed in the last ``calls`` inferences, in their order."""
    with open(path, encoding="utf-8") as file:
        events: List[Dict[str, Any]] = json.load(file)
    begins = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    begin = begins[-calls] if len(begins) >= calls else 0
    timed = [
        event
        for event in events
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_SUFFIX) and event["ts"] >= begin
    ]
    # An event is written when it ends: one that contains others after them, and those that take no whole microsecond in
    # their order.
    order = {id(event): index if event["dur"] == 0 else -index for index, event in enumerate(timed)}
    timed.sort(key=lambda event: (event["ts"], -event["dur"], order[id(event)]))
    executed: List[Kernel] = []
    around: Dict[Any, List[Tuple[int, Kernel]]] = {}  # thread → the end and the operator of each graph that is open
    for event in timed:
        stack = around.setdefault(event.get("tid"), [])
        while stack and event["ts"] >= stack[-1][0]:
            stack.pop()
        kernel = Kernel(event, is_inside=bool(stack))
        if stack:
            stack[-1][1].seconds -= kernel.seconds
        executed.append(kernel)
        stack.append((event["ts"] + event["dur"], kernel))
    return executed
