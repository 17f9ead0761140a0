"""A whole study: make every variant, look at each cheaply, measure each beside its baseline, and say which to ship.

Every step that is done is written down before the next begins, so that a study that was killed goes on where it was:
variants in the manifest of ``compress``, measurements as result files named after everything that they depend on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof import units
from edgeprof.artifact import recognise
from edgeprof.benchmark.conductor import bench
from edgeprof.benchmark.request import BenchRequest, ModelRequest
from edgeprof.compression.conductor import compress
from edgeprof.compression.variant import chain_name, check_chain, parse_chain, safe, stem
from edgeprof.diagnosis.checks import Finding
from edgeprof.diagnosis.evidence import blame, explain
from edgeprof.errors import EdgeprofError, InputError, StorageError, UnavailableError, VariantError
from edgeprof.evaluation import labels
from edgeprof.evaluation.load import load_dataset, load_metric
from edgeprof.launch.choose import own_formats
from edgeprof.launch.lock import measuring
from edgeprof.results import document, files, schema
from edgeprof.results.ids import new_id
from edgeprof.sensing.device import host as context
from edgeprof.study import search as study_search
from edgeprof.study.outcome import Outcome
from edgeprof.verdicts.cost import Costs
from edgeprof.verdicts.recommend import budgets, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeprof.artifact import Artifact
    from edgeprof.benchmark.conductor import Progress
    from edgeprof.compression.target import Target
    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.evaluation.metric import Metric
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.study.recipe import Search, StudyFile
    from edgeprof.study.search import Judgement


@dataclass
class Candidate:
    """One variant on its way through the study.

    Attributes:
        name: Its chain.
        path: Its file; None where it could not be made.
        recipe: Its provenance.
        failure: Why it could not be made, or fails.
        predicted: Speed-up by arithmetic alone; None where it cannot be told.
        findings: What ``diagnose`` holds against it.
        hopeless: Why it is not worth measuring; None: it is.
    """

    name: str
    path: str | None = None
    recipe: list[dict[str, Any]] = field(default_factory=list)
    failure: VariantError | None = None
    predicted: float | None = None
    findings: list[Finding] = field(default_factory=list)
    hopeless: str | None = None
    size_bytes: int | None = None


def prepare(
    studies: Sequence[StudyFile],
    directory: Path,
    host: PluginHost,
    roots: Roots,
    *,
    progress: Progress,
    say: Callable[[str], None] = lambda _: None,
    target: Target | None = None,
) -> list[_Sweep]:
    """Look at every model, its data, recipes and protocol before any is run; nothing is made or written.

    Args:
        studies: What to do (``study_file.load``).
        directory: Where variants, results and the outcome go; each of several models gets a folder in it.
        host: The plugins.
        roots: Where /sys, /proc and /dev are.
        progress: Watches each bench.
        say: Told what happens, a line at a time.
        target: The processor that variants are made for; None for this machine's.

    Returns:
        What ``sweep`` runs, model by model.

    Raises:
        InputError: a model, data or a recipe cannot be used.
        UnavailableError: a library that the study needs is not here.
    """
    formats = own_formats(host)
    bases = [recognise(study.model, formats) for study in studies]
    prepared = []
    for study, base in zip(studies, bases, strict=True):
        # Two models of one name are told apart by what the study calls them.
        alone = [stem(one) for one in bases].count(stem(base)) == 1
        own = directory / (stem(base) if alone else safe(study.model)) if len(studies) > 1 else directory
        prepared.append(_Sweep(study, base, own, host, roots, progress, say, target))
    return prepared


def sweep(prepared: Sequence[_Sweep], *, prune_hopeless: bool = False) -> Iterator[Outcome]:
    """Run a study, or what is left of it, model by model.

    Args:
        prepared: What to do (``prepare``).
        prune_hopeless: Do not measure what cheap looks call hopeless; otherwise it is measured last.

    Yields:
        What came of each model; of several, one whose study cannot be done costs itself alone until the end.

    Raises:
        InputError: the protocol cannot be used, or files cannot be written.
        BusyError: another measurement is running on this device.
        KeyboardInterrupt: it was interrupted before anything was measured.
    """
    several = len(prepared) > 1
    trouble: EdgeprofError | None = None
    for number, one in enumerate(prepared, start=1):
        if several:
            one.say(f"model {number}/{len(prepared)}: {one.study.model}")
        try:
            outcome = one.run(prune_hopeless=prune_hopeless)
        except EdgeprofError as error:
            if not several:
                raise
            one.say(f"{one.study.model}: {error.message}")
            trouble = trouble or error
            continue
        yield outcome
        if outcome.result.interrupted:
            return
    if trouble is not None:
        raise trouble


class _Sweep:
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
        self.reference = ModelRequest(study.model, "baseline")
        self.data: Dataset | None = None
        self.metric: Metric | None = None
        if study.dataset is not None:
            self.data = load_dataset(study.dataset, host, study.preprocess)
            self.metric = load_metric(study.metric, host)
            labels.require_some(self.data.labels, self.data.name)
            self.metric.check(self.data.labels)
        self.train = self.data if study.train is None else load_dataset(study.train, host, study.preprocess)
        tried = study.search.examples() if study.search else []
        for chain in [*study.chains, *([study.baseline] if study.baseline else []), *tried]:
            self._check(chain)
        if study.search:
            study_search.find_searcher(host)
        self.fingerprint = context.describe_host(roots).fingerprint
        product = study.product
        self.limits, self.told = product.limits(study.limits) if product else (study.limits, [])
        self.fresh = False

    def _check(self, chain: str) -> None:
        try:
            check_chain(parse_chain(chain), self.host.of("compressors"), self.base.format)
        except InputError as error:
            raise InputError(f"{self.study.path}: {chain}: {error.message}", remedy=error.remedy) from None

    def run(self, *, prune_hopeless: bool) -> Outcome:
        for line in self.told:
            self.say(line)
        self._make_directory()
        candidates: list[Candidate] = []
        skipped: dict[str, str] = {}
        done: list[schema.Result] = []
        try:
            with measuring(self.roots, f"sweep {Path(self.study.path).name}"):
                self._all(candidates, done, skipped, prune_hopeless=prune_hopeless)
        except KeyboardInterrupt:
            if not done:
                self.say("interrupted: what was made is kept, and the same command goes on from there")
                raise
            done[-1].interrupted = True
        names = list(dict.fromkeys(one.name for one in candidates))
        result = _merged(done, names)
        for one in candidates:
            self._blame(result, one)
        result.variants += [self._failed(one) for one in candidates if one.failure is not None]
        return self._outcome(result, skipped)

    def _all(
        self, candidates: list[Candidate], done: list[schema.Result], skipped: dict[str, str], *, prune_hopeless: bool
    ) -> None:
        """Make, look at and measure every variant; what is done by then is in the three collections."""
        if self.study.baseline is not None:
            self._make_reference(self.study.baseline)
        for chain in self.study.chains:
            candidates.append(self._made(chain))
            self._look(candidates[-1])
        # The promising first, so that an early end still has them.
        able = [one for one in candidates if one.failure is None]
        for one in sorted(able, key=lambda c: (c.hopeless is not None, -(c.predicted or 1.0))):
            if prune_hopeless and one.hopeless is not None:
                skipped[one.name] = one.hopeless
                self.say(f"{one.name}: not measured, {one.hopeless}")
                continue
            if one.hopeless is not None:
                self.say(f"{one.name}: little hope ({one.hopeless}), so it comes late")
            done.append(self._measured(one))
            if done[-1].interrupted:
                return
        if self.study.search is not None:
            self._searched(self.study.search, candidates, done)
        if not done:
            done.append(self._measured(None))

    def _make_reference(self, chain: str) -> None:
        """What the variants are compared with, where that is not the model as it is."""
        made = self._made(chain)
        if made.failure is not None or made.path is None:
            why = made.failure.message if made.failure else "no file"
            raise InputError(
                f"{self.study.path}: the baseline {chain} of {self.study.model} could not be made: {why}",
                remedy=made.failure.remedy if made.failure else None,
            )
        self.reference = ModelRequest(made.path, "baseline", made.recipe)

    @staticmethod
    def _blame(result: schema.Result, one: Candidate) -> None:
        """Write under a variant that disappoints what of its look explains that."""
        variant = next((v for v in result.variants if v.name == one.name), None)
        comparison = next((c for c in result.comparisons if c.variant == one.name), None)
        if variant is not None and comparison is not None:
            blame(variant, comparison, result.variants[0], one.findings)

    def _failed(self, one: Candidate) -> schema.Variant:
        """A variant that could not be made, or that does not load or answers NaN: in the table, and not measured."""
        assert one.failure is not None
        reason = schema.Reason(code=one.failure.code, message=one.failure.message, remedy=one.failure.remedy)
        made = None if one.path is None else recognise(one.path, self.base.own_formats)
        model = schema.Model(
            path=one.path or self.base.spec,
            format=made.format if made else self.base.format,
            sha256=made.sha256 if made else None,
            size_bytes=made.size_bytes if made else None,
        )
        return schema.Variant(
            name=one.name, recipe=one.recipe, status="failed", reasons=[reason], model=model, runtime=None
        )

    def _searched(self, space: Search, candidates: list[Candidate], done: list[schema.Result]) -> None:
        """Let a search propose further variants; those of an earlier run come back from their files."""
        database = self.directory / "search.db"
        seen = {one.name for one in candidates}

        def judge(chain: str) -> Judgement | None:
            one = self._made(chain)
            if one.name not in seen:
                seen.add(one.name)
                candidates.append(one)
                self._look(one)
                if one.failure is None:
                    done.append(self._measured(one))
            if one.failure is not None:
                return None
            result = next((r for r in done if r.variants[-1].name == one.name), None)
            return None if result is None else self._judged(result)

        for chain in study_search.chains(database, self.host):
            judge(chain)
        study_search.search(space, database, self.study.seed, judge, self.host)

    def _judged(self, result: schema.Result) -> Judgement | None:
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

    def _made(self, chain: str) -> Candidate:
        name = chain_name(parse_chain(chain))
        try:
            manifest = compress(
                self.base,
                [chain],
                self.host,
                self.directory / "variants",
                self.train,
                seed=self.study.seed,
                shapes=self.study.protocol.get("shapes"),
                dtypes=self.study.protocol.get("dtypes"),
                device=self.target,
                note=self.say,
            )
        except StorageError:
            raise
        except (InputError, UnavailableError) as error:
            # In a study one recipe that does not fit the model or this device costs that recipe alone.
            self.say(f"{name}: {error.message}")
            return Candidate(name, failure=VariantError.of(error))
        (entry,) = manifest["variants"]
        path = None if entry["model"] is None else str(self.directory / "variants" / entry["model"]["path"])
        made = Candidate(name, path, entry["recipe"])
        if entry["status"] == "failed":
            reason = entry["reasons"][0]
            made.failure = VariantError(reason["message"], remedy=reason["remedy"], code=reason["code"])
        return made

    def _look(self, one: Candidate) -> None:
        """Cheap proxies: size, arithmetic, signal to noise, agreement on a few samples."""
        if one.failure is not None or one.path is None:
            return
        variant = recognise(one.path, self.base.own_formats)
        one.size_bytes = variant.size_bytes
        path = self.directory / "results" / f"look-{self._key([ModelRequest(one.path, one.name)])}.json"
        try:
            seen = json.loads(path.read_text("utf-8"))
            one.findings = [Finding(**told) for told in seen["findings"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self.say(f"{one.name}: looking at it")
            diagnosis = explain(
                variant,
                self.host,
                self.roots,
                baseline=recognise(self.reference.spec, self.base.own_formats),
                data=self.data,
                recipe=one.recipe,
            )
            told = [asdict(found) for found in diagnosis.findings if found.status != "ok"]
            seen = {"predicted": diagnosis.predicted, "findings": told, "facts": diagnosis.facts}
            files.write(path, json.dumps(seen, indent=2) + "\n")
            one.findings = [found for found in diagnosis.findings if found.status != "ok"]
        one.predicted = seen["predicted"]
        one.hopeless = self._hopeless(one, seen["facts"], variant)

    def _hopeless(self, one: Candidate, facts: dict[str, Any], variant: Artifact) -> str | None:
        limit, size = self.limits.max_size_bytes, variant.size_bytes
        if limit is not None and size is not None and size > limit:
            return f"its file has {units.size(size)}, the budget is {units.size(int(limit))}"
        agreement = facts["agreement"]
        if agreement is not None and agreement < 0.5:
            return f"it agrees with the baseline on {agreement:.0%} of {facts['agreement_samples']} samples"
        before = recognise(self.reference.spec, self.base.own_formats).size_bytes
        smaller = size is not None and before is not None and size < 0.95 * before
        if one.predicted is not None and one.predicted <= 1.01 and not smaller:
            return f"no less arithmetic (predicted {one.predicted:.2f} ×) and no smaller file"
        return None

    def _measured(self, one: Candidate | None) -> schema.Result:
        """The result of the baseline and one variant, taken in turns; from the file where it is there already."""
        models = [self.reference]
        if one is not None:
            assert one.path is not None
            models.append(ModelRequest(one.path, one.name, one.recipe))
        path = self.directory / "results" / f"{self._key(models)}.json"
        if path.exists():
            try:
                kept = document.load(path)
            except EdgeprofError:
                kept = None
            if kept is not None and not kept.interrupted:
                self.say(f"{models[-1].name}: already measured")
                return kept
        self.say(f"{models[-1].name}: measuring")
        request = BenchRequest(
            models=models, dataset=self.data, metric=self.metric, seed=self.study.seed, **self.study.protocol
        )
        result = bench(request, self.host, self.roots, self.progress)
        refused = [variant.reasons[0] for variant in result.variants if variant.runtime is None]
        if result.variants[0].runtime is None:
            raise UnavailableError(f"the baseline: {refused[0].message}", remedy=refused[0].remedy)
        self.fresh = True
        if not (result.interrupted or refused):  # what could not be run here may be runnable by the next time
            files.write(path, document.to_json(result) + "\n")
        return result

    def _key(self, models: list[ModelRequest]) -> str:
        """Everything that a measurement depends on, as a name."""
        judge = self.data
        data = None if judge is None else (judge.name, judge.preprocessing, judge.fingerprint(), self.study.metric)
        # Of an application the file is not all: its attribute says which model of it is meant.
        found = [(model.name, recognise(model.spec, self.base.own_formats)) for model in models]
        parts = [
            [(name, one.sha256, Path(one.target).name if one.format == "python" else "") for name, one in found],
            self.study.protocol, self.study.seed, data, self.fingerprint,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]

    def _outcome(self, result: schema.Result, skipped: dict[str, str]) -> Outcome:
        checks = budgets(result, self.limits, self.study.product)
        judge(result, checks)
        outcome = Outcome(
            self.study.model,
            self.directory,
            result,
            checks,
            self.limits,
            self.told,
            skipped,
            self.fresh,
        )
        files.write(self.directory / "result.json", document.to_json(outcome.whole()) + "\n")
        files.write(self.directory / "study.json", json.dumps(outcome.as_json(), indent=2) + "\n")
        return outcome


def _merged(results: list[schema.Result], order: list[str]) -> schema.Result:
    """One result of several pairs: the first pair's baseline, every variant, each compared within its own pair."""
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
    """Where a study's files go unless -o says otherwise: beside it."""
    return path.with_suffix(".study")
