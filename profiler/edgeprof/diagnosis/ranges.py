"""Checks of a variant's calibration: its data, the number of samples, and how values use the resulting ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprof.diagnosis.advice import made_again, repeated, with_chain
from edgeprof.diagnosis.finding import Evidence, Finding, Status
from edgeprof.diagnosis.noise import (
    AGREEMENT_LOW,
    CLIPPED,
    SAMPLES,
    calibration_facts,
    other_preprocessing,
    short_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEAD = 0.75


def calibration(e: Evidence) -> Iterator[Finding]:
    """B3.4: enough samples, of every class, with the preprocessing that the model will meet."""
    facts = calibration_facts(e)
    if facts is not None:
        yield from _data(e, facts)
    worst = sorted(e.clipped, key=lambda name: -e.clipped[name])[:3]
    if worst and e.clipped[worst[0]] > CLIPPED:
        named = ", ".join(f"{short_name(name)} ({e.clipped[name]:.1%})" for name in worst)
        wrong = e.clipped[worst[0]] > 0.1 and (e.agreement is None or e.agreement[0] < AGREEMENT_LOW)
        chain = made_again(e.methods, e.recipe, method="minmax")
        if chain is None and (other_preprocessing(e) or _few_samples(e)):
            chain = _more_samples(e) or repeated(e.methods, e.recipe)
        yield Finding(
            "clipping", "fail" if wrong else "warn", e.clipped[worst[0]], "ratio", CLIPPED,
            f"values fall outside their calibrated ranges: {named}",
            with_chain("Calibrate on data like that which it meets: same preprocessing, more samples.", chain), 4.5,
            chain=chain,
        )  # fmt: skip
    idle = sorted(e.dead, key=lambda name: -e.dead[name])[:3]
    if idle and e.dead[idle[0]] > _DEAD:
        named = ", ".join(f"{short_name(name)} ({e.dead[name]:.0%})" for name in idle)
        chain = made_again(e.methods, e.recipe, method="percentile", percentile=99.9)
        yield Finding(
            "dead-range", "warn", e.dead[idle[0]], "ratio", _DEAD,
            f"most of the calibrated range is never used: {named}",
            with_chain("Outliers widened it: calibrate with the true preprocessing"
                       + (", or without the outliers." if chain else "."), chain), 2.5, chain=chain,
        )  # fmt: skip


def _few_samples(e: Evidence) -> bool:
    facts = calibration_facts(e) or {}
    return bool(facts.get("samples", SAMPLES) < SAMPLES)


def _more_samples(e: Evidence) -> str | None:
    """Return the chain with ten times as many calibration samples, if the method and not the data limited them."""
    facts = calibration_facts(e) or {}
    count = facts.get("samples", 0)
    limited = any((step.get("parameters") or {}).get("samples") == count for step in e.recipe)
    return made_again(e.methods, e.recipe, samples=max(SAMPLES, 10 * count)) if limited else None


def _data(e: Evidence, facts: Mapping[str, Any]) -> Iterator[Finding]:
    count = facts.get("samples", 0)
    if other_preprocessing(e):
        chain = repeated(e.methods, e.recipe)
        yield Finding(
            "preprocessing", "fail", None, "", None,
            "it was calibrated with another preprocessing than it is judged with",
            with_chain("Use one dataset .toml for both, or make it again with the data that is given here.", chain),
            8.0, chain=chain,
        )  # fmt: skip
    status: Status = "ok" if count >= SAMPLES else "warn"
    chain = _more_samples(e)
    yield Finding(
        "calibration", status, count, "samples", SAMPLES, f"it was calibrated on {count} samples",
        None if status == "ok" else with_chain(f"Use {SAMPLES} or more.", chain), 1.5,
        chain=None if status == "ok" else chain,
    )  # fmt: skip
    classes, there = facts.get("classes"), facts.get("classes_in_dataset")
    if classes and there and classes < 0.8 * there:
        yield Finding(
            "classes", "warn", classes / there, "ratio", 0.8,
            f"the calibration samples show {classes} of {there} classes", with_chain("Use more samples.", chain), 1.5,
            chain=chain,
        )  # fmt: skip
