"""A file is replaced completely or not at all, and no temporary file is left."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import textwrap

import pytest

from edgeprof.worker.replace import replace_file


def test_the_new_content_is_there_and_the_permissions_stay(tmp_path):
    path = tmp_path / "kept.json"
    path.write_bytes(b"old")
    path.chmod(0o640)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]


def test_a_new_file_has_the_permissions_that_are_asked_for(tmp_path):
    replace_file(tmp_path / "a", b"", mode=0o600)
    replace_file(tmp_path / "b", lambda file: file.write(b"written"))
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert (tmp_path / "b").read_bytes() == b"written"


def test_what_cannot_be_written_whole_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        replace_file(path, fail)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path):
    """A limit on the size of files stands for the disk: the kernel refuses the write in the same way."""
    program = f"""
        import os, resource, signal
        from edgeprof.worker.replace import replace_file
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
        try:
            replace_file({str(tmp_path / "large")!r}, b"x" * 5000)
        except OSError as error:
            print(error.errno)
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.EFBIG)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path):
    import threading

    stale = tmp_path / f".kept.{os.getpid()}-{threading.get_ident()}.part"
    stale.write_bytes(b"half")
    replace_file(tmp_path / "kept", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]
