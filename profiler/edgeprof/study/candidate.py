"""The variants of a study on their way from a recipe to a file that can be measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeprof.artifact import recognise
from edgeprof.compression.conductor import compress
from edgeprof.compression.variant import check_chain, parse_chain
from edgeprof.errors import InputError, StorageError, UnavailableError, VariantError, about
from edgeprof.evaluation.load import load_dataset
from edgeprof.study.stages import is_file, parse_stage_recipe, pipeline_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeprof.artifact import Artifact
    from edgeprof.compression.target import Target
    from edgeprof.diagnosis.checks import Finding
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.plugins import PluginHost
    from edgeprof.study.recipe import StudyFile


class Replaced(NamedTuple):
    """A model that a variant of a pipeline has in place of another.

    Attributes:
        stage: The stage.
        model: The file.
        baseline: The stage's model in the baseline.
        recipe: How the file was made; empty if the study names it.
    """

    stage: str
    model: str
    baseline: str
    recipe: list[dict[str, Any]]


@dataclass
class Candidate:
    """One variant on its way through the study.

    Attributes:
        name: The name of its recipe.
        path: The variant's file, or a pipeline with its models; None if the variant could not be made.
        recipe: The provenance of each step.
        failure: Why the variant could not be made, does not load or answers NaN; None if it works.
        predicted: The speed-up that the saved arithmetic alone would give; None if it cannot be computed.
        findings: The findings of ``diagnose`` that speak against the variant.
        hopeless: Why the variant is not worth measuring; None if it is worth it.
        size_bytes: The size of the variant's file, once it has been inspected.
        replaced: For a pipeline: the models that differ from the baseline's.
    """

    name: str
    path: str | None = None
    recipe: list[dict[str, Any]] = field(default_factory=list)
    failure: VariantError | None = None
    predicted: float | None = None
    findings: list[Finding] = field(default_factory=list)
    hopeless: str | None = None
    size_bytes: int | None = None
    replaced: list[Replaced] = field(default_factory=list)


@dataclass(frozen=True)
class Maker:
    """Makes variants of one model by chains of compressors.

    Attributes:
        base: The model.
        host: The plugins.
        directory: The folder for variants, which keeps those of earlier runs.
        train: Data to calibrate and train on.
        study: The study.
        target: The processor that variants are made for; None for this machine's.
        say: Called with one line of text for each step.
    """

    base: Artifact
    host: PluginHost
    directory: Path
    train: Dataset | None
    study: StudyFile
    target: Target | None
    say: Callable[[str], None]

    def check(self, chain: str) -> None:
        """Check a chain before anything is made.

        Raises:
            InputError: A name or a value is not valid.
        """
        check_chain(parse_chain(chain), self.host.of("compressors"), self.base.format)

    def make(self, chain: str, name: str) -> Candidate:
        """Make a variant, or find it where an earlier run made it; one that cannot be made says why.

        Args:
            chain: The chain.
            name: The variant's name.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            entry = self.make_entry(chain)
        except StorageError:
            raise
        except (InputError, UnavailableError) as error:
            # A recipe that does not fit the model or this device fails alone; the study goes on with the others.
            self.say(about(name, error.message))
            return Candidate(name, failure=VariantError.of(error))
        path = None if entry["model"] is None else str(self.directory / entry["model"]["path"])
        candidate = Candidate(name, path, entry["recipe"])
        if entry["status"] == "failed":
            reason = entry["reasons"][0]
            candidate.failure = VariantError(reason["message"], remedy=reason["remedy"], code=reason["code"])
        return candidate

    def make_entry(self, chain: str) -> dict[str, Any]:
        """Make a variant, or find it where an earlier run made it; return its entry of the manifest.

        Raises:
            EdgeprofError: it cannot be made, or not be written.
        """
        manifest = compress(
            self.base,
            [chain],
            self.host,
            self.directory,
            self.train,
            seed=self.study.seed,
            shapes=self.study.protocol.get("shapes"),
            dtypes=self.study.protocol.get("dtypes"),
            loading_device=self.study.protocol.get("device"),
            options=self.study.protocol.get("options"),
            device=self.target,
            note=self.say,
        )
        (entry,) = manifest["variants"]
        return dict(entry)


class StageMaker:
    """Makes variants of a pipeline by other models of its stages; ``check`` and ``make`` as for ``Maker``.

    Args:
        study: The study, with stages.
        own_formats: The formats that plugins' runtimes recognise.
        directory: The folder for variants; each stage gets a subfolder.
        host: The plugins.
        target: The processor that variants are made for.
        say: Called with one line of text for each step.

    Raises:
        InputError: A stage's model or its data cannot be used.
    """

    def __init__(
        self,
        study: StudyFile,
        own_formats: Mapping[str, tuple[int, bytes]],
        directory: Path,
        host: PluginHost,
        *,
        target: Target | None,
        say: Callable[[str], None],
    ) -> None:
        self._study, self._own_formats, self._folder = study, own_formats, study.path.parent
        self._makers = {
            name: Maker(
                recognise(stage.model, own_formats),
                host,
                directory / name,
                None if stage.train is None else load_dataset(stage.train, host, stage.preprocess),
                study,
                target,
                say,
            )
            for name, stage in study.stages.items()
        }

    def check(self, recipe: str) -> None:
        for stage, model in parse_stage_recipe(recipe, self._study.stages, self._folder).items():
            if is_file(model, self._folder):
                recognise(str(self._folder / model), self._own_formats)
            else:
                self._makers[stage].check(model)

    def make(self, recipe: str, name: str) -> Candidate:
        candidate = Candidate(name)
        stages = self._study.stages
        for stage, model in parse_stage_recipe(recipe, stages, self._folder).items():
            if is_file(model, self._folder):
                part = Candidate(name, str(self._folder / model))
            else:
                part = self._makers[stage].make(model, name)
            if part.path is None or part.failure is not None:
                candidate.failure = part.failure
                return candidate
            candidate.replaced.append(Replaced(stage, part.path, stages[stage].model, part.recipe))
            candidate.recipe += [{**step, "stage": stage} for step in part.recipe]
        models = {new.stage: new.model for new in candidate.replaced}
        candidate.path = pipeline_spec(self._study.model, stages, models)
        return candidate
