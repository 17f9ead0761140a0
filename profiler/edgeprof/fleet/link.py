"""The host's side of the connection: one ssh process per connection, and an error for each way ssh can fail."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec

from edgeprof import __version__
from edgeprof.errors import EdgeprofError, InputError, UnavailableError
from edgeprof.fleet import framing, protocol
from edgeprof.fleet.framing import CHUNK, NotAMessageError, Wire, WireError
from edgeprof.fleet.spool import LARGEST_RESULT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from edgeprof.fleet.inventory import Device
    from edgeprof.fleet.protocol import Description, Request, State

D = TypeVar("D", bound="Description")
#: The variable with the ssh program and its arguments (another configuration file or key), like GIT_SSH_COMMAND.
SSH_COMMAND = "EDGEPROF_SSH"
#: ssh must not prompt, must notice a dead connection within a minute, and must forward nothing.
OPTIONS = (
    "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=20",
    "-o", "ServerAliveCountMax=3", "-o", "ClearAllForwardings=yes", "-o", "LogLevel=ERROR",
)  # fmt: skip
#: How long a device may take to start the door and to answer ``hello`` (s).
HELLO_S = 60.0
#: The exit status of ssh if ssh itself fails.
_SSH_FAILED = 255


@dataclass(frozen=True)
class _Failure:
    """A way in which ssh fails.

    Attributes:
        pattern: A regular expression for ssh's error output.
        sentence: The meaning, in one sentence.
        remedy: What to do; ``HOST`` stands for the device's host, ``REMOVE`` for the command that removes its key.
        may_pass: Whether trying again may help.
        while_starting: Whether this also happens while a device restarts.
    """

    pattern: str
    sentence: str
    remedy: str
    may_pass: bool = False
    while_starting: bool = False


_FAILURES = (
    _Failure(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for .* has changed",
        "its SSH host key is not the one that is known: another machine answers at this address, or it was set up anew",
        "If it was set up anew, remove the old key with REMOVE and accept the new one with ssh HOST.",
    ),
    _Failure(
        r"certificate.*expired|[Cc]ertificate invalid: expired",
        "an SSH certificate has expired",
        "Sign a new one (docs/fleet.md).",
    ),
    _Failure(
        r"Host key verification failed|No \w+ host key is known|authenticity of host",
        "its SSH host key is not known here",
        "Compare it with the device's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and accept it: ssh HOST",
    ),
    _Failure(
        r"Permission denied|Too many authentication failures",
        "it does not accept any SSH key of this user",
        'Install the fleet\'s key there (docs/fleet.md), or name the right user: ssh = "user@host".',
    ),
    _Failure(r"Could not resolve hostname", "its name cannot be resolved", "Mend address or ssh in the inventory."),
    _Failure(
        r"Connection refused",
        "nothing answers SSH there",
        "Is sshd running on the device, on this port?",
        while_starting=True,
    ),
    _Failure(
        r"timed out|No route to host|Network is unreachable",
        "it cannot be reached",
        "Is it on, and on this network?",
        may_pass=True,
    ),
    _Failure(
        r"edgeprof: (command )?not found|No such file or directory|not found",
        "edgeprof is not found on it",
        'Install it there, and give its full path in the forced command: command="/opt/edgeprof/bin/edgeprof door".',
    ),
)


def _removal(words: str, host: str) -> str:
    """Return the command that removes a changed host key, with the file and the host name from ssh's output."""
    name = re.search(r"Host key for (\S+) has changed", words)
    file = re.search(r"Offending .*key in (.+):\d+", words)
    where = ["-f", file[1].strip()] if file else []
    return shlex.join(["ssh-keygen", *where, "-R", name[1] if name else host])


class LinkError(UnavailableError):
    """Raised if a device cannot be reached, or the connection broke.

    Args:
        message: One sentence.
        remedy: What to do about it.
        may_pass: Whether trying again may help, because the connection broke and nothing was refused.
        while_starting: Whether trying again may help with a device that was reached before, because the device or its
            tunnel may be restarting.
    """

    def __init__(
        self, message: str, *, remedy: str | None = None, may_pass: bool = False, while_starting: bool = False
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.may_pass, self.while_starting = may_pass, while_starting


class RefusedError(EdgeprofError):
    """Raised if the device refused a request; the message, the remedy and the exit code are the device's."""

    def __init__(self, message: str, *, remedy: str | None, exit_code: int) -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Fetched:
    """The state of a job on a device, and its result.

    Attributes:
        state: ``done``, ``interrupted``, ``running`` or ``absent``.
        text: The result, as it arrived; empty without one.
        signature: The device's signature of the text; None without one.
    """

    state: str
    text: bytes
    signature: str | None


class Link:
    """One connection to a device.

    Args:
        device: The device.

    Raises:
        LinkError: ssh cannot be started.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        try:
            self._process = subprocess.Popen(
                _door_command(device),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the fleet, which ends its links itself
            )
        except OSError as error:
            raise LinkError(f"ssh cannot be started: {error.strerror}", remedy="Install the OpenSSH client.") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pipes = (self._process.stdin, self._process.stdout)
        self._words = _LastWords(self._process.stderr)
        self._wire = Wire(self._process.stdout.fileno(), self._process.stdin.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection: the door ends with its input, and ssh with the door."""
        for stream in self._pipes:
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.text()

    def hello(self) -> Description:
        """Return the device's description of itself.

        Raises:
            LinkError: The device cannot be reached, has no door, or has another version of edgeprof.
        """
        return self._described(self.ask(protocol.Hello(), timeout_s=HELLO_S), protocol.Description)

    def status(self) -> State:
        """Return the device's description of itself, of the present measurement, and of its jobs.

        Raises:
            LinkError: See ``hello``.
        """
        return self._described(self.ask(protocol.Status(), timeout_s=HELLO_S), protocol.State)

    def _described(self, answer: dict[str, Any], kind: type[D]) -> D:
        """Check the answer to ``hello`` or ``status``, and convert it.

        Raises:
            LinkError: The device has another version of edgeprof, or the answer is not a description.
        """
        if answer.get("protocol") != framing.VERSION or answer.get("edgeprof") != __version__:
            raise LinkError(
                f"it has edgeprof {answer.get('edgeprof')} and this machine {__version__}: their results would differ "
                "by more than the devices",
                remedy="Install one version on both.",
            )
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as error:
            raise LinkError(f"it describes itself wrongly: {error}", remedy="Is its edgeprof changed?") from None

    def put(self, sha256: str, path: Path) -> None:
        """Send a file to the device, unless the device has it.

        Raises:
            InputError: The file has changed since its hash was computed.
            LinkError, RefusedError: The connection broke, or the device refused the file.
        """
        size = path.stat().st_size
        if not self.ask(protocol.Put(sha256=sha256, size=size)).get("send"):
            return
        digest = hashlib.sha256()
        with path.open("rb") as file, self._explained():
            while part := file.read(CHUNK):
                digest.update(part)
                self._wire.write_bytes(part)
        if digest.hexdigest() != sha256:
            raise InputError(f"{path} was changed while it was sent", remedy="Start again.")
        self._answer(timeout_s=None)

    def ask(self, request: Request, *, timeout_s: float | None = framing.MESSAGE_S) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            LinkError: The connection broke, or the answer did not come from a door.
            RefusedError: The device refused the request.
        """
        with self._explained():
            self._wire.write(msgspec.json.encode(request))
        return self._answer(timeout_s=timeout_s)

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield further answers to a request for a benchmark: which program measures now, or that it has started."""
        while True:
            yield self._answer(timeout_s=None)

    def fetch(self, key: str) -> Fetched:
        """Return the state of a job, and its result if there is one.

        Raises:
            WireError: The text arrived damaged.
            LinkError, RefusedError: The connection broke, or the device refused the request.
        """
        answer = self.ask(protocol.Fetch(key=key))
        state, size = str(answer.get("state")), answer.get("size")
        if size is None:
            return Fetched(state, b"", None)
        if not isinstance(size, int) or not 0 <= size <= LARGEST_RESULT:
            raise WireError(f"a result of {size!r} bytes is offered")
        with self._explained():
            text = b"".join(self._wire.read_file(size))
        if hashlib.sha256(text).hexdigest() != answer.get("sha256"):
            raise WireError("a result arrived damaged: its SHA-256 is another one")
        signature = answer.get("signature")
        return Fetched(state, text, signature if isinstance(signature, str) else None)

    def wait(self) -> tuple[int, str]:
        """Wait for the end of the remote program; return its exit status and the end of its error output."""
        status = self._process.wait()
        return status, self._words.text()

    def end(self) -> None:
        """End the connection immediately, for example if the user interrupts."""
        self._process.terminate()

    def _answer(self, *, timeout_s: float | None) -> dict[str, Any]:
        with self._explained():
            text = self._wire.read(timeout_s=timeout_s)
        if text is None:
            raise self._failure()
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise LinkError(
                "what answers is no door of edgeprof", remedy="Its key needs the forced command (docs/fleet.md)."
            )
        if "error" in answer:
            code = answer.get("exit")
            remedy = answer.get("remedy")
            raise RefusedError(
                str(answer["error"])[:2000],
                remedy=None if remedy is None else str(remedy)[:2000],
                exit_code=code if isinstance(code, int) and 0 < code < 256 else 2,
            )
        return answer

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Convert an error of the connection within this context to a LinkError, with the reason from ssh's output."""
        try:
            yield
        except BrokenPipeError:
            # The door has ended; its last answer can still be read.
            with contextlib.suppress(WireError, OSError):
                self._answer(timeout_s=5.0)
            raise self._failure() from None
        except NotAMessageError as error:
            raise LinkError(
                f"what answers is no door of edgeprof: {error.message}",
                remedy="Its key needs the forced command (docs/fleet.md); no login text may come before it.",
            ) from None
        except WireError as error:
            raise self._failure(error.message) from None
        except OSError as error:
            raise self._failure(str(error.strerror)) from None

    def _failure(self, otherwise: str = "the connection ended without an answer") -> LinkError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        words = self._words.text()
        # Only ssh's output distinguishes a refusal from a broken connection: the exit status is 255 for both.
        for failure in _FAILURES:
            if re.search(failure.pattern, words):
                host = self.device.ssh.rpartition("@")[2]
                remedy = failure.remedy.replace("REMOVE", _removal(words, host)).replace("HOST", host)
                return LinkError(
                    failure.sentence, remedy=remedy, may_pass=failure.may_pass, while_starting=failure.while_starting
                )
        lines = [line.strip() for line in words.splitlines()]
        for number, line in enumerate(lines):
            if line.startswith("edgeprof: "):  # the door's own sentence, and its remedy below it
                return LinkError(line.removeprefix("edgeprof: "), remedy=" ".join(lines[number + 1 :]) or None)
        last = lines[-1][:300] if lines else ""
        status = self._process.poll()
        return LinkError(
            f"{otherwise}{f' ({last})' if last else ''}",
            remedy="The benchmark goes on there if it had begun: edgeprof fleet fetch",
            may_pass=status is None or status in {0, _SSH_FAILED} or status < 0,
        )


class _LastWords(threading.Thread):
    """The end of the stderr of ssh and the remote program; a thread reads it, so that neither of them ever blocks."""

    LONGEST = 8192

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="stderr of ssh", daemon=True)
        self._stream, self._tail = stream, b""
        self.start()

    def run(self) -> None:
        with self._stream as stream:
            while part := os.read(stream.fileno(), self.LONGEST):
                self._tail = (self._tail + part)[-self.LONGEST :]

    def text(self) -> str:
        """Return the text after both have ended; wait at most 5 s, as another program may keep the stream open."""
        self.join(5)
        return self._tail.decode("utf-8", "replace").strip()


def _door_command(device: Device) -> list[str]:
    """Return the command that opens a device's door: over ssh, or this machine's own for a port of this machine.

    Raises:
        InputError: EDGEPROF_SSH is not a command.
    """
    if device.ssh:
        return [*ssh_command(), *OPTIONS, "--", device.ssh, "edgeprof", "door"]
    assert device.mcu is not None
    meter = [] if device.meter is None else [f"--meter={device.meter}"]
    return [sys.executable, "-m", "edgeprof", "door", "--mcu", mcu_name(device), device.mcu, *meter]


def mcu_name(device: Device) -> str:
    """Return the name of a microcontroller for the door of its machine: the owner's, or one made of its port.

    The name is part of a job's key, so each port needs its own: one door serves all ports of a machine.
    """
    assert device.mcu is not None
    if device.ssh:
        return device.mcu
    assert device.port_place is not None
    return f"port-{hashlib.sha256(device.port_place[1].encode()).hexdigest()[:16]}"


def ssh_command() -> list[str]:
    """Return ``ssh``, or the command in EDGEPROF_SSH.

    Raises:
        InputError: EDGEPROF_SSH is not a command.
    """
    text = os.environ.get(SSH_COMMAND, "ssh")
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words:
        raise InputError(f"{SSH_COMMAND}={text!r} is no command", remedy="As in EDGEPROF_SSH='ssh -F lab.config'")
    return words
