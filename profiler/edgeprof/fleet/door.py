"""The device's side of the connection: it answers a few kinds of requests, and becomes the requested benchmark.

A door runs only while a host is connected. A request names files by their hashes and flags by their names, and only
listed flags are allowed. A benchmark replaces the door's process (``execve``) and inherits the device's lock, so that
nothing of the fleet except the SSH session is left on the device while it measures.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import signal
import stat
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from edgeprof import __version__, toml_files, units
from edgeprof.errors import BusyError, EdgeprofError, InputError, WrongDeviceError, unknown
from edgeprof.fleet import device, protocol
from edgeprof.fleet.spool import Spool
from edgeprof.launch import lock
from edgeprof.results.place import data_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeprof.fleet.protocol import Bench, Cancel, Expected, Fetch, Put, Request, Wire
    from edgeprof.launch.lock import Holder
    from edgeprof.roots import Roots

#: Formats whose files are data; for all other formats the device's owner decides (``allow_code``).
DATA_FORMATS = frozenset({"onnx", "ort", "tflite", "edgetpu-tflite", "gguf", "pt2"})
#: The interval of temperature readings while a device cools down, and the longest cool-down (s).
_COOLING_S, _LONGEST_COOLING_S = 5.0, 900.0

_INTEGER = re.compile(r"\d{1,9}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_WORD = re.compile(r"\w[\w.+-]*", re.ASCII)
_DEVICE = re.compile(r"[a-z]\w*(:\d{1,3})?", re.ASCII)
_RAIL = re.compile(r"\w[\w .+@-]*")
_PAIR = re.compile(r"\w+=[\w.,x+-]*", re.ASCII)
_SHAPE = re.compile(r"\w[\w./:-]*=(scalar|\d+([x,]\d+)*)(:\w+)?", re.ASCII)
_NOTHING = re.compile(r"")
#: The flags of ``edgeprof bench`` that a fleet may give, with patterns for their values. None of them names a file, a
#: program or an address, loads code, or changes a setting of the device.
FLAGS = {
    **dict.fromkeys(
        ("threads", "batch", "streams", "windows", "prompt", "generate", "depth", "context", "seed"), _INTEGER
    ),
    **dict.fromkeys(("rate", "window", "warmup", "idle", "sample-rate", "estimate-power", "timeout"), _NUMBER),
    **dict.fromkeys(("runtime", "scenario", "preset", "metric", "sensor"), _WORD),
    "device": _DEVICE,
    "rail": _RAIL,
    "preprocess": _PAIR,
    "input": _SHAPE,
    "strict": _NOTHING,
}


@dataclass(frozen=True)
class Permissions:
    """The permissions that a device's owner grants, from the door's configuration file.

    Attributes:
        allow_code: Whether models that are code (pickles, TorchScript, TensorRT's plans, Python) may be measured.
        worker_python: The Python interpreter for the models; None for edgeprof's own.
        max_bytes: The most bytes of models and data that are stored on the device.
        sign_key: The file of the private key that signs results; None if they are not signed.
        keep_days: How many days a result is stored after it was last fetched.
        microcontrollers: Name → serial port of each microcontroller that a fleet may measure.
        meters: Name of a microcontroller → the meter at its supply, as after ``--sensor``.
    """

    allow_code: bool = False
    worker_python: str | None = None
    max_bytes: int = 8 << 30
    sign_key: str | None = None
    keep_days: int = 90
    microcontrollers: Mapping[str, str] = field(default_factory=dict)
    meters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Permissions:
        """Read the owner's file.

        Raises:
            InputError: The file cannot be read, other users may write it, or a key or a value is not valid.
        """
        _check_owner(path)
        content = toml_files.read(path, remedy="docs/fleet.md has an example.")
        for key in content:
            if key not in cls.__dataclass_fields__:
                raise unknown(f"key of {path}", key, list(cls.__dataclass_fields__))
        kinds = {
            "allow_code": bool,
            "worker_python": str,
            "max_bytes": str,
            "sign_key": str,
            "keep_days": int,
            "microcontrollers": dict,
            "meters": dict,
        }
        for key, value in content.items():
            if not _fits(value, kinds[key]):
                examples = {
                    "allow_code": "true",
                    "worker_python": '"/usr/bin/python3"',
                    "max_bytes": '"8GiB"',
                    "sign_key": '"/etc/edgeprof/sign"',
                    "keep_days": "90",
                    "microcontrollers": '{ sensor-node = "/dev/ttyACM0" }',
                    "meters": '{ sensor-node = "ppk2:source:3.3V" }',
                }
                raise InputError(f"{path}: {key} = {value!r} does not fit", remedy=f"As in {key} = {examples[key]}")
        try:
            if "max_bytes" in content:
                content["max_bytes"] = int(units.parse(content["max_bytes"], "B"))
        except ValueError as error:
            raise InputError(f"{path}: max_bytes: {error}", remedy='As in max_bytes = "8GiB"') from None
        return cls(**content)


def _fits(value: object, kind: type) -> bool:
    """Return whether a value of the owner's file has a type: an integer is a count ≥ 1, and a table has texts."""
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if kind is dict:
        return isinstance(value, dict) and all(isinstance(text, str) and text for text in value.values())
    return isinstance(value, kind)


def _check_owner(path: Path) -> None:
    """Check that only root and this user can write the file that grants permissions, and the folders above it.

    The rule is that of sshd for authorized_keys. A user who may write a folder can replace its content, unless the
    folder is sticky and another user owns the content.

    Raises:
        InputError: Another user owns one of them, or its group or others may write it.
    """
    try:
        whole = path.resolve(strict=True)
        statuses = [(place, place.stat()) for place in (whole, *whole.parents)]
    except (OSError, ValueError, RuntimeError):
        return  # reading the file raises the error with its reason
    for place, status in statuses:
        is_shared = status.st_mode & 0o022 and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)
        if status.st_uid not in {0, os.geteuid()} or is_shared:
            written = path if place == whole else f"{place}, the folder above {path},"
            quoted = shlex.quote(str(place))
            raise InputError(
                f"{written} may be written by other users, who could allow themselves what its owner does not",
                remedy=f"sudo chown root {quoted} && sudo chmod go-w {quoted}",
            )


class Door:
    """The requests of one connection.

    Args:
        wire: The connection.
        roots: The places of /sys, /proc and /dev.
        permissions: The permissions that the device's owner grants.
    """

    def __init__(self, wire: Wire, roots: Roots, permissions: Permissions) -> None:
        self.wire, self.roots, self.permissions = wire, roots, permissions
        self.spool = Spool(data_dir() / "door", permissions.max_bytes)
        self._answers: dict[type, Callable[[Any], None]] = {
            protocol.Hello: self._hello,
            protocol.Status: self._status,
            protocol.Put: self._put,
            protocol.Bench: self._bench,
            protocol.Fetch: self._fetch,
            protocol.Cancel: self._cancel,
        }

    def serve(self) -> int:
        """Answer requests until the host closes the connection, one is refused, or one becomes a benchmark.

        Returns:
            The exit status.
        """
        try:
            while (text := self.wire.read()) is not None:
                request: Request = protocol.parse_request(text)
                self._answers[type(request)](request)
        except EdgeprofError as error:
            with contextlib.suppress(OSError):  # the host may have disconnected
                self._say({"error": error.message, "remedy": error.remedy, "exit": error.exit_code})
            return error.exit_code
        except OSError as error:  # the host has disconnected
            return 0 if isinstance(error, BrokenPipeError) else 2
        return 0

    def _say(self, answer: dict[str, Any]) -> None:
        self.wire.write(msgspec.json.encode(answer))

    # --- what a device tells of itself --------------------------------------------------------------------------------

    def _hello(self, _: protocol.Hello) -> None:
        self._say(self._description())

    def _status(self, _: protocol.Status) -> None:
        holder = lock.holder(self.roots)
        running = self._running_key(holder)
        self._say(
            {
                **self._description(),
                "measuring": None if holder is None else str(holder),
                "running": running,
                "temperature_c": device.hottest_c(self.roots),
                "free_bytes": device.free_bytes(self.spool.directory),
                "jobs": self._newest_jobs(),
            }
        )

    def _newest_jobs(self) -> list[tuple[str, int, float]]:
        done = [(job.key, job.size_bytes, job.ended_s) for job in self.spool.jobs() if job.is_done]
        return sorted(done, key=lambda job: job[2])[-protocol.MOST_JOBS :]

    def _description(self) -> dict[str, Any]:
        return {
            "protocol": protocol.VERSION,
            "edgeprof": __version__,
            **device.describe(self.roots),
            "allow_code": self.permissions.allow_code,
            "time_s": time.time(),
        }

    # --- files --------------------------------------------------------------------------------------------------------

    def _put(self, request: Put) -> None:
        if self.spool.has_file(request.sha256):
            self._say({"send": False})
            return
        self._say({"send": True})
        self.spool.store_file(request.sha256, request.size, self.wire.read_file(request.size))
        self._say({"stored": request.sha256})

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _fetch(self, request: Fetch) -> None:
        stored = self.spool.result(request.key)
        if stored is None:
            state = "running" if self._running_key(lock.holder(self.roots)) == request.key else "absent"
            self._say({"state": state})
            return
        import hashlib  # noqa: PLC0415 - no other request needs it

        from edgeprof.fleet.signature import sign  # noqa: PLC0415 - the same

        text, result = stored
        state = "interrupted" if result.interrupted else "done"
        key = self.permissions.sign_key
        signature = None if key is None else sign(text, key)
        digest = hashlib.sha256(text).hexdigest()
        self._say({"state": state, "size": len(text), "sha256": digest, "signature": signature})
        self.wire.write_bytes(text)
        self.spool.note_fetched(request.key)

    def _cancel(self, request: Cancel) -> None:
        holder = lock.holder(self.roots)
        if holder is None or self._running_key(holder) != request.key:
            self._say({"state": "absent"})
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.pid, signal.SIGTERM)  # SIGINT may be ignored if sshd was started in the background
        self._say({"state": "cancelled"})

    def _running_key(self, holder: Holder | None) -> str | None:
        """Return the key of the running job; None if the lock is free or another program holds it."""
        running = self.spool.running()
        return running.get("key") if holder is not None and running.get("pid") == holder.pid else None

    def _bench(self, request: Bench) -> None:
        description = device.describe(self.roots)
        check_expected(request.expected, description)
        key = protocol.job_key(
            request, machine=description["machine"], fingerprint=description["fingerprint"], version=__version__
        )
        if (request.mcu is None) is not bool(request.models):
            raise InputError("a job measures models, or the firmware of one microcontroller")
        flags, targets = bench_flags(request), []
        if request.mcu is not None:
            flags, targets = [*flags, *self._meter(request.mcu)], [f"mcu:{self._port(request.mcu)}"]
        if self.spool.is_done(key):
            self._say({"key": key, "state": "done"})
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
        from edgeprof.sensing.device.settings import restore_settings  # noqa: PLC0415 - hello and status answer without it

        deadline = time.monotonic() + request.wait_s
        while True:
            holder = lock.holder(self.roots)
            if holder is not None:
                self._say({"key": key, "state": "waiting", "measuring": str(holder)})
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
                    self._say({"key": key, "state": "done"})
                    return
                restore_settings()
                check_expected(request.expected, device.describe(self.roots))
                self._rest(request)
                self.spool.result_path(key).unlink(missing_ok=True)  # left by an interrupted job
                self.spool.begin(key, {"what": what})
                self._say({"key": key, "state": "started"})
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
        from edgeprof.artifact.recognition import recognise  # noqa: PLC0415 - hello and status answer without it
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
        from edgeprof.worker import sandbox  # noqa: PLC0415 - hello and status answer without it

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


def check_expected(expected: Expected, description: dict[str, Any]) -> None:
    """Check that this device matches the inventory.

    Raises:
        WrongDeviceError: The board, the machine or the power mode differs from the inventory.
    """
    for name, title in (("board", "a"), ("machine", "the machine")):
        wanted, here = getattr(expected, name), description[name]
        if wanted is not None and wanted != here:
            raise WrongDeviceError(
                f"this is {title} {here}, and the inventory says {wanted}",
                remedy="Is it another device at this address? If it was replaced on purpose, take its block out of the "
                "inventory and add it again: edgeprof fleet add.",
            )
    mode = description["power_mode"]
    if expected.power_mode is not None and expected.power_mode != mode:
        raise WrongDeviceError(
            f"the device is in the power mode {mode or 'unknown'}, and the inventory says {expected.power_mode}",
            remedy="Set it there (nvpmodel -m …), or mend power_mode in the inventory.",
        )


def bench_flags(request: Bench) -> list[str]:
    """Return the flags of a request as arguments for ``edgeprof bench``.

    Raises:
        InputError: A flag is not in ``FLAGS``, or its value does not match the pattern.
    """
    arguments = []
    for name, values in request.flags.items():
        if name not in FLAGS:
            raise InputError(
                f"a fleet may not give --{name}", remedy=f"It may give {', '.join(f'--{flag}' for flag in FLAGS)}."
            )
        for value in values:
            if not FLAGS[name].fullmatch(value):
                raise InputError(f"--{name} {value!r} is refused by the device")
            arguments.append(f"--{name}={value}" if value else f"--{name}")
    return arguments
