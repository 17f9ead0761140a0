"""Stages of a program without a change to its code: the calls of functions that a library exports, by uprobes.

The kernel records when a function is entered and when it returns (perf_event_open(2); one event for each processor, as
inherited events would make the program's own forks fail). Kernels before 4.17, such as that of the Jetson Nano, have no
such source of events; there, probes are created in tracefs (Documentation/trace/uprobetracer.rst) and opened as
tracepoints. Both need root.
"""

from __future__ import annotations

import ctypes
import difflib
import errno
import fcntl
import importlib
import mmap
import os
import platform
import re
import struct
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.errors import InputError, UnavailableError
from edgeprof.stage_rings import StageSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from edgeprof.staging import Key

#: Machine → number of perf_event_open.
_SYSCALLS = {"x86_64": 298, "aarch64": 241, "armv7l": 364}
_TRACEPOINT = 2
#: perf_event_attr up to ``aux_watermark`` and ``sample_max_stack`` (PERF_ATTR_SIZE_VER5).
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
_SAMPLE_TID, _SAMPLE_TIME, _SAMPLE_IDENTIFIER = 1 << 1, 1 << 2, 1 << 16
_TASK, _USE_CLOCK, _CLOCK_MONOTONIC = 1 << 13, 1 << 25, 1
_CLOSE_ON_EXEC = 1 << 3
_SET_OUTPUT, _GET_ID = 0x2405, 0x80082407
#: Kinds of records in a ring, and the contents that are read.
_LOST, _FORK, _SAMPLE = 2, 7, 9
_HEADER, _LOST_BODY = struct.Struct("=IHH"), struct.Struct("=QQ")
_FORK_BODY, _SAMPLE_BODY = struct.Struct("=IIIIQ"), struct.Struct("=QIIQ")
#: Where the kernel's and the reader's position are in the first page of a ring.
_HEAD_AT, _TAIL_AT = 1024, 1032
#: Pages of a ring besides the first, a power of two: 2 MiB, 60,000 records.
_PAGES = 512
#: How often rings are read (s).
_PERIOD_S = 0.1
_MOST_PROBES = 32
_SPEC = re.compile(r"(?:(?P<name>[^=/:]+)=)?(?P<library>.+):(?P<symbol>[^:]+)")
_REMEDY = "Write it as --uprobe infer=/usr/lib/libNAME.so:FUNCTION; nm -D --defined-only lists the functions."


@dataclass(frozen=True)
class Probe:
    """A function whose calls are stages.

    Attributes:
        name: The stage's name.
        library: The file.
        offset: Where the function is in the file (bytes).
    """

    name: str
    library: Path
    offset: int


def find_probe(spec: str) -> Probe:
    """Find the function that ``[NAME=]LIBRARY:FUNCTION`` names.

    Raises:
        InputError: The text has another form, there is no such library, or it does not export such a function.
        UnavailableError: pyelftools is not installed.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise InputError(f"--uprobe {spec} is not LIBRARY:FUNCTION", remedy=_REMEDY)
    path = Path(match["library"]).expanduser()
    if not path.is_file():
        raise InputError(f"--uprobe {spec}: there is no file {path}", remedy="Give the library's whole path.")
    path = path.resolve()
    return Probe(match["name"] or match["symbol"], path, _offset_of(match["symbol"], path))


def _offset_of(symbol: str, path: Path) -> int:
    """The place of an exported function in its file."""
    try:
        elffile: Any = importlib.import_module("elftools.elf.elffile")
        failure: Any = importlib.import_module("elftools.common.exceptions").ELFError
    except ImportError:
        raise UnavailableError(
            "--uprobe needs pyelftools to find functions in libraries", remedy="pip install 'edgeprof[uprobes]'"
        ) from None
    try:
        with path.open("rb") as file:
            elf = elffile.ELFFile(file)
            table = elf.get_section_by_name(".dynsym")
            symbols = table.iter_symbols() if table is not None else ()
            functions = {entry.name: entry for entry in symbols if _is_code(entry)}
            if symbol not in functions:
                near = difflib.get_close_matches(symbol, functions, n=3, cutoff=0.5)
                raise InputError(
                    f"{path} exports no function {symbol}",
                    remedy=f"Did you mean {' or '.join(near)}?" if near else f"nm -D --defined-only {path}",
                )
            places = [int(place) for place in elf.address_offsets(functions[symbol]["st_value"])]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", remedy=f"ls -l {path}") from None
    except (failure, ValueError, KeyError, struct.error) as error:
        raise InputError(f"{path} is no library of this system: {error}", remedy=_REMEDY) from None
    if not places:
        raise InputError(f"{symbol} is not in the file {path}", remedy=_REMEDY)
    return places[0]


def _is_code(symbol: Any) -> bool:
    """Whether a symbol is a function that is defined in its file (an indirect one only chooses a function)."""
    return bool(symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF")


class Event(NamedTuple):
    """One record of the kernel.

    Attributes:
        time_s: Seconds of CLOCK_MONOTONIC.
        pid: The process.
        tid: The thread.
        stage: Index of the probe.
        is_return: Whether the function returned; else it was entered.
    """

    time_s: float
    pid: int
    tid: int
    stage: int
    is_return: bool


class UprobeWatch:
    """Records the calls of functions in the programs that this process starts; use it as a context manager.

    Args:
        probes: The functions.
        sysfs: /sys.

    Attributes:
        lost: Records that the kernel dropped because the ring was full.

    Raises:
        InputError: There are too many probes, or two stages have one name.
    """

    def __init__(self, probes: Sequence[Probe], sysfs: Path = Path("/sys")) -> None:
        names = [probe.name for probe in probes]
        if len(set(names)) < len(names) or len(probes) > _MOST_PROBES:
            raise InputError(
                f"--uprobe takes {_MOST_PROBES} functions at most, each with a name of its own",
                remedy="Write it as --uprobe NAME=LIBRARY:FUNCTION.",
            )
        self.lost = 0
        self._probes, self._sysfs = probes, sysfs
        self._rings: list[_Ring] = []
        self._stages: dict[int, tuple[int, bool]] = {}
        self._parents: dict[int, int] = {}
        self._events: list[Event] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeprof-uprobes", daemon=True)
        self._stack = ExitStack()

    def __enter__(self) -> UprobeWatch:  # noqa: PYI034 - Self is not in typing before 3.11
        """Set the probes.

        Raises:
            UnavailableError: The kernel has no uprobes, or does not allow them.
        """
        with ExitStack() as stack:
            source = _source(self._sysfs, self._probes, stack)
            for cpu in _processors(self._sysfs):
                ring: _Ring | None = None
                for index, probe in enumerate(self._probes):
                    for is_return in (False, True):
                        descriptor = _open_event(source.attributes(probe, index, is_return=is_return), cpu, probe)
                        stack.callback(os.close, descriptor)
                        if ring is None:
                            ring = _Ring(descriptor)
                            stack.callback(ring.close)
                            self._rings.append(ring)
                        else:
                            fcntl.ioctl(descriptor, _SET_OUTPUT, ring.descriptor)
                        self._stages[_identity(descriptor)] = (index, is_return)
            self._stack = stack.pop_all()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._read()
        self._stack.close()

    @property
    def spans(self) -> list[StageSpan]:
        """The calls that have ended, in the programs that this process started."""
        return self._paired()[0]

    @property
    def unfinished(self) -> list[Key]:
        """The calls that were entered and never returned."""
        return self._paired()[1]

    def _paired(self) -> tuple[list[StageSpan], list[Key]]:
        keys = [(probe.name, "", "", "") for probe in self._probes]
        return pair_events(self._events, keys, self._is_ours)

    def _is_ours(self, pid: int) -> bool:
        """Whether this process started another one, directly or not."""
        seen = set()
        while pid in self._parents and pid not in seen:
            seen.add(pid)
            pid = self._parents[pid]
            if pid == os.getpid():
                return True
        return False

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD_S):
            self._read()

    def _read(self) -> None:
        for ring in self._rings:
            for kind, body in ring.read():
                if kind == _SAMPLE:
                    identity, pid, tid, time_ns = _SAMPLE_BODY.unpack_from(body)
                    if identity in self._stages:
                        self._events.append(Event(time_ns / 1e9, pid, tid, *self._stages[identity]))
                elif kind == _FORK:
                    pid, parent = _FORK_BODY.unpack_from(body)[:2]
                    if pid != parent:  # else it is a new thread
                        self._parents[pid] = parent
                elif kind == _LOST:
                    self.lost += _LOST_BODY.unpack_from(body)[1]


def pair_events(
    events: Iterable[Event], keys: Sequence[Key], is_ours: Callable[[int], bool]
) -> tuple[list[StageSpan], list[Key]]:
    """Pair the entry of each call with its return; return the calls that ended, and the keys of those that did not.

    Args:
        events: The records, in any order.
        keys: The key of each probe's stage.
        is_ours: Tells whether a process counts.
    """
    open_calls: dict[tuple[int, int], list[float]] = {}
    spans = []
    for event in sorted(events):
        if not is_ours(event.pid):
            continue
        calls = open_calls.setdefault((event.tid, event.stage), [])
        if not event.is_return:
            calls.append(event.time_s)
        elif calls:
            spans.append(StageSpan(keys[event.stage], calls.pop(), event.time_s, (event.pid, event.tid)))
    return spans, [keys[stage] for (_, stage), calls in open_calls.items() for _ in calls]


class _Ring:
    """The ring of one processor, which the kernel writes to."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._size = _PAGES * mmap.PAGESIZE
        try:
            self._map = mmap.mmap(descriptor, mmap.PAGESIZE + self._size)
        except OSError as error:
            raise UnavailableError(
                f"the kernel gives no memory for uprobes: {error.strerror}", remedy="Run edgeprof as root."
            ) from None

    def close(self) -> None:
        self._map.close()

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Yield the kind and the content of each record since the last time, and give its room back."""
        head, tail = struct.unpack_from("=QQ", self._map, _HEAD_AT)
        while tail < head:
            kind, _, size = _HEADER.unpack(self._bytes(tail, _HEADER.size))
            if size < _HEADER.size:
                break
            yield kind, self._bytes(tail + _HEADER.size, size - _HEADER.size)
            tail += size
        struct.pack_into("=Q", self._map, _TAIL_AT, head)

    def _bytes(self, at: int, count: int) -> bytes:
        at %= self._size
        first = self._map[mmap.PAGESIZE + at : mmap.PAGESIZE + min(at + count, self._size)]
        return first + self._map[mmap.PAGESIZE : mmap.PAGESIZE + count - len(first)]


class _Pmu:
    """The kernel's own source of uprobes (Linux 4.17 and later)."""

    def __init__(self, folder: Path) -> None:
        self._type = int((folder / "type").read_text())
        bit = (folder / "format" / "retprobe").read_text().strip().removeprefix("config:")
        self._return_bit = int(bit)
        self._paths: list[ctypes.Array[ctypes.c_char]] = []

    def attributes(self, probe: Probe, _index: int, *, is_return: bool) -> bytes:
        self._paths.append(ctypes.create_string_buffer(os.fsencode(probe.library)))
        address = ctypes.addressof(self._paths[-1])
        return _attributes(self._type, is_return << self._return_bit, address, probe.offset)


class _Tracefs:
    """Probes that are created in tracefs, and removed when the stack is left."""

    def __init__(self, folder: Path, probes: Sequence[Probe], stack: ExitStack) -> None:
        self._events = folder / "events"
        self._group = f"edgeprof_{os.getpid()}"
        control = folder / "uprobe_events"
        for index, probe in enumerate(probes):
            for is_return in (False, True):
                name = self._name(index, is_return=is_return)
                _append(control, f"{'r' if is_return else 'p'}:{name} {probe.library}:0x{probe.offset:x}\n")
                stack.callback(_remove, control, name)

    def _name(self, index: int, *, is_return: bool) -> str:
        return f"{self._group}/{'return' if is_return else 'entry'}_{index}"

    def attributes(self, _probe: Probe, index: int, *, is_return: bool) -> bytes:
        identity = int((self._events / self._name(index, is_return=is_return) / "id").read_text())
        return _attributes(_TRACEPOINT, identity, 0, 0)


def _append(path: Path, line: str) -> None:
    """Append a line, which without O_APPEND would remove all probes; open() would seek to the end, which fails here."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(descriptor, os.fsencode(line))
    finally:
        os.close(descriptor)


def _remove(control: Path, name: str) -> None:
    with suppress(OSError):
        _append(control, f"-:{name}\n")


def _source(sysfs: Path, probes: Sequence[Probe], stack: ExitStack) -> _Pmu | _Tracefs:
    """The kernel's source of uprobes.

    Raises:
        UnavailableError: It has none, or this user may not use it.
    """
    if platform.machine() not in _SYSCALLS:
        raise UnavailableError(
            f"uprobes are not supported on {platform.machine()}", remedy="Use --phases, or edgeprof.stage."
        )
    try:
        return _Pmu(sysfs / "bus/event_source/devices/uprobe")
    except (OSError, ValueError):
        pass
    for folder in (sysfs / "kernel/tracing", sysfs / "kernel/debug/tracing"):
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / "uprobe_events").stat()
            try:
                return _Tracefs(folder, probes, stack)
            except OSError as error:
                raise _refusal(error.errno, str(folder / "uprobe_events")) from None
    if os.geteuid() != 0:  # tracefs can be seen by root only
        raise _refusal(errno.EACCES, "")
    raise UnavailableError(
        "this kernel has no uprobes, or tracefs is not mounted",
        remedy="mount -t tracefs nodev /sys/kernel/tracing; or use --phases, or edgeprof.stage in the program.",
    )


def _refusal(number: int | None, what: str) -> UnavailableError:
    if number in {errno.EACCES, errno.EPERM}:
        return UnavailableError(
            "the kernel allows uprobes only to root", remedy="Run it as root: sudo edgeprof run --uprobe … -- CMD."
        )
    words = os.strerror(number) if number else "unknown error"
    return UnavailableError(
        f"the kernel refuses the uprobe {what}: {words}", remedy="Use --phases, or edgeprof.stage in the program."
    )


def _processors(sysfs: Path) -> list[int]:
    """The processors that are online, from text such as ``0-3,6``."""
    try:
        text = (sysfs / "devices/system/cpu/online").read_text()
        ranges = [part.partition("-") for part in text.strip().split(",")]
        return [cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)]
    except (OSError, ValueError):
        return list(range(os.cpu_count() or 1))


def _attributes(kind: int, config: int, config1: int, config2: int) -> bytes:
    sample = _SAMPLE_IDENTIFIER | _SAMPLE_TID | _SAMPLE_TIME
    return _ATTRIBUTES.pack(
        kind, _ATTRIBUTES.size, config, 1, sample, 0, _TASK | _USE_CLOCK, 1, 0, config1, config2,
        0, 0, 0, _CLOCK_MONOTONIC, 0, 0, 0, 0,
    )  # fmt: skip


def _open_event(attributes: bytes, cpu: int, probe: Probe) -> int:
    """Open an event on one processor, for all processes.

    Raises:
        UnavailableError: The kernel refuses it.
    """
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    number, given = _SYSCALLS[platform.machine()], ctypes.create_string_buffer(attributes, len(attributes))
    descriptor: int = syscall(number, given, -1, cpu, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if descriptor < 0:
        raise _refusal(ctypes.get_errno(), f"{probe.name} in {probe.library}")
    return descriptor


def _identity(descriptor: int) -> int:
    """The number by which an event's records name it."""
    answer = bytearray(8)
    fcntl.ioctl(descriptor, _GET_ID, answer)
    return int(struct.unpack("=Q", answer)[0])
