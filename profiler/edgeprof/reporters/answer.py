"""The top of a report: the question that a result answers, and its answer in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reasons import Code
from edgeprof.reporters import view
from edgeprof.results import schema
from edgeprof.verdicts.accuracy import SIGNIFICANT, has_dropped
from edgeprof.verdicts.compare import compare
from edgeprof.verdicts.cost import is_usable
from edgeprof.verdicts.recommend import recommendation_of, recommended_variant

if TYPE_CHECKING:
    from edgeprof.results.schema import Ratio, Result, Variant


def question(result: Result) -> str:
    names = list(dict.fromkeys(schema.model_name(v.model) for v in result.variants))
    board = result.host.board
    if len(result.variants) > 1 and len(names) == 1:
        return f"Which {names[0]} should run on this {board}?"
    if len(result.variants) > 1:
        return f"Which of {len(result.variants)} models is cheapest to run on this {board}?"
    unit = view.common_unit(result.variants)
    return f"What does one {unit} of {names[0] if names else 'the model'} cost on this {board}?"


def answer(result: Result) -> str:
    """A few sentences that are true by themselves: the choice, how certain it is, and what is not known."""
    return " ".join(filter(None, answer_and_details(result)))


def answer_and_details(result: Result) -> tuple[str, str]:
    """The answer in one sentence, and what a reader must know in addition, which may be empty."""
    usable = [v for v in result.variants if is_usable(v)]
    if not usable:
        return "Nothing could be measured; the reasons are below.", ""
    best = recommended_variant(result)
    caveat = _caveat_text(result, best or usable[0])
    sentences = [headline(result)]
    studied = next((reason.message for reason in result.reasons if reason.code == Code.RECOMMENDATION), None)
    if studied is not None:
        sentences.append(_as_sentence(studied))
    elif best is None and len(usable) == 1:
        sentences.append(f"{usable[0].name}: {cost(usable[0])}.")
    elif best is None:
        sentences.append(_as_sentence(recommendation_of(result).reason))
    elif best is not result.variants[0]:
        sentences.append(f"{best.name}: {cost(best)}.")
    first, *others = [*filter(None, sentences), ""]
    failed = len(result.variants) - 1 if best is None and studied is None and len(usable) == 1 else 0
    more = f"{failed} other{'s' if failed > 1 else ''} could not be measured." if failed else ""
    return first, " ".join(filter(None, [*others, caveat, more]))


def headline(result: Result) -> str:
    """The recommendation in everyday words; empty if there is none, or only one variant.

    ``digits-int8 needs 0.68 ± 0.02 times the energy of digits, is 1.5 times as fast and as accurate (95.2 %, not
    distinguishable).``
    """
    best = recommended_variant(result)
    if best is None:
        return ""
    if recommendation_of(result).untouched:
        return _unchanged_sentence(result, best)
    comparison = next((c for c in result.comparisons if c.variant == best.name), None)
    baseline = next((v for v in result.variants if comparison and v.name == comparison.baseline), result.variants[0])
    comparison = comparison or compare(best, baseline)
    clauses = [
        *([_energy_clause(comparison.energy_ratio, baseline.name)] if comparison.energy_ratio else []),
        *([_speed_clause(comparison.latency_ratio, baseline.name)] if comparison.latency_ratio else []),
    ]
    accuracy = _accuracy_clause(best.accuracy, clauses[-1] if clauses else "")
    clauses += [accuracy] if accuracy else []
    if not clauses:
        return ""
    text = clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"
    return f"{best.name} {text}.{'' if best.accuracy else ' Its accuracy was not judged.'}"


def _energy_clause(ratio: Ratio, baseline: str) -> str:
    if schema.sense(ratio) == "tied":
        return f"needs as much energy as {baseline} ({view.ratio_text(ratio)}, not distinguishable)"
    digits = view.ratio_digits(ratio)
    half = (ratio.ci95[1] - ratio.ci95[0]) / 2
    return f"needs {ratio.value:.{digits}f} ± {half:.{digits}f} times the energy of {baseline}"


def _speed_clause(ratio: Ratio, baseline: str) -> str:
    if schema.sense(ratio) == "tied":
        return "is as fast"
    if ratio.value < 1:
        return f"is {_ratio_text(1 / ratio.value)} times as fast"
    return f"takes {_ratio_text(ratio.value)} times as long as {baseline}"


def _ratio_text(factor: float) -> str:
    """Write a factor with two digits, or three if it would otherwise read 1.0."""
    text = units.significant(factor, 2)
    return text if float(text) != 1.0 else units.significant(factor, 3)


def _accuracy_clause(accuracy: schema.Accuracy | None, before: str) -> str | None:
    """``as accurate (95.2 %, not distinguishable)``, with its own verb unless the clause before begins with "is"."""
    if accuracy is None:
        return None
    value = f"{100 * accuracy.value:.1f} %" if accuracy.is_ratio else units.significant(accuracy.value)
    if accuracy.drop is None:
        return f"has {view.metric_heading(accuracy)} {value}"
    change = -accuracy.sign * accuracy.drop
    verb = "" if before.startswith("is ") else "is "
    if not accuracy.drop:
        return (
            f"{verb}as accurate ({value})" if accuracy.higher_is_better else f"has the same {accuracy.metric} ({value})"
        )
    is_distinguishable = accuracy.p_value is None or accuracy.p_value < SIGNIFICANT
    if not is_distinguishable:
        same = "as accurate" if accuracy.higher_is_better else f"equally good in {view.metric_title(accuracy)}"
        return f"{verb}{same} ({value}, not distinguishable)"
    size = f"{abs(100 * change):.1f} points" if accuracy.is_ratio else units.significant(abs(change))
    if accuracy.higher_is_better:
        return f"{verb}{size} {'less' if accuracy.drop > 0 else 'more'} accurate ({value})"
    return f"has {size} {'more' if accuracy.drop > 0 else 'less'} {view.metric_title(accuracy)} ({value})"


def cost(variant: Variant) -> str:
    """Energy and latency of a variant, as ``5.12 ± 0.11 mJ per inference, 0.980 ms (p50)``."""
    parts = []
    energy = variant.energy_j_per_inference
    if energy and energy.gross.value is not None:
        parts.append(f"{view.energy_text(energy.gross, energy.provenance)} per {variant.unit}")
    latency = variant.latency_s
    if latency and latency.p50:
        parts.append(f"{units.quantity(latency.p50, 's')} (p50)")
    elif latency:
        parts.append(f"{units.quantity(latency.mean, 's')} (mean)")
    return ", ".join(parts) or "no cost is known"


def _unchanged_sentence(result: Result, baseline: Variant) -> str:
    """Say that the first variant should stay, and how each other one compares with it."""
    recommendation = recommendation_of(result)
    others = [v for v in result.variants if v is not baseline and is_usable(v)]
    lossy = [v.name for v in others if has_dropped(v.accuracy)]
    dropped = frozenset(lossy)
    tied = [name for name in recommendation.ties if name not in dropped]
    named = {*lossy, *tied}
    worse = [v.name for v in others if v.name not in named]
    parts = [f"{_listed_names(tied)} cannot be distinguished from it"] if tied else []
    parts += [f"{_listed_names(worse)} {'is' if len(worse) == 1 else 'are'} worse"] if worse else []
    parts += [f"{_listed_names(lossy)} lost accuracy"] if lossy else []
    return f"No variant is better than {baseline.name} ({cost(baseline)})" + (
        f": {'; '.join(parts)}." if parts else "."
    )


def _as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _listed_names(names: list[str]) -> str:
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _caveat_text(result: Result, variant: Variant) -> str:
    """What a reader must know together with the first sentence."""
    energy = variant.energy_j_per_inference
    words = []
    if energy is None or energy.provenance == "none" or energy.gross.value is None:
        words.append("Energy is not known.")
    elif energy.provenance == "simulated":
        words.append("The joules are of a virtual board.")
    elif energy.provenance == "estimated":
        words.append("The joules are estimated, not measured.")
    if variant.status == "degraded":
        words.append("Quote the figures with care: something disturbed the run.")
    if result.interrupted:
        words.append("The run was interrupted.")
    return " ".join(words)
