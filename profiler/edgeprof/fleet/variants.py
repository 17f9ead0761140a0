"""Variants of a study that hosts with the resource ``compress`` make, and the desk keeps.

A host runs ``edgeprof compress`` on the files that it is sent, and returns the variant's files with their entry of the
manifest. Their SHA-256 is checked at the desk, which makes nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import __version__
from edgeprof.artifact.recognition import recognise
from edgeprof.compression.variant import chain_name, parse_chain
from edgeprof.errors import EdgeprofError, InputError
from edgeprof.fleet.cluster import COMPRESS
from edgeprof.fleet.task import Task, data_file, model_files, sentence
from edgeprof.results import files
from edgeprof.study.candidate import Maker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeprof.fleet.engine import Engine
    from edgeprof.fleet.task import Watch
    from edgeprof.study.candidate import StageMaker
    from edgeprof.study.recipe import StudyFile


@dataclass(frozen=True)
class Made:
    """What a host has made.

    Attributes:
        entry: The variant's entry in the manifest of ``edgeprof compress``.
        contents: Path below the folder of variants → content, of each of the variant's files.
    """

    entry: dict[str, Any]
    contents: dict[str, bytes]


@dataclass(frozen=True)
class MakeVariant(Task[Made]):
    """Make one variant.

    Attributes:
        chain: The chain of compression steps, as after ``--with``.
        model: SHA-256 and path of each file of the model, the one to load first.
        dataset: The data to calibrate or train with, or None.
        flags: Further arguments of ``edgeprof compress``.
        contents: SHA-256 → content of each file, if the files are not on the machine that runs the task.
    """

    chain: str
    model: tuple[tuple[str, Path], ...]
    dataset: tuple[str, Path] | None
    flags: tuple[str, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.chain

    @property
    def resources(self) -> dict[str, float]:
        return {COMPRESS: 1}

    @property
    def key(self) -> str:
        """A hash of everything that the variant depends on."""
        data = None if self.dataset is None else self.dataset[0]
        parts = [self.chain, [(sha256, path.name) for sha256, path in self.model], data, self.flags, __version__]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def packed(self) -> MakeVariant:
        sent = [*self.model, *([] if self.dataset is None else [self.dataset])]
        try:
            return replace(self, contents={sha256: path.read_bytes() for sha256, path in sent})
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None

    def __call__(self, watch: Watch) -> Made:
        watch.say("making")
        with tempfile.TemporaryDirectory(prefix="edgeprof-compress-") as name:
            folder = Path(name)
            for sha256, path in self.model:
                (folder / path.name).write_bytes(self.contents[sha256])
            arguments = [str(folder / self.model[0][1].name), f"--with={self.chain}", *self.flags]
            if self.dataset is not None:
                (folder / "data").mkdir()
                data = folder / "data" / self.dataset[1].name
                data.write_bytes(self.contents[self.dataset[0]])
                arguments.append(f"--dataset={data}")
            return _compress(arguments, folder / "variants")

    def checked(self, value: Made) -> Made:
        for name in value.contents:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise InputError(f"a host has returned a file with the path {name}")
        return value


def _compress(arguments: Sequence[str], directory: Path) -> Made:
    """Run ``edgeprof compress`` and read what it has made.

    Raises:
        InputError: It ended with an error.
    """
    command = [sys.executable, "-m", "edgeprof", "compress", *arguments, f"--output={directory}", "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        (entry,) = json.loads(done.stdout)["variants"]
    except (ValueError, KeyError):
        raise InputError(sentence(done.stderr) or f"edgeprof compress ended with {done.returncode}") from None
    paths = [path for path in directory.rglob("*") if path.is_file() and not path.name.endswith(".compress.json")]
    return Made(entry, {str(path.relative_to(directory)): path.read_bytes() for path in paths})


@dataclass(frozen=True)
class Workshop(Maker):
    """Makes the variants of one study on the hosts of a cluster, and keeps them in the study's folder.

    Attributes:
        engine: The cluster.
        flags: Further arguments of ``edgeprof compress``.
        model: The files of the model (``MakeVariant.model``).
        data: The data to calibrate or train with, or None.
    """

    engine: Engine
    flags: tuple[str, ...]
    model: tuple[tuple[str, Path], ...]
    data: tuple[str, Path] | None

    @classmethod
    def of(cls, engine: Engine, maker: Maker | StageMaker, study: StudyFile, flags: Sequence[str]) -> Workshop:
        """Take the place of a study's own maker.

        Raises:
            InputError: The model or the data are not files that can be sent.
        """
        assert isinstance(maker, Maker)  # a fleet refuses studies of stages
        given = {part.name: getattr(maker, part.name) for part in fields(Maker)}
        data = data_file(study.train or study.dataset)
        return cls(**given, engine=engine, flags=tuple(flags), model=model_files(study.model), data=data)

    def make_all(self, chains: Sequence[str]) -> None:
        """Make the variants of several chains at the same time; one that fails is left to ``make_entry``."""
        tasks = [self._task(chain) for chain in dict.fromkeys(chains) if not _names_a_file(chain)]
        for task, outcome in self.engine.run([task for task in tasks if self._known(task) is None]):
            assert isinstance(task, MakeVariant)
            if isinstance(outcome, Made):
                self._keep(task, outcome)

    def make_entry(self, chain: str) -> dict[str, Any]:
        """Return the manifest's entry of a variant, which is made unless it is there.

        Raises:
            EdgeprofError: It cannot be made.
        """
        if _names_a_file(chain):
            self.say(f"{chain}: made here, because it names a file of this machine")
            return super().make_entry(chain)
        task = self._task(chain)
        known = self._known(task)
        if known is not None:
            self.say(f"{chain_name(parse_chain(chain))}: already made")
            return known
        self.say(f"{chain_name(parse_chain(chain))}: made on another host")
        ((_, outcome),) = self.engine.run([task])
        if isinstance(outcome, EdgeprofError):
            raise InputError(outcome.message, remedy=outcome.remedy)
        return self._keep(task, outcome)

    def _task(self, chain: str) -> MakeVariant:
        return MakeVariant(chain, self.model, self.data, self.flags)

    def _known(self, task: MakeVariant) -> dict[str, Any] | None:
        """Return the entry of a variant that is there and whole; else None."""
        try:
            entry: dict[str, Any] = json.loads(self._record(task).read_text("utf-8"))
            self._check(entry)
        except (OSError, ValueError, KeyError, TypeError, EdgeprofError):
            return None
        return entry

    def _keep(self, task: MakeVariant, variant: Made) -> dict[str, Any]:
        """Write a variant's files and its entry.

        Raises:
            InputError: A file cannot be written, or the files are not those of the entry.
        """
        for name, content in variant.contents.items():
            path = self.directory / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError as error:
                raise files.cannot_write(path, error) from None
        self._check(variant.entry)
        files.write(self._record(task), json.dumps(variant.entry, indent=2) + "\n")
        return variant.entry

    def _check(self, entry: Mapping[str, Any]) -> None:
        """
        Raises:
            InputError: The variant's files are not those of its entry.
        """
        model = entry["model"]
        if model is not None:
            here = recognise(str(self.directory / model["path"]), self.base.own_formats).sha256
            if here != model["sha256"]:
                raise InputError(f"{model['path']} arrived damaged: its SHA-256 is another one")

    def _record(self, task: MakeVariant) -> Path:
        return self.directory / f"{task.key[:24]}.host.json"


def _names_a_file(chain: str) -> bool:
    """Return whether a parameter of a chain is a file of this machine, as a teacher to distill from."""
    return any(Path(value).is_file() for step in parse_chain(chain) for value in step.given.values())
