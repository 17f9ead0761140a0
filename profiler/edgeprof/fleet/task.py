"""One job on one device, from the files on this machine to the checked result.

A ``Task`` needs only its arguments and ssh, so that a thread of this process can run it, or a worker of a cluster on a
host that reaches the device. It may be repeated after any failure: a finished job is not measured again, because the
device answers with the result of the same key.
"""

from __future__ import annotations

import abc
import secrets
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from edgeprof.artifact.recognition import recognise
from edgeprof.errors import InputError
from edgeprof.fleet import framing, protocol
from edgeprof.fleet.flags import bench_flags
from edgeprof.fleet.link import Fetched, Link, LinkError, RefusedError, mcu_name
from edgeprof.fleet.signature import verify
from edgeprof.results import document

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from edgeprof.fleet.inventory import Device
    from edgeprof.fleet.protocol import Bench, File, State
    from edgeprof.results.schema import Result

T = TypeVar("T")
#: Pauses (s) before each further try after a broken connection.
PAUSES_S = (2.0, 10.0, 30.0, 60.0)
#: What stands for a model where the firmware of microcontrollers is measured.
FIRMWARE = "mcu"
#: Exit statuses of a benchmark that has written a result: done, ``--strict`` failed, a variant failed.
_WITH_RESULT = (0, 1, 3)


@dataclass(frozen=True)
class Job:
    """What to measure, and how; a job is the same for all devices.

    Attributes:
        models: The files of each model, the one to load first; none if the firmware of microcontrollers is measured.
        flags: Flags of ``edgeprof bench`` without their hyphens.
        dataset: Labelled data, or None.
        input_data: Real inputs, or None.
        repeat: 1; a higher number requests a further measurement of the same.
        nonce: A random text for firmware, which may have changed since the last measurement; else empty.
    """

    models: tuple[tuple[tuple[str, Path], ...], ...]
    flags: Mapping[str, list[str]] = field(default_factory=dict)
    dataset: tuple[str, Path] | None = None
    input_data: tuple[str, Path] | None = None
    repeat: int = 1
    nonce: str = ""

    @classmethod
    def of(
        cls,
        models: Sequence[str],
        flags: Mapping[str, list[str]],
        dataset: str | None = None,
        input_data: str | None = None,
        repeat: int = 1,
    ) -> Job:
        """Make a job of the models that the command line names; every file is hashed once.

        Args:
            models: The models; or only ``mcu`` for the firmware of microcontrollers.
            flags: Flags of ``edgeprof bench``.
            dataset: Labelled data.
            input_data: Real inputs.
            repeat: 1; a higher number requests a further measurement of the same.

        Raises:
            InputError: A model is not a file, or a fleet may not give a flag.
        """
        is_firmware = list(models) == [FIRMWARE]
        job = cls(
            () if is_firmware else tuple(model_files(model) for model in models),
            flags,
            data_file(dataset),
            data_file(input_data),
            repeat,
            secrets.token_hex(16) if is_firmware else "",
        )
        # A request that every device would reject is rejected before any connection.
        request = protocol.parse_request(msgspec.json.encode(job.request()))
        assert isinstance(request, protocol.Bench)
        bench_flags(request)
        return job

    def request(self, device: Device | None = None, *, wait_s: float = 0.0) -> Bench:
        """Return the request for a device."""
        request = protocol.Bench(
            models=[[_file(sha256, path) for sha256, path in files] for files in self.models],
            dataset=None if self.dataset is None else _file(*self.dataset),
            input_data=None if self.input_data is None else _file(*self.input_data),
            flags=dict(self.flags),
            repeat=self.repeat,
            wait_s=wait_s,
        )
        if device is not None:
            if device.mcu is not None:
                request.mcu, request.nonce = mcu_name(device), self.nonce
            request.expected = expected_of(device)
            request.rest_s, request.start_below_c = device.rest_s, device.start_below_c
        return request

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield every file that a device needs, after its SHA-256."""
        for files in self.models:
            yield from files
        yield from (file for file in (self.dataset, self.input_data) if file is not None)

    def moved(self, folder: Path) -> Job:
        """Return the same job with its files in ``folder``, each in a folder named after its SHA-256."""

        def place(file: tuple[str, Path] | None) -> tuple[str, Path] | None:
            return None if file is None else (file[0], folder / file[0] / file[1].name)

        models = tuple(tuple((sha256, folder / sha256 / path.name) for sha256, path in files) for files in self.models)
        return replace(self, models=models, dataset=place(self.dataset), input_data=place(self.input_data))


def expected_of(device: Device) -> protocol.Expected:
    """Return the properties that the inventory states for a device."""
    return protocol.Expected(board=device.board, machine=device.machine, power_mode=device.power_mode)


@dataclass(frozen=True)
class Measured:
    """The outcome of a job.

    Attributes:
        key: The job's key.
        result: The checked result.
        fetched: The text of the result as it arrived, and its signature.
        was_there: Whether the device already had the result.
    """

    key: str
    result: Result
    fetched: Fetched
    was_there: bool = True


class Watch:
    """The caller's view of a running job: it receives the progress, and can stop the job.

    Args:
        say: Receives the progress, one line of text per call.

    Attributes:
        stopped: Set to end the job soon.
        was_reached: Whether the device has answered.
        key: The key of the job while the device measures it; else None.
    """

    def __init__(self, say: Callable[[str], None] = lambda _text: None) -> None:
        self.say = say
        self.stopped = threading.Event()
        self.was_reached = False
        self.key: str | None = None

    def note_key(self, key: str | None) -> None:
        """Note that the device has begun to measure a job, or (None) has ended."""
        self.key = key


def measure(device: Device, job: Job, watch: Watch, *, wait_s: float = 3600.0) -> Measured:
    """Measure a job on a device, over connections that may break.

    Args:
        device: The device.
        job: The job.
        watch: Receives the progress, and can stop the job.
        wait_s: How long to wait while another program measures there, seconds.

    Raises:
        LinkError: The device cannot be reached, even after several tries.
        RefusedError: The device refused the job, or its benchmark failed.
        InputError: A file changed in the meantime, or the result is not that of these files.
    """
    _check_kind(device, job)
    for pause_s in (*PAUSES_S, None):
        try:
            key, was_there = _run(device, job, watch, wait_s)
            return replace(fetch_result(device, key, job), was_there=was_there)
        except LinkError as error:  # noqa: PERF203 - few rounds, each of minutes
            may_pass = error.may_pass or (error.while_starting and watch.was_reached)
            if not may_pass or pause_s is None or watch.stopped.is_set():
                raise
            watch.say(f"{error.message}; trying again in {pause_s:.0f} s")
            watch.stopped.wait(pause_s)
    raise AssertionError("the last round raises")


def _check_kind(device: Device, job: Job) -> None:
    """
    Raises:
        InputError: A model is to be measured on a microcontroller, or firmware on a board.
    """
    if device.mcu is not None and job.models:
        raise InputError(
            f"{device.name} is a microcontroller, which runs the model in its firmware",
            remedy=f"edgeprof fleet bench {FIRMWARE} --on {device.name}",
        )
    if device.mcu is None and not job.models:
        raise InputError(f"{device.name} is no microcontroller", remedy="Choose devices with mcu = …: --on NAME,kind:K")


def fetch_result(device: Device, key: str, job: Job) -> Measured:
    """Fetch the result of a job from its device.

    Raises:
        LinkError, RefusedError: The device cannot be reached, or has no result.
        InputError: The result arrived damaged, is not a result, or is that of other models.
    """
    with Link(device) as link:
        link.hello()
        fetched = link.fetch(key)
    if fetched.state != "done":
        raise LinkError(
            f"its result is not there ({fetched.state})",
            remedy="The benchmark was ended there, or its disk is full: start it again.",
            may_pass=fetched.state in {"absent", "running"},
        )
    measured = _read_result(device, key, fetched)
    _check_models(device, job, measured.result)
    return measured


def fetch_missing(device: Device, here: Collection[str]) -> Iterator[Measured]:
    """Fetch the finished jobs of a device that this machine does not know.

    Args:
        device: The device.
        here: The keys that this machine knows.

    Raises:
        LinkError, RefusedError: The device cannot be reached.
        InputError: A result arrived damaged.
    """
    with Link(device) as link:
        for key, _, _ in link.status().jobs:
            if key not in here:
                fetched = link.fetch(key)
                if fetched.state == "done":  # an interrupted job has no result
                    yield _read_result(device, key, fetched)


def _read_result(device: Device, key: str, fetched: Fetched) -> Measured:
    """Check and parse a fetched result.

    Raises:
        InputError: The text is not a result, or its signature is not the device's.
    """
    if device.signed_by is not None:
        verify(fetched.text, fetched.signature, device.signed_by, device.name)
    return Measured(key, document.from_json(fetched.text, source=f"the result of {device.name}"), fetched)


def cancel(device: Device, key: str) -> bool:
    """End a running job on a device, and return whether it was running.

    Raises:
        LinkError, RefusedError: The device cannot be reached.
    """
    with Link(device) as link:
        return link.ask(protocol.Cancel(key=key)).get("state") == "cancelled"


def _run(device: Device, job: Job, watch: Watch, wait_s: float) -> tuple[str, bool]:
    """Run the job until its device has a result; return the job's key, and whether the device had the result before."""
    with Link(device) as link:
        link.hello()
        watch.was_reached = True
        for sha256, path in dict(job.files()).items():
            link.put(sha256, path)
        answer = link.ask(job.request(device, wait_s=wait_s), timeout_s=None)
        answers = link.answers()
        while answer.get("state") == "waiting":
            watch.say(f"measured by {str(answer.get('measuring'))[:200]}: waited for")
            answer = next(answers)
        key = str(answer.get("key"))
        if answer.get("state") == "done":
            return key, True
        watch.note_key(key)
        watch.say("measuring")
        status, words = link.wait()
        watch.note_key(None)
        # With these statuses a benchmark has written a result, unless it reported an error of its own.
        if status in _WITH_RESULT and not (status and words.startswith("edgeprof: ")):
            return key, False
        if status == 255 or status < 0:
            raise LinkError("the link broke, or the benchmark was killed", may_pass=True)
        raise RefusedError(sentence(words) or f"its benchmark ended with {status}", remedy=None, exit_code=status)


class Task(abc.ABC, Generic[T]):
    """One call for one device, which an engine runs here or on another host."""

    device: Device
    #: The share of the device that the task needs: 1 to be alone on it, 0 to run beside another one.
    share = 0

    @property
    def name(self) -> str:
        """The name under which its progress is reported."""
        return self.device.name

    @property
    def resources(self) -> dict[str, float]:
        """What a host must hold to run it."""
        return {resource_of(self.device): self.share}

    @abc.abstractmethod
    def __call__(self, watch: Watch) -> T:
        """Run the task.

        Raises:
            EdgeprofError: The device cannot be reached, refused, or failed.
        """

    def packed(self) -> Task[T]:
        """Return the same task without a reference to this machine's files, to be sent to another host.

        Raises:
            InputError: A file cannot be read.
        """
        return self

    def checked(self, value: T) -> T:
        """Check a value that another host has returned.

        Raises:
            InputError: It is damaged, or not signed by the device.
        """
        return value


def resource_of(device: Device) -> str:
    """Return the name of the resource that a host has if it holds a device."""
    return f"device:{device.name}"


@dataclass(frozen=True)
class Measure(Task[Measured]):
    """Measure a job.

    Attributes:
        device: The device.
        job: The job.
        wait_s: How long to wait while another program measures there, seconds.
        contents: SHA-256 → content of each file, if the files are not on the machine that runs the task.
    """

    device: Device
    job: Job
    wait_s: float = 3600.0
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    share = 1

    def __call__(self, watch: Watch) -> Measured:
        if not self.contents:
            return measure(self.device, self.job, watch, wait_s=self.wait_s)
        with tempfile.TemporaryDirectory(prefix="edgeprof-fleet-") as name:
            job = self.job.moved(Path(name))
            for sha256, path in job.files():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(self.contents[sha256])
            return measure(self.device, job, watch, wait_s=self.wait_s)

    def packed(self) -> Measure:
        try:
            contents = {sha256: path.read_bytes() for sha256, path in self.job.files()}
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
        return replace(self, contents=contents)

    def checked(self, value: Measured) -> Measured:
        measured = replace(_read_result(self.device, value.key, value.fetched), was_there=value.was_there)
        _check_models(self.device, self.job, measured.result)
        return measured


@dataclass(frozen=True)
class AskState(Task[tuple["State", float]]):
    """Ask a device for its state, and by how many seconds its clock differs from that of the machine that asks."""

    device: Device

    def __call__(self, watch: Watch) -> tuple[State, float]:  # noqa: ARG002 - nothing to report
        asked_s = time.time()
        with Link(self.device) as link:
            state = link.status()
        return state, state.time_s - (asked_s + time.time()) / 2  # the device read its clock between the two moments


@dataclass(frozen=True)
class FetchMissing(Task[list[Measured]]):
    """Fetch the finished jobs of a device whose keys are not in ``here``."""

    device: Device
    here: frozenset[str]

    def __call__(self, watch: Watch) -> list[Measured]:  # noqa: ARG002 - nothing to report
        return list(fetch_missing(self.device, self.here))

    def checked(self, value: list[Measured]) -> list[Measured]:
        return [_read_result(self.device, measured.key, measured.fetched) for measured in value]


@dataclass(frozen=True)
class Cancel(Task[bool]):
    """End a running job, and return whether it was running."""

    device: Device
    key: str

    def __call__(self, watch: Watch) -> bool:  # noqa: ARG002 - nothing to report
        return cancel(self.device, self.key)


def sentence(words: str) -> str:
    """Return a benchmark's error from its output: edgeprof's own sentence with its remedy, or the last line."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith("edgeprof: "):
            return " ".join([line.removeprefix("edgeprof: "), *lines[number + 1 :]])
    return lines[-1] if lines else ""


def _check_models(device: Device, job: Job, result: Result) -> None:
    """Check that the result belongs to the files that were sent.

    Raises:
        InputError: The result is that of other files.
    """
    sent = [files[0][0] if len(files) == 1 else None for files in job.models]
    for sha256, variant in zip(sent, result.variants, strict=False):
        if None not in {sha256, variant.model.sha256} and sha256 != variant.model.sha256:
            raise InputError(f"{device.name} measured another file than was sent for {variant.name}")
    if len(result.variants) != (len(sent) or 1):
        raise InputError(f"{device.name} measured {len(result.variants)} models, and {len(sent)} were sent")


def model_files(spec: str) -> tuple[tuple[str, Path], ...]:
    """Return the files of a model with their SHA-256; the file to load comes first.

    Raises:
        InputError: The model is not a file, or its files are in several folders.
    """
    artifact = recognise(spec)
    files = artifact.files or ((artifact.path,) if artifact.path is not None and artifact.path.is_file() else ())
    if not files or artifact.format == "python":
        raise InputError(
            f"{spec} is no file that a fleet could send", remedy="Give model files; a device runs no code of yours."
        )
    if any(file.parent != files[0].parent for file in files):
        raise InputError(f"the files of {spec} lie in several folders", remedy="Put them into one.")
    try:
        return tuple((framing.file_sha256(file), file) for file in files)
    except OSError as error:
        raise InputError(f"cannot read {spec}: {error.strerror}") from None


def data_file(spec: str | None) -> tuple[str, Path] | None:
    """Return the SHA-256 and the path of a file with data; None without one.

    Raises:
        InputError: It is not an ``.npz``.
    """
    if spec is None:
        return None
    path = Path(spec)
    if path.suffix != ".npz" or not path.is_file():
        raise InputError(f"{spec} is no .npz file", remedy="A fleet takes data as one .npz file.")
    return framing.file_sha256(path), path


def _file(sha256: str, path: Path) -> File:
    return protocol.File(name=path.name, sha256=sha256)
