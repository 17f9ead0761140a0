"""Check a result against limits, for continuous integration. An unknown number does not pass.

The rules, which the help text repeats:

- An absolute limit fails if the value is beyond it. It is *unsure* if the 95 % interval reaches beyond the limit.
- A regression fails if the whole interval of its ratio is beyond the limit. It is *unsure* if the interval contains the
  limit. A regression that is no larger than ``min_effect`` passes, however certain it is.
- ``unsure_passes`` decides whether an unsure check passes or fails, and the report says so; ``strict`` lets it fail.
  By default, therefore, only what is proven to be bad fails; with ``strict`` only what is proven to be good passes.
- A missing number fails with its reason. A failed or invalid variant fails; with ``strict`` a degraded variant, an
  interrupted run and estimated joules fail too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from edgeprof.errors import unknown
from edgeprof.reasons import Code
from edgeprof.results.schema import workload_view
from edgeprof.verdicts.accuracy import drop_scale
from edgeprof.verdicts.across import Across, Pair, label
from edgeprof.worker.workload import INFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeprof.results.schema import Interval, Ratio, Result, Variant

Unit = Literal["J", "s", "Hz", "B", "1", ""]


@dataclass(frozen=True)
class Limits:
    """The limits, in joules, seconds, hertz, bytes and ratios; None: there is no such limit."""

    max_j: float | None = None
    max_p99_s: float | None = None
    #: Frames, or other units of work, per second that must be reached.
    min_rate_hz: float | None = None
    #: In points if the metric is a ratio (0.01: one point), else a share of the baseline's value.
    max_accuracy_drop: float | None = None
    max_rss_bytes: float | None = None
    max_size_bytes: float | None = None
    max_regression: float | None = None
    #: A regression up to this ratio (0.01: 1 %) is too small to matter, and passes.
    min_effect: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether there is no limit; ``min_effect`` alone is not one."""
        return self == Limits(min_effect=self.min_effect)


@dataclass(frozen=True)
class Check:
    """The verdict on one limit of one variant.

    Attributes:
        variant: Label of the variant.
        quantity: The limited quantity, in words.
        passed: Whether it passes, with ``strict`` taken into account.
        unsure: Whether the interval contains the limit, so that the verdict is open; or, without a figure, whether only
            ``strict`` fails it.
        value: The figure, in ``unit``; a ratio for a regression or a drop (0.03 is 3 %).
        ci95: The 95 % interval of the figure.
        limit: The limit, in ``unit``.
        unit: ``J``, ``s``, ``Hz``, ``B``, ``1`` for a ratio.
        provenance: Provenance of the joules.
        reason: Why it fails without a figure, or why the verdict is open.
    """

    variant: str
    quantity: str
    passed: bool
    unsure: bool = False
    value: float | None = None
    ci95: Interval | None = None
    limit: float | None = None
    unit: Unit = ""
    provenance: str | None = None
    reason: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether ``--unsure`` decides it: it has a figure whose interval contains the limit."""
        return self.unsure and self.value is not None

    @property
    def is_about_accuracy(self) -> bool:
        """Whether the limit says how much accuracy may be lost."""
        return self.quantity.endswith((" drop", " rise"))


def of_workload(result: Result, name: str) -> Result:
    """Return the result with the figures of one workload; a variant that failed stays in it, and fails.

    Raises:
        InputError: a variant that was measured has no workload of that name.
    """
    seen = []
    for variant in result.variants:
        view = workload_view(variant, name)
        if view is None and variant.workloads:
            raise unknown("workload", name, [workload.name for workload in variant.workloads])
        if view is None and name != INFERENCE.name:  # a result of 0.1 has no workloads; its figures are per inference
            view = msgspec.structs.replace(variant, energy_j_per_inference=None, latency_s=None)
        seen.append(view or variant)
    return msgspec.structs.replace(result, variants=seen)


def check(
    result: Result,
    limits: Limits,
    *,
    against: Across | None = None,
    strict: bool = False,
    unsure_passes: bool | None = None,
    names: Iterable[str] = (),
) -> list[Check]:
    """Check every variant against every limit.

    Args:
        result: The result to check.
        limits: The limits.
        against: ``across(baseline, result)``, for ``max_regression`` and for a drop from another result.
        strict: Whether to refuse estimates, and to fail unsure checks unless ``unsure_passes`` says otherwise.
        unsure_passes: Whether a figure passes whose interval contains its limit; None: only without ``strict``.
        names: Names of the variants to check, which must exist; empty: all.
    """
    wanted = set(names)
    decided = _Decided(strict, not strict if unsure_passes is None else unsure_passes)
    checks: list[Check] = []
    if result.interrupted:
        checks.append(Check("the run", "completeness", not strict, unsure=True, reason="it was interrupted"))
    for variant in result.variants:
        if wanted and variant.name not in wanted:
            continue
        pair = next((p for p in against.pairs if p.variant == variant), None) if against else None
        checks += _check_variant(variant, limits, against, pair, decided)
    if not result.variants:
        checks.append(Check("the run", "completeness", passed=False, reason="it contains no variant"))
    if against and limits.max_regression is not None and not wanted:
        checks += [
            Check(name, "presence", not strict, unsure=True, reason="the baseline has it, the result does not")
            for name in against.only_baseline
        ]
    return checks


@dataclass(frozen=True)
class _Decided:
    """How the flags treat a doubtful figure."""

    strict: bool
    unsure_passes: bool

    def passes(self, *, within: bool, unsure: bool, estimated: bool = False) -> bool:
        """Whether a check passes; ``within`` says that its figure is not proven to be beyond the limit."""
        return within and (self.unsure_passes or not unsure) and not (self.strict and estimated)


def _check_variant(
    variant: Variant, limits: Limits, against: Across | None, pair: Pair | None, decided: _Decided
) -> list[Check]:
    name, strict = label(variant), decided.strict
    if variant.status in ("failed", "invalid"):
        why = "; ".join(r.message for r in variant.reasons) or "no reason was recorded"
        return [Check(name, "status", passed=False, reason=f"{variant.status}: {why}")]
    checks = []
    if variant.status == "degraded":
        codes = ", ".join(dict.fromkeys(r.code.replace("_", " ") for r in variant.reasons))
        checks.append(Check(name, "status", not strict, unsure=True, reason=f"degraded: {codes}"))
    if limits.max_j is not None:
        checks.append(_check_energy(variant, limits.max_j, decided))
    if limits.max_p99_s is not None:
        checks.append(_check_p99(variant, limits.max_p99_s))
    if limits.min_rate_hz is not None:
        checks.append(_check_rate(variant, limits.min_rate_hz))
    if limits.max_accuracy_drop is not None:
        checks.append(_check_accuracy_drop(variant, limits.max_accuracy_drop, pair, decided))
    if limits.max_rss_bytes is not None:
        rss = variant.memory_bytes.peak_rss if variant.memory_bytes else None
        checks.append(_check_value(name, "peak memory", rss, limits.max_rss_bytes, "B"))
    if limits.max_size_bytes is not None:
        checks.append(_check_value(name, "file size", variant.model.size_bytes, limits.max_size_bytes, "B"))
    if limits.max_regression is not None:
        checks += _check_regressions(variant, limits, against, pair, decided)
    return checks


def _check_value(name: str, quantity: str, value: float | None, limit: float, unit: Unit, *, reason: str = "") -> Check:
    if value is None:
        return Check(name, quantity, passed=False, limit=limit, unit=unit, reason=reason or "it was not measured")
    return Check(name, quantity, value <= limit, value=value, limit=limit, unit=unit)


def _check_energy(variant: Variant, limit: float, decided: _Decided) -> Check:
    name, energy = label(variant), variant.energy_j_per_inference
    if energy is None or energy.gross.value is None:
        why = [r.message for r in variant.reasons if r.code in (Code.NO_SENSOR, Code.UNCERTAIN, Code.GAPS)]
        return _check_value(name, "energy", None, limit, "J", reason=why[0] if why else "no energy was measured")
    value, interval = energy.gross.value, energy.gross.ci95
    unsure = value <= limit and (interval is None or interval[1] > limit)
    weak = decided.strict and energy.provenance in ("estimated", "none")
    return Check(
        name,
        "energy",
        passed=decided.passes(within=value <= limit, unsure=unsure, estimated=weak),
        unsure=unsure,
        value=value,
        ci95=interval,
        limit=limit,
        unit="J",
        provenance=energy.provenance,
        reason="--strict takes no estimates" if weak else None,
    )


def _check_p99(variant: Variant, limit: float) -> Check:
    latency = variant.latency_s
    few = "no latency was measured"
    if latency is not None:
        known = "the result holds no bound of its p99"
        if latency.max is None:
            known = "only its mean latency is known"
        few = (
            known
            if latency.max is None or latency.samples >= 662
            else f"{latency.samples} requests are too few for a p99 (662 are needed)"
        )
    # The upper bound is checked, since the quantile of a short run says little about the slowest request in a hundred.
    return _check_value(label(variant), "p99 latency", latency.p99_bound if latency else None, limit, "s", reason=few)


def _check_rate(variant: Variant, limit: float) -> Check:
    """Check the rate that was reached: with a fixed rate, that of the frames that were not dropped."""
    name, reached = label(variant), variant.throughput_per_s
    if reached is None:
        return Check(name, "frame rate", passed=False, limit=limit, unit="Hz", reason="no throughput was measured")
    return Check(name, "frame rate", reached >= limit, value=reached, limit=limit, unit="Hz")


def _check_accuracy_drop(variant: Variant, limit: float, pair: Pair | None, decided: _Decided) -> Check:
    """Check the drop against the other result if there is one, else against the baseline within the result."""
    name, accuracy = label(variant), variant.accuracy
    if accuracy is None:
        return _check_value(
            name, "accuracy drop", None, limit, "1", reason="no accuracy was measured: bench with --dataset"
        )
    quantity = "accuracy drop" if accuracy.is_ratio else f"{accuracy.metric} {'drop' if accuracy.sign > 0 else 'rise'}"
    if pair is not None:
        other = pair.comparison.accuracy_difference
        if other is None:
            why = pair.comparison.reason or "the baseline has no accuracy of the same metric and data"
            return _check_value(name, quantity, None, limit, "1", reason=why)
        drop, ends = -accuracy.sign * other.value, other.ci95
    elif accuracy.drop is not None:
        drop, ends = accuracy.drop, None
    else:
        return _check_value(
            name, quantity, None, limit, "1", reason="there is no baseline to drop from: give --baseline"
        )
    paired = _paired_rise(variant, pair)
    if paired is not None:
        rise, (low, high) = paired.value - 1, (paired.ci95[0] - 1, paired.ci95[1] - 1)
        unsure = rise <= limit < high
        passed = decided.passes(within=rise <= limit, unsure=unsure)
        return Check(name, quantity, passed, unsure=unsure, value=rise, ci95=(low, high), limit=limit, unit="1")
    scale = drop_scale(accuracy, drop)
    if scale is None:
        return _check_value(
            name, quantity, None, limit, "1", reason="the baseline's value is 0, so the drop has no share"
        )
    share, interval = drop * scale, None
    if ends is not None:
        low, high = sorted(-accuracy.sign * end * scale for end in ends)
        interval = (low, high)
        unsure = share <= limit and high > limit
    else:
        # Only a test with paired samples says how uncertain the drop itself is.
        unsure = share <= limit and (pair is not None or (share > 0 and accuracy.p_value is None))
    passed = decided.passes(within=share <= limit, unsure=unsure)
    return Check(name, quantity, passed, unsure=unsure, value=share, ci95=interval, limit=limit, unit="1")


def _paired_rise(variant: Variant, pair: Pair | None) -> Ratio | None:
    """The ratio of perplexities paired by token; its interval is much narrower than those of the two perplexities."""
    if pair is not None:
        return pair.comparison.perplexity_ratio
    return variant.language.perplexity.ratio if variant.language and variant.language.perplexity else None


def _check_regressions(
    variant: Variant, limits: Limits, against: Across | None, pair: Pair | None, decided: _Decided
) -> list[Check]:
    """Check energy and latency: each figure of the baseline must exist in the result and must not be worse."""
    name, strict, limit = label(variant), decided.strict, limits.max_regression
    if against is None or pair is None:
        # A new variant has nothing to regress from.
        why = "the baseline has no such variant"
        return [Check(name, "regression", not strict, unsure=True, limit=limit, unit="1", reason=why)]
    comparison, base = pair.comparison, pair.baseline
    if comparison.verdict == "not_comparable":
        return [Check(name, "regression", passed=False, limit=limit, unit="1", reason=comparison.reason)]
    checks = []
    energy = base.energy_j_per_inference
    if comparison.energy_ratio is not None or (energy is not None and energy.gross.value is not None):
        provenance = energy.provenance if energy else None
        checks.append(
            _check_regression(name, "energy", comparison.energy_ratio, limits, decided, provenance=provenance)
        )
    if comparison.latency_ratio is not None or base.latency_s is not None:
        checks.append(_check_regression(name, "latency", comparison.latency_ratio, limits, decided))
    if not checks:
        checks.append(
            Check(name, "regression", passed=False, limit=limit, unit="1", reason="the baseline has no figures")
        )
    return checks


def _check_regression(
    name: str, quantity: str, ratio: Ratio | None, limits: Limits, decided: _Decided, *, provenance: str | None = None
) -> Check:
    quantity, limit = f"{quantity} regression", limits.max_regression or 0.0
    weak = decided.strict and provenance == "estimated"
    if ratio is None:
        return _check_value(
            name, quantity, None, limit, "1", reason="only the baseline has this figure, or there are too few windows"
        )
    value, low, high = (each - 1 for each in (ratio.value, *ratio.ci95))
    # Without --min-effect even a figure that fell is unsure where its interval contains the limit.
    is_small = limits.min_effect > 0 and value <= limits.min_effect
    beyond, unsure = not is_small and low > limit, not is_small and low <= limit < high
    small = f"not above --min-effect {100 * limits.min_effect:g} %" if low > limit and is_small else None
    return Check(
        name,
        quantity,
        passed=decided.passes(within=not beyond, unsure=unsure, estimated=weak),
        unsure=unsure,
        value=value,
        ci95=(low, high),
        limit=limit,
        unit="1",
        provenance=provenance,
        reason="--strict takes no estimates" if weak else small,
    )
