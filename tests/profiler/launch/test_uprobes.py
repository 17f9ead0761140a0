"""Calls of exported functions as stages: a real library, a real kernel where it allows it, and a tree like tracefs."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
import zlib
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprof.errors import InputError, UnavailableError
from edgeprof.launch import uprobes
from edgeprof.launch.uprobes import Event, Probe, UprobeWatch, find_probe, pair_events

KEY = ("sum", "", "", "")
CALLS = 5
PROGRAM = f"import zlib; [zlib.crc32(bytes(3_000_000)) for _ in range({CALLS})]"


@pytest.fixture(scope="module")
def library() -> Path:
    """The file in which this Python's zlib is."""
    pytest.importorskip("elftools")
    assert zlib.crc32(b"") == 0
    with Path("/proc/self/maps").open() as maps:
        files = {line.split()[-1] for line in maps if "libz.so" in line}
    if not files:
        pytest.skip("this Python has zlib inside, not in a library of its own")
    return Path(files.pop())


def test_an_exported_function_is_found_where_it_is_in_the_file(library):
    probe = find_probe(f"sum={library}:crc32")
    assert (probe.name, probe.library) == ("sum", library.resolve())
    loaded = ctypes.CDLL(str(library))
    address = ctypes.cast(loaded.crc32, ctypes.c_void_p).value
    with Path("/proc/self/maps").open() as maps:
        parts = [line.split() for line in maps if str(library.resolve()) in line]
    places = [
        address - int(span.split("-")[0], 16) + int(offset, 16)
        for span, _, offset, *_ in parts
        if int(span.split("-")[0], 16) <= address < int(span.split("-")[1], 16)
    ]
    assert places == [probe.offset]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("crc32", "is not LIBRARY:FUNCTION"),
        ("/nowhere/libz.so:crc32", "there is no file"),
        (f"{__file__}:crc32", "is no library of this system"),
        ("LIBRARY:crc23", r"exports no function crc23"),
        ("LIBRARY:malloc", r"exports no function malloc"),  # it uses it, and does not have it
    ],
)
def test_what_cannot_be_probed_is_one_sentence(library, spec, says):
    with pytest.raises(InputError, match=says):
        find_probe(spec.replace("LIBRARY", str(library)))


def test_calls_in_a_program_that_is_started_are_spans(library):
    probe = find_probe(f"sum={library}:crc32")
    try:
        with UprobeWatch([probe]) as watch:
            zlib.crc32(b"a call of this process, which does not count")
            subprocess.run([sys.executable, "-c", PROGRAM], check=True)
            child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PROGRAM!r}], check=True)"
            subprocess.run([sys.executable, "-c", child], check=True)
    except UnavailableError as refused:
        pytest.skip(f"this kernel or user has no uprobes: {refused.message}")
    spans = watch.spans
    assert watch.lost == 0
    assert watch.unfinished == []
    processes = {span.thread[0] for span in spans}
    assert len(processes) == 2
    assert os.getpid() not in processes
    long = [span for span in spans if span.end_s - span.start_s > 1e-4]  # imports check sums of a few bytes
    assert len(long) == 2 * CALLS
    assert {span.key for span in spans} == {KEY}


def test_without_uprobes_it_is_one_sentence(library, tmp_path, monkeypatch):
    probes = [find_probe(f"{library}:crc32")]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UnavailableError, match="this kernel has no uprobes"), UprobeWatch(probes, tmp_path):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnavailableError, match="only to root"), UprobeWatch(probes, tmp_path):
        pass


def test_two_stages_of_one_name_are_refused(library):
    with pytest.raises(InputError, match="a name of its own"):
        UprobeWatch([find_probe(f"{library}:crc32")] * 2)


def test_old_kernels_get_their_probes_through_tracefs(tmp_path):
    """The lines are those of Documentation/trace/uprobetracer.rst; each probe is removed at the end."""
    folder = tmp_path / "kernel/tracing"
    group = folder / "events" / f"edgeprof_{os.getpid()}"
    for number, name in enumerate(("entry_0", "return_0")):
        (group / name).mkdir(parents=True)
        (group / name / "id").write_text(f"{1500 + number}\n")
    control = folder / "uprobe_events"
    control.touch()
    probe = Probe("sum", Path("/usr/lib/libz.so.1"), 0x47C0)
    with ExitStack() as stack:
        source = uprobes._source(tmp_path, [probe], stack)
        kinds = [source.attributes(probe, 0, is_return=is_return)[:16] for is_return in (False, True)]
    assert [(int.from_bytes(kind[:4], sys.byteorder), int.from_bytes(kind[8:], sys.byteorder)) for kind in kinds] == [
        (2, 1500),
        (2, 1501),
    ]
    name = f"edgeprof_{os.getpid()}"
    assert control.read_text().splitlines() == [
        f"p:{name}/entry_0 /usr/lib/libz.so.1:0x47c0",
        f"r:{name}/return_0 /usr/lib/libz.so.1:0x47c0",
        f"-:{name}/return_0",
        f"-:{name}/entry_0",
    ]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 1), st.integers(1, 4)), max_size=20), st.randoms())
def test_nested_calls_of_several_threads_are_paired_in_any_order_of_records(calls, shuffler):
    """Each call is a function that calls itself some times; records of several processors arrive in any order."""
    events, now = [], 0.0
    for tid, stage, depth in calls:
        for is_return in (False, True):
            for _ in range(depth):
                now += 1.0
                events.append(Event(now, 10 + tid, tid, stage, is_return))
    shuffler.shuffle(events)
    spans, unfinished = pair_events(events, [KEY, KEY], lambda pid: pid != 12)
    ours = sum(depth for tid, _, depth in calls if tid != 2)
    assert len(spans) == ours
    assert unfinished == []
    assert all(span.start_s < span.end_s for span in spans)


def test_a_call_that_never_returns_is_unfinished_and_a_return_without_its_entry_is_left_out():
    events = [Event(1.0, 1, 1, 0, is_return=True), Event(2.0, 1, 1, 0, is_return=False)]
    assert pair_events(events, [KEY], lambda _: True) == ([], [KEY])
