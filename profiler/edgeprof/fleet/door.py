"""The device's end of the wire: it answers a handful of requests and becomes the bench that one of them asks for.

A door runs only while somebody is connected. A request names files by their hashes and flags by their names; each is
looked up in a list of what is allowed. A benchmark replaces the door's process (``execve``), so that nothing of the
fleet is left on the device while it measures but the SSH session itself; the device's lock goes with it.
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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from edgeprof import __version__, toml_files, units
from edgeprof.errors import BusyError, EdgeprofError, InputError, WrongDeviceError, unknown
from edgeprof.fleet import device, protocol
from edgeprof.fleet.spool import Spool
from edgeprof.launch import lock
from edgeprof.results.place import data_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeprof.fleet.protocol import Bench, Cancel, Expected, Fetch, Put, Request, Wire
    from edgeprof.launch.lock import Holder
    from edgeprof.roots import Roots

#: Formats whose files are data; of everything else a device's owner decides (``allow_code``).
DATA_FORMATS = frozenset({"onnx", "ort", "tflite", "edgetpu-tflite", "gguf", "pt2"})
#: How often the temperature is looked at while a device cools down, and for how long.
_COOLING_S, _LONGEST_COOLING_S = 5.0, 900.0

_INTEGER = re.compile(r"\d{1,9}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_WORD = re.compile(r"\w[\w.+-]*", re.ASCII)
_DEVICE = re.compile(r"[a-z]\w*(:\d{1,3})?", re.ASCII)
_RAIL = re.compile(r"\w[\w .+@-]*")
_PAIR = re.compile(r"\w+=[\w.,x+-]*", re.ASCII)
_SHAPE = re.compile(r"\w[\w./:-]*=(scalar|\d+([x,]\d+)*)(:\w+)?", re.ASCII)
_NOTHING = re.compile(r"")
#: The flags of ``edgeprof bench`` that a fleet may give, and what their values look like. None of them names a file,
#: a program or an address, loads code, or changes a setting of the device.
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
    """What a device's owner allows: the door's configuration file.

    Attributes:
        allow_code: Whether models that are code (pickles, TorchScript, TensorRT's plans, Python) may be benched.
        worker_python: The Python that runs the models; None for edgeprof's own.
        max_bytes: How many bytes of models and data are kept on the device.
        sign_key: The file of a private key that signs results; None: they are not signed.
        keep_days: For how many days after it was fetched last a result is kept.
    """

    allow_code: bool = False
    worker_python: str | None = None
    max_bytes: int = 8 << 30
    sign_key: str | None = None
    keep_days: int = 90

    @classmethod
    def read(cls, path: Path) -> Permissions:
        """The owner's file.

        Raises:
            InputError: it cannot be read, others may write it, or a key or a value does not fit.
        """
        _check_owner(path)
        content = toml_files.read(path, remedy="docs/fleet.md has an example.")
        for key in content:
            if key not in cls.__dataclass_fields__:
                raise unknown(f"key of {path}", key, list(cls.__dataclass_fields__))
        kinds = {"allow_code": bool, "worker_python": str, "max_bytes": str, "sign_key": str, "keep_days": int}
        for key, value in content.items():
            if not _fits(value, kinds[key]):
                examples = {
                    "allow_code": "true",
                    "worker_python": '"/usr/bin/python3"',
                    "max_bytes": '"8GiB"',
                    "sign_key": '"/etc/edgeprof/sign"',
                    "keep_days": "90",
                }
                raise InputError(f"{path}: {key} = {value!r} does not fit", remedy=f"As in {key} = {examples[key]}")
        try:
            if "max_bytes" in content:
                content["max_bytes"] = int(units.parse(content["max_bytes"], "B"))
        except ValueError as error:
            raise InputError(f"{path}: max_bytes: {error}", remedy='As in max_bytes = "8GiB"') from None
        return cls(**content)


def _fits(value: object, kind: type) -> bool:
    """Whether a value of the owner's file is of a kind; a whole number counts something, and is 1 at least."""
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return isinstance(value, kind)


def _check_owner(path: Path) -> None:
    """Hold the file that grants permissions, and the folders above it, to what sshd asks of authorized_keys.

    Whoever may write a folder can replace what is in it, unless it is sticky and the next one below is not theirs.

    Raises:
        InputError: another user than root and this one owns one of them, or its group or others may write it.
    """
    try:
        whole = path.resolve(strict=True)
        statuses = [(place, place.stat()) for place in (whole, *whole.parents)]
    except (OSError, ValueError, RuntimeError):
        return  # whoever reads the file says why it cannot be read
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
    """One visit: the requests of one connection.

    Args:
        wire: The connection.
        roots: Where /sys, /proc and /dev are.
        permissions: What the device's owner allows.
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
        """Answer requests until the other end closes, or one is refused, or one becomes a benchmark.

        Returns:
            The exit status.
        """
        try:
            while (text := self.wire.read()) is not None:
                request: Request = protocol.parse_request(text)
                self._answers[type(request)](request)
        except EdgeprofError as error:
            with contextlib.suppress(OSError):  # the other end may be gone
                self._say({"error": error.message, "remedy": error.remedy, "exit": error.exit_code})
            return error.exit_code
        except OSError as error:  # the other end is gone
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
            os.kill(holder.pid, signal.SIGTERM)  # SIGINT may be ignored where sshd was started in the background
        self._say({"state": "cancelled"})

    def _running_key(self, holder: Holder | None) -> str | None:
        """The key of the job that runs now; None where the lock is free, or somebody else's."""
        running = self.spool.running()
        return running.get("key") if holder is not None and running.get("pid") == holder.pid else None

    def _bench(self, request: Bench) -> None:
        description = device.describe(self.roots)
        check_expected(request.expected, description)
        key = protocol.job_key(
            request, machine=description["machine"], fingerprint=description["fingerprint"], version=__version__
        )
        flags = bench_flags(request)
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
        what = " ".join(["fleet bench", *(path.name for path in paths)])
        self._wait_and_measure(request, key, what, [*flags, "--", *map(str, paths)])

    def _wait_and_measure(self, request: Bench, key: str, what: str, arguments: list[str]) -> None:
        """Take the device's lock, look once more whether the job was done meanwhile, and become the benchmark."""
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
                    continue  # somebody was quicker
                if self.spool.is_done(key):
                    self._say({"key": key, "state": "done"})
                    return
                restore_settings()
                check_expected(request.expected, device.describe(self.roots))
                self._rest(request)
                self.spool.result_path(key).unlink(missing_ok=True)  # of a job that was interrupted
                self.spool.begin(key, {"what": what})
                self._say({"key": key, "state": "started"})
                self._become_bench(key, arguments)

    def _rest(self, request: Bench) -> None:
        """Wait, with the lock held, until the device has rested and is cool enough.

        Raises:
            BusyError: it does not cool down.
        """
        last = max((job.ended_s for job in self.spool.jobs() if job.is_done), default=0.0)
        # The clock of a device without a battery jumps: a job of the future counts as one that ended just now.
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
        """End where the other end is gone: nobody waits for this job any more."""
        poll = select.poll()
        poll.register(1, 0)
        if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
            raise BrokenPipeError

    def _refuse_code(self, path: Path) -> None:
        """
        Raises:
            InputError: the model is code, or is not known to be data, and the owner does not allow it.
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

    def _become_bench(self, key: str, arguments: list[str]) -> NoReturn:
        """Replace this process by ``edgeprof bench``, which inherits the device's lock."""
        from edgeprof.worker import sandbox  # noqa: PLC0415 - hello and status answer without it

        flags = [f"--output={self.spool.result_path(key)}", "--quiet", "--no-color"]
        if self.permissions.allow_code:
            flags.append("--allow-code")
        if sandbox.why_not() is None:
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
    """
    Raises:
        WrongDeviceError: this is another device than the inventory says, or in another power mode.
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
    """The flags of a request as arguments of ``edgeprof bench``.

    Raises:
        InputError: a flag is not on the list, or its value is none of its kind.
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
