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
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return OperatorProfile(_operators(events, calls), seconds)


def _operators(events: List[Dict[str, Any]], calls: int) -> List[OperatorTime]:
    """The mean time of each node over the last ``calls`` runs."""
    begins = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    begin = begins[-calls] if len(begins) >= calls else 0
    sums: Dict[Tuple[str, str], float] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith(_SUFFIX) or event["ts"] < begin:
            continue
        arguments = event.get("args", {})
        kind = str(arguments.get("op_name", ""))
        key = (name[: -len(_SUFFIX)] or "{}_{}".format(kind, arguments.get("node_index", "?")), kind)
        sums[key] = sums.get(key, 0.0) + event["dur"] * 1e-6
    return [OperatorTime(name, kind, seconds / calls) for (name, kind), seconds in sums.items()]
