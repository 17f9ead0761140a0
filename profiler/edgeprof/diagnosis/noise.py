"""Checks of what a variant answers: signal to noise inside and at its outputs, and agreement with its baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeprof.compression.recipe import changes_of, weight_bits_of
from edgeprof.diagnosis.advice import made_again
from edgeprof.diagnosis.finding import Evidence, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SQNR_FATAL, _SQNR_LOW = 10.0, 20.0
_AGREEMENT_BROKEN, AGREEMENT_LOW = 0.50, 0.95
#: The share of values outside a range that costs something, and the calibration samples that are enough.
CLIPPED, SAMPLES = 0.01, 100


def sqnr(e: Evidence) -> Iterator[Finding]:
    """B3.5: 20·log10(‖x‖ / ‖x − x̂‖) of each layer's output."""
    if not e.sqnr_db or any("trained_on" in (step.get("facts") or {}) for step in e.recipe):
        return  # a network that was trained has activations of its own
    ranked = sorted(e.sqnr_db, key=lambda name: e.sqnr_db[name])
    low = [name for name in ranked if e.sqnr_db[name] < _SQNR_LOW]
    worst = e.sqnr_db[ranked[0]]
    named = ", ".join(f"{short_name(name)} ({e.sqnr_db[name]:.1f} dB)" for name in ranked[:3])
    if not low:
        yield Finding("sqnr", "ok", worst, "dB", _SQNR_LOW, f"every layer is above {_SQNR_LOW:.0f} dB; least: {named}")
        return
    fatal = worst < _SQNR_FATAL
    step, chain = (None, None) if _milder_advice(e) else _against_noise(e)
    broken = next(name for name in e.sqnr_db if e.sqnr_db[name] < (_SQNR_FATAL if fatal else _SQNR_LOW))
    yield Finding(
        "sqnr", "fail" if fatal else "warn", worst, "dB", _SQNR_FATAL if fatal else _SQNR_LOW,
        f"{len(low)} of {len(ranked)} layers are below {_SQNR_LOW:.0f} dB, from {short_name(broken)} on;"
        f" worst: {named}",
        _milder_advice(e) or step or f"Leave what gives {short_name(broken)} in float.", 4.0 if fatal else 2.0,
        chain=chain,
    )  # fmt: skip


def _against_noise(e: Evidence) -> tuple[str | None, str | None]:
    """What to do about lost signal, in words and as a chain: the cause that was seen first, else layers in float."""
    causes: list[tuple[bool, str, dict[str, Any]]] = [
        (max(e.clipped.values(), default=0.0) > CLIPPED, "Ranges cut values off", {"method": "minmax"}),
        (_sums_saturate(e), "Sums overflow on this CPU", {"reduce_range": True}),
        (any((step.get("parameters") or {}).get("per_channel") is False for step in e.recipe),
         "All channels share one scale", {"per_channel": True}),
        # Judged by answers: what one excluded layer gains, its quantised neighbours may take away.
        (True, "Leave the worst layers in float", {"exclude": "auto"}),
        (bool(_worst_layers(e)), "Leave the first layers that lose it in float", {"exclude": _worst_layers(e)}),
    ]  # fmt: skip
    for seen, words, changes in causes:
        chain = made_again(e.methods, e.recipe, **changes) if seen else None
        if chain is not None:
            return f"{words}: --with {chain}", chain
    return None, None


def _worst_layers(e: Evidence) -> str:
    """The first three layers that multiply below the threshold, by the names that the method knows them by."""
    if e.graph is None or e.baseline is None:
        return ""
    makers = {**e.baseline.makers, **e.graph.makers}
    layers = {layer.name for layer in e.baseline.layers}
    low = [name for name, db in e.sqnr_db.items() if db < _SQNR_LOW and name in makers]
    names = dict.fromkeys(makers[name] for name in low if makers[name] in layers or name in layers)
    return "|".join(list(names)[:3])


def outputs(e: Evidence) -> Iterator[Finding]:
    """The outputs themselves, as the runtime that measures gives them, saturation and delegates included."""
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
    step, chain = (None, None) if _milder_advice(e) else _against_noise(e)
    yield Finding(
        "outputs", "fail" if fatal else "warn", worst, "dB", _SQNR_FATAL if fatal else _SQNR_LOW,
        sentence + (": more than the layers that could be followed show" if unseen else ""),
        _milder_advice(e) or step, 3.8 if fatal else 1.9, chain=chain,
    )  # fmt: skip


def _sums_saturate(e: Evidence) -> bool:
    """Whether 8-bit weights run on an x86 without VNNI, which adds pairs of products in 16 bits."""
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
        f"Make it with 7-bit weights: --with {chain}" if chain else None, 4.2, chain=chain,
    )  # fmt: skip


#: Changes that lose signal without rounding → what makes them milder.
_LOSSY = {
    "sparsity": "a smaller amount",
    "channels": "a smaller amount",
    "rank": "more energy or rank",
    "values": "a larger n",
}


def _takes_much_out(step: Mapping[str, Any]) -> bool:
    """Whether a step changes weights by more than rounding them to 8 bits does."""
    changes = changes_of(step)
    trained = "weights" in changes and "precision" not in changes
    return bool(changes & _LOSSY.keys()) or trained or (weight_bits_of(step) or 32) <= 4


def _milder_advice(e: Evidence) -> str | None:
    """What to do where weights were changed before anything was rounded: no layer left in float undoes that."""
    milder = {
        str(step.get("compressor", "a step")): how
        for step in e.recipe
        for change, how in _LOSSY.items()
        if change in changes_of(step)
    }
    if not milder:
        return None
    advice = " and ".join(f"{how} for {step}" for step, how in milder.items())
    return f"Weights were changed, not only rounded: try {advice}, or train afterwards (a PyTorch module: epochs=N)."


def agreement(e: Evidence) -> Iterator[Finding]:
    """B3.6: below 50 % it is no question of precision."""
    if e.agreement is None:
        return
    share, count = e.agreement
    sentence = f"its top-1 answer is the baseline's for {share:.1%} of {count} samples"
    if share < _AGREEMENT_BROKEN:
        changed = any(_takes_much_out(step) for step in e.recipe) or any(
            layer.stored == "int4" for layer in (e.graph.layers if e.graph else ())
        )
        suspects = (
            "Too much was taken out: use a smaller amount, or fine-tune afterwards." if changed else
            "Look, in this order, at: calibration with another preprocessing; a model not in eval mode or with batch"
            " norms not fused; the wrong engine; additions that were not quantised; random or too few calibration"
            " samples; per-tensor weights; classes in another order."
        )  # fmt: skip
        what = "damaged" if changed else "a configuration error, not a loss of precision"
        yield Finding("agreement", "fail", share, "ratio", _AGREEMENT_BROKEN, f"{sentence}: {what}", suspects, 7.0)
    elif share < AGREEMENT_LOW:
        milder = _milder_advice(e)
        step, chain = (None, None) if milder else _against_noise(e)
        more = " Or use more samples." if takes(e, samples=SAMPLES) and not milder else ""
        yield Finding(
            "agreement", "warn", share, "ratio", AGREEMENT_LOW,
            sentence if milder else f"{sentence}: calibration or granularity",
            milder or ((step or "") + more).strip() or None, 3.0, chain=chain,
        )  # fmt: skip
    else:
        yield Finding("agreement", "ok", share, "ratio", AGREEMENT_LOW, sentence)


def takes(e: Evidence, **options: Any) -> bool:
    """Whether the method that made the variant takes these parameters."""
    return made_again(e.methods, e.recipe, **options) is not None


def short_name(name: str) -> str:
    """TFLite names a fused tensor after all that was fused into it, with semicolons between."""
    return name.partition(";")[0]
