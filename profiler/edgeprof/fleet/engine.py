"""Run a function for many devices at the same time, in one thread per device, because each thread mostly waits."""

from __future__ import annotations

import concurrent.futures
import contextlib
from typing import TYPE_CHECKING, TypeVar

from edgeprof.errors import EdgeprofError
from edgeprof.fleet import task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeprof.fleet.inventory import Device
    from edgeprof.fleet.task import Job, Measured, Watch

T = TypeVar("T")
#: The most devices at the same time. Each needs one ssh process on this machine.
MOST_AT_ONCE = 64


def on_each(
    devices: Sequence[Device], act: Callable[[Device], T], stop: Callable[[], None] = lambda: None
) -> Iterator[tuple[Device, T | EdgeprofError]]:
    """Call a function for every device, and yield the results in the order in which the calls end.

    A failure on one device is yielded as its error, and the other calls continue.

    Args:
        devices: The devices.
        act: The function; it is called in a separate thread for each device.
        stop: Called if the caller is interrupted, to make ``act`` return soon.
    """
    if not devices:
        return
    workers = concurrent.futures.ThreadPoolExecutor(min(len(devices), MOST_AT_ONCE))
    try:
        waiting = {workers.submit(act, device): device for device in devices}
        for future in concurrent.futures.as_completed(waiting):
            try:
                yield waiting[future], future.result()
            except EdgeprofError as error:  # noqa: PERF203 - a failure concerns only one device
                yield waiting[future], error
    except BaseException:
        stop()
        raise
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def measure_on_each(
    devices: Sequence[Device], job_of: Callable[[Device], Job], watches: dict[str, Watch], *, wait_s: float
) -> Iterator[tuple[Device, Measured | EdgeprofError]]:
    """Measure on every device.

    If the caller is interrupted, the benchmarks on the devices are ended too; what they have measured remains there as
    an interrupted result.

    Args:
        devices: The devices.
        job_of: A function that returns the job of a device.
        watches: Device name → the watch that receives its progress.
        wait_s: How long to wait while another program measures on a device, seconds.

    Yields:
        Each device with its outcome or its error, in the order in which they end.
    """
    yield from on_each(
        devices,
        lambda device: task.measure(device, job_of(device), watches[device.name], wait_s=wait_s),
        lambda: _stop(devices, watches),
    )


def _stop(devices: Sequence[Device], watches: dict[str, Watch]) -> None:
    for device in devices:
        watch = watches[device.name]
        watch.stopped.set()
        if watch.key is not None:
            with contextlib.suppress(EdgeprofError):  # it cannot be reached, or has just ended
                task.cancel(device, watch.key)
