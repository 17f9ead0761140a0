"""``edgeprof.stage``: a program marks its stages, and whoever measures it tells their times and joules.

    with edgeprof.stage("detect"):
        boxes = detector(frame)

Each stage that ends is a record of 32 bytes in a ring in shared memory, which ``edgeprof run``, ``edgeprof.record``
and the daemon read: two readings of the clock, no system call, no energy code in the program, and nothing to wait for.
Where nobody measures, it costs less. A program that is killed loses what had not ended; a ring that is not read in time
loses its oldest records, which the reader counts.

Standard library only, and the grammar of Python 3.6, so that the file can be copied beside an application that runs
under a Jetson's system Python. ``examples/c/edgeprof_stage.h`` writes the same ring.
"""
# For Python 3.6, with the standard library alone, and no slower than it must be:
# ruff: noqa: UP006, UP031, UP035, UP045, PYI034, PTH108, PTH112, PTH118

import atexit
import functools
import itertools
import mmap
import os
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Tuple, Type, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
Key = Tuple[str, str, str, str]

#: The folder of the rings of whoever started this program, and where the daemon's is.
VARIABLE = "EDGEPROF_STAGES"
_PLACES = ("/run/edgeprof/stages", "{XDG_RUNTIME_DIR}/edgeprof/stages")
#: How a ring's file ends.
SUFFIX = ".stages"
MAGIC = b"EPSTAGE1"
#: magic, slots, process, next record (of writers in C), names.
HEADER = struct.Struct("=8sIIQI")
#: Where the names begin, how many there are, and the bytes of each: stage, model, variant, runtime, by tabs.
NAMES_AT, MOST_NAMES, NAME_BYTES = 64, 64, 128
#: Start and end (ns of CLOCK_MONOTONIC), name, thread, and last the record's number from 1, which makes it valid.
SLOT = struct.Struct("=QQIIQ")
SLOTS = 8192
SLOTS_AT = NAMES_AT + MOST_NAMES * NAME_BYTES
#: The name that takes the place of those beyond ``MOST_NAMES``.
OTHER = "other"
#: A daemon that was not there is looked for again after so long (ns).
_RETRY_NS = 2 * 1000 * 1000 * 1000


def _nanoseconds() -> int:
    return int(time.monotonic() * 1e9)


#: CLOCK_MONOTONIC, ns. Python 3.6 has no clock in whole nanoseconds yet.
_now: Callable[[], int] = getattr(time, "monotonic_ns", _nanoseconds)
_thread: Callable[[], int] = threading.get_ident


class Ring:
    """A ring of this process in a folder. Thread-safe by the interpreter lock.

    Args:
        folder: Where its file is made.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        size = SLOTS_AT + SLOTS * SLOT.size
        self.path = os.path.join(folder, "%d-%x%s" % (os.getpid(), _now(), SUFFIX))
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a full disk is found here, and is no bus error later
            self._map = mmap.mmap(descriptor, size)
        except OSError:
            os.unlink(self.path)
            raise
        finally:
            os.close(descriptor)
        self._ids: Dict[Key, int] = {}
        self._lock = threading.Lock()
        self._next = itertools.count().__next__
        HEADER.pack_into(self._map, 0, MAGIC, SLOTS, os.getpid(), 0, 0)

    def identify(self, key: Key) -> int:
        """The number of a name; that of ``other`` for those that are too many."""
        number = self._ids.get(key)
        return self._enter(key) if number is None else number

    def write(self, name: int, start: int, end: int) -> None:
        """Add one record."""
        number = self._next()
        place = SLOTS_AT + number % SLOTS * SLOT.size
        try:  # noqa: SIM105 - suppress() costs as much as the rest
            SLOT.pack_into(self._map, place, start, end, name, _thread() & 0xFFFFFFFF, number + 1)
        except ValueError:  # the map was closed in another thread
            pass

    def close(self) -> None:
        """Give the memory back; the file stays for whoever reads it."""
        self._map.close()

    def _enter(self, key: Key) -> int:
        with self._lock:
            if key in self._ids:
                return self._ids[key]
            number = len(self._ids)
            if number >= MOST_NAMES - 1:
                number, key = MOST_NAMES - 1, (OTHER, "", "", "")
            else:
                self._ids[key] = number
            name = "\t".join(key).encode("utf-8")[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0")
            place = NAMES_AT + number * NAME_BYTES
            self._map[place : place + NAME_BYTES] = name
            HEADER.pack_into(self._map, 0, MAGIC, SLOTS, os.getpid(), 0, number + 1)
            return number


class _Rings:
    """The rings that this process writes: of whoever started it, of the daemon, and of a recording in it."""

    def __init__(self) -> None:
        self.open: List[Ring] = []
        self.look_again_at = 0
        self._attached: List[str] = []
        self._lock = threading.Lock()

    def look(self, now: int) -> None:
        """Open what is there to be written; called now and then."""
        with self._lock:
            self.look_again_at = now + _RETRY_NS
            have = [ring.folder for ring in self.open]
            for folder in self._folders():
                if folder not in have and os.path.isdir(folder):
                    with suppress(OSError, ValueError):  # not ours to write: nothing is kept waiting for it
                        self.open = [*self.open, Ring(folder)]

    def _folders(self) -> List[str]:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        places = [place.format(XDG_RUNTIME_DIR=runtime) for place in _PLACES if runtime or "{" not in place]
        asked = os.environ.get(VARIABLE, "")
        # A name may be empty: then nobody is told anything, the daemon neither.
        return self._attached + ([asked] if asked else places if VARIABLE not in os.environ else [])

    def attach(self, folder: str) -> None:
        self._attached = [*self._attached, folder]
        self.look(_now())

    def detach(self, folder: str) -> None:
        with self._lock:
            self._attached = [other for other in self._attached if other != folder]
            leaving = [ring for ring in self.open if ring.folder == folder]
            self.open = [ring for ring in self.open if ring.folder != folder]
        for ring in leaving:
            ring.close()

    def forget(self) -> None:
        """In a child of a fork: the rings are the parent's."""
        self.open = []
        self.look_again_at = 0
        self._lock = threading.Lock()
        _open.clear()


_rings = _Rings()
#: The stages that have begun and not ended, by their id.
_open: Dict[int, "stage"] = {}

_register_at_fork: Optional[Callable[..., None]] = getattr(os, "register_at_fork", None)  # from Python 3.7 on
if _register_at_fork is not None:
    _register_at_fork(after_in_child=_rings.forget)


def attach(folder: str) -> None:
    """Write the stages of this process to a ring in that folder too."""
    _rings.attach(folder)


def detach(folder: str) -> None:
    """End what ``attach`` began."""
    _rings.detach(folder)


class stage:  # noqa: N801 - it is used as a function is
    """A context manager and a decorator around one stage of a program; make a new one for each use.

    A stage within another one of the same thread has its own time and joules, and the outer one has what is left. A
    stage named ``frame`` around the others makes their calls be counted per frame.

    Args:
        name: What it is called in tables and metrics. Not an id of a frame: 63 names are told apart.
        model: The model that runs in it, where the daemon's series should name one.
        variant: What was made of the model: ``int8``, ``baseline`` …
        runtime: What runs it: ``onnxruntime`` …

    Raises:
        ValueError: a name that is empty, not printable, or too long.
    """

    __slots__ = ("key", "start")

    def __init__(self, name: str, model: str = "", variant: str = "", runtime: str = "") -> None:
        self.key = _key(name, model, variant, runtime)
        self.start = 0

    def __enter__(self) -> "stage":
        _open[id(self)] = self
        self.start = _now()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        end = _now()
        _open.pop(id(self), None)
        if end > _rings.look_again_at:
            _rings.look(end)
        for ring in _rings.open:
            ring.write(ring.identify(self.key), self.start, end)

    def __call__(self, function: F) -> F:
        key = self.key

        @functools.wraps(function)
        def staged(*args: Any, **kwargs: Any) -> Any:
            with stage(*key):
                return function(*args, **kwargs)

        return staged  # type: ignore[return-value]


@functools.lru_cache(maxsize=256)
def _key(name: str, model: str, variant: str, runtime: str) -> Key:
    key = (name, model, variant, runtime)
    if not name:
        raise ValueError("a stage needs a name")
    if not all(part.isprintable() for part in key):
        raise ValueError("%r is no name of a stage: it has characters that cannot be printed" % (key,))
    if len("\t".join(key).encode("utf-8")) >= NAME_BYTES:
        raise ValueError("the names of the stage %r are longer than %d bytes together" % (name[:80], NAME_BYTES - 4))
    return key


def open_stages() -> List[Key]:
    """The stages of this process that have begun and not ended."""
    return [begun.key for begun in list(_open.values())]


def _write_unfinished() -> None:
    """At the end of the process: what never ended is said, with an end of 0."""
    now = _now()
    if _open and now > _rings.look_again_at:  # no stage has ended yet, which is when rings are looked for
        _rings.look(now)
    for begun in list(_open.values()):
        for ring in _rings.open:
            ring.write(ring.identify(begun.key), begun.start, 0)


atexit.register(_write_unfinished)
