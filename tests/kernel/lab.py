"""The host's side: boots user-mode Linux on a board's device tree and has it run one scenario.

The guest sees the host's file system read-only, so that it runs this very Python with this very edgeprof, and one
directory of its own to leave its answer in. A run takes seconds; nothing needs root. build.sh makes the kernel.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.simulation.board_specs import BOARDS
from tests.kernel import trees

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent


class GuestError(AssertionError):
    """The scenario failed in the guest; its traceback and console are in the message."""


def cache() -> Path:
    """Where build.sh leaves the kernel."""
    given = os.environ.get("EDGEPROF_KERNEL_CACHE")
    return (
        Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeprof-kernel"
    )


def absent() -> str | None:
    """Why there is no lab here, or None."""
    stamp = cache() / "stamp"
    if not stamp.exists():
        return "no kernel for the kernel tests: make test-kernel builds it (a few minutes, once)"
    # As build.sh writes it: a kernel built from other options is another kernel.
    recipe = (HERE / "build.sh").read_bytes() + (HERE / "uml.config").read_bytes()
    if stamp.read_text().strip() != hashlib.sha256(recipe).hexdigest():
        return "the kernel of the kernel tests is an older one: make test-kernel builds it anew"
    return None


def run(
    scenario: str,
    board: str,
    changes: trees.Changes | None = None,
    *,
    real_time: bool = False,
    second_bus: Sequence[int] = (),
    timeout_s: float = 250.0,
    **arguments: Any,
) -> Any:
    """Boot ``board`` and run ``tests.kernel.scenarios.<scenario>(board=…, **arguments)`` in it.

    Args:
        scenario: A function's name.
        board: A name of ``BOARDS``.
        changes: What is unlike the board's own device tree.
        real_time: With the host's clock. Otherwise the guest's clock stands still while it computes and jumps over idle
            time: exact sleeps, the same on a busy machine, and half a minute of waveform in seconds.
        second_bus: I2C addresses of chips on a bus of its own, of which the device tree says nothing.
        timeout_s: When the guest is given up.
        arguments: JSON-able.

    Returns:
        What the scenario returned, through JSON.

    Raises:
        GuestError: it raised, or did not answer.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprof-kernel-") as name:
        scratch = Path(name)
        (scratch / "board.dts").write_text(trees.source(BOARDS[board], changes))
        compiled = subprocess.run(
            [cache() / "dtc", "-q", "-I", "dts", "-O", "dtb", "-o", scratch / "board.dtb", scratch / "board.dts"],
            capture_output=True,
            text=True,
            check=False,
        )
        if compiled.returncode:
            raise GuestError(f"the device tree of {board} does not compile: {compiled.stderr}")
        job = {
            "scenario": scenario,
            "arguments": {"board": board, **arguments},
            "module": str(cache() / "i2c-stub.ko"),
            "addresses": trees.addresses(BOARDS[board]),
            "second_bus": list(second_bus),
            "path": [str(HERE.parents[1]), *sys.path],
            "environment": {"EDGEPROF_DATA_DIR": "/run/data", "HOME": "/run", "PATH": os.environ.get("PATH", "")},
        }
        if second_bus:
            # A module makes one bus: its copy under another name makes the second.
            code = (cache() / "i2c-stub.ko").read_bytes()
            (scratch / "i2c-stu2.ko").write_bytes(code.replace(b"i2c_stub\0", b"i2c_stu2\0"))
        (scratch / "job.json").write_text(json.dumps(job))
        command = [
            str(cache() / "linux"),
            "mem=512M",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            f"dtb={scratch / 'board.dtb'}",
            f"init={sys.executable}",
            "con=null",
            "con0=fd:0,fd:1",
            "con1=null",
            "quiet",
            "panic=-1",
            *([] if real_time else ["time-travel=inf-cpu"]),
            "--",
            str(HERE / "guest.py"),
            str(scratch),
        ]
        # Its sockets go to the scratch directory, and with it. Its memory is a nameless file where the kernel itself
        # looks for room, which is /dev/shm: on a disk, its pages are written out while it runs.
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": name}
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=timeout_s,
                check=False,
                start_new_session=True,
            )
            console = done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as error:
            console = f"gave up after {timeout_s} s\n" + (error.stdout or b"").decode(errors="replace")
        answer = scratch / "answer.json"
        if not answer.exists():
            raise GuestError(f"{scenario} on {board} gave no answer; its console:\n{console[-6000:]}")
        found = json.loads(answer.read_text())
        if "error" in found:
            raise GuestError(f"{scenario} on {board}:\n{found['error']}\n{console[-2000:]}")
        return found["result"]
