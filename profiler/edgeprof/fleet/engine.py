"""Run tasks for many devices at the same time, in one thread per device, because each thread mostly waits.

The other engine, for hosts that hold devices, is ``cluster.Cluster``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgeprof.errors import EdgeprofError
from edgeprof.fleet.task import Cancel, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgeprof.fleet.task import Task

T = TypeVar("T")
#: The most devices at the same time. Each needs one ssh process on this machine.
MOST_AT_ONCE = 64


class Engine(Protocol):
    """Runs tasks."""

    def run(
        self, tasks: Sequence[Task[T]], watches: Mapping[str, Watch] | None = None
    ) -> Iterator[tuple[Task[T], T | EdgeprofError]]:
        """Run tasks at the same time, and yield each with its value or its error, in the order in which they end.

        A failure of one task is yielded as its error, and the others continue. If the caller is interrupted, the
        benchmarks on the devices are ended too; what they have measured remains there as an interrupted result.

        Args:
            tasks: The tasks, at most one per name.
            watches: Name of a task → the watch that receives its progress.
        """
        ...


class Threads:
    """The engine of one machine that reaches all devices itself."""

    def run(
        self, tasks: Sequence[Task[T]], watches: Mapping[str, Watch] | None = None
    ) -> Iterator[tuple[Task[T], T | EdgeprofError]]:
        """Run each task in a thread of its own; see ``Engine``."""
        if not tasks:
            return
        seen = {task.name: (watches or {}).get(task.name) or Watch() for task in tasks}
        workers = concurrent.futures.ThreadPoolExecutor(min(len(tasks), MOST_AT_ONCE))
        try:
            waiting = {workers.submit(task, seen[task.name]): task for task in tasks}
            for future in concurrent.futures.as_completed(waiting):
                try:
                    yield waiting[future], future.result()
                except EdgeprofError as error:  # noqa: PERF203 - a failure concerns only one task
                    yield waiting[future], error
        except BaseException:
            _stop(tasks, seen)
            raise
        finally:
            workers.shutdown(wait=True, cancel_futures=True)


def _stop(tasks: Sequence[Task[T]], watches: Mapping[str, Watch]) -> None:
    """End the benchmarks on the devices."""
    for task in tasks:
        watch = watches[task.name]
        watch.stopped.set()
        if watch.key is not None:
            with contextlib.suppress(EdgeprofError):  # it cannot be reached, or has just ended
                Cancel(task.device, watch.key)(watch)
