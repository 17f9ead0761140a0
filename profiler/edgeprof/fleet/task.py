"""One job on one device, from the files on this machine to the checked result.

``measure`` needs only its arguments and ssh, so that a thread of this process, or a worker of a cluster on a host that
reaches the device, can run it. It may be repeated after any failure: a finished job is not measured again, because the
device answers with the result of the same key.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgeprof.artifact.recognition import recognise
from edgeprof.errors import InputError
from edgeprof.fleet import protocol
from edgeprof.fleet.door import bench_flags
from edgeprof.fleet.link import Fetched, Link, LinkError, RefusedError
from edgeprof.fleet.signature import verify
from edgeprof.results import document

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from edgeprof.fleet.inventory import Device
    from edgeprof.fleet.protocol import Bench, File
    from edgeprof.results.schema import Result

#: Pauses (s) before each further try after a broken connection.
PAUSES_S = (2.0, 10.0, 30.0, 60.0)
#: Exit statuses of a benchmark that has written a result: done, ``--strict`` failed, a variant failed.
_WITH_RESULT = (0, 1, 3)


@dataclass(frozen=True)
class Job:
    """What to measure, and how; a job is the same for all devices.

    Attributes:
        models: The files of each model, the one to load first.
        flags: Flags of ``edgeprof bench`` without their hyphens.
        dataset: Labelled data, or None.
        input_data: Real inputs, or None.
        repeat: 1; a higher number requests a further measurement of the same.
    """

    models: tuple[tuple[tuple[str, Path], ...], ...]
    flags: Mapping[str, list[str]] = field(default_factory=dict)
    dataset: tuple[str, Path] | None = None
    input_data: tuple[str, Path] | None = None
    repeat: int = 1

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

        Raises:
            InputError: A model is not a file, or a fleet may not give a flag.
        """
        job = cls(
            tuple(_files_of(model) for model in models),
            flags,
            _data(dataset),
            _data(input_data),
            repeat,
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
            request.expected = expected_of(device)
            request.rest_s, request.start_below_c = device.rest_s, device.start_below_c
        return request

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield every file that a device needs, after its SHA-256."""
        for files in self.models:
            yield from files
        yield from (file for file in (self.dataset, self.input_data) if file is not None)


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
    """

    def __init__(self, say: Callable[[str], None] = lambda _text: None) -> None:
        self.say = say
        self.stopped = threading.Event()
        self.was_reached = False
        self.key: str | None = None


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
        watch.key = key
        watch.say("measuring")
        status, words = link.wait()
        watch.key = None
        # With these statuses a benchmark has written a result, unless it reported an error of its own.
        if status in _WITH_RESULT and not (status and words.startswith("edgeprof: ")):
            return key, False
        if status == 255 or status < 0:
            raise LinkError("the link broke, or the benchmark was killed", may_pass=True)
        raise RefusedError(_sentence(words) or f"its benchmark ended with {status}", remedy=None, exit_code=status)


def _sentence(words: str) -> str:
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
    if len(result.variants) != len(sent):
        raise InputError(f"{device.name} measured {len(result.variants)} models, and {len(sent)} were sent")


def _files_of(spec: str) -> tuple[tuple[str, Path], ...]:
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
        return tuple((protocol.file_sha256(file), file) for file in files)
    except OSError as error:
        raise InputError(f"cannot read {spec}: {error.strerror}") from None


def _data(spec: str | None) -> tuple[str, Path] | None:
    if spec is None:
        return None
    path = Path(spec)
    if path.suffix != ".npz" or not path.is_file():
        raise InputError(f"{spec} is no .npz file", remedy="A fleet takes data as one .npz file.")
    return protocol.file_sha256(path), path


def _file(sha256: str, path: Path) -> File:
    return protocol.File(name=path.name, sha256=sha256)
