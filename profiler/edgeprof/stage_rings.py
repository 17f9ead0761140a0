"""Reading the rings of stages that programs write (``edgeprof.staging``). Standard library only.

Files are read and never mapped: one that its writer cuts off is a short read, and no bus error. Everything in them is
another program's word, and what cannot be is left out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeprof import staging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeprof.staging import Key

#: The most rings of one folder that are read: one for each process that has stages.
MOST_RINGS = 64
#: A stage is no longer than this (s).
MOST_SECONDS = 3600.0


class StageSpan(NamedTuple):
    """One stage that ran.

    Attributes:
        key: Stage, model, variant, runtime; the last three may be empty.
        start_s: Seconds of CLOCK_MONOTONIC.
        end_s: Likewise.
        thread: The process and the thread that it ran in.
    """

    key: Key
    start_s: float
    end_s: float
    thread: tuple[int, int]


class _Ring:
    """One file, and how far it was read."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._next = 0
        self._stuck_at = -1
        self._names: list[Key] = []
        header = os.pread(self._descriptor, staging.HEADER.size, 0).ljust(staging.HEADER.size, b"\0")
        magic, self._slots, self.pid = staging.HEADER.unpack(header)[:3]
        if magic != staging.MAGIC or self._slots != staging.SLOTS:
            self.close()
            raise ValueError(f"{path} is no ring of stages")

    def close(self) -> None:
        os.close(self._descriptor)

    def read(self, rings: StageRings) -> Iterator[StageSpan]:
        """The records since the last time."""
        data = os.pread(self._descriptor, self._slots * staging.SLOT.size, staging.SLOTS_AT)
        records = [
            record
            for record in staging.SLOT.iter_unpack(data[: len(data) // staging.SLOT.size * staging.SLOT.size])
            if record[4]
        ]
        records = sorted((record for record in records if record[4] > self._next), key=lambda record: record[4])
        newest = records[-1][4] if records else 0
        for start, end, name, thread, number in records:
            missing = number - self._next - 1
            if missing and newest - self._slots < number - 1 and self._stuck_at != self._next:
                self._stuck_at = self._next  # its writer is at it: once more, before it is given up
                return
            rings.lost += missing
            self._next = number
            key = self._name(name)
            if key is None:
                rings.damaged += 1
            elif end == 0:
                rings.unfinished.append(key)
            elif start <= end <= start + MOST_SECONDS * 1e9:
                yield StageSpan(key, start / 1e9, end / 1e9, (self.pid, thread))
            else:
                rings.damaged += 1

    def _name(self, number: int) -> Key | None:
        if number >= staging.MOST_NAMES:
            return None
        if number >= len(self._names) or number == staging.MOST_NAMES - 1:
            table = os.pread(self._descriptor, staging.MOST_NAMES * staging.NAME_BYTES, staging.NAMES_AT)
            self._names = [
                _key_of(table[at : at + staging.NAME_BYTES]) for at in range(0, len(table), staging.NAME_BYTES)
            ]
            # The table is read once more when a name is asked for that was not there.
            while self._names and not self._names[-1][0]:
                self._names.pop()
        return self._names[number] if number < len(self._names) and self._names[number][0] else None


def _key_of(entry: bytes) -> Key:
    text = entry.partition(b"\0")[0].decode("utf-8", "replace")
    parts = [part if part.isprintable() else "?" for part in text.split("\t")]
    stage, model, variant, runtime = (*parts, "", "", "", "")[:4]
    return stage, model, variant, runtime


class StageRings:
    """All rings of a folder.

    Args:
        folder: Where programs make them.

    Attributes:
        lost: Records that were overwritten before they were read, or whose writer was killed over them.
        damaged: Records that cannot be.
        unfinished: Stages that had begun and not ended when their program ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost = 0
        self.damaged = 0
        self.unfinished: list[Key] = []
        self._rings: dict[str, _Ring] = {}
        self._refused: set[str] = set()

    def poll(self) -> list[StageSpan]:
        """What has ended since the last time, in no order."""
        try:
            names = sorted(path.name for path in self.folder.iterdir() if path.name.endswith(staging.SUFFIX))
        except OSError:
            names = []
        for name in names:
            if name in self._rings or name in self._refused or len(self._rings) >= MOST_RINGS:
                continue
            try:
                self._rings[name] = _Ring(self.folder / name)
            except (OSError, ValueError):
                self._refused.add(name)
        spans: list[StageSpan] = []
        for ring in self._rings.values():
            with suppress(OSError):
                spans += ring.read(self)
        return spans

    def drop_dead(self) -> None:
        """Remove the rings of processes that are gone, after what they held was read."""
        for name, ring in list(self._rings.items()):
            if not Path(f"/proc/{ring.pid}").exists():
                with suppress(OSError):
                    (self.folder / name).unlink()
                ring.close()
                del self._rings[name]

    def close(self) -> None:
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()


class StageWatch:
    """Reads the stages of this process, or of the programs that it starts, in a thread of its own.

    Use it as a context manager; what was read is in ``spans`` when it is left.

    Args:
        is_own: Whether the stages of this process are meant; else those of programs that are started within it.

    Attributes:
        spans: The stages that ended, in no order.
        rings: What else was seen.
    """

    #: How often rings are read (s); one holds 8192 stages.
    PERIOD_S = 0.25

    def __init__(self, *, is_own: bool) -> None:
        self.spans: list[StageSpan] = []
        self._is_own = is_own
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._before: str | None = None
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        self.rings: StageRings | None = None

    def __enter__(self) -> StageWatch:  # noqa: PYI034 - Self is not in typing before 3.11
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.rings = OwnRings()
        if self._is_own:
            staging.attach(str(self.rings.folder))
        else:
            self._before = os.environ.get(staging.VARIABLE)
            os.environ[staging.VARIABLE] = str(self.rings.folder)
        self._thread = threading.Thread(target=self._run, name="edgeprof-stages", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read what has ended so far, and remove the rings. Safe to call twice."""
        if self._thread is None or self.rings is None or self._process != os.getpid():
            return  # of a fork, the rings are the parent's
        self._stopping.set()
        self._thread.join()
        self._thread = None
        self.poll()
        self.poll()  # a record that was being written is there now, or never will be
        if self._is_own:
            self.rings.unfinished += staging.open_stages()
            staging.detach(str(self.rings.folder))
        elif self._before is None:
            os.environ.pop(staging.VARIABLE, None)
        else:
            os.environ[staging.VARIABLE] = self._before
        self.rings.close()

    def poll(self) -> list[StageSpan]:
        """All that has ended until now."""
        with self._lock:
            if self.rings is not None:
                self.spans += self.rings.poll()
            return list(self.spans)

    def _run(self) -> None:
        while not self._stopping.wait(self.PERIOD_S):
            self.poll()


class OwnRings(StageRings):
    """Rings in a folder of this process, in shared memory where there is some.

    The folder goes with ``close``, at the end of the process, and where that was killed, with the next one.
    """

    _PREFIX = "edgeprof-stages-"

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # noqa: S108 - a folder of a random name, ours alone, is made in it
        place = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        _remove_orphans(place, self._PREFIX)
        super().__init__(Path(tempfile.mkdtemp(prefix=f"{self._PREFIX}{os.getpid()}-", dir=place)))
        self._remove = weakref.finalize(self, _remove_own, str(self.folder), os.getpid())

    def close(self) -> None:
        super().close()
        self._remove()


def _remove_own(folder: str, process: int) -> None:
    if os.getpid() == process:  # a fork leaves it to its parent
        shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans(place: Path, prefix: str) -> None:
    """Remove the folders of this user's processes that were killed."""
    for folder in place.glob(f"{prefix}*-*"):
        process = folder.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            with suppress(OSError):
                if folder.lstat().st_uid == os.getuid():
                    shutil.rmtree(folder, ignore_errors=True)
