"""A file that counts joules as a meter's does, whose watts a test therefore knows."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def counting(path: Path, watts: float, every_s: float = 0.01) -> Iterator[None]:
    """Write the microjoules that ``watts`` (W) have made since the beginning into ``path``, every ``every_s`` (s)."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    stop, started = threading.Event(), time.monotonic()

    def count() -> None:
        while True:
            # Fixed width over the same bytes: a reader sees the old number or the new one, never half of each.
            os.pwrite(file, b"%020d\n" % int((time.monotonic() - started) * watts * 1e6), 0)
            if stop.wait(every_s):
                return

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        os.close(file)
