"""Every reader on a few hundred damaged files: what ``python -m tests.fuzzing`` does with ten thousand of each."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.fuzzing import harness
from tests.fuzzing.readers import READERS

if TYPE_CHECKING:
    import random
    from pathlib import Path


@pytest.fixture(params=READERS, ids=lambda reader: reader.name)
def reader(request: pytest.FixtureRequest) -> harness.Reader:
    if request.param.name.startswith("graph"):
        pytest.importorskip({".onnx": "onnx", ".tflite": "ai_edge_litert"}[request.param.suffix])
    if not request.param.seeds():
        pytest.skip("its whole files are in shared/, which is not here")
    chosen: harness.Reader = request.param
    return chosen


def test_whole_files_are_read(reader: harness.Reader, tmp_path: Path) -> None:
    """A corpus that every reader refuses would prove nothing."""
    for seed in reader.seeds():
        path = tmp_path / f"case{reader.suffix}"
        path.write_bytes(seed)
        with contextlib.suppress(EOFError):  # the end of a connection
            reader.read(path)


def test_damaged_files_are_read_or_refused_with_a_sentence(reader: harness.Reader, tmp_path: Path) -> None:
    report = harness.run(reader, 150, tmp_path)
    assert not report.faults


def test_a_fault_is_seen_and_its_file_kept(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        if path.stat().st_size > 4:
            raise KeyError("no sentence")
        assert bytearray(b"x") * (400 << 20)

    def mutate(data: bytes, chance: random.Random) -> bytes:
        return data * chance.randint(1, 2)

    faulty = harness.Reader("faulty", ".bin", lambda: [b"abcd"], mutate, read, ())
    report = harness.run(faulty, 8, tmp_path)
    assert set(report.faults) == set(range(8))
    assert {what.split()[1] for what in report.faults.values()} == {"MiB", "'no"}
    assert len(list(tmp_path.glob("faulty-*.bin"))) == 8
