"""Paths from users: a pipe, a device, a folder or an endless file causes neither a hang nor exhausted memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from edgeprof import whole_files
from edgeprof.cli.main import run


def test_a_file_and_a_pipe_that_is_written_to_are_read_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert whole_files.read_bytes(tmp_path / "file") == b"x" * 100_000
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(b"y" * 1_000_000)

    writer = threading.Thread(target=write)
    writer.start()
    assert whole_files.read_bytes(Path(f"/dev/fd/{reading}")) == b"y" * 1_000_000
    writer.join()
    os.close(reading)


def test_what_is_no_file_or_has_no_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert whole_files.read_bytes(tmp_path / "pipe") == b""
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, reason in (("zero", "no regular file"), (".", "folder"), ("absent", "No such file")):
        with pytest.raises(OSError, match=reason):
            whole_files.read_bytes(tmp_path / name)
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    with pytest.raises(OSError, match="more than 1 MiB"):
        whole_files.read_bytes(tmp_path / "large", 1 << 20)


@pytest.mark.parametrize("kind", ["pipe", "zero"])
@pytest.mark.parametrize(
    "words",
    [
        ["compare", "FILE.json", "FILE.json"],
        ["gate", "FILE.json", "--max-j", "1"],
        ["report", "FILE.json", "-o", "page.html"],
        ["choose", "FILE.toml", "FILE.json"],
        ["sweep", "FILE.toml"],
        ["fleet", "status", "--inventory", "FILE.toml"],
        ["diagnose", "app.py:f", "--input-data", "FILE.npz"],
        ["bench", "app.py:f", "--dataset", "table:FILE.csv"],
        ["bench", "app.py:f", "--dataset", "coco:FILE.json"],
        ["simulate", "orin-nano", "--waveform", "FILE.csv", "--", "true"],
    ],
    ids=" ".join,
)
def test_no_verb_waits_for_a_pipe_or_reads_a_device_without_end(tmp_path, monkeypatch, capsys, words, kind) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.py").write_text("def f(): pass\n")
    for suffix in ("json", "toml", "npz", "csv"):
        if kind == "pipe":
            os.mkfifo(f"FILE.{suffix}")
        else:
            Path(f"FILE.{suffix}").symlink_to("/dev/zero")
    assert run(words) == 2
    assert "FILE." in capsys.readouterr().err
