"""Small files are opened once, never raise, and are read again after they were missing for a time."""

from __future__ import annotations

import errno
import math
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edgeprof.sensing import files
from edgeprof.sensing.files import NumberFile, TextFile, number_of, text_of, trouble

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets: ``clock[0] += 1``."""
    now = [100.0]
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_kept_descriptor_reads_fresh_values(tmp_path: Path) -> None:
    path = tmp_path / "power1_input"
    path.write_text("1500000\n")
    file = NumberFile(path, 1e-6)
    assert file.number() == pytest.approx(1.5)
    with path.open("r+") as writer:
        writer.write("-250000")
    assert file.number() == pytest.approx(-0.25)
    file.close()
    file.close()


@pytest.mark.parametrize(
    ("content", "value"), [("12.5\n", 12.5), ("", math.nan), ("123 ma\n", math.nan), ("0x10", math.nan)]
)
def test_what_is_no_number_is_unknown(tmp_path: Path, content: str, value: float) -> None:
    path = tmp_path / "f"
    path.write_text(content)
    file = NumberFile(path)
    assert file.number() == pytest.approx(value, nan_ok=True)
    file.close()


def test_a_failed_read_is_unknown_and_the_next_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_text("7")
    file = NumberFile(path)
    assert file.number() == 7
    real = os.pread

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    assert math.isnan(file.number())
    monkeypatch.setattr(os, "pread", real)
    assert file.number() == 7
    file.close()


def test_a_device_that_went_away_is_tried_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    path = tmp_path / "f"
    path.write_text("7")
    file = NumberFile(path)
    file.open()
    path.unlink()
    real = os.pread
    opens: list[object] = []
    opened = os.open

    def gone(*_: object) -> bytes:
        raise OSError(errno.ENODEV, "No such device")

    def counted(*args: object, **kwargs: object) -> int:
        opens.append(args[0])
        return opened(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pread", gone)
    assert math.isnan(file.number())
    monkeypatch.setattr(os, "pread", real)
    monkeypatch.setattr(os, "open", counted)
    for _ in range(1000):  # ten seconds at 100 Hz
        clock[0] += 0.01
        assert math.isnan(file.number())
    assert 5 <= len(opens) <= 10
    path.write_text("9")
    clock[0] += 6.0
    assert file.number() == 9
    file.close()


def test_a_file_that_was_replaced_is_noticed_within_some_readings(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "f"
    path.write_text("1")
    file = NumberFile(path)
    assert file.number() == 1
    path.unlink()
    path.write_text("2")
    values = set()
    for _ in range(100):
        clock[0] += 0.01
        values.add(file.number())
    assert file.number() == 2
    assert values <= {1, 2}
    file.close()


def test_a_file_that_is_not_there_yet_is_read_once_it_is(tmp_path: Path, clock: list[float]) -> None:
    file = TextFile(tmp_path / "late")
    file.open()
    assert file.read() is None
    (tmp_path / "late").write_text("x")
    clock[0] += 10
    assert file.read() == b"x"
    file.close()


def test_reasons_name_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("disabled\n")
    (tmp_path / "number").write_text("5\n")
    assert trouble(tmp_path / "number") is None
    assert trouble(tmp_path / "absent") == ("absent is missing", None)
    assert trouble(tmp_path / "word") == ("word holds no number: b'disabled\\n'", None)
    assert str(trouble(tmp_path)).endswith("fails: Is a directory', None)")


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENODATA, "disabled by the board"), (errno.EAGAIN, "powered off just now")]
)
def test_the_drivers_own_answers_are_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    (tmp_path / "in1_input").write_text("")

    def fail(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pread", fail)
    assert trouble(tmp_path / "in1_input") == (reason, None)


def test_device_tree_strings_lose_their_nul(tmp_path: Path) -> None:
    (tmp_path / "compatible").write_bytes(b"nvidia,p3767-0005\0nvidia,tegra234\0")
    assert text_of(tmp_path / "compatible") == "nvidia,p3767-0005\nnvidia,tegra234"
    assert text_of(tmp_path / "nothing") is None
    assert number_of(tmp_path / "nothing") is None
