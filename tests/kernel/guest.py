"""The guest's first and only process: mounts what Python needs, loads i2c-stub, runs one scenario, switches off.

Started by the kernel as ``init`` with the path of the scratch directory; speaks to libc itself, so that nothing but
Python has to be installed.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT = 1, 32
POWER_OFF = 0x4321FEDC
FINIT_MODULE = 313  # x86-64


def mount(kind: str, where: str, options: str = "") -> None:
    if libc.mount(kind.encode(), where.encode(), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {kind} on {where}: {os.strerror(ctypes.get_errno())}")


def insert(module: str, parameters: str) -> None:
    with Path(module).open("rb") as file:
        if libc.syscall(FINIT_MODULE, file.fileno(), parameters.encode(), 0):
            raise OSError(ctypes.get_errno(), f"insmod {module}: {os.strerror(ctypes.get_errno())}")


def main(scratch: str) -> None:
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    mount("devtmpfs", "/dev")
    job = json.loads((Path(scratch) / "job.json").read_text())
    mount("tmpfs", "/run")
    Path("/run/answer").mkdir()
    mount("hostfs", "/run/answer", scratch)
    # The root is the host's, read-only; what the host has in /tmp (perhaps this very checkout) stays visible.
    Path("/run/tmp").mkdir()
    os.environ.update(job["environment"], TMPDIR="/run/tmp")
    sys.path[:] = job["path"]
    try:
        insert(job["module"], "chip_addr=" + ",".join(map(str, job["addresses"])))
        if job["second_bus"]:
            insert("/run/answer/i2c-stu2.ko", "chip_addr=" + ",".join(map(str, job["second_bus"])))
        scenarios = importlib.import_module("tests.kernel.scenarios")
        answer = {"result": getattr(scenarios, job["scenario"])(**job["arguments"])}
    except BaseException:  # noqa: BLE001 - whatever it is, the host is told
        answer = {"error": traceback.format_exc()}
    Path("/run/answer/answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BaseException:  # noqa: BLE001 - an init that dies is a kernel panic
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.sync()
        libc.reboot(POWER_OFF)
