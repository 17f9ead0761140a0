"""Checks of a variant's outputs: signal-to-noise ratio inside and at the outputs, and agreement with its baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeprof.compression.recipe import changes_of, weight_bits_of
from edgeprof.diagnosis.advice import made_again, repeated, replaced, with_chain
from edgeprof.diagnosis.finding import Evidence, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SQNR_FATAL, _SQNR_LOW = 10.0, 20.0
_AGREEMENT_BROKEN, AGREEMENT_LOW = 0.50, 0.95
#: The largest harmless share of values outside a range, and the sufficient number of calibration samples.
CLIPPED, SAMPLES = 0.01, 100


def sqnr(e: Evidence) -> Iterator[Finding]:
    """B3.5: 20·log10(‖x‖ / ‖x − x̂‖) of each layer's output."""
    if not e.sqnr_db or any("trained_on" in (step.get("facts") or {}) for step in e.recipe):
        return  # a trained network has other activations than its baseline
    ranked = sorted(e.sqnr_db, key=lambda name: e.sqnr_db[name])
    low = [name for name in ranked if e.sqnr_db[name] < _SQNR_LOW]
    worst = e.sqnr_db[ranked[0]]
    named = ", ".join(f"{short_name(name)} ({e.sqnr_db[name]:.1f} dB)" for name in ranked[:3])
    if not low:
        yield Finding("sqnr", "ok", worst, "dB", _SQNR_LOW, f"every layer is above {_SQNR_LOW:.0f} dB; least: {named}")
        return
    fatal = worst < _SQNR_FATAL
    fix, chain = _against_loss(e)
    broken = next(name for name in e.sqnr_db if e.sqnr_db[name] < (_SQNR_FATAL if fatal else _SQNR_LOW))
    yield Finding(
        "sqnr", "fail" if fatal else "warn", worst, "dB", _SQNR_FATAL if fatal else _SQNR_LOW,
        f"{len(low)} of {len(ranked)} layers are below {_SQNR_LOW:.0f} dB, from {short_name(broken)} on;"
        f" worst: {named}",
        fix or f"Leave what gives {short_name(broken)} in float.", 4.0 if fatal else 2.0,
        chain=chain,
    )  # fmt: skip


def _against_loss(e: Evidence) -> tuple[str | None, str | None]:
    """Return what to do about lost signal, in words and as a chain."""
    fix, chain = _milder_advice(e)
    return (fix, chain) if fix else _against_noise(e)


def _against_noise(e: Evidence) -> tuple[str | None, str | None]:
    """Return what to do about rounding noise, in words and as a chain: remove the first known cause, or use floats."""
    causes: list[tuple[bool, str, dict[str, Any]]] = [
        (max(e.clipped.values(), default=0.0) > CLIPPED, "Ranges cut values off", {"method": "minmax"}),
        (_sums_saturate(e), "Sums overflow on this CPU", {"reduce_range": True}),
        (any((step.get("parameters") or {}).get("per_channel") is False for step in e.recipe),
         "All channels share one scale", {"per_channel": True}),
        # "auto" judges by outputs, because quantised neighbours may cancel the gain of an excluded layer.
        (True, "Leave the worst layers in float", {"exclude": "auto"}),
        (bool(_worst_layers(e)), "Leave the first layers that lose it in float", {"exclude": _worst_layers(e)}),
    ]  # fmt: skip
    if other_preprocessing(e):
        chain = repeated(e.methods, e.recipe)
        return with_chain(
            "It was calibrated with another preprocessing: make it again with the data at hand.", chain
        ), chain
    for seen, words, changes in causes:
        chain = made_again(e.methods, e.recipe, **changes) if seen else None
        if chain is not None:
            return with_chain(words, chain), chain
    return None, None


def _worst_layers(e: Evidence) -> str:
    """Return the first three multiplying layers below the threshold, by the names that the method uses."""
    if e.graph is None or e.baseline is None:
        return ""
    makers = {**e.baseline.makers, **e.graph.makers}
    layers = {layer.name for layer in e.baseline.layers}
    low = [name for name, db in e.sqnr_db.items() if db < _SQNR_LOW and name in makers]
    names = dict.fromkeys(makers[name] for name in low if makers[name] in layers or name in layers)
    return "|".join(list(names)[:3])


def outputs(e: Evidence) -> Iterator[Finding]:
    """The outputs of the measuring runtime, including the effects of saturation and delegates."""
    if not e.output_db or any("trained_on" in (step.get("facts") or {}) for step in e.recipe):
        return
    name = min(e.output_db, key=lambda name: e.output_db[name])
    worst = e.output_db[name]
    if math.isinf(worst):
        yield Finding("outputs", "ok", None, "dB", _SQNR_LOW, "its outputs equal the baseline's")
        return
    sentence = f"its outputs lie {worst:.1f} dB above their noise ({name}), as they really run"
    if worst >= _SQNR_LOW:
        yield Finding("outputs", "ok", worst, "dB", _SQNR_LOW, sentence)
        return
    fine = e.agreement is not None and e.agreement[0] >= AGREEMENT_LOW
    fatal = worst < _SQNR_FATAL and not fine
    unseen = e.sqnr_db and min(e.sqnr_db.values()) >= _SQNR_LOW
    fix, chain = _against_loss(e)
    yield Finding(
        "outputs", "fail" if fatal else "warn", worst, "dB", _SQNR_FATAL if fatal else _SQNR_LOW,
        sentence + (": more than the layers that could be followed show" if unseen else ""),
        fix, 3.8 if fatal else 1.9, chain=chain,
    )  # fmt: skip


def _sums_saturate(e: Evidence) -> bool:
    """Return whether 8-bit weights run on an x86 CPU without VNNI, which adds pairs of products in 16 bits."""
    facts = next((s["facts"] for s in reversed(e.recipe) if "reduce_range" in (s.get("facts") or {})), None)
    return bool(facts and not facts["reduce_range"] and not e.instructions and e.instructions is not None
                and e.arch in {"x86_64", "AMD64", "i686"})  # fmt: skip


def saturation(e: Evidence) -> Iterator[Finding]:
    if not _sums_saturate(e):
        return
    chain = made_again(e.methods, e.recipe, reduce_range=True)
    yield Finding(
        "saturation", "warn", None, "", None,
        "its weights have 8 bits, and pairs of products overflow in the 16-bit sums of this CPU, which has no VNNI",
        with_chain("Make it with 7-bit weights.", chain) if chain else None, 4.2, chain=chain,
    )  # fmt: skip


#: Changes that lose signal without rounding → how to reduce them.
_LOSSY = {
    "sparsity": "a smaller amount",
    "channels": "a smaller amount",
    "rank": "more energy or rank",
    "values": "a larger n",
}


def _takes_much_out(step: Mapping[str, Any]) -> bool:
    """Return whether a step changes weights by more than rounding them to 8 bits does."""
    changes = changes_of(step)
    trained = "weights" in changes and "precision" not in changes
    return bool(changes & _LOSSY.keys()) or trained or (weight_bits_of(step) or 32) <= 4


def _milder_advice(e: Evidence) -> tuple[str | None, str | None]:
    """Return what to do if weights were changed in other ways than rounding, which leaving layers in float cannot undo.

    Returns:
        The remedy and its chain; each is None if there is none.
    """
    milder = {
        str(step.get("compressor", "a step")): how
        for step in e.recipe
        for change, how in _LOSSY.items()
        if change in changes_of(step)
    }
    if not milder:
        return None, None
    advice = " and ".join(f"{how} for {step}" for step, how in milder.items())
    steps = [{**step, "parameters": _milder_settings(step)} for step in e.recipe]
    changed = any(new["parameters"] != (old.get("parameters") or {}) for new, old in zip(steps, e.recipe, strict=True))
    chain = repeated(e.methods, steps) if changed else None
    words = f"Weights were changed, not only rounded: train afterwards (a PyTorch module: epochs=N), or try {advice}."
    return with_chain(words, chain), chain


def _milder_settings(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with which a step that changed weights changes about half as much; others are unchanged."""
    given = dict(step.get("parameters") or {})
    if not changes_of(step) & _LOSSY.keys():
        return given
    if given.get("amount"):
        given["amount"] = round(given["amount"] / 2, 4)
    if given.get("n"):
        given["n"] = min(256, 4 * given["n"])
    if given.get("rank"):
        given["rank"] *= 2
    elif given.get("energy"):
        given["energy"] = round(1 - (1 - given["energy"]) / 4, 6)
    return given


def agreement(e: Evidence) -> Iterator[Finding]:
    """B3.6: agreement with the baseline; less than 50 % cannot be explained by precision."""
    if e.agreement is None:
        return
    share, count = e.agreement
    sentence = f"its top-1 answer is the baseline's for {share:.1%} of {count} samples"
    if share < _AGREEMENT_BROKEN:
        changed = any(_takes_much_out(step) for step in e.recipe) or any(
            layer.stored == "int4" for layer in (e.graph.layers if e.graph else ())
        )
        if changed:
            fix, chain = _milder_advice(e)
            if chain is None:  # few bits
                chain = replaced(e.methods, e.recipe, "precision", "int8-weight")
            fix = fix or with_chain("Too much was taken out: fine-tune afterwards, or keep more bits.", chain)
        else:
            chain = _against_noise(e)[1]
            suspects = (
                "Look, in this order, at: calibration with another preprocessing; a model not in eval mode or with"
                " batch norms not fused; the wrong engine; additions that were not quantised; random or too few"
                " calibration samples; per-tensor weights; classes in another order."
            )
            fix = with_chain(f"{suspects} What is likeliest here", chain) if chain else suspects
        what = "damaged" if changed else "a configuration error, not a loss of precision"
        yield Finding(
            "agreement", "fail", share, "ratio", _AGREEMENT_BROKEN, f"{sentence}: {what}", fix, 7.0, chain=chain
        )
    elif share < AGREEMENT_LOW:
        milder, chain = _milder_advice(e)
        fix = milder
        if milder is None:
            fix, chain = _against_noise(e)
        yield Finding(
            "agreement", "warn", share, "ratio", AGREEMENT_LOW,
            sentence if milder else f"{sentence}: calibration or granularity", fix, 3.0, chain=chain,
        )  # fmt: skip
    else:
        yield Finding("agreement", "ok", share, "ratio", AGREEMENT_LOW, sentence)


def calibration_facts(e: Evidence) -> Mapping[str, Any] | None:
    """Return the facts of the step that calibrated; None if no step did."""
    return next((s["facts"] for s in e.recipe if "calibration" in (s.get("facts") or {})), None)


def other_preprocessing(e: Evidence) -> bool:
    """Return whether the variant was calibrated with other preprocessing than it is evaluated with."""
    facts = calibration_facts(e) or {}
    return e.preprocessing is not None and facts.get("preprocessing") not in (None, e.preprocessing)


def short_name(name: str) -> str:
    """Return the first part of a tensor's name: TFLite joins the names of fused tensors with semicolons."""
    return name.partition(";")[0]
