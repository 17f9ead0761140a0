"""Windows and warm-ups that a device runs by itself (``Session.bind_burst``). Python 3.6 grammar."""

import time
from array import array
from typing import Any, Callable, Dict, List

from edgeprof.worker import standstill
from edgeprof.worker.runtime import LoadError
from edgeprof.worker.scenario import Scenario, Window
from edgeprof.worker.workload import Burst, Workload

#: A warm-up ends when the mean latencies of this many consecutive bursts agree within this relative difference.
_AGREEING_BURSTS, _AGREEMENT = 3, 0.01
#: Each burst of a warm-up lasts this fraction of the warm-up so far, and at most this many seconds.
_BURST_FRACTION, _LONGEST_S = 0.25, 2.0


def require_closed_loop(scenario: Scenario) -> None:
    """Refuse scenarios that say when each call is due: a device that repeats its calls by itself cannot follow them.

    Raises:
        LoadError: the scenario is another one than ``single-stream``.
    """
    if scenario.name != "single-stream":
        raise LoadError(
            "a device that repeats its inferences by itself has no scenario {}".format(scenario.name),
            "Leave --scenario out: its inferences follow one another.",
        )


def warm_up(burst: Callable[[float], Burst], min_s: float, max_s: float) -> Dict[str, Any]:
    """Let the device work until the latency of its calls has settled, from ``min_s`` to ``max_s`` seconds.

    Returns:
        The answer to the request ``warm_up``.
    """
    begin = time.monotonic()
    means: List[float] = []
    calls, spent, steady = 0, 0.0, False
    while True:
        done = burst(min(_LONGEST_S, max(0.01, _BURST_FRACTION * max(min_s, spent))))
        calls += done.span.count
        means.append(_mean_s(done))
        spent = time.monotonic() - begin
        last = means[-_AGREEING_BURSTS:]
        steady = len(last) == _AGREEING_BURSTS and max(last) - min(last) <= _AGREEMENT * max(last)
        if spent >= max_s or (steady and spent >= min_s):
            break
    reason = None
    if not steady:
        reason = "the mean latency of its last {} bursts still changed by more than {:g} %".format(
            len(means[-_AGREEING_BURSTS:]), 100 * _AGREEMENT
        )
    return {"reached": steady, "inferences": calls, "seconds": spent, "latency_s": means[-1], "reason": reason}


def measure_window(burst: Callable[[float], Burst], workload: Workload, seconds: float, quiet_s: float) -> Window:
    """Measure one window of ``seconds``, which is one burst of the device, with quiet time before and after it."""
    mark = standstill.Mark()
    cpu_s = time.process_time()
    time.sleep(quiet_s)
    done = burst(seconds)
    time.sleep(quiet_s)
    span = done.span._replace(
        count=done.span.count * workload.units(1), unit=workload.unit, key=(workload.name,), edge_s=done.edge_s
    )
    return Window(
        span,
        done.span.count,
        array("d"),
        busy_s=span.seconds,
        cpu_s=time.process_time() - cpu_s,
        standstill=mark.standstill(),
        is_burst=True,
        device_s=done.device_s,
        is_second_try=done.is_second_try,
    )


def _mean_s(done: Burst) -> float:
    """The mean seconds of a call, by the device's own clock if it reported one: no transmission delays that clock."""
    seconds = done.span.seconds if done.device_s is None else done.device_s
    return seconds / max(1, done.span.count)
