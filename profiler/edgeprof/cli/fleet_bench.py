"""``edgeprof fleet bench`` and ``sweep``: run one job on all devices, store their results, and show one table."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprof.cli.fleet_options import SCHEMA, chosen_devices, exit_code, failure_as_json, say_failure, show_table
from edgeprof.cli.signals import ending_like_ctrl_c
from edgeprof.errors import EdgeprofError, InputError, unknown
from edgeprof.fleet.door import FLAGS
from edgeprof.fleet.engine import measure_on_each
from edgeprof.fleet.store import keep
from edgeprof.fleet.task import Job, Watch
from edgeprof.reporters import fleet as reporter
from edgeprof.results import files
from edgeprof.results.schema import model_name
from edgeprof.verdicts.fleet_table import fleet_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeprof.fleet.inventory import Device
    from edgeprof.results.schema import Result
    from edgeprof.study.conductor import Candidate, StudySweep
    from edgeprof.verdicts.fleet_table import Group

#: Flags of a bench that name a file of this machine; the file is sent to the devices.
_FILES = ("dataset", "input-data")
#: Field of a study's protocol → its flag, where the flag is not the field's name without its unit.
_FLAG_OF_FIELD = {"sensors": "sensor", "estimate_power_w": "estimate-power"}
_UNITS = ("_s", "_hz")


def bench_on_devices(arguments: Sequence[str], flags: Mapping[str, Any]) -> int:
    """Bench models on the chosen devices, show the table, and return the exit code.

    Raises:
        InputError: the inventory, a model or a flag cannot be used; nothing was measured.
    """
    check_outputs(flags["output"])
    models, given = parse_arguments(arguments)
    if not models:
        raise InputError("no model was given", remedy="edgeprof fleet bench MODEL [MODEL …]")
    data = {name: given.pop(name, [None])[-1] for name in _FILES}
    devices = chosen_devices(flags["inventory"], flags["on"])
    job = Job.of(models, given, data["dataset"], data["input-data"], flags["repeat"])
    outcome = _Outcome()
    _measure(devices, job, flags, outcome)
    return _deliver(devices, outcome, flags)


def sweep_on_devices(recipe: Path, flags: Mapping[str, Any]) -> int:
    """Make a study's variants here, measure them on the chosen devices, and return the exit code.

    Raises:
        InputError: the study or the inventory cannot be used.
    """
    from edgeprof.compression.target import find_target
    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.study.conductor import default_directory, prepare
    from edgeprof.study.recipe import load

    check_outputs(flags["output"])
    studies = load(recipe)
    devices = chosen_devices(flags["inventory"], flags["on"])
    roots = Roots.resolve()
    say = (lambda _: None) if flags["quiet"] else (lambda text: click.echo(text, err=True))
    prepared = prepare(
        studies,
        Path(flags["directory"]) if flags["directory"] else default_directory(recipe),
        PluginHost.from_environment(),
        roots,
        progress=_Silent(),
        say=say,
        target=find_target(flags["target"], roots),
    )
    outcome = _Outcome()
    for study_sweep in prepared:
        candidates = study_sweep.make_variants()
        able = [candidate for candidate in candidates if candidate.path is not None and candidate.failure is None]
        job = Job.of(
            [study_sweep.reference.spec, *(str(candidate.path) for candidate in able)],
            _protocol_flags(study_sweep),
            study_sweep.study.dataset,
        )
        _measure(devices, job, flags, outcome, functools.partial(_name, study_sweep, able, candidates))
    return _deliver(devices, outcome, flags)


class _Silent:
    """Progress of a study that measures nothing on this machine: it shows nothing."""

    def begin(self, lines: Sequence[str], total_s: float, live: Callable[[], str]) -> None: ...

    def stage(self, text: str, seconds: float) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


@dataclass
class _Outcome:
    """The outcome of one job or several.

    Attributes:
        entries: Names of devices, each with its result.
        failures: The errors of the devices that have no result.
        rows: A row for each device and job, for the JSON output.
    """

    entries: list[tuple[str, Result]] = field(default_factory=list)
    failures: list[EdgeprofError] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def _measure(
    devices: Sequence[Device],
    job: Job,
    flags: Mapping[str, Any],
    outcome: _Outcome,
    finish: Callable[[Result], None] = lambda _: None,
) -> None:
    """Measure a job on every device, and store each result as soon as it arrives."""
    quiet = flags["quiet"]
    watches = {device.name: Watch(_speaker(device.name, quiet=quiet)) for device in devices}
    with ending_like_ctrl_c():
        for device, measured in measure_on_each(devices, job, watches, wait_s=flags["wait_s"]):
            try:
                if isinstance(measured, EdgeprofError):
                    raise measured
                finish(measured.result)
                result = keep(measured, device.name)
            except EdgeprofError as error:
                outcome.failures.append(error)
                outcome.rows.append({"device": device.name, "state": "failed", **failure_as_json(error)})
                say_failure(device, error)
                continue
            outcome.entries.append((device.name, result))
            state = "there" if measured.was_there else "measured"
            outcome.rows.append({"device": device.name, "state": state, "key": measured.key, "result": result.id})
            if not quiet:
                click.echo(f"{device.name}: {'was measured before' if measured.was_there else 'done'}", err=True)


def _deliver(devices: Sequence[Device], outcome: _Outcome, flags: Mapping[str, Any]) -> int:
    """Show one table of all results, and return the exit code."""
    groups = fleet_table(outcome.entries)
    write_outputs(flags["output"], groups)
    if flags["as_json"]:
        document = {"schema": SCHEMA, "devices": outcome.rows, "table": reporter.as_json(groups)}
        click.echo(json.dumps(document, indent=2))
    elif groups:
        show_table(groups, no_color=flags["no_color"])
        for name, result in outcome.entries:
            if result.recommendation is not None and len(result.variants) > 1:
                click.echo(f"  {name}: {result.recommendation.reason}")
    return exit_code(outcome.failures, len(devices), [result for _, result in outcome.entries])


def _speaker(name: str, *, quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else click.echo(f"{name}: {text}", err=True)


def parse_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Split a command line into models, and flags with their values.

    Raises:
        InputError: a flag is not one that a fleet may pass on, or has no value.
    """
    models: list[str] = []
    flags: dict[str, list[str]] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word == "-":
            models.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name == "quick" and not equals:
            name, equals, value = "preset", "=", "quick"
        if not word.startswith("--") or name not in {*FLAGS, *_FILES}:
            raise unknown("flag of edgeprof fleet bench", word, [f"--{flag}" for flag in (*FLAGS, *_FILES)])
        if not equals and name != "strict":
            following = next(words, None)
            if following is None:
                raise InputError(f"{word} has no value")
            value = following
        flags.setdefault(name, []).append(value)
    return models, flags


def _protocol_flags(study_sweep: StudySweep) -> dict[str, list[str]]:
    """Convert a study's protocol to flags of a bench."""
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


def _name(study_sweep: StudySweep, able: Sequence[Candidate], candidates: Sequence[Candidate], result: Result) -> None:
    """Give the variants of a device's result the study's names, and judge them by the study's budgets."""
    from edgeprof.verdicts.recommend import budgets, judge

    names: dict[str, str] = {}
    model = model_name(result.variants[0].model)
    for variant, candidate in zip(result.variants, [None, *able], strict=True):
        names[variant.name] = "baseline" if candidate is None else candidate.name
        variant.name = names[variant.name]
        variant.model.name = model
        if candidate is not None:
            variant.recipe = candidate.recipe
    for comparison in result.comparisons:
        comparison.variant, comparison.baseline = names[comparison.variant], names[comparison.baseline]
    result.variants += [study_sweep.failed_variant(c) for c in candidates if c.failure is not None]
    judge(result, budgets(result, study_sweep.limits, study_sweep.study.product))


# --- files ------------------------------------------------------------------------------------------------------------

_FORMATS = (".html", ".csv", ".json")


def check_outputs(paths: Sequence[Path]) -> None:
    """
    Raises:
        InputError: a fleet's table cannot be written with a file's suffix, or the file cannot be written.
    """
    for path in paths:
        if path.suffix not in _FORMATS:
            raise InputError(
                f"-o {path}: a fleet's table cannot be written as {path.suffix or 'a file without a suffix'}",
                remedy=f"Let its name end in one of {' '.join(_FORMATS)}",
            )
        files.check_writable(path)


def write_outputs(paths: Sequence[Path], groups: Sequence[Group]) -> None:
    """Write a fleet's table, in the format of each file's suffix.

    Raises:
        InputError: a file cannot be written.
    """
    for path in paths:
        if path.suffix == ".html":
            text = reporter.page(groups, "What the fleet measured")
        elif path.suffix == ".csv":
            text = reporter.csv_text(groups)
        else:
            text = json.dumps(reporter.as_json(groups), indent=2) + "\n"
        files.write(path, text)
