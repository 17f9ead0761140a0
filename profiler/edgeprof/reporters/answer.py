"""The question that a result answers and its answer in one sentence: what stands at the top of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof import units
from edgeprof.reporters import view
from edgeprof.results import schema

if TYPE_CHECKING:
    from edgeprof.results.schema import Result, Variant


def question(result: Result) -> str:
    names = list(dict.fromkeys(schema.model_name(v.model) for v in result.variants))
    board = result.host.board
    if len(result.variants) > 1 and len(names) == 1:
        return f"Which {names[0]} should run on this {board}?"
    if len(result.variants) > 1:
        return f"Which of {len(result.variants)} models is cheapest to run on this {board}?"
    return f"What does one inference of {names[0] if names else 'the model'} cost on this {board}?"


def answer(result: Result) -> str:
    """One or two sentences that stay true if nothing else is read: the choice, how sure, and what is not known."""
    usable = [v for v in result.variants if v.status in ("ok", "degraded")]
    if not usable:
        return "Nothing could be measured; the reasons are below."
    studied = next((reason.message for reason in result.reasons if reason.code == "recommendation"), None)
    if studied is not None:
        return f"{studied[0].upper()}{studied[1:].rstrip('.')}.{_caveat(result, usable[0])}"
    best = view.recommended(result)
    if best is not None:
        return f"{best.name}: {cost(best)}{_against(result, best)}.{_caveat(result, best)}"
    if len(usable) == 1:
        failed = len(result.variants) - 1
        more = f" {failed} other{'s' if failed > 1 else ''} could not be measured." if failed else ""
        return f"{usable[0].name}: {cost(usable[0])}.{_caveat(result, usable[0])}{more}"
    return f"{_undecided(result)}{_caveat(result, usable[0])}"


def cost(variant: Variant) -> str:
    """``5.12 ± 0.11 mJ per inference, 0.980 ms``."""
    parts = []
    energy = variant.energy_j_per_inference
    if energy and energy.gross.value is not None:
        parts.append(f"{view.energy_text(energy.gross, energy.provenance)} per inference")
    latency = variant.latency_s
    p50 = latency and (latency.p50 if latency.p50 is not None else latency.median)
    if p50:
        parts.append(f"{units.quantity(p50, 's')} (p50)")
    return ", ".join(parts) or "no cost is known"


def _against(result: Result, best: Variant) -> str:
    comparison = next((c for c in result.comparisons if c.variant == best.name), None)
    if comparison is None:
        return ""
    return f"; against {comparison.baseline} {view.comparison_text(comparison, best)}"


def _undecided(result: Result) -> str:
    front = [v.name for v in result.variants if v.name in result.pareto]
    if len(front) > 1:
        return f"It depends: {_listed(front)} each give something that no other one beats."
    tied, worse = ([c.variant for c in result.comparisons if c.verdict == verdict] for verdict in ("tied", "worse"))
    if tied or worse:
        found = [f"{_listed(tied)} cannot be told from it"] if tied else []
        found += [f"{_listed(worse)} {'is' if len(worse) == 1 else 'are'} worse"] if worse else []
        base = result.comparisons[0].baseline
        price = next((f" ({cost(v)})" for v in result.variants if v.name == base), "")
        return f"No variant is better than {base}{price}: {'; '.join(found)}."
    return "No variant is better than the others in all that was measured."


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _caveat(result: Result, variant: Variant) -> str:
    """What must be known with the very first sentence."""
    energy = variant.energy_j_per_inference
    words = ""
    if energy is None or energy.provenance == "none" or energy.gross.value is None:
        words += " Energy is not known."
    elif energy.provenance == "simulated":
        words += " The joules are of a virtual board."
    elif energy.provenance == "estimated":
        words += " The joules are estimated, not measured."
    if variant.status == "degraded":
        words += " Quote it with care: the run was not clean."
    if result.interrupted:
        words += " The run was interrupted."
    return words
