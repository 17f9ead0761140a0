"""A runtime whose models do what their name says. Python 3.6 grammar: workers load this file by its path.

A target is ``WHEN:WHAT[:ARGUMENT]``. WHEN is ``load``, ``run`` (the first inference), ``call`` (in a window, after the
first ten calls) or ``close``; WHAT is a function below. ``sleep:SECONDS`` is a well-behaved model.
"""

import ctypes
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from edgeprof import hookimpl
from edgeprof.worker.runtime import Availability, LoadError, LoadOptions, Runtime, Session, TensorSpec


def segfault(_: str) -> None:
    print("about to read address 1")
    ctypes.string_at(1)


def abort(_: str) -> None:
    os.write(2, b"terminate called after throwing an instance of 'std::runtime_error'\n")
    ctypes.CDLL(None).abort()


def bad_alloc(_: str) -> None:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def hang(_: str) -> None:
    while True:
        time.sleep(60)


def hang_in_c(_: str) -> None:
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the interpreter lock: no other thread of this process runs


def kill(_: str) -> None:
    os.kill(os.getpid(), 9)


def leave(_: str) -> None:
    os._exit(7)


def exit_politely(_: str) -> None:
    sys.exit("the model has had enough")


def complain(text: str) -> None:
    raise ValueError(text or "no such thing")


def complain_of_arguments(_: str) -> None:
    print("arguments:", sys.argv[1:])


def refuse(_: str) -> None:
    raise LoadError("the toy is broken", "Buy another.")


def refuse_for_memory(_: str) -> None:
    raise LoadError("the toy does not load: std::bad_alloc")


def devour(mebibytes: str) -> None:
    hoard = [np.ones(1 << 17) for _ in range(int(mebibytes))]
    raise AssertionError(f"all {len(hoard)} MiB were given")


def chatter(count: str) -> None:
    for i in range(int(count)):
        print("line", i, "x" * 100)


def offspring(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(path).write_text(str(child.pid))


def sockets() -> List[int]:
    return [fd for fd in descriptors() if stat.S_ISSOCK(_mode(fd))]


def descriptors() -> List[int]:
    """Every open descriptor but those of standard input, output and error.

    The worker's socket has the number that it had in its parent, which may have hundreds of files open.
    """
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if int(entry.name) > 2]


def _mode(fd: int) -> int:
    try:
        return os.fstat(fd).st_mode
    except OSError:
        return 0


def scribble(text: str) -> None:
    """Write to every socket, like a library that uses a wrong file descriptor."""
    for fd in sockets():
        os.write(fd, text.encode("utf-8") + b"\n")


def flood(_: str) -> None:
    while True:
        for fd in sockets():
            os.write(fd, b"x" * 65536)


def nest(_: str) -> None:
    scribble("[" * 100000 + "]" * 100000)


def patch_json(text: str) -> None:
    """Change the standard library, so that every answer becomes ``text``."""
    json.dumps = lambda *_, **__: text


class Defiance(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def defy(_: str) -> None:
    raise Defiance


def mumble(_: str) -> None:
    raise ValueError("half a letter: \udce9")


def recurse(_: str) -> None:
    recurse(_)


def bore(_: str) -> None:
    raise ValueError("x" * (32 << 20))


def close_all(_: str) -> None:
    os.closerange(3, max(descriptors()) + 1)


def fork(_: str) -> None:
    os.fork()  # both go on, and both answer


class ToySession(Session):
    def __init__(self, when: str, what: str, argument: str) -> None:
        self.inputs = [TensorSpec("x", ("batch", 4), "float32", None), TensorSpec("ids", (2,), "int64", None)]
        self.outputs = [TensorSpec("y", ("batch", 4), "float32", None)]
        self.facts = {"pace": argument}
        self.when, self.what, self.argument = when, what, argument
        self.calls = 0
        self.closed = False

    def run(self, feeds: Dict[str, Any]) -> Any:
        if self.when == "sleep":
            time.sleep(float(self.what))
        if self.when == "run":
            if self.what == "nan":
                return {"y": np.array([1.0, float("nan"), float("inf"), 2.0], dtype=np.float32)}
            if self.what == "echo":
                return dict(feeds)
            if self.what == "list":
                return [1.0]
            globals()[self.what](self.argument)
        if self.when == "call":
            self.calls += 1
            if self.calls > 10:
                globals()[self.what](self.argument)
        return {"y": feeds["x"] * 2}

    def gpu_peak_bytes(self) -> Any:
        return 12345 if self.when == "sleep" else None

    def close(self) -> None:
        if self.when == "close":
            globals()[self.what](self.argument)
        self.closed = True


class ToyRuntime(Runtime):
    name = "toy"
    formats = ("toy",)

    def availability(self) -> Availability:
        return Availability("1.2", None, None)

    def devices(self) -> List[str]:
        return ["cpu", "toybox"]

    def load(self, path: str, options: LoadOptions) -> Session:
        when, what, argument = (path + "::").split(":", 2)
        argument = argument.rstrip(":")
        if when == "load":
            globals()[what](argument)
        return ToySession(when, what, argument)


class SerialRuntime(ToyRuntime):
    name = "serial"
    concurrent = False


class AbsentRuntime(ToyRuntime):
    name = "absent"

    def availability(self) -> Availability:
        return Availability(None, "the toy box is empty", "pip install toys")


@hookimpl
def register_runtimes(register: Any) -> None:
    register("toy", ToyRuntime)
