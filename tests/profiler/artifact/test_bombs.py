"""Small files that would need gigabytes or minutes are refused quickly; each test measures a process of its own."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.artifact import recognise
from edgeprof.errors import InputError
from edgeprof.study.recipe import load
from edgeprof.worker.arrays import ArraysError, read_arrays
from tests.fuzzing import harness

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow


def tflite_names() -> bytes:
    """Return a file with 120,000 operator codes that share one name of 500 kB."""
    count, name = 120_000, 500_000
    head = struct.pack("<I4s", 24, b"TFL3") + struct.pack("<8H", 14, 20, 4, 8, 0, 0, 0, 0)
    head += struct.pack("<iIII", 16, 3, 8, 0)
    table = 40 + 4 + 4 * count + 12
    head += struct.pack("<I", count)
    head += b"".join(struct.pack("<I", table - (44 + 4 * n)) for n in range(count))
    head += struct.pack("<6H", 12, 16, 4, 8, 0, 12)
    return head + struct.pack("<iiII", 12, 32, 8, 32) + struct.pack("<I", name) + b"x" * name


def zip_entries() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"archive/data/{number}", b"")
    return buffer.getvalue()


def pickle_join() -> bytes:
    text = b"x" * (4 << 20)
    long = b"\x8d" + struct.pack("<Q", len(text)) + text + b"\x94"
    return b"\x80\x04" + long + long + b"h\x00h\x01\x93" * 20_000 + b"."


def onnx_external() -> bytes:
    """Return a file with a tensor that has a million external entries."""
    tensor = b"\x6a\x0a\x0a\x08location" + b"\x6a\x00" * 1_000_000
    size = len(tensor)
    varint = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    graph = b"\x2a" + varint + tensor
    size = len(graph)
    varint = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    return b"\x08\x08\x3a" + varint + graph + b"\x42\x02\x10\x11"


def npz() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (300 << 20,)})
        with archive.open("x.npy", "w") as entry:
            entry.write(header.getvalue())
            for _ in range(300):
                entry.write(bytes(1 << 20))
    return buffer.getvalue()


def npz_claim() -> bytes:
    """Return a file whose header claims 8 TB of data, but which has only a few bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
    return buffer.getvalue()


def grid() -> bytes:
    names = "abcdefg"
    values = "".join(f"{name} = {list(range(100))}\n" for name in names)
    pattern = "prune:amount=" + "".join(f"{{{name}}}" for name in names)
    return f'model = "m.onnx"\n[[recipes.grid]]\nwith = "{pattern}"\n{values}'.encode()


def grid_of_one_chain() -> bytes:
    return grid().replace(b"[0, 1", b"[1, 1")


def long_format() -> bytes:
    return b'model = "m.onnx"\n[[recipes.grid]]\nwith = "prune:amount={a:1000000000}"\na = [1]\n'


def _identify(path: Path) -> object:
    return recognise(str(path))


def _arrays(path: Path) -> object:
    return read_arrays(str(path))


@pytest.mark.parametrize(
    ("make", "suffix", "read"),
    [
        (tflite_names, ".tflite", _identify),
        (zip_entries, ".pt", _identify),
        (pickle_join, ".pt", _identify),
        (lambda: b"\x80\x02" + b"N0" * (8 << 20) + b".", ".pt", _identify),
        (lambda: b"\x08\x01" * (25 << 20), ".onnx", _identify),
        (onnx_external, ".onnx", _identify),
        (npz, ".npz", _arrays),
        (npz_claim, ".npz", _arrays),
        (grid, ".toml", load),
        (grid_of_one_chain, ".toml", load),
        (long_format, ".toml", load),
        (lambda: b"a = " + b"[" * 100_000, ".toml", load),
        (lambda: b"a." * 20_000 + b"a = 1", ".toml", load),
        (lambda: b"['a' . " + b'"b c" . ' * 20_000 + b"d]", ".toml", load),
    ],
    ids=["tflite names", "zip entries", "pickle join", "pickle opcodes", "protobuf fields", "external entries", "npz",
         "npz claim", "grid", "grid of one chain", "long format", "deep toml", "dotted toml",
         "dotted table"],
)  # fmt: skip
def test_a_bomb_is_told_within_two_seconds_and_256_mib(
    make: Callable[[], bytes], suffix: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    content = make()
    reader = harness.Reader("bomb", suffix, lambda: [content], lambda data, _: data, read, (InputError, ArraysError))
    report = harness.run(reader, 1, tmp_path)
    assert not report.faults
    assert report.refused or suffix == ".pt"  # a pickle is recognised even if it was read only in part
