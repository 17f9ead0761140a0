"""The recipe of a study, ``study.toml``: base model, variants, data, budgets and protocol, read and checked."""

from __future__ import annotations

import functools
import itertools
import math
import string
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeprof import toml_files, units
from edgeprof.benchmark.request import input_shapes
from edgeprof.errors import InputError, unknown
from edgeprof.study.stages import StageModel, pipeline_spec, read_stages, recipe_name, value_text
from edgeprof.verdicts.gate import Limits
from edgeprof.verdicts.recommend import Product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

#: Key of [protocol] → the field of a BenchRequest and its type.
PROTOCOL: dict[str, tuple[str, type]] = {
    "preset": ("preset", str), "windows": ("windows", int), "window": ("window_s", float),
    "warmup": ("warmup_s", float), "idle": ("idle_s", float), "runtime": ("runtime", str), "device": ("device", str),
    "threads": ("threads", int), "batch": ("batch", int), "scenario": ("scenario", str), "rate": ("rate_hz", float),
    "streams": ("streams", int), "sample_rate": ("sample_rate_hz", float), "rail": ("rail", str),
    "estimate_power": ("estimate_power_w", float), "timeout": ("timeout_s", float), "sensors": ("sensors", list),
    "inputs": ("inputs", list), "frames": ("frames", str), "queue": ("queue", int),
    "options": ("options", dict),
}  # fmt: skip
_TOP = (
    "model", "models", "baseline", "dataset", "train", "preprocess", "metric", "seed", "protocol", "recipes", "budgets",
    "product", "search", "stages",
)  # fmt: skip
_BUDGETS = {
    "max_accuracy_drop": ("max_accuracy_drop", ""),
    "max_latency_p99": ("max_p99_s", "s"),
    "min_fps": ("min_rate_hz", "1"),
    "max_energy": ("max_j", "J"),
    "max_rss": ("max_rss_bytes", "B"),
    "max_size": ("max_size_bytes", "B"),
}
#: Most variants of a study; more are probably a mistake in a grid.
_MOST = 200
#: Most combinations of a grid's values, of which many may name the same chain.
_MOST_COMBINATIONS = 10_000
_COARSER = "Make its grids coarser."


@dataclass(frozen=True)
class Search:
    """Parameters that Optuna may choose.

    Attributes:
        pattern: A chain with ``{names}``.
        choices: Name → a list of values, or (low, high, whether the scale is logarithmic).
        trials: Most variants to try.
    """

    pattern: str
    choices: dict[str, list[str] | tuple[float, float, bool]]
    trials: int

    def chain(self, values: Mapping[str, str]) -> str:
        return self.pattern.format(**values)

    def examples(self) -> list[str]:
        """Chains with each value of each list and both ends of each range, to check them in advance."""
        ends = {
            name: choice if isinstance(choice, list) else [written(end) for end in choice[:2]]
            for name, choice in self.choices.items()
        }
        first = {name: values[0] for name, values in ends.items()}
        return [self.chain({**first, name: value}) for name, values in ends.items() for value in values]

    def __str__(self) -> str:
        """Describe the varied parameters, for a plan."""
        varied = [
            f"{name} = {', '.join(choice)}"
            if isinstance(choice, list)
            else f"{name} from {written(choice[0])} to {written(choice[1])}"
            for name, choice in self.choices.items()
        ]
        return f"search, at most {self.trials} of {self.pattern}: {'; '.join(varied)}"


def written(number: float) -> str:
    """Write a chosen number in the form of a chain."""
    return str(number) if isinstance(number, int) else f"{number:.4g}"


@dataclass(frozen=True)
class StudyFile:
    """A study of one model, as its file describes it.

    Attributes:
        path: The file.
        model: The base model, relative to the file's folder unless absolute.
        chains: The chains of its variants, in order, each once.
        baseline: The chain of the variant that others are compared with; None: the unchanged model.
        dataset: Data that variants are judged on, as for ``--dataset``; None: none.
        train: Data for calibration and training; None: ``dataset``.
        protocol: Fields of a BenchRequest.
        stages: For a pipeline: the stages whose models are varied.
    """

    path: Path
    model: str
    chains: list[str]
    baseline: str | None = None
    dataset: str | None = None
    train: str | None = None
    preprocess: dict[str, str] = field(default_factory=dict)
    metric: str = "top1"
    seed: int = 0
    protocol: dict[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    product: Product | None = None
    search: Search | None = None
    stages: Mapping[str, StageModel] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The base model as ``recognise`` takes it: a pipeline with the models of its stages."""
        return pipeline_spec(self.model, self.stages)

    def name_of(self, chain: str) -> str:
        """Return the name of the variant that a chain makes; for a pipeline, that a recipe for its stages makes.

        Raises:
            InputError: It is no chain, or names no stage with a model.
        """
        return recipe_name(chain, self.stages, self.path.parent)


def load(path: Path) -> list[StudyFile]:
    """Read a study file; return a study for each of its models.

    Raises:
        InputError: the file is missing or not TOML, or a key or value is not valid; the message names it.
    """
    content = toml_files.read(path, remedy="Give a study's .toml.")
    for key in content:
        if key not in _TOP:
            raise unknown(f"key of {path.name}", key, _TOP)
    models = _read_models(path, content)
    stages = _read_stages(path, content, models)

    def name_of(recipe: str) -> str:
        return recipe_name(recipe, stages, path.parent)

    chains = list(_read_chains(path, _read_table(path, content, "recipes"), name_of))
    search = _read_search(path, _read_table(path, content, "search"), name_of)
    if not chains and search is None:
        raise InputError(f"{path} has no recipes", remedy='[recipes] with explicit = ["int8-dynamic", …].')
    if len(chains) > _MOST:
        raise InputError(f"{path} asks for {len(chains)} variants; {_MOST} at most", remedy=_COARSER)
    baseline = _read_text(path, content, "baseline")
    if baseline is not None:
        name_of(baseline)
    data = {key: _read_text(path, content, key) for key in ("dataset", "train")}
    study = StudyFile(
        path=path,
        model=models[0],
        chains=chains,
        baseline=baseline,
        **{key: None if spec is None else _relative_to_study(path, spec) for key, spec in data.items()},
        preprocess={key: value_text(value) for key, value in _read_table(path, content, "preprocess").items()},
        metric=_read_text(path, content, "metric") or "top1",
        seed=_of_type(path, "seed", content.get("seed", 0), int),
        protocol=_read_protocol(path, _read_table(path, content, "protocol")),
        limits=_read_limits(path, _read_table(path, content, "budgets")),
        product=_read_product(path, _read_table(path, content, "product")),
        search=search,
        stages=stages,
    )
    _check_rate(study)
    return [replace(study, model=model) for model in models]


def _read_models(path: Path, content: Mapping[str, Any]) -> list[str]:
    given = content.get("models", [content["model"]] if "model" in content else [])
    if "model" in content and "models" in content:
        raise InputError(f"{path} has both model and models", remedy="One of them is enough.")
    if not isinstance(given, list) or not given or not all(isinstance(item, str) for item in given):
        raise InputError(
            f"{path} names no base model", remedy='It needs a line model = "FILE", or models = ["FILE", …].'
        )
    if len(set(given)) < len(given):
        raise InputError(f"{path} names the same model twice", remedy="Name each once.")
    return [_relative_to_study(path, model) for model in given]


def _read_stages(path: Path, content: Mapping[str, Any], models: list[str]) -> dict[str, StageModel]:
    stages = read_stages(path, _read_table(path, content, "stages"), functools.partial(_relative_to_study, path))
    if stages and len(models) > 1:
        raise InputError(f"{path} has stages of several pipelines", remedy="Write a study for each pipeline.")
    if stages and "train" in content:
        raise InputError(
            f"{path}: train belongs to the stage whose model it trains",
            remedy=f'Write it as train = "{content["train"]}" in [stages.{next(iter(stages))}].',
        )
    return stages


def _check_rate(study: StudyFile) -> None:
    """Check that frames come as often as the budgets ask for."""
    asked = max(study.limits.min_rate_hz or 0.0, (study.product.fps or 0.0) if study.product else 0.0)
    given = study.protocol.get("rate_hz")
    if study.protocol.get("scenario") == "periodic" and given is not None and asked > given:
        raise InputError(
            f"{study.path}: no variant can process {asked:g} frames a second, because [protocol] gives {given:g}",
            remedy="Raise rate in [protocol], or ask for fewer.",
        )


def _read_text(path: Path, content: Mapping[str, Any], key: str) -> str | None:
    return None if key not in content else _of_type(path, key, content[key], str)


def _of_type(path: Path, key: str, value: Any, wanted: type) -> Any:
    """Check the type of a value; an integer is accepted as a float, but true and false are not numbers.

    Raises:
        InputError: the value has another type.
    """
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        words = {str: "text in quotes", int: "a whole number", float: "a number", list: "a list", dict: "a table"}
        raise InputError(f"{path}: {key} = {value!r} is not {words[wanted]}")
    return value


def _read_protocol(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    protocol: dict[str, Any] = {}
    for key, value in given.items():
        if key not in PROTOCOL:
            raise unknown(f"key of [protocol] in {path.name}", key, PROTOCOL)
        name, wanted = PROTOCOL[key]
        protocol[name] = _of_type(path, key, value, wanted)
    if "frames" in protocol:
        protocol["frames"] = _relative_to_study(path, protocol["frames"])
    if "inputs" in protocol:
        protocol["shapes"], protocol["dtypes"] = input_shapes([str(declared) for declared in protocol.pop("inputs")])
    if "options" in protocol:
        protocol["options"] = {name: str(value) for name, value in protocol["options"].items()}
    return protocol


def _read_table(path: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{path}: {name} is not a table", remedy=f"Write it as [{name}].")
    return table


def _relative_to_study(path: Path, text: str) -> str:
    """Resolve a path relative to the study's folder, if such a file exists there; else return it unchanged."""
    kind, colon, rest = text.partition(":")
    if colon and toml_files.exists(path.parent / rest):
        return f"{kind}:{path.parent / rest}"
    near = path.parent / text.partition(":")[0]
    return str(path.parent / text) if toml_files.exists(near) else text


def _read_chains(path: Path, recipes: Mapping[str, Any], name_of: Callable[[str], str]) -> Iterator[str]:
    """Yield the explicit chains, then those of grids and ranges, each once."""
    for key in recipes:
        if key not in {"explicit", "grid", "range"}:
            raise unknown(f"key of [recipes] in {path.name}", key, ("explicit", "grid", "range"))
    seen = set()
    explicit = recipes.get("explicit", [])
    if not isinstance(explicit, list) or not all(isinstance(chain, str) for chain in explicit):
        raise InputError(f"{path}: explicit is not a list of chains")
    grids = [*_read_rows(path, recipes, "grid"), *_read_rows(path, recipes, "range")]
    for chain in itertools.chain(explicit, *(_expand_grid(path, grid) for grid in grids)):
        name = name_of(chain)
        if name not in seen:
            seen.add(name)
            yield chain


def _read_rows(path: Path, recipes: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    rows = recipes.get(key, [])
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("with"), str) for row in rows
    ):
        raise InputError(f'{path}: each [[recipes.{key}]] needs a line with = "CHAIN with {{names}}"')
    return rows


def _braced_names(path: Path, pattern: str) -> list[str]:
    """The names in braces in a pattern."""
    try:
        # Format specifications are refused: {a:9999999} would make a very long text.
        parsed = string.Formatter().parse(pattern)
        names = ["" if form or conversion else name for _, name, form, conversion in parsed if name is not None]
    except ValueError:
        names = [""]
    if not all(name.isidentifier() for name in names):
        raise InputError(f"{path}: {pattern!r} is not a pattern", remedy="Write it as prune:amount={amount}.")
    return list(dict.fromkeys(names))


def _expand_grid(path: Path, grid: Mapping[str, Any]) -> Iterator[str]:
    pattern = grid["with"]
    names = _braced_names(path, pattern)
    for name in names:
        if name not in grid:
            raise InputError(f"{path}: {{{name}}} of {pattern!r} has no values", remedy=f"Add {name} = [ … ].")
    for extra in set(grid) - {"with", *names}:
        raise InputError(f"{path}: {pattern!r} does not use {extra}", remedy=f"Write {{{extra}}} where it belongs.")
    given = [_read_values(path, name, grid[name]) for name in names]
    if math.prod(len(values) for values in given) > _MOST_COMBINATIONS:
        raise InputError(f"{path}: {pattern!r} has more than {_MOST_COMBINATIONS:,} combinations", remedy=_COARSER)
    for values in itertools.product(*given):
        yield pattern.format(**dict(zip(names, values, strict=True)))


def _read_values(path: Path, name: str, given: Any) -> list[str]:
    if isinstance(given, list) and given:
        return list(dict.fromkeys(value_text(value) for value in given))
    if isinstance(given, dict) and {"from", "to", "steps"} <= set(given):
        low, high, _ = _read_range(path, name, given)
        steps = _of_type(path, f"steps of {name}", given["steps"], int)
        if not 2 <= steps <= _MOST:
            raise InputError(f"{path}: the range of {name} needs from 2 to {_MOST} steps")
        if given.get("scale") == "log":
            raw = [math.exp(math.log(low) + (math.log(high) - math.log(low)) * i / (steps - 1)) for i in range(steps)]
        else:
            raw = [low + (high - low) * i / (steps - 1) for i in range(steps)]
        whole = isinstance(low, int) and isinstance(high, int)
        return list(dict.fromkeys(str(round(value)) if whole else f"{value:.6g}" for value in raw))
    raise InputError(
        f"{path}: the values of {name} are neither a list nor a range",
        remedy=f"{name} = [0.3, 0.5] or {name} = {{ from = 0.1, to = 0.9, steps = 5 }}",
    )


def _read_range(path: Path, name: str, given: Mapping[str, Any]) -> tuple[float, float, bool]:
    """Read the lower and upper end of a range, and whether its scale is logarithmic."""
    low, high = given["from"], given["to"]
    logarithmic = given.get("scale") == "log"
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or low > high or (logarithmic and low <= 0) or given.get("scale", "log") not in {"log", "linear"}:
        raise InputError(
            f"{path}: the range of {name} does not go from a number up to another, both above 0 on a log scale",
            remedy=f'{name} = {{ from = 0.1, to = 0.9 }}; scale = "log" or "linear"',
        )
    return low, high, logarithmic


def _read_search(path: Path, given: Mapping[str, Any], name_of: Callable[[str], str]) -> Search | None:
    if not given:
        return None
    pattern, trials = given.get("with"), given.get("trials", 20)
    if not isinstance(pattern, str) or not isinstance(trials, int) or not 1 <= trials <= _MOST:
        raise InputError(f'{path}: [search] needs with = "CHAIN with {{names}}" and trials from 1 to {_MOST}')
    rest = {key: value for key, value in given.items() if key not in {"with", "trials"}}
    names = _braced_names(path, pattern)
    if set(names) != set(rest) or not names:
        raise InputError(
            f"{path}: [search] must give values for {', '.join(names) or 'at least one name'}, and no others"
        )
    choices: dict[str, list[str] | tuple[float, float, bool]] = {}
    for name, value in rest.items():
        if isinstance(value, dict) and {"from", "to"} <= set(value):
            choices[name] = _read_range(path, name, value)
        else:
            choices[name] = _read_values(path, name, value)
    space = Search(pattern, choices, trials)
    for example in space.examples():
        name_of(example)
    return space


def _read_limits(path: Path, given: Mapping[str, Any]) -> Limits:
    limits: dict[str, float] = {}
    for key, value in given.items():
        if key not in _BUDGETS:
            raise unknown(f"budget in {path.name}", key, _BUDGETS)
        field_name, unit = _BUDGETS[key]
        limits[field_name] = _read_number(path, key, value, unit)
        if not 0 <= limits[field_name] < math.inf:
            raise InputError(
                f"{path}: {key} = {value} is not a budget", remedy="Give a finite number that is not below 0."
            )
        if limits[field_name] == 0 and key not in {"max_accuracy_drop", "min_fps"}:
            raise InputError(f"{path}: no model can keep {key} = {value}", remedy="Give a number above 0.")
    return Limits(**limits)


def _read_product(path: Path, given: Mapping[str, Any]) -> Product | None:
    names = {
        "fps": ("fps", "1"),
        "battery_wh": ("battery_wh", "1"),
        "hours": ("hours", "1"),
        "memory_left": ("memory_left_bytes", "B"),
    }
    settings: dict[str, float] = {}
    for key, value in given.items():
        if key not in names:
            raise unknown(f"requirement in [product] of {path.name}", key, names)
        settings[names[key][0]] = _read_number(path, key, value, names[key][1])
    if not all(0 < value < math.inf for value in settings.values()):
        raise InputError(f"{path}: a requirement of [product] is not a finite number above 0")
    if "battery_wh" in settings and not {"fps", "hours"} <= set(settings):
        raise InputError(f"{path}: battery_wh also needs hours and fps, from which the joules of a frame follow")
    return Product(**settings) if settings else None


def _read_number(path: Path, key: str, value: Any, unit: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        return units.parse_ratio(str(value)) if unit == "" else units.parse(str(value), unit)
    except ValueError as error:
        raise InputError(f"{path}: {key}: {error}") from None
