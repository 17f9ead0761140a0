"""The requests of a host that carry files or jobs: put, bench, fetch and cancel."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from edgeprof import __version__
from edgeprof.errors import BusyError, InputError, unknown
from edgeprof.fleet import device, protocol
from edgeprof.fleet.flags import bench_flags
from edgeprof.launch import lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeprof.fleet.framing import Wire
    from edgeprof.fleet.permissions import Permissions
    from edgeprof.fleet.protocol import Bench, Cancel, Fetch, Put
    from edgeprof.fleet.spool import Spool
    from edgeprof.roots import Roots

#: Formats whose files are data; for all other formats the device's owner decides (``allow_code``).
DATA_FORMATS = frozenset({"onnx", "ort", "tflite", "edgetpu-tflite", "gguf", "pt2"})
#: The interval of temperature readings while a device cools down, and the longest cool-down (s).
_COOLING_S, _LONGEST_COOLING_S = 5.0, 900.0


class DeviceJobs:
    """The device's side of files and jobs.

    Args:
        wire: The connection.
        roots: The places of /sys, /proc and /dev.
        permissions: The permissions that the device's owner grants.
        spool: The device's storage.
    """

    def __init__(self, wire: Wire, roots: Roots, permissions: Permissions, spool: Spool) -> None:
        self.wire, self.roots, self.permissions, self.spool = wire, roots, permissions, spool
        self._answers: dict[type, Callable[[Any], None]] = {
            protocol.Put: self._put,
            protocol.Bench: self._bench,
            protocol.Fetch: self._fetch,
            protocol.Cancel: self._cancel,
        }

    def answer(self, request: Put | Bench | Fetch | Cancel) -> None:
        """Answer a request; one for a measurement replaces this process with ``edgeprof bench``.

        Raises:
            EdgeprofError: The request is refused.
            OSError: The host has disconnected.
        """
        self._answers[type(request)](request)

    # --- files --------------------------------------------------------------------------------------------------------

    def _put(self, request: Put) -> None:
        if self.spool.has_file(request.sha256):
            self.wire.say({"send": False})
            return
        self.wire.say({"send": True})
        self.spool.store_file(request.sha256, request.size, self.wire.read_file(request.size))
        self.wire.say({"stored": request.sha256})

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _fetch(self, request: Fetch) -> None:
        stored = self.spool.result(request.key)
        if stored is None:
            state = "running" if self.spool.running_key(lock.holder(self.roots)) == request.key else "absent"
            self.wire.say({"state": state})
            return
        from edgeprof.fleet.signature import sign  # noqa: PLC0415 - no other request needs it

        text, result = stored
        state = "interrupted" if result.interrupted else "done"
        key = self.permissions.sign_key
        signature = None if key is None else sign(text, key)
        digest = hashlib.sha256(text).hexdigest()
        self.wire.say({"state": state, "size": len(text), "sha256": digest, "signature": signature})
        self.wire.write_bytes(text)
        self.spool.note_fetched(request.key)

    def _cancel(self, request: Cancel) -> None:
        holder = lock.holder(self.roots)
        if holder is None or self.spool.running_key(holder) != request.key:
            self.wire.say({"state": "absent"})
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.pid, signal.SIGTERM)  # SIGINT may be ignored if sshd was started in the background
        self.wire.say({"state": "cancelled"})

    def _bench(self, request: Bench) -> None:
        from edgeprof.sensing.device.settings import restore_settings  # noqa: PLC0415 - no other request needs it

        restore_settings()  # a power mode that a run left changed survives a reboot, and belongs to another job's key
        description = device.describe(self.roots)
        device.check_expected(request.expected, description)
        key = protocol.job_key(
            request, machine=description["machine"], fingerprint=description["fingerprint"], version=__version__
        )
        if (request.mcu is None) is not bool(request.models):
            raise InputError("a job measures models, or the firmware of one microcontroller")
        flags, targets = bench_flags(request), []
        if request.mcu is not None:
            flags, targets = [*flags, *self._meter(request.mcu)], [f"mcu:{self._port(request.mcu)}"]
        if self.spool.is_done(key):
            self.wire.say({"key": key, "state": "done"})
            return
        self.spool.tidy(keep_s=86_400.0 * self.permissions.keep_days)
        paths = [self.spool.place(key, str(n), files)[0] for n, files in enumerate(request.models)]
        for path in paths:
            self._refuse_code(path)
        for flag, file in (("--dataset", request.dataset), ("--input-data", request.input_data)):
            if file is not None:
                if not file.name.endswith(".npz"):
                    raise InputError(f"{file.name} is no .npz", remedy="A fleet takes data as one .npz file.")
                flags.append(f"{flag}={self.spool.place(key, flag.lstrip('-'), [file])[0]}")
        what = " ".join(["fleet bench", *(path.name for path in paths), *targets])
        self._wait_and_measure(request, key, what, [*flags, "--", *map(str, paths), *targets])

    def _port(self, name: str) -> str:
        """Return the port of a microcontroller.

        Raises:
            InputError: The owner has named none so, or nothing is plugged in there.
        """
        if name not in self.permissions.microcontrollers:
            raise unknown("microcontroller of this board", name, self.permissions.microcontrollers)
        return self.permissions.microcontrollers[name]

    def _meter(self, name: str) -> list[str]:
        return [f"--sensor={self.permissions.meters[name]}"] if name in self.permissions.meters else []

    def _wait_and_measure(self, request: Bench, key: str, what: str, arguments: list[str]) -> None:
        """Take the device's lock, check again whether the job is already done, and become the benchmark."""
        from edgeprof.sensing.device.settings import restore_settings  # noqa: PLC0415 - no other request needs it

        deadline = time.monotonic() + request.wait_s
        while True:
            holder = lock.holder(self.roots)
            if holder is not None:
                self.wire.say({"key": key, "state": "waiting", "measuring": str(holder)})
                lock.wait_until_free(self.roots, deadline - time.monotonic())
                self._leave_if_alone()
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(lock.measuring(self.roots, what))
                except BusyError:
                    if time.monotonic() >= deadline:
                        raise
                    continue  # another program took the lock first
                if self.spool.is_done(key):
                    self.wire.say({"key": key, "state": "done"})
                    return
                restore_settings()
                device.check_expected(request.expected, device.describe(self.roots))
                self._rest(request)
                self.spool.result_path(key).unlink(missing_ok=True)  # left by an interrupted job
                self.spool.begin(key, {"what": what})
                self.wire.say({"key": key, "state": "started"})
                self._become_bench(key, arguments, is_sandboxed=request.mcu is None)

    def _rest(self, request: Bench) -> None:
        """Wait, with the lock held, until the device has rested and is cool enough.

        Raises:
            BusyError: The device does not cool down.
        """
        last = max((job.ended_s for job in self.spool.jobs() if job.is_done), default=0.0)
        # The clock of a device without a battery may jump: a job in the future counts as one that has just ended.
        rested_s = max(0.0, time.time() - last)
        time.sleep(max(0.0, request.rest_s - rested_s))
        deadline = time.monotonic() + _LONGEST_COOLING_S
        while request.start_below_c is not None:
            now_c = device.hottest_c(self.roots)
            if now_c is None or now_c < request.start_below_c:
                return
            if time.monotonic() > deadline:
                raise BusyError(
                    f"the device has {now_c:.1f} °C and does not cool down below {request.start_below_c:g} °C",
                    remedy="Raise start_below in the inventory, or cool the device.",
                )
            time.sleep(_COOLING_S)

    def _leave_if_alone(self) -> None:
        """Raise BrokenPipeError if the host has disconnected, because then no program waits for this job."""
        poll = select.poll()
        poll.register(1, 0)
        if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
            raise BrokenPipeError

    def _refuse_code(self, path: Path) -> None:
        """Reject a model that is or may be code, unless the owner allows code.

        Raises:
            InputError: The model is code or not known to be data, and the owner does not allow code.
        """
        from edgeprof.artifact.recognition import recognise  # noqa: PLC0415 - no other request needs it
        from edgeprof.worker.embedded_code import find_code  # noqa: PLC0415 - the same

        if self.permissions.allow_code:
            return
        artifact = recognise(str(path))
        code = None if artifact.format in DATA_FORMATS else f"a file of the format {artifact.format} may be code"
        code = code or find_code(str(path))
        if code is not None:
            raise InputError(
                f"{path.name} is refused: {code}",
                remedy="Its device's owner can allow it: allow_code = true in the door's configuration.",
            )

    def _become_bench(self, key: str, arguments: list[str], *, is_sandboxed: bool) -> NoReturn:
        """Replace this process with ``edgeprof bench``, which inherits the device's lock."""
        from edgeprof.worker import sandbox  # noqa: PLC0415 - no other request needs it

        flags = [f"--output={self.spool.result_path(key)}", "--quiet", "--no-color"]
        if self.permissions.allow_code:
            flags.append("--allow-code")
        if is_sandboxed and sandbox.why_not() is None:
            flags.append("--sandbox")
        if self.permissions.worker_python is not None:
            flags.append(f"--worker-python={self.permissions.worker_python}")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.chdir("/")  # python -m looks for modules in the current folder
        os.execve(  # noqa: S606 - no shell, and a program that no request can name
            sys.executable, [sys.executable, "-m", "edgeprof", "bench", *flags, *arguments], os.environ
        )
