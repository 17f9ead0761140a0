"""The engine of several hosts: tasks go through a scheduler of Dask to the hosts that hold the devices.

A task is sent to any host that offers the resource it needs. Its progress and its value come back as events, over the
connection that the host itself has opened, so that a host behind NAT works too; Dask would fetch a value over a
connection to the host, and would compute it again if there is none. A task is sent again if the scheduler or its host
dies: the device then answers with the result that it has.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import pickle
import queue
import time
import uuid
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from edgeprof import __version__
from edgeprof.errors import EdgeprofError, InputError, UnavailableError
from edgeprof.fleet import tls
from edgeprof.fleet.link import LinkError, RefusedError
from edgeprof.fleet.task import Cancel, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgeprof.fleet.inventory import Engine
    from edgeprof.fleet.task import Task

T = TypeVar("T")
#: Settings of Dask for the desk, the scheduler and the hosts. The defaults wake a host some hundred times a second, and
#: give a task up after three hosts have died, although a host only waits for its device.
SETTINGS = {
    "logging.distributed": "warning",
    "distributed.comm.require-encryption": True,
    "distributed.comm.tls.min-version": 1.3,
    "distributed.scheduler.allowed-failures": 50,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.admin.low-level-log-length": 4,  # events hold results, and a scheduler keeps the last of each topic
    "distributed.admin.large-graph-warning-threshold": "1TiB",
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.tick.limit": "60s",
    "distributed.admin.system-monitor.interval": "30s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.diagnostics.nvml": False,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "60s",
}
#: The topic of all events. One for each command would stay in the scheduler's memory for ever.
TOPIC = "edgeprof"
#: The resource of a host that makes variants.
COMPRESS = "compress"
#: Pauses (s) before each further try to reach a scheduler that is lost.
_PAUSES_S = (2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
#: How often the desk checks its connection and the hosts (s).
_CHECK_S = 5.0
#: How long a task waits for a host that offers what it needs (s), if there was none yet, and if there was one.
_NO_HOST_S, _HOST_GONE_S = 10.0, 120.0
#: How long the desk waits for the value of a task that has ended (s).
_VALUE_S = 10.0


def load_dask() -> None:
    """Import Dask and apply the settings.

    Raises:
        UnavailableError: Dask distributed is not installed.
    """
    if importlib.util.find_spec("distributed") is None:
        raise UnavailableError(
            "Dask distributed, which runs a fleet on several hosts, is not installed",
            remedy="pip install 'edgeprof[fleet]'",
        )
    import dask  # noqa: PLC0415 - of the extra fleet

    dask.config.set(SETTINGS)  # before distributed is imported, which reads some of them only then


def check_version(address: str, versions: Mapping[str, Any]) -> None:
    """Check that the scheduler has this version of Dask, because another one may fail later and in silence.

    Args:
        address: The scheduler's address.
        versions: Its answer to ``versions``.

    Raises:
        InputError: It has another version.
    """
    import distributed  # noqa: PLC0415 - of the extra fleet

    there = versions["packages"]["distributed"]
    if there != distributed.__version__:
        raise InputError(
            f"the scheduler {address} has distributed {there} and this machine {distributed.__version__}",
            remedy=f"Install one version on both: pip install distributed=={there}",
        )


class _LostError(Exception):
    """The connection to the scheduler is lost, or a value has not arrived."""


def run_task(task: Task[Any], number: int, run: str, version: str) -> None:
    """Run a task in a worker of Dask, and report its progress and its value as events.

    Args:
        task: The task.
        number: The task's number at the desk.
        run: A unique name of the desk's run, which its events contain.
        version: The desk's version of edgeprof.
    """
    from distributed import get_worker  # noqa: PLC0415 - of the extra fleet

    worker = get_worker()

    def tell(**event: Any) -> None:
        worker.log_event(TOPIC, {"run": run, "task": number, **event})

    try:
        if version != __version__:
            raise UnavailableError(
                f"the host {worker.name} has edgeprof {__version__} and the desk {version}",
                remedy="Install one version on both.",
            )
        value = task(_Reporter(tell))
    except EdgeprofError as error:
        tell(error=error.message, remedy=error.remedy, exit=error.exit_code)
    else:
        tell(value=zlib.compress(pickle.dumps(value)))


class _Reporter(Watch):
    """The watch of a task that runs on another host."""

    def __init__(self, tell: Any) -> None:
        super().__init__(lambda text: tell(said=text))
        self._tell = tell

    def note_key(self, key: str | None) -> None:
        super().note_key(key)
        self._tell(key=key)


@dataclass
class _Open:
    """A task that has no value yet.

    Attributes:
        task: The task.
        watch: Receives its progress.
        ended_s: When Dask reported its end (monotonic); None before.
        alone_since_s: Since when no host offers what it needs (monotonic); None if one does.
        was_held: Whether a host ever did.
    """

    task: Task[Any]
    watch: Watch
    ended_s: float | None = None
    alone_since_s: float | None = None
    was_held: bool = False

    def is_held(self, offered: set[str], now_s: float) -> bool:
        """Note which resources the hosts offer; return whether the task may still find a host."""
        if self.task.resources.keys() <= offered:
            self.alone_since_s, self.was_held = None, True
            return True
        if self.alone_since_s is None:
            self.alone_since_s = now_s
            self.watch.say("no host holds it; waiting for one")
        return now_s - self.alone_since_s <= (_HOST_GONE_S if self.was_held else _NO_HOST_S)


class Cluster:
    """The engine of a fleet whose devices are held by other hosts.

    Args:
        engine: The table ``[engine]`` of the inventory.

    Raises:
        InputError: The certificates cannot be used, or the scheduler is of another authority or version.
        UnavailableError: The scheduler cannot be reached, or Dask is not installed.
    """

    def __init__(self, engine: Engine) -> None:
        load_dask()
        self._address, self._certificates = engine.scheduler, tls.Certificates(engine.certificates)
        tls.check_scheduler(self._address, self._certificates)

    def run(
        self, tasks: Sequence[Task[T]], watches: Mapping[str, Watch] | None = None
    ) -> Iterator[tuple[Task[T], T | EdgeprofError]]:
        """Send each task to a host that holds its device; see ``engine.Engine``."""
        still_open = {
            number: _Open(task, (watches or {}).get(task.name) or Watch()) for number, task in enumerate(tasks)
        }
        try:
            for pause_s in (*_PAUSES_S, None):
                try:
                    yield from self._run(still_open)
                except (_LostError, UnavailableError) as lost:  # noqa: PERF203 - few rounds, each of minutes
                    if pause_s is None:
                        break
                    for waiting in still_open.values():
                        waiting.watch.say(f"{lost}; trying again in {pause_s:.0f} s")
                    time.sleep(pause_s)
                else:
                    return
        except BaseException:
            self._stop(still_open)
            raise
        for waiting in still_open.values():
            yield (
                waiting.task,
                LinkError(
                    f"the connection to the scheduler {self._address} is lost",
                    remedy="The benchmark goes on if it had begun: give the same command again.",
                ),
            )

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        """Connect to the scheduler.

        Raises:
            _LostError, UnavailableError: It cannot be reached.
        """
        from distributed import Client  # noqa: PLC0415 - of the extra fleet

        tls.check_scheduler(self._address, self._certificates)
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a lost connection is reported in our own words
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions; check_version compares what matters
                client = Client(self._address, security=self._certificates.security(), timeout=20, set_as_default=False)
        except OSError as error:
            raise _LostError(f"the scheduler {self._address} does not answer") from error
        try:
            check_version(self._address, client.sync(client.scheduler.versions))
            yield client
        finally:
            client.close(timeout=5)

    def _run(self, still_open: dict[int, _Open]) -> Iterator[tuple[Task[Any], Any]]:
        """Send all open tasks, and yield what comes of them.

        Raises:
            _LostError: The connection is lost; the remaining tasks are in ``still_open``.
        """
        events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        run = uuid.uuid4().hex
        with self._client() as client:
            client.subscribe_topic(TOPIC, lambda event: events.put(event[1]) if event[1]["run"] == run else None)
            futures = {}
            for number, waiting in still_open.items():
                futures[number] = client.submit(
                    run_task, waiting.task.packed(), number, run, __version__,
                    key=f"edgeprof-{run}-{number}", resources=waiting.task.resources, pure=False,
                )  # fmt: skip
            while still_open:
                try:
                    event = events.get(timeout=_CHECK_S)
                except queue.Empty:
                    for number, error in self._failures(client, futures, still_open):
                        futures[number].cancel()
                        yield still_open.pop(number).task, error
                    continue
                if event["task"] not in still_open:
                    continue
                still_open[event["task"]].was_held = True  # a host sent it, even if it was killed before a check saw it
                outcome = _outcome(event, still_open[event["task"]])
                if outcome is not None:
                    yield still_open.pop(event["task"]).task, outcome

    def _failures(
        self, client: Any, futures: Mapping[int, Any], still_open: Mapping[int, _Open]
    ) -> list[tuple[int, LinkError]]:
        """Return the tasks whose host failed, or that have waited too long for a host, with their errors.

        Raises:
            _LostError: The scheduler is gone or has forgotten a task, or a value has not arrived.
        """
        if client.status != "running":
            raise _LostError(f"the connection to the scheduler {self._address} is lost")
        now_s = time.monotonic()
        offered = _offered(client)
        failures = []
        for number, waiting in still_open.items():
            status = futures[number].status
            if status == "error":
                error = futures[number].exception(timeout=10)
                failures.append(
                    (number, LinkError(f"its host failed: {error!r}", remedy="Look into the host's journal."))
                )
            elif status == "finished":  # its value is on the way
                waiting.ended_s = waiting.ended_s or now_s
                if now_s - waiting.ended_s > _VALUE_S:
                    raise _LostError("a result did not arrive")
            elif status != "pending":
                raise _LostError("the scheduler has forgotten a task")
            elif not waiting.is_held(offered, now_s):
                failures.append((number, _no_host(waiting.task)))
        return failures

    def _stop(self, still_open: Mapping[int, _Open]) -> None:
        """End the benchmarks that the open tasks have begun."""
        cancels = {
            number: _Open(Cancel(waiting.task.device, waiting.watch.key), Watch())
            for number, waiting in still_open.items()
            if waiting.watch.key is not None
        }
        with contextlib.suppress(EdgeprofError, _LostError):
            for _ in self._run(cancels):
                pass


def _offered(client: Any) -> set[str]:
    """Return the resources that the hosts offer now."""
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    return {resource for worker in workers.values() for resource in worker["resources"]}


def _outcome(event: Mapping[str, Any], waiting: _Open) -> Any:
    """Note an event of a task, and return the task's value or its error if the event is its end; else None."""
    if "said" in event:
        waiting.watch.say(event["said"])
    elif "key" in event:
        waiting.watch.note_key(event["key"])
    elif "error" in event:
        return RefusedError(event["error"], remedy=event["remedy"], exit_code=event["exit"])
    else:
        try:
            return waiting.task.checked(pickle.loads(zlib.decompress(event["value"])))  # noqa: S301 - of a certified host
        except EdgeprofError as error:
            return error
    return None


def _no_host(task: Task[Any]) -> LinkError:
    what = f"holds {task.name}" if COMPRESS not in task.resources else "makes variants"
    command = "edgeprof fleet host" if COMPRESS not in task.resources else "edgeprof fleet host --compress 1"
    return LinkError(f"no host {what}", remedy=f"Start {command} on one, with an inventory that has the same names.")
