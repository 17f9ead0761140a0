"""Run a study: make every variant, inspect it cheaply, measure it beside its baseline, and recommend one to ship.

Each finished step is written to disk before the next one begins, so that a study that was killed resumes where it
stopped. Variants are recorded in the manifest of ``compress``; measurements are result files whose names are hashes of
everything that the measurement depends on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import units
from edgeprof.artifact import recognise
from edgeprof.artifact.artifact import short_name
from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.compression.variant import safe, stem
from edgeprof.diagnosis.checks import Finding
from edgeprof.diagnosis.evidence import blame, explain
from edgeprof.errors import EdgeprofError, InputError, UnavailableError, about
from edgeprof.evaluation import labels
from edgeprof.evaluation.load import load_dataset, load_metric
from edgeprof.launch.choose import own_formats
from edgeprof.launch.lock import measuring
from edgeprof.results import document, files, schema
from edgeprof.results.ids import new_id
from edgeprof.sensing.device import host as context
from edgeprof.study import search as study_search
from edgeprof.study.candidate import Candidate, Maker, StageMaker
from edgeprof.study.outcome import Outcome
from edgeprof.study.stages import frames_fingerprint
from edgeprof.verdicts.cost import Costs
from edgeprof.verdicts.recommend import budgets, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgeprof.artifact import Artifact
    from edgeprof.benchmark.progress import Progress
    from edgeprof.compression.target import Target
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.evaluation.metric import Metric
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.study.recipe import Search, StudyFile
    from edgeprof.study.search import Judgement


def prepare(
    studies: Sequence[StudyFile],
    directory: Path,
    host: PluginHost,
    roots: Roots,
    *,
    progress: Progress,
    say: Callable[[str], None] = lambda _: None,
    target: Target | None = None,
) -> list[StudySweep]:
    """Check every model, its data, recipes and protocol before any of them is run; nothing is made or written.

    Args:
        studies: One study per model (``recipe.load``).
        directory: The folder for variants, results and the outcome; each of several models gets a subfolder.
        host: The plugins.
        roots: Where /sys, /proc and /dev are.
        progress: Watches each bench.
        say: Called with one line of text for each step.
        target: The processor that variants are made for; None for this machine's.

    Returns:
        The prepared sweeps, one per model, for ``sweep`` to run.

    Raises:
        InputError: a model, data or a recipe cannot be used.
        UnavailableError: a library that the study needs is not here.
    """
    formats = own_formats(host)
    bases = [recognise(study.spec, formats) for study in studies]
    prepared = []
    for study, base in zip(studies, bases, strict=True):
        # Models whose files bear the same name get folders named after the path that the study gives.
        alone = [stem(model) for model in bases].count(stem(base)) == 1
        model_directory = directory / (stem(base) if alone else safe(study.model)) if len(studies) > 1 else directory
        prepared.append(StudySweep(study, base, model_directory, host, roots, progress, say, target))
    return prepared


def sweep(prepared: Sequence[StudySweep], *, prune_hopeless: bool = False) -> Iterator[Outcome]:
    """Run a study model by model, skipping the steps that an earlier run finished.

    Args:
        prepared: The sweeps to run (``prepare``).
        prune_hopeless: Do not measure variants that the cheap inspection calls hopeless; otherwise they come last.

    Yields:
        The outcome of each model. If one of several models fails, the others still run; its error is raised at the end.

    Raises:
        InputError: the protocol cannot be used, or files cannot be written.
        BusyError: another measurement is running on this device.
        KeyboardInterrupt: it was interrupted before anything was measured.
    """
    several = len(prepared) > 1
    trouble: EdgeprofError | None = None
    for number, model_sweep in enumerate(prepared, start=1):
        if several:
            model_sweep.say(f"model {number}/{len(prepared)}: {model_sweep.study.model}")
        try:
            outcome = model_sweep.run(prune_hopeless=prune_hopeless)
        except EdgeprofError as error:
            if not several:
                raise
            model_sweep.say(about(str(model_sweep.study.model), error.message))
            trouble = trouble or error
            continue
        yield outcome
        if outcome.result.interrupted:
            return
    if trouble is not None:
        raise trouble


class StudySweep:
    def __init__(  # noqa: PLR0917 - called once, above
        self,
        study: StudyFile,
        base: Artifact,
        directory: Path,
        host: PluginHost,
        roots: Roots,
        progress: Progress,
        say: Callable[[str], None],
        target: Target | None,
    ) -> None:
        self.target = target
        self.study, self.base, self.directory, self.host, self.roots = study, base, directory, host, roots
        self.progress, self.say = progress, say
        self.reference = ModelRequest(study.spec, "baseline")
        self.data: Dataset | None = None
        self.metric: Metric | None = None
        if study.dataset is not None:
            self.data = load_dataset(study.dataset, host, study.preprocess)
            self.metric = load_metric(study.metric, host)
            labels.require_some(self.data.labels, self.data.name)
            self.metric.check(self.data.labels)
        self.maker = self._make_maker(directory / "variants")
        tried = study.search.examples() if study.search else []
        for chain in [*study.chains, *([study.baseline] if study.baseline else []), *tried]:
            self._check_chain(chain)
        if study.search:
            study_search.find_searcher(host)
        self.fingerprint = context.describe_host(roots).fingerprint
        product = study.product
        self.limits, self.requirements = product.limits(study.limits) if product else (study.limits, [])
        self.fresh = False

    def _make_maker(self, directory: Path) -> Maker | StageMaker:
        study = self.study
        if study.stages:
            return StageMaker(study, self.base.own_formats, directory, self.host, target=self.target, say=self.say)
        train = self.data if study.train is None else load_dataset(study.train, self.host, study.preprocess)
        return Maker(self.base, self.host, directory, train, study, self.target, self.say)

    def _check_chain(self, chain: str) -> None:
        try:
            self.maker.check(chain)
        except InputError as error:
            raise InputError(f"{self.study.path}: {chain}: {error.message}", remedy=error.remedy) from None

    def run(self, *, prune_hopeless: bool) -> Outcome:
        for line in self.requirements:
            self.say(line)
        self._make_directory()
        candidates: list[Candidate] = []
        skipped: dict[str, str] = {}
        done: list[schema.Result] = []
        try:
            with measuring(self.roots, f"sweep {Path(self.study.path).name}"):
                self._measure_all(candidates, done, skipped, prune_hopeless=prune_hopeless)
        except KeyboardInterrupt:
            if not done:
                self.say("interrupted: what was made is kept, and the same command continues from there")
                raise
            done[-1].interrupted = True
        names = list(dict.fromkeys(candidate.name for candidate in candidates))
        result = merge_results(done, names)
        for candidate in candidates:
            self._explain_disappointment(result, candidate)
        result.variants += [self.failed_variant(candidate) for candidate in candidates if candidate.failure is not None]
        return self._write_outcome(result, skipped)

    def make_reference(self) -> None:
        """Make the baseline that the study names, if it names one, for a fleet that measures it elsewhere.

        Raises:
            InputError: it cannot be made, or files cannot be written.
        """
        self._make_directory()
        if self.study.baseline is not None:
            self._make_reference(self.study.baseline)

    def _measure_all(
        self, candidates: list[Candidate], done: list[schema.Result], skipped: dict[str, str], *, prune_hopeless: bool
    ) -> None:
        """Make, inspect and measure every variant. The three collections fill as it runs, also if it is interrupted."""
        if self.study.baseline is not None:
            self._make_reference(self.study.baseline)
        for chain in self.study.chains:
            candidates.append(self.make_candidate(chain))
            self._look_at(candidates[-1])
        # The promising first, so that an early end still has them.
        able = [candidate for candidate in candidates if candidate.failure is None]
        for candidate in sorted(able, key=lambda c: (c.hopeless is not None, -(c.predicted or 1.0))):
            if prune_hopeless and candidate.hopeless is not None:
                skipped[candidate.name] = candidate.hopeless
                self.say(f"{candidate.name}: not measured, {candidate.hopeless}")
                continue
            if candidate.hopeless is not None:
                self.say(f"{candidate.name}: little hope ({candidate.hopeless}), so it is measured late")
            done.append(self._measure_pair(candidate))
            if done[-1].interrupted:
                return
        if self.study.search is not None:
            self._run_search(self.study.search, candidates, done)
        if not done:
            done.append(self._measure_pair(None))

    def _make_reference(self, chain: str) -> None:
        """Make the variant that the study names as its baseline, and compare the others with it."""
        candidate = self.make_candidate(chain)
        if candidate.failure is not None or candidate.path is None:
            why = candidate.failure.message if candidate.failure else "no file"
            raise InputError(
                f"{self.study.path}: the baseline {chain} of {self.study.model} could not be made: {why}",
                remedy=candidate.failure.remedy if candidate.failure else None,
            )
        self.reference = ModelRequest(candidate.path, "baseline", candidate.recipe)

    @staticmethod
    def _explain_disappointment(result: schema.Result, candidate: Candidate) -> None:
        """Add to a disappointing variant those findings of the inspection that explain its disappointing figures."""
        variant = next((v for v in result.variants if v.name == candidate.name), None)
        comparison = next((c for c in result.comparisons if c.variant == candidate.name), None)
        if variant is not None and comparison is not None:
            blame(variant, comparison, result.variants[0], candidate.findings)

    def failed_variant(self, candidate: Candidate) -> schema.Variant:
        """Return the table entry of a variant that could not be made, does not load or answers NaN."""
        assert candidate.failure is not None
        reason = schema.Reason(
            code=candidate.failure.code, message=candidate.failure.message, remedy=candidate.failure.remedy
        )
        artifact = None if candidate.path is None else recognise(candidate.path, self.base.own_formats)
        model = schema.Model(
            path=candidate.path or self.base.spec,
            format=artifact.format if artifact else self.base.format,
            sha256=artifact.sha256 if artifact else None,
            size_bytes=artifact.size_bytes if artifact else None,
        )
        return schema.Variant(
            name=candidate.name, recipe=candidate.recipe, status="failed", reasons=[reason], model=model, runtime=None
        )

    def _run_search(self, space: Search, candidates: list[Candidate], done: list[schema.Result]) -> None:
        """Let a search propose further variants; results of an earlier run are read from their files."""
        database = self.directory / "search.db"
        seen = {candidate.name for candidate in candidates}

        def judge(chain: str) -> Judgement | None:
            candidate = self.make_candidate(chain)
            if candidate.name not in seen:
                seen.add(candidate.name)
                candidates.append(candidate)
                self._look_at(candidate)
                if candidate.failure is None:
                    done.append(self._measure_pair(candidate))
            if candidate.failure is not None:
                return None
            result = next((r for r in done if r.variants[-1].name == candidate.name), None)
            return None if result is None else self.judgement_of(result)

        for chain in study_search.chains(database, self.host):
            judge(chain)
        study_search.search(space, database, self.study.seed, judge, self.host)

    def searched_chains(self, device: str) -> list[str]:
        """The chains that an earlier run's search judged for a device of a fleet."""
        return list(study_search.chains(self._database_of(device), self.host))

    def next_chain(self, device: str, judgements: Mapping[str, Judgement | None]) -> str | None:
        """The next chain that the search of a device of a fleet proposes; None at its end."""
        assert self.study.search is not None
        database = self._database_of(device)
        return study_search.next_chain(self.study.search, database, self.study.seed, judgements, self.host)

    def _database_of(self, device: str) -> Path:
        return self.directory / f"search-{safe(device)}.db"

    def judgement_of(self, result: schema.Result) -> Judgement | None:
        """What a search learns of a result's last variant; None where it cannot be judged."""
        if result.interrupted:
            raise KeyboardInterrupt
        variant = result.variants[-1]
        costs = Costs.of(result)
        spent = costs.get(variant, "energy") or costs.get(variant, "latency")
        unknown = variant.accuracy is None and self.data is not None
        if spent is None or unknown or variant.status in {"failed", "invalid"}:
            return None
        checks = budgets(result, self.limits, self.study.product)
        broken = sum(check.variant == variant.name and not check.passed for check in checks)
        accuracy = variant.accuracy.sign * variant.accuracy.value if variant.accuracy else 0.0
        return accuracy, spent.value, float(variant.model.size_compressed_bytes or 0), broken

    def _make_directory(self) -> None:
        try:
            (self.directory / "results").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.directory}: {error.strerror}", remedy="Choose another --dir DIR."
            ) from None

    def make_candidate(self, chain: str) -> Candidate:
        """Make a variant, or find it where an earlier run made it; one that cannot be made says why.

        Raises:
            StorageError: it cannot be written.
        """
        return self.maker.make(chain, self.study.name_of(chain))

    def _look_at(self, candidate: Candidate) -> None:
        """Inspect a variant by cheap proxies: size, arithmetic, signal to noise, agreement on a few samples."""
        if candidate.failure is not None or candidate.path is None:
            return
        variant = recognise(candidate.path, self.base.own_formats)
        candidate.size_bytes = variant.size_bytes
        path = (
            self.directory / "results" / f"look-{self._result_key([ModelRequest(candidate.path, candidate.name)])}.json"
        )
        try:
            seen = json.loads(path.read_text("utf-8"))
            candidate.findings = [Finding(**saved) for saved in seen["findings"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self.say(f"{candidate.name}: inspecting")
            findings, predicted, facts = self._diagnose(candidate, variant)
            seen = {
                "predicted": predicted,
                "findings": [asdict(finding) for finding in findings],
                "facts": facts,
            }
            files.write(path, json.dumps(seen, indent=2) + "\n")
            candidate.findings = findings
        candidate.predicted = seen["predicted"]
        candidate.hopeless = self._why_hopeless(candidate, seen["facts"], variant)

    def _diagnose(self, candidate: Candidate, variant: Artifact) -> tuple[list[Finding], float | None, dict[str, Any]]:
        """Return what speaks against a variant, its predicted speed-up, and further facts.

        Of a pipeline, the models that were replaced are examined, each beside the one that it replaces.
        """
        if not candidate.replaced:
            baseline = recognise(self.reference.spec, self.base.own_formats)
            diagnosis = explain(
                variant, self.host, self.roots, baseline=baseline, data=self.data, recipe=candidate.recipe
            )
            return [f for f in diagnosis.findings if f.status != "ok"], diagnosis.predicted, diagnosis.facts
        findings: list[Finding] = []
        speed_ups, facts = [], {}
        for stage, model, before, recipe in candidate.replaced:
            mine, its = (recognise(path, self.base.own_formats) for path in (model, before))
            diagnosis = explain(mine, self.host, self.roots, baseline=its, recipe=recipe)
            findings += [replace(f, sentence=f"{stage}: {f.sentence}") for f in diagnosis.findings if f.status != "ok"]
            speed_ups += [] if diagnosis.predicted is None else [diagnosis.predicted]
            facts = diagnosis.facts
        return findings, max(speed_ups, default=None), facts

    def _why_hopeless(self, candidate: Candidate, facts: dict[str, Any], variant: Artifact) -> str | None:
        limit, size = self.limits.max_size_bytes, variant.size_bytes
        if limit is not None and size is not None and size > limit:
            return f"its file has {units.size(size)}, the budget is {units.size(int(limit))}"
        agreement = facts["agreement"]
        if agreement is not None and agreement < 0.5:
            return f"it agrees with the baseline on {agreement:.0%} of {facts['agreement_samples']} samples"
        before = recognise(self.reference.spec, self.base.own_formats).size_bytes
        smaller = size is not None and before is not None and size < 0.95 * before
        if candidate.predicted is not None and candidate.predicted <= 1.01 and not smaller:
            return f"no less arithmetic (predicted {candidate.predicted:.2f} ×) and no smaller file"
        return None

    def _measure_pair(self, candidate: Candidate | None) -> schema.Result:
        """Measure the baseline and one variant in turns, or load the result if its file exists already."""
        models = [self.reference]
        if candidate is not None:
            assert candidate.path is not None
            models.append(ModelRequest(candidate.path, candidate.name, candidate.recipe))
        path = self.directory / "results" / f"{self._result_key(models)}.json"
        if path.exists():
            try:
                stored = document.load(path)
            except EdgeprofError:
                stored = None
            if stored is not None and not stored.interrupted:
                self.say(f"{models[-1].name}: already measured")
                return stored
        self.say(f"{models[-1].name}: measuring")
        request = BenchRequest(
            models=models, dataset=self.data, metric=self.metric, seed=self.study.seed, **self.study.protocol
        )
        result = bench(request, self.host, self.roots, self.progress)
        refused = [variant.reasons[0] for variant in result.variants if variant.runtime is None]
        if result.variants[0].runtime is None:
            raise UnavailableError(f"the baseline: {refused[0].message}", remedy=refused[0].remedy)
        self.fresh = True
        if not (result.interrupted or refused):  # a refused variant may run next time, e.g. after an install
            files.write(path, document.to_json(result) + "\n")
        return result

    def _result_key(self, models: list[ModelRequest]) -> str:
        """Return a file name that hashes everything that a measurement depends on."""
        judge = self.data
        data = None if judge is None else (judge.name, judge.preprocessing, judge.fingerprint(), self.study.metric)
        frames = self.study.protocol.get("frames")
        # A Python target is a file and an attribute; the same file may hold several models.
        artifacts = [(model.name, recognise(model.spec, self.base.own_formats)) for model in models]
        parts = [
            [(name, a.sha256, short_name(a.spec) if a.format == "python" else "") for name, a in artifacts],
            self.study.protocol, self.study.seed, data, self.fingerprint,
            *([] if frames is None else [frames_fingerprint(frames)]),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]

    def _write_outcome(self, result: schema.Result, skipped: dict[str, str]) -> Outcome:
        checks = budgets(result, self.limits, self.study.product)
        judge(result, checks)
        outcome = Outcome(
            self.study.model,
            self.directory,
            result,
            checks,
            self.limits,
            self.requirements,
            skipped,
            self.fresh,
        )
        files.write(self.directory / "result.json", document.to_json(outcome.whole()) + "\n")
        files.write(self.directory / "study.json", json.dumps(outcome.as_json(), indent=2) + "\n")
        return outcome


def merge_results(results: list[schema.Result], order: list[str]) -> schema.Result:
    """Merge the results of several pairs: the first pair's baseline, and every variant compared within its pair."""
    created = datetime.now(timezone.utc)
    merged = schema.Result(
        **{name: getattr(results[0], name) for name in ("edgeprof", "host", "sensors", "protocol", "self_cost")},
        reasons=list({reason.code: reason for result in reversed(results) for reason in result.reasons}.values()),
        id=new_id(created),
        created=created.isoformat(timespec="seconds"),
        variants=[results[0].variants[0]],
        interrupted=any(result.interrupted for result in results),
    )
    for result in sorted(results, key=lambda r: order.index(r.variants[-1].name) if len(r.variants) > 1 else -1):
        merged.variants += result.variants[1:]
        merged.comparisons += result.comparisons
    return merged


def default_directory(path: Path) -> Path:
    """Return the folder for a study's files where --dir is absent: one beside the study file."""
    return path.with_suffix(".study")
