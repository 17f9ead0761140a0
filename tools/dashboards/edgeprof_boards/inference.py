"""What runs in production: joules per inference and latency of every model, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof_boards.dashboard import Dashboard, Panel, Row, Variable
from edgeprof_boards.queries import of, rate
from edgeprof_boards.shapes import bars, stat
from edgeprof_boards.style import GREEN, ORANGE, YELLOW
from edgeprof_dashboards.preview.panels import Query

if TYPE_CHECKING:
    from collections.abc import Callable

_MODELS = ('model=~"$model"', 'variant=~"$variant"')
_ENERGY = "edgeprof_inference_energy_joules_total"
_COUNT = "edgeprof_inferences_total"
_WITHOUT = "edgeprof_inferences_without_energy_total"
_SLOW = "edgeprof_inference_duration_seconds_bucket"
_BY = "model, variant, runtime"
_WHO = "{{model}} {{variant}} {{runtime}}"
_JOULES_WHO = f"{_WHO} ({{{{provenance}}}})"


def _growth_of(metric: str, *, before: str = "") -> str:
    return f"increase({of(metric, *_MODELS)}[$__range]{before})"


def _per_inference(grow: Callable[[str], str]) -> str:
    """Return PromQL for the joules divided by the inferences whose energy is known; the label provenance is kept."""
    known = f"sum by ({_BY}) ({grow(_COUNT)}) - sum by ({_BY}) ({grow(_WITHOUT)})"
    return f"sum by ({_BY}, provenance) ({grow(_ENERGY)}) / on ({_BY}) group_left () ({known} > 0)"


_MEAN = _per_inference(_growth_of)
_MEAN_BEFORE = _per_inference(lambda metric: _growth_of(metric, before=" offset $compare"))
_DEVICE_POWER = f"sum ({rate('edgeprof_device_energy_joules_total')})"


def _quantile_of(q: float) -> str:
    return f"histogram_quantile({q:g}, sum by (le, {_BY}) ({rate(_SLOW, *_MODELS)}))"


OVERVIEW = Row(
    "Over the time shown",
    (
        bars(
            "Joules per inference",
            "Energy of the whole device while the inferences ran, over the number of those whose energy is known. "
            "Where several ran at once, each moment is shared equally among them.",
            f"sort_desc({_MEAN})",
            _JOULES_WHO,
            unit="joule",
            width=10,
            height=7,
        ),
        bars(
            "Energy per inference against before",
            "Joules per inference of the time shown, over those of the time that lies the chosen comparison earlier. "
            "Above 1 the same model has become dearer.",
            f"sort_desc(({_MEAN}) / ({_MEAN_BEFORE}))",
            _JOULES_WHO,
            unit="percentunit",
            width=7,
            height=7,
            bounds=(0.0, 2.0),
            thresholds=((None, GREEN), (1.05, YELLOW), (1.1, ORANGE)),
        ),
        stat(
            "Inferences",
            "Inferences that applications reported in the time shown.",
            f"sum ({_growth_of(_COUNT)})",
            "inferences",
            width=3,
            height=7,
            decimals=0,
            instant=True,
        ),
        stat(
            "Without known energy",
            "Share of the inferences whose energy is unknown at least in part: no sensor, a gap, too short for the "
            "sampling rate, reported too late, or too many at once. They are in no figure of joules.",
            f"sum ({_growth_of(_WITHOUT)}) / sum ({_growth_of(_COUNT)})",
            "share",
            unit="percentunit",
            height=7,
            decimals=1,
            thresholds=((None, GREEN), (0.05, YELLOW), (0.2, ORANGE)),
            instant=True,
        ),
    ),
)

ENERGY = Row(
    "Energy",
    (
        Panel(
            "Where the power goes",
            "Power of the device, by the model that it is spent on. What is in no inference (idle, other programs, "
            "work between inferences) is other.",
            (
                Query(f"sum by ({_BY}, provenance) ({rate(_ENERGY, *_MODELS)})", _JOULES_WHO),
                Query(f"{_DEVICE_POWER} - (sum ({rate(_ENERGY)}) or vector(0))", "other"),
            ),
            unit="watt",
            height=9,
            stack=True,
        ),
        Panel(
            "Joules per inference over time",
            "What an inference costs, by model and variant. A step means a new model, runtime, power mode or input.",
            (Query(_per_inference(lambda metric: rate(metric, *_MODELS)), _JOULES_WHO),),
            unit="joule",
            height=9,
            fill=0,
        ),
        bars(
            "Share of the energy spent in inferences",
            "Energy of the reported inferences over the energy of the device, in the time shown.",
            f"sort_desc(sum by ({_BY}) ({_growth_of(_ENERGY)}) "
            f"/ on () group_left () sum (increase({of('edgeprof_device_energy_joules_total')}[$__range])))",
            _WHO,
            unit="percentunit",
            bounds=(0.0, 1.0),
            width=12,
        ),
        Panel(
            "Inferences per second",
            "As reported by the applications.",
            (Query(f"sum by ({_BY}) ({rate(_COUNT, *_MODELS)})", _WHO),),
            unit="ops",
            stack=True,
        ),
    ),
)

LATENCY = Row(
    "Latency",
    tuple(
        Panel(
            f"{name} of the duration",
            f"{words} Interpolated within the histogram's buckets, so no finer than they are.",
            (Query(_quantile_of(q), _WHO),),
            unit="s",
            width=8,
            fill=0,
        )
        for name, q, words in (
            ("Median", 0.5, "Half of the inferences took at most this long."),
            ("90th percentile", 0.9, "Nine of ten inferences took at most this long."),
            ("99th percentile", 0.99, "All but one of a hundred inferences took at most this long."),
        )
    ),
    collapsed=True,
)

_STAGE_ENERGY = "edgeprof_stage_energy_joules_total"
_STAGE_COUNT = "edgeprof_stages_total"
_STAGE_KNOWN = "edgeprof_stages_with_energy_total"
_STAGE_WITHOUT = "edgeprof_stages_without_energy_total"
_STAGE_SECONDS = "edgeprof_stage_seconds_total"
#: How often the daemon attributes energy to stages (edgeprof_exporters.stages.PERIOD_S).
_STAGE_STEP = "30s"
#: How long the daemon tries before it gives up on them (PATIENCE_S).
_WITHOUT_STEP = "10m"
_STAGE_BY = f"{_BY}, stage"
_STAGE_WHO = "{{model}} {{stage}}"
_STAGE_CALLS = f"sum by ({_STAGE_BY}) ({rate(_STAGE_COUNT)})"

STAGES = Row(
    "Stages of applications",
    (
        Panel(
            "Joules of a call by stage",
            "What one call of each stage costs, as applications mark their stages (edgeprof.stage): by regression of "
            "the device's readings on when each stage ran, every 30 s. A stage that cannot be told from the others has "
            "none.",
            (
                Query(
                    f"sum by ({_STAGE_BY}, provenance) ({rate(_STAGE_ENERGY)}) / on ({_STAGE_BY}) group_left () "
                    f"(sum by ({_STAGE_BY}) ({rate(_STAGE_KNOWN)}) > 0)",
                    f"{_STAGE_WHO} ({{{{provenance}}}})",
                    min_step=_STAGE_STEP,
                ),
            ),
            unit="joule",
            height=9,
            fill=0,
        ),
        Panel(
            "Power by stage",
            "Power of the device, by the stage that it is spent on; the sum over the stages of one application is what "
            "a camera costs, without the idle between frames.",
            (
                Query(
                    f"sum by ({_STAGE_BY}, provenance) ({rate(_STAGE_ENERGY)})",
                    f"{_STAGE_WHO} ({{{{provenance}}}})",
                    min_step=_STAGE_STEP,
                ),
            ),
            unit="watt",
            height=9,
            stack=True,
        ),
        Panel(
            "Duration of a stage",
            "Mean time of a call, stages within it included.",
            (Query(f"sum by ({_STAGE_BY}) ({rate(_STAGE_SECONDS)}) / ({_STAGE_CALLS} > 0)", _STAGE_WHO),),
            unit="s",
            width=6,
            fill=0,
        ),
        Panel(
            "Calls of each stage per second",
            "How often each stage ran: of the first one, the frames that came in.",
            (Query(_STAGE_CALLS, _STAGE_WHO),),
            unit="ops",
            width=6,
            fill=0,
        ),
        Panel(
            "Frames that reach a stage",
            "Calls of a stage over those of the busiest stage of its model. A stage below 100 % does not see every "
            "frame: they were dropped, or nothing was there to do.",
            (
                Query(
                    f"{_STAGE_CALLS} / on ({_BY}) group_left () max by ({_BY}) ({_STAGE_CALLS} > 0)",
                    _STAGE_WHO,
                ),
            ),
            unit="percentunit",
            width=6,
            fill=0,
        ),
        Panel(
            "Calls without joules",
            "Calls whose joules stayed unknown for ten minutes, over all calls: a stage that is too short, or always "
            "runs with another one, cannot be told apart by the readings. Make it a pipeline (docs/applications.md).",
            (
                Query(
                    f"sum by ({_STAGE_BY}) ({rate(_STAGE_WITHOUT)}) / ({_STAGE_CALLS} > 0)",
                    _STAGE_WHO,
                    min_step=_WITHOUT_STEP,
                ),
            ),
            unit="percentunit",
            width=6,
            fill=0,
        ),
    ),
    collapsed=True,
)

COST = Row(
    "Cost and battery",
    (
        bars(
            "Electricity of a million inferences",
            "Joules per inference of the time shown, at the price entered above. The unit is that of the price.",
            f"sort_desc(({_MEAN}) * 1e6 / 3.6e6 * $price)",
            _JOULES_WHO,
            width=6,
        ),
        bars(
            "Inferences from one battery charge",
            "How many inferences of each model the battery entered above would feed, if they took all of it; "
            "without the converter's losses.",
            f"sort($battery * 3600 / ({_MEAN} > 0))",
            _JOULES_WHO,
            decimals=0,
            width=6,
        ),
        bars(
            "Battery life",
            "How long the battery entered above would feed each chosen device at the power of this moment; without "
            "the converter's losses.",
            "sort($battery * 3600 / (sum by (instance, provenance) "
            f"({rate('edgeprof_device_energy_joules_total')}) > 0))",
            "{{instance}} ({{provenance}})",
            unit="dtdurations",
            width=6,
        ),
        stat(
            "Electricity of a year",
            "The chosen devices together at the mean power of the time shown, for a year, at the price entered above. "
            "The unit is that of the price.",
            f"sum (increase({of('edgeprof_device_energy_joules_total')}[$__range])) / $__range_s "
            "* 8766 / 1000 * $price",
            "a year",
            decimals=2,
            height=8,
            width=6,
            instant=True,
        ),
    ),
    collapsed=True,
)

DASHBOARD = Dashboard(
    uid="edgeprof-inference",
    title="edgeprof / Inference",
    description="Joules per inference, latency, energy share, cost and battery life of the models in production, as "
    "their applications report them (edgeprof.track).",
    rows=(OVERVIEW, ENERGY, LATENCY, STAGES, COST),
    shows=_COUNT,
    variables=(
        Variable("model", "Model", f"label_values({of(_COUNT)}, model)"),
        Variable("variant", "Variant", f"label_values({of(_COUNT, _MODELS[0])}, variant)", every=".*"),
        Variable("compare", "Compare with", "1d, 1h, 7d, 28d", kind="custom", about="How much earlier"),
        Variable("price", "Price of a kWh", "0.30", kind="textbox", about="In any currency"),
        Variable("battery", "Battery (Wh)", "50", kind="textbox", about="Usable energy of one charge"),
    ),
)
