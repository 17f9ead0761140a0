"""What ``edgeprof fleet sweep`` does: variants are made once for all devices, and measured on each of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.cli.fleet_bench import Outcome, deliver, keep_measured, measure_all, watch_all
from edgeprof.cli.fleet_options import check_outputs, chosen_devices, engine_of
from edgeprof.cli.prose import say
from edgeprof.cli.signals import ending_like_ctrl_c
from edgeprof.errors import InputError
from edgeprof.fleet.inventory import load_engine
from edgeprof.fleet.task import Job, Measure
from edgeprof.results.schema import model_name
from edgeprof.study.conductor import default_directory, merge_results, prepare
from edgeprof.verdicts.recommend import budgets, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeprof.fleet.engine import Engine
    from edgeprof.fleet.inventory import Device
    from edgeprof.results.schema import Result
    from edgeprof.study.candidate import Candidate
    from edgeprof.study.conductor import StudySweep
    from edgeprof.study.search import Judgement

#: Fields of a study's protocol whose flag is not their name without the unit.
_FLAG_OF_FIELD = {"sensors": "sensor", "estimate_power_w": "estimate-power"}
_UNITS = ("_s", "_hz")


def sweep_on_devices(recipe: Path, flags: Mapping[str, Any]) -> int:
    """Make a study's variants, measure them on the chosen devices, and return the exit code.

    Raises:
        InputError: the study or the inventory cannot be used.
    """
    from edgeprof.compression.target import find_target
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.study.recipe import load

    check_outputs(flags["output"])
    studies = load(recipe)
    if studies[0].stages:
        raise InputError(
            f"{recipe} studies a pipeline, and a fleet's devices run no code of yours",
            remedy=f"Run it on the device itself: edgeprof sweep {recipe.name}.",
        )
    devices = chosen_devices(flags["inventory"], flags["on"])
    roots = Roots.resolve()
    prepared = prepare(
        studies,
        Path(flags["directory"]) if flags["directory"] else default_directory(recipe),
        PluginHost.from_environment(),
        roots,
        progress=_Silent(),
        say=(lambda _: None) if flags["quiet"] else (lambda text: say(text, err=True)),
        target=find_target(flags["target"], roots),
    )
    engine, settings, outcome = engine_of(flags["inventory"]), load_engine(flags["inventory"]), Outcome()
    for study_sweep in prepared:
        if settings is not None and settings.compress:
            _make_on_hosts(engine, study_sweep, flags["target"])
        study_sweep.make_reference()
        if study_sweep.study.search is None:
            _measure_together(engine, study_sweep, devices, flags, outcome)
        else:
            _Searching(engine, study_sweep, devices, flags, outcome).run()
    return deliver(devices, outcome, flags)


def _make_on_hosts(engine: Engine, study_sweep: StudySweep, target: str | None) -> None:
    """Let hosts make the study's variants, all chains that the study names at the same time."""
    from edgeprof.fleet.variants import Workshop

    protocol = _protocol_flags(study_sweep)
    flags = [f"--{name}={value}" for name in ("seed", "input", "preprocess") for value in protocol.get(name, [])]
    more = [*flags, *([f"--target={target}"] if target else [])]
    workshop = Workshop.of(engine, study_sweep.maker, study_sweep.study, more)
    study = study_sweep.study
    workshop.make_all([*([study.baseline] if study.baseline else []), *study.chains])
    study_sweep.maker = workshop


def _measure_together(
    engine: Engine,
    study_sweep: StudySweep,
    devices: Sequence[Device],
    flags: Mapping[str, Any],
    outcome: Outcome,
) -> None:
    """Measure the baseline and all variants of a study in one benchmark on each device."""
    candidates = [study_sweep.make_candidate(chain) for chain in study_sweep.study.chains]
    able = [candidate for candidate in candidates if candidate.path is not None and candidate.failure is None]

    def finish(result: Result) -> None:
        _rename_variants(result, able)
        _judge_result(study_sweep, result, candidates)

    measure_all(engine, devices, _job_of(study_sweep, able), flags, outcome, finish)


@dataclass
class _Search:
    """The search of one device.

    Attributes:
        waiting: Chains that are measured before the search goes on: the study's, and those of an earlier run.
        judgements: The judgement of each chain; None if the chain failed.
        chains: Name of a variant → the chain that first asked for it.
        candidates: The variants that were made.
        results: One result for each measured variant, with the baseline beside it.
    """

    waiting: list[str]
    judgements: dict[str, Judgement | None] = field(default_factory=dict)
    chains: dict[str, str] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)


class _Searching:
    """``[search]`` on several devices. Each device has its own search, since the best variant differs between devices.

    The searches advance in rounds. In each round every search names its next variant. A variant that several searches
    name is made once. Then all devices measure at the same time.
    """

    def __init__(
        self,
        engine: Engine,
        study_sweep: StudySweep,
        devices: Sequence[Device],
        flags: Mapping[str, Any],
        outcome: Outcome,
    ) -> None:
        self.engine = engine
        self.study_sweep, self.devices, self.flags, self.outcome = study_sweep, devices, flags, outcome
        self.made: dict[str, Candidate] = {}
        self.searches = {
            device.name: _Search([*study_sweep.study.chains, *study_sweep.searched_chains(device.name)])
            for device in devices
        }

    def run(self) -> None:
        """Run rounds until the search of every device has ended or the device has failed."""
        devices, failed = list(self.devices), set[str]()
        while devices:
            wanted = {device.name: self._next_candidate(device) for device in devices}
            devices = [device for device in devices if wanted[device.name] is not None]
            if devices:
                failed |= self._measure(devices, {name: value for name, value in wanted.items() if value is not None})
            devices = [device for device in devices if device.name not in failed]
        self._measure_baseline([device for device in self.devices if device.name not in failed])
        for name, search in self.searches.items():
            if search.results:
                order = list(dict.fromkeys(candidate.name for candidate in search.candidates))
                whole = merge_results(search.results, order)
                _judge_result(self.study_sweep, whole, search.candidates)
                self.outcome.entries.append((name, whole))

    def _next_candidate(self, device: Device) -> tuple[str, Candidate] | None:
        """Return the next chain for a device to measure, and its variant; None if its search has ended."""
        search = self.searches[device.name]
        while True:
            chain = search.waiting.pop(0) if search.waiting else None
            chain = chain or self.study_sweep.next_chain(device.name, search.judgements)
            if chain is None:
                return None
            if chain in search.judgements:
                continue
            if chain not in self.made:
                self.made[chain] = self.study_sweep.make_candidate(chain)
            candidate = self.made[chain]
            if candidate.name in search.chains:  # the same variant, written in another way
                search.judgements[chain] = search.judgements[search.chains[candidate.name]]
                continue
            search.chains[candidate.name] = chain
            search.candidates.append(candidate)
            if candidate.failure is None and candidate.path is not None:
                return chain, candidate
            search.judgements[chain] = None

    def _measure(self, devices: Sequence[Device], wanted: Mapping[str, tuple[str, Candidate]]) -> set[str]:
        """Measure a variant on each device, and return the names of the devices that failed."""
        jobs = {name: _job_of(self.study_sweep, [candidate]) for name, (_, candidate) in wanted.items()}
        failed: set[str] = set()
        watches = watch_all(devices, quiet=self.flags["quiet"])
        with ending_like_ctrl_c():
            tasks = [Measure(device, jobs[device.name], self.flags["wait_s"]) for device in devices]
            for task, measured in self.engine.run(tasks, watches):
                chain, candidate = wanted[task.name]
                finish = functools.partial(self._finish, candidate)
                result = keep_measured(task.device, measured, self.flags, self.outcome, finish)
                if result is None:
                    failed.add(task.name)
                    continue
                search = self.searches[task.name]
                search.results.append(result)
                search.judgements[chain] = self.study_sweep.judgement_of(result)
        return failed

    def _measure_baseline(self, devices: Sequence[Device]) -> None:
        """Measure the baseline alone on devices for which no variant could be made."""
        alone = [device for device in devices if not self.searches[device.name].results]
        if alone:
            finish = functools.partial(self._finish, None)
            outcome = Outcome(failures=self.outcome.failures, rows=self.outcome.rows)
            measure_all(self.engine, alone, _job_of(self.study_sweep, []), self.flags, outcome, finish)
            for name, result in outcome.entries:
                self.searches[name].results.append(result)

    def _finish(self, candidate: Candidate | None, result: Result) -> None:
        _rename_variants(result, [] if candidate is None else [candidate])
        _judge_result(self.study_sweep, result, [])


class _Silent:
    """A progress display that shows nothing, since the study measures nothing on this machine."""

    def begin(self, lines: Sequence[str], total_s: float, live: Callable[[], str]) -> None: ...

    def stage(self, text: str, seconds: float) -> None: ...

    def extend(self, text: str, seconds: float) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


def _job_of(study_sweep: StudySweep, candidates: Sequence[Candidate]) -> Job:
    """Return one job that measures the baseline and these variants of a study."""
    models = [study_sweep.reference.spec, *(str(candidate.path) for candidate in candidates)]
    return Job.of(models, _protocol_flags(study_sweep), study_sweep.study.dataset)


def _protocol_flags(study_sweep: StudySweep) -> dict[str, list[str]]:
    """Return a study's protocol as flags of ``edgeprof bench``."""
    study = study_sweep.study
    protocol = dict(study.protocol)
    shapes, dtypes = protocol.pop("shapes", {}), protocol.pop("dtypes", {})
    flags: dict[str, list[str]] = {"seed": [str(study.seed)]}
    for parameter, value in protocol.items():
        name = _FLAG_OF_FIELD.get(parameter)
        if name is None:
            unit = next((unit for unit in _UNITS if parameter.endswith(unit)), "")
            name = parameter.removesuffix(unit).replace("_", "-")
        values = value if isinstance(value, list) else [value]
        flags[name] = [f"{item:g}" if isinstance(item, float) else str(item) for item in values]
    for name, shape in shapes.items():
        dtype = f":{dtypes[name]}" if name in dtypes else ""
        flags.setdefault("input", []).append(f"{name}={'x'.join(map(str, shape)) or 'scalar'}{dtype}")
    if study.dataset is not None:
        flags["metric"] = [study.metric]
        if study.preprocess:
            flags["preprocess"] = [f"{key}={value}" for key, value in study.preprocess.items()]
    return flags


def _rename_variants(result: Result, candidates: Sequence[Candidate]) -> None:
    """Give the variants of a device's result the names that the study uses: ``baseline`` and the candidates' names."""
    names: dict[str, str] = {}
    model = model_name(result.variants[0].model)
    for variant, candidate in zip(result.variants, [None, *candidates], strict=True):
        names[variant.name] = "baseline" if candidate is None else candidate.name
        variant.name = names[variant.name]
        variant.model.name = model
        if candidate is not None:
            variant.recipe = candidate.recipe
    for comparison in result.comparisons:
        comparison.variant, comparison.baseline = names[comparison.variant], names[comparison.baseline]


def _judge_result(study_sweep: StudySweep, result: Result, candidates: Sequence[Candidate]) -> None:
    """Add the variants that could not be made, and judge all by the study's budgets."""
    result.variants += [study_sweep.failed_variant(c) for c in candidates if c.failure is not None]
    judge(result, budgets(result, study_sweep.limits, study_sweep.study.product))
