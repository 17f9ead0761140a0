"""Which layers to leave in float so that a quantised model stays within a budget: the worst first, and no more.

For ``exclude=auto``: each layer's signal to quantisation noise when it alone is quantised gives the order; how many of
them it takes is found by trying (doubling, then bisection).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Parameter
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.compression.calibration_data import Calibration

    Outputs = list[npt.NDArray[Any]]

#: The word in place of names.
AUTO = "auto"
#: Samples that variants are judged on at most, and those that each layer's noise is taken from.
JUDGED, FOLLOWED = 256, 8

PARAMETERS = (
    Parameter(
        "max_drop",
        "float",
        default=0.01,
        minimum=0.0,
        maximum=1.0,
        help="of exclude=auto: top-1 accuracy that may be lost, without labels top-1 answers that may differ (shares)",
    ),
    Parameter(
        "min_sqnr",
        "float",
        default=20.0,
        minimum=0.0,
        maximum=120.0,
        help="of exclude=auto: signal to noise in dB that outputs without a top-1 must keep",
    ),
)


@dataclass
class Judge:
    """Holds a variant's answers against the float model's.

    Args:
        truth: The float model's outputs, each with the samples along its first axis.
        labels: Of the samples; None where there are none.
        max_drop: For a model with one output of n × classes.
        min_sqnr: In dB, for any other.
    """

    truth: Outputs
    labels: npt.NDArray[Any] | None
    max_drop: float
    min_sqnr: float

    @classmethod
    def of(cls, truth: Outputs, calibration: Calibration, parameters: Mapping[str, Any]) -> Judge:
        """Judge by the calibration samples' labels where each sample has one class number, else without labels."""
        labels = np.asarray(calibration.data.labels)
        known = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) == len(calibration.data)
        chosen = labels[calibration.chosen] if known else None
        return cls(truth, chosen, parameters["max_drop"], parameters["min_sqnr"])

    @property
    def by(self) -> str:
        """What outputs are judged by: ``accuracy_drop``, ``disagreement`` (of the top class) or ``sqnr_db``."""
        if len(self.truth) != 1 or self.truth[0].ndim != 2 or self.truth[0].shape[1] < 2:
            return "sqnr_db"
        return "disagreement" if self.labels is None else "accuracy_drop"

    @property
    def limit(self) -> float:
        """The worst value that is accepted, in the unit of ``by``: a share, or dB."""
        return self.min_sqnr if self.by == "sqnr_db" else self.max_drop

    def look(self, outputs: Outputs) -> float:
        """The figure that ``by`` names; an SQNR without noise is infinite."""
        if self.by == "sqnr_db":
            pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(self.truth, outputs, strict=True)]
            noise = sum(float(np.square(x - y).sum()) for x, y in pairs)
            return decibels(sum(float(np.square(x).sum()) for x, _ in pairs), noise)
        before, after = self.truth[0].argmax(axis=1), outputs[0].argmax(axis=1)
        if not np.isfinite(outputs[0]).all():
            return 1.0
        if self.labels is None:
            return float((before != after).mean())
        return float((before == self.labels).mean() - (after == self.labels).mean())

    def fits(self, value: float) -> bool:
        """Whether a value of ``look`` keeps the limit."""
        return value >= self.limit if self.by == "sqnr_db" else value <= self.limit


def decibels(signal: float, noise: float) -> float:
    """10·log10(signal / noise) of two powers; infinite without noise, −infinite without a signal or with NaN."""
    if not np.isfinite(noise) or not signal > 0:
        return -np.inf
    return float(10 * np.log10(signal / noise)) if noise else np.inf


def by_channel(signal: npt.NDArray[Any], noise: npt.NDArray[Any]) -> float:
    """Signal to noise in dB of a layer: the mean over its channels of noise / signal (each at most 1).

    One loud channel does not hide that all others are lost in its noise, as it would in the ratio of the sums; where
    all are alike, it is that ratio.
    """
    ratios = np.minimum(noise / np.where(signal > 0, signal, 1.0), 1.0)[signal > 0]
    return decibels(1.0, float(ratios.mean())) if ratios.size else np.inf


def search(
    label: str,
    judge: Judge,
    alone: Callable[[], Mapping[str, float]],
    attempt: Callable[[Sequence[str]], tuple[Path, Outputs]],
) -> tuple[Path, dict[str, Any]]:
    """The variant with the fewest layers in float that keeps the budget.

    Args:
        label: The method's name, for messages.
        judge: What the budget is.
        alone: Layer → SQNR in dB when it alone is quantised; asked for once, and only where it is needed.
        attempt: Makes the variant with these layers in float, and runs it on the judge's samples.

    Returns:
        It, and for the provenance: what stays in float and why, what that costs, and what was tried.

    Raises:
        InputError: the budget is not kept even with all of them in float.
    """
    tried: dict[int, float] = {}
    files: dict[int, Path] = {}
    order: list[str] = []
    sqnr_alone: Mapping[str, float] = {}

    def fits(count: int) -> bool:
        files[count], outputs = attempt(order[:count])
        tried[count] = judge.look(outputs)
        return judge.fits(tried[count])

    best = 0
    if not fits(0):
        sqnr_alone = alone()
        order.extend(sorted(sqnr_alone, key=lambda name: sqnr_alone[name]))
        low, best = 0, 1
        while best < len(order) and not fits(best):
            low, best = best, 2 * best
        best = min(best, len(order))
        if best not in tried and not fits(best):
            raise InputError(
                f"{label} does not keep {judge.by} within {judge.limit:g}: it is {tried[best]:.4g} even with all"
                f" {len(order)} layers in float",
                remedy="Allow more (max_drop, min_sqnr), or look at the calibration data.",
            )
        while best - low > 1:
            middle = (low + best) // 2
            low, best = (low, middle) if fits(middle) else (middle, best)
        if best == len(order):
            raise InputError(
                f"{label} keeps {judge.by} within {judge.limit:g} only with all {best} layers in float",
                remedy="Allow more (max_drop, min_sqnr), or look at the calibration data.",
            )
    return files[best], {
        "excluded": order[:best],
        "why": {name: f"{sqnr_alone[name]:.1f} dB when it alone is quantised" for name in order[:best]},
        "search": {
            "by": judge.by,
            "limit": judge.limit,
            "samples": len(judge.truth[0]),
            "tried": {str(count): round(value, 5) for count, value in sorted(tried.items()) if np.isfinite(value)},
        },
    }
