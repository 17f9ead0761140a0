"""Runs a reader over many damaged files in a process of its own, within bounds of time and memory."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.fuzzing.mutations import Mutation

#: CPU seconds of one case, and bytes that a case may take beyond the file. Under a tracer (coverage) the interpreter
#: takes several times as long for each line, which is no property of the reader.
LIMIT_S = 2.0 if sys.gettrace() is None else 20.0
LIMIT_BYTES = 256 << 20
#: Address space beyond which the child cannot grow at all, so that a bomb ends it and not the machine.
_CEILING_BYTES = 6 << 30
#: Seconds without a case that end a child which does not hear signals.
_SILENCE_S = 60.0


@dataclass(frozen=True)
class Reader:
    """Something that reads files of others.

    Attributes:
        name: What it is called.
        suffix: Of the files that it reads.
        seeds: Whole files: their content.
        mutate: How they are damaged.
        read: Reads one file; what it raises beside ``raises`` is a fault.
        raises: The errors that users see as a sentence.
    """

    name: str
    suffix: str
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutation
    read: Callable[[Path], object]
    raises: tuple[type[BaseException], ...]


@dataclass
class Report:
    """What one reader did.

    Attributes:
        cases: Files that were read.
        refused: How many of them were refused with a sentence.
        slowest_s: CPU seconds of the slowest case.
        total_s: CPU seconds of all cases.
        most_bytes: The most memory that a case took beyond its file.
        faults: Case number → what was wrong.
    """

    cases: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    total_s: float = 0.0
    most_bytes: int = 0
    faults: dict[int, str] = field(default_factory=dict)


class _TooSlow(BaseException):
    """No Exception, so that no reader takes it for one of its file's."""


def case(reader: Reader, seeds: Sequence[bytes], number: int) -> bytes:
    """The file of a case."""
    chance = random.Random(f"{reader.name} {number}")
    return reader.mutate(chance.choice(list(seeds)), chance)


def run(reader: Reader, cases: int, folder: Path, *, first: int = 0, most_faults: int = 10) -> Report:
    """Read ``cases`` damaged files in child processes; a child that dies costs one case.

    Args:
        reader: What reads.
        cases: How many files.
        folder: Where they lie while they are read, and where those that failed stay.
        first: Number of the first.
        most_faults: After so many the reader is not run any further.
    """
    report = Report()
    seeds = reader.seeds()
    number = first
    while number < first + cases and len(report.faults) < most_faults:
        for kind, at, value in _events(reader, seeds, folder, range(number, first + cases)):
            number = at + 1
            report.cases += 1
            if kind == "fault":
                report.faults[at] = value
                (folder / f"{reader.name.replace(' ', '-')}-{at}{reader.suffix}").write_bytes(case(reader, seeds, at))
                if len(report.faults) >= most_faults:
                    break
            else:
                refused, seconds, grown = value
                report.refused += refused
                report.slowest_s = max(report.slowest_s, seconds)
                report.total_s += seconds
                report.most_bytes = max(report.most_bytes, grown)
    return report


def _events(reader: Reader, seeds: Sequence[bytes], folder: Path, numbers: range) -> Iterator[tuple[str, int, Any]]:
    """``("read", number, (refused, seconds, bytes))`` or ``("fault", number, what)`` for each case, as it is done."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(reader, seeds, folder, numbers, theirs), daemon=True)
    child.start()
    theirs.close()
    at = numbers.start
    try:
        while at < numbers.stop:
            if not ours.poll(_SILENCE_S):
                yield "fault", at, f"gave no answer for {_SILENCE_S:g} s"
                return
            try:
                event = ours.recv()
            except EOFError:
                child.join()
                yield "fault", at, f"its process ended with {child.exitcode}"
                return
            yield event
            at += 1
    finally:
        child.kill()
        child.join()
        ours.close()


def _child(reader: Reader, seeds: Sequence[bytes], folder: Path, numbers: range, pipe: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_CEILING_BYTES, _CEILING_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    signal.signal(signal.SIGPROF, _slow)
    path = folder / f"case-{reader.name.replace(' ', '-')}-{os.getpid()}{reader.suffix}"
    for seed in seeds:  # what is imported and cached once is no growth of a case
        path.write_bytes(seed)
        with contextlib.suppress(*reader.raises):
            reader.read(path)
    for number in numbers:
        content = case(reader, seeds, number)
        path.write_bytes(content)
        pipe.send(_one(reader, path, number, len(content)))
    path.unlink(missing_ok=True)
    os._exit(0)


def _one(reader: Reader, path: Path, number: int, size: int) -> tuple[str, int, Any]:
    before = _forget_peak()
    start = time.process_time()
    refused = False
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        reader.read(path)
    except reader.raises as error:
        refused = True
        if not str(error).strip():
            return "fault", number, "an error without a sentence"
    except _TooSlow:
        return "fault", number, f"more than {LIMIT_S:g} s of CPU time: {_place()}"
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return "fault", number, f"{type(error).__name__}: {str(error)[:200]} {_place()}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = _peak() - before - size
    if grown > LIMIT_BYTES:
        return "fault", number, f"{grown >> 20} MiB beyond the file"
    return "read", number, (refused, time.process_time() - start, max(0, grown))


def _slow(_number: int, _frame: object) -> None:
    raise _TooSlow


def _place() -> str:
    """Where the error was raised, and where in edgeprof."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [frame for frame in frames if "edgeprof" in Path(frame.filename).parts or "/edgeprof" in frame.filename]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (ours or frames)[-3:][::-1])


def _forget_peak() -> int:
    """Let the highest resident memory begin again (proc(5), clear_refs), and say what is resident now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
