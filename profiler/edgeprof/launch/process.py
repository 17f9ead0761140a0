"""A worker's process, from the parent's side: start it, send requests, find out how it died, and clean up."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError, VariantError
from edgeprof.launch.interpreter import probe
from edgeprof.launch.pulse import Pulse
from edgeprof.reasons import Code
from edgeprof.roots import Roots
from edgeprof.worker import sandbox
from edgeprof.worker.failures import MORE_MEMORY, OUT_OF_MEMORY
from edgeprof.worker.wire import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: How many bytes of the worker's output are kept to be shown.
LAST_WORDS = 4096
#: Between two requests the file with the worker's output is cut back when it is longer than this.
OUTPUT_LIMIT = 1 << 20
#: The script that a worker runs.
MAIN = Path(__file__).parents[1] / "worker/main.py"
#: How often (s) a wait checks that the worker still lives; its death normally shows at once, as the end of the socket.
CHECK_S = 0.25
#: The time (s) that a worker gets to write its stack after a hang, and to close its model at the end.
GRACE_S = 2.0

#: Lines of faulthandler that describe edgeprof and numpy, and not the model.
_OURS = re.compile(r'^(  File ".*/edgeprof/worker/\w+\.py", line .*|Extension modules: .*)\n?', re.MULTILINE)


class WorkerProcess:
    """One worker, started at once.

    Args:
        label: The name of the model in messages.
        python: The interpreter of ``--worker-python``; None: this one.
        memory_limit_bytes: The limit of its data (heap, stacks, private mappings); None: no limit.
        environ: Variables to add to the environment.

    Raises:
        InputError: the interpreter cannot be used, or there is no room for temporary files.
        VariantError: the process cannot be started.
    """

    def __init__(
        self, label: str, python: str | None, memory_limit_bytes: int | None, environ: Mapping[str, str]
    ) -> None:
        self._label = label
        self._limit = memory_limit_bytes
        self._kept = ""
        command = [
            sys.executable if python is None else probe(python),
            str(Path(__file__).parent.parent / "worker" / "main.py"),
        ]
        try:
            self._output = tempfile.TemporaryFile("ab+", buffering=0)  # noqa: SIM115 - closed in close()
        except OSError as error:
            raise InputError(
                f"there is nowhere to keep what models print: {error}",
                remedy="Make room in the temporary directory, or name another: TMPDIR=DIR edgeprof …",
            ) from error
        self._folder = tempfile.mkdtemp(prefix="edgeprof-sandbox-") if sandbox.is_asked_for() else None
        places = ("TMPDIR", "XDG_CACHE_HOME", "EDGEPROF_CACHE_DIR")
        confined = {} if self._folder is None else dict.fromkeys(places, self._folder)
        ours, theirs = socket.socketpair()
        lifeline_read, self._lifeline = os.pipe()
        self._oom_kills = _oom_kills()
        try:
            self._popen = subprocess.Popen(
                [
                    *command,
                    str(theirs.fileno()),
                    str(lifeline_read),
                    str(memory_limit_bytes or 0),
                    *filter(None, [self._folder]),
                ],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(theirs.fileno(), lifeline_read),
                env={**os.environ, **environ, **confined},
                start_new_session=True,  # Ctrl-C is the parent's to decide about
            )
        except OSError as error:
            ours.close()
            os.close(self._lifeline)
            self._output.close()
            raise VariantError(f"the worker of {label} cannot be started: {error}", code=Code.LOAD_FAILED) from error
        finally:
            theirs.close()
            os.close(lifeline_read)
        ours.settimeout(CHECK_S)
        self._connection = Connection(ours)
        self._closed = False
        self._asking = False
        self._requests = 0
        self._pulse = Pulse(CHECK_S)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def request(
        self, message: Mapping[str, Any], blobs: Sequence[bytes], *, doing: str, limit_s: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Ask, and wait for the answer.

        Args:
            message: The request.
            blobs: The blobs that follow it.
            doing: What the worker does meanwhile, for messages: "loading".
            limit_s: Seconds until the worker counts as hung.

        Raises:
            VariantError: the worker died (``crashed``, ``out_of_memory``), hung (``timeout``) or gave an invalid answer
                (``crashed``); it has ended then.
        """
        if self._closed or self._asking:
            gone = "is gone" if self._closed else "was interrupted and cannot be asked again"
            raise VariantError(f"the worker of {self._label} {gone}", code=Code.CRASHED, last_words=self.last_words())
        self._trim()
        deadline = time.monotonic() + limit_s
        self._pulse = pulse = Pulse(CHECK_S)

        def check() -> None:
            pulse.beat()
            if time.monotonic() >= deadline + pulse.stood_still_s:
                raise self._hung(doing, limit_s)
            if self._has_exited():
                raise EOFError

        try:
            answer = self._exchange(message, blobs, check)
        except (EOFError, OSError) as error:
            raise self._death_error(doing, error) from None
        except ValueError as error:
            raise self.garbled(doing, error) from None
        pulse.beat()
        self._asking = False
        return answer

    @property
    def stood_still_s(self) -> float:
        """For how long this process stood still during the last request, and the worker with it, in seconds."""
        return self._pulse.stood_still_s

    def _exchange(
        self, message: Mapping[str, Any], blobs: Sequence[bytes], check: Callable[[], None]
    ) -> tuple[dict[str, Any], list[bytes]]:
        """
        Raises:
            ValueError: what came is not the answer to this request.
        """
        if self._connection.has_unread():
            raise ValueError("something came that was not asked for")
        self._asking = True  # and stays so when Ctrl-C ends the wait: the answer is still to come
        self._requests += 1
        self._connection.send({**message, "id": self._requests}, blobs, check)
        answer, following = self._connection.receive(check)
        try:
            answer = without_surrogates(answer)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if answer.pop("id", None) != self._requests:
            raise ValueError("it belongs to no question")
        require_answer(answer)
        return answer, following

    def garbled(self, doing: str, error: Exception) -> VariantError:
        """End the worker after an invalid answer, because it can no longer be trusted, and return the error.

        Args:
            doing: What it was doing, for messages.
            error: What is wrong with the answer.
        """
        words = self.last_words()
        self._end()
        return VariantError(
            f"{self._label} broke the connection to its worker during {doing}: what came is no answer ({error})",
            remedy="A model must not write on file descriptors that are not its own, nor change Python's own modules.",
            code=Code.CRASHED,
            last_words=words,
        )

    def last_words(self) -> str:
        """The end of what the model and its runtime wrote to stdout and stderr."""
        if self._closed:
            return self._kept
        return (self._kept + _OURS.sub("", self._tail(2 * LAST_WORDS)))[-LAST_WORDS:].strip()

    def close(self) -> None:
        """End the worker, by a request if it is not busy; no process of its group survives."""
        if self._closed:
            return
        if not self._asking and not self._has_exited():
            with contextlib.suppress(VariantError):
                self.request({"do": "close"}, (), doing="closing", limit_s=GRACE_S)
            if not self._closed:
                self._wait(GRACE_S)
        self._end()

    def _hung(self, doing: str, limit_s: float) -> VariantError:
        # faulthandler answers SIGABRT with the stack of every thread, even from within C code that holds the lock.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGABRT)
        self._wait(GRACE_S)
        words = self.last_words()
        place = _innermost(self._tail(16 * LAST_WORDS))
        self._end()
        return VariantError(
            f"{self._label} gave no answer within {limit_s:g} s of {doing}" + (f"; it was in {place}" if place else ""),
            remedy="If the model is only slow, allow it more with --timeout S.",
            code=Code.TIMEOUT,
            last_words=words,
        )

    def _death_error(self, doing: str, error: Exception) -> VariantError:
        if self._closed:  # check() has already told of a hang
            raise error
        self._wait(GRACE_S)
        words = self.last_words()
        killed = _oom_kills()
        oom = killed is not None and self._oom_kills is not None and killed > self._oom_kills
        status = self._end()
        limited = f" under the limit of {self._limit / 2**20:.0f} MiB" if self._limit else ""
        if status == -signal.SIGKILL and oom:
            return self._out_of_memory(f"was killed by the kernel, out of memory,{limited} during {doing}", words)
        if status != 0 and OUT_OF_MEMORY.search(words):
            return self._out_of_memory(f"ran out of memory{limited} during {doing}", words)
        if status == -signal.SIGKILL:
            how, remedy = "was killed by SIGKILL, perhaps for want of memory,", "Look at: dmesg | grep -i oom"
        elif status < 0:
            how, remedy = (
                f"crashed with {_signal_name(-status)}",
                "Its last words follow; other runtimes may do better." if words else "Other runtimes may do better.",
            )
        else:
            how, remedy = (
                f"ended its process with exit status {status}",
                "Its last words may say why; a model must not leave its process (os._exit).",
            )
        return VariantError(
            f"{self._label} {how}{limited} during {doing}", remedy=remedy, code=Code.CRASHED, last_words=words
        )

    def _out_of_memory(self, how: str, words: str) -> VariantError:
        return VariantError(
            f"{self._label} {how}",
            remedy=MORE_MEMORY,
            code=Code.OUT_OF_MEMORY,
            last_words=words,
        )

    def _has_exited(self) -> bool:
        """Whether the worker has exited. It is not reaped, so that its process ID is not reused before its group is
        killed.
        """
        if self._popen.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        pause = 0.001
        while not self._has_exited() and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(0.05, 2 * pause)

    def _end(self) -> int:
        """Kill the process group, reap the worker and close everything; return its exit status as Popen does."""
        if not self._closed:
            self._kept = self.last_words()
            self._closed = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver: the kernel reaps it some day
                self._popen.wait(5 * GRACE_S)
            self._connection.close()
            os.close(self._lifeline)
            self._output.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        return -signal.SIGKILL if self._popen.returncode is None else self._popen.returncode

    def _tail(self, size: int) -> str:
        end = os.fstat(self._output.fileno()).st_size
        text = os.pread(self._output.fileno(), size, max(0, end - size)).decode("utf-8", "replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)  # colours: ONNX Runtime logs in them, terminal or not

    def _trim(self) -> None:
        """Shorten the file of output, because a model that prints all the time must not fill the disk."""
        if os.fstat(self._output.fileno()).st_size > OUTPUT_LIMIT:
            self._kept = self.last_words() + "\n"
            os.ftruncate(self._output.fileno(), 0)


def without_surrogates(value: Any) -> Any:
    """A copy of a JSON value without halves of surrogate pairs, which no file and no terminal can take."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value


def require_answer(answer: Mapping[str, Any]) -> None:
    """Check that an answer is valid: ``ok`` is true, or it says what failed.

    Raises:
        ValueError: the answer is not valid.
    """
    if answer.get("ok") is True:
        return
    texts = (answer.get("kind"), answer.get("message"), answer.get("remedy") or "", answer.get("trace", ""))
    if answer.get("ok") is not False or not all(isinstance(text, str) for text in texts):
        raise ValueError("it neither succeeds nor says what failed")


def _innermost(words: str) -> str | None:
    """The innermost frame, ``function (file.py:12)``, of the current or else the last thread in a faulthandler dump."""
    frames = re.findall(r'^(Current thread|Thread) .*:\n  File "(.+)", line (\d+) in (.+)$', words, re.MULTILINE)
    if not frames:
        return None
    _, path, line, function = next((hit for hit in frames if hit[0] == "Current thread"), frames[-1])
    return f"{function} ({Path(path).name}:{line})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _oom_kills() -> int | None:
    """How many processes the kernel has killed for lack of memory (including cgroups); None if unknown."""
    try:
        text = (Roots().procfs / "vmstat").read_text()
    except OSError:
        return None
    match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(match.group(1)) if match else None
