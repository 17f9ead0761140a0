"""A sensor of nine files with one number each, read as edgeprof's sysfs sensors do: open descriptors, pread, int()."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprof.sensing.file_sensor import FileSensor
from edgeprof.sensing.files import NumberFile
from edgeprof.sensing.sensor import Channel

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A folder in memory, in place of sysfs: a pread costs 0.7 µs there and 1.3 µs in sysfs, without the chip's bus.
_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def nine_files() -> Iterator[Path]:
    """Create a directory with nine files; it is deleted at the end of the block."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None, prefix="edgeprof-bench-") as name:
        for index in range(9):
            (Path(name) / f"curr{index}_input").write_text(f"{1000 + 37 * index}\n", encoding="ascii")
        yield Path(name)


def sensor(directory: Path) -> FileSensor:
    files = sorted(directory.iterdir())
    channels = [Channel("files", file.name, "current") for file in files]
    return FileSensor("files", channels, [NumberFile(file, 1e-3) for file in files])
