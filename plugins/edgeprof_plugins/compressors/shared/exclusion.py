"""Which layers to leave in float so that a quantised model stays within a budget: as few as possible, worst first.

This implements ``exclude=auto``. Layers are ordered by their signal-to-quantisation-noise ratio (SQNR) when only that
layer is quantised. The number of layers to leave in float is found by trial: doubling, then bisection.
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

#: The value of ``exclude`` that requests the search, in place of layer names.
AUTO = "auto"
#: The most samples that a variant is judged on, and the samples that each layer's noise is measured on.
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
    """Compares a variant's outputs with those of the float model.

    Args:
        truth: The float model's outputs, each with the samples along its first axis.
        labels: The labels of the samples; None where there are none.
        max_drop: The limit for a model with one output of shape (n, classes), as a share.
        min_sqnr: The limit for any other model, in dB.
    """

    truth: Outputs
    labels: npt.NDArray[Any] | None
    max_drop: float
    min_sqnr: float

    @classmethod
    def of(cls, truth: Outputs, calibration: Calibration, parameters: Mapping[str, Any]) -> Judge:
        """Use the labels of the calibration samples where each sample has one class index, else no labels."""
        labels = np.asarray(calibration.data.labels)
        known = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) == len(calibration.data)
        chosen = labels[calibration.chosen] if known else None
        return cls(truth, chosen, parameters["max_drop"], parameters["min_sqnr"])

    @property
    def by(self) -> str:
        """The criterion for outputs: ``accuracy_drop``, ``disagreement`` (of the top class) or ``sqnr_db``."""
        if len(self.truth) != 1 or self.truth[0].ndim != 2 or self.truth[0].shape[1] < 2:
            return "sqnr_db"
        return "disagreement" if self.labels is None else "accuracy_drop"

    @property
    def limit(self) -> float:
        """The worst accepted value, in the unit of ``by``: a share, or dB."""
        return self.min_sqnr if self.by == "sqnr_db" else self.max_drop

    def look(self, outputs: Outputs) -> float:
        """Return the value of the criterion ``by`` for these outputs; the SQNR is infinite where there is no noise."""
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
        """Return whether a value from ``look`` is within the limit."""
        return value >= self.limit if self.by == "sqnr_db" else value <= self.limit


def decibels(signal: float, noise: float) -> float:
    """Return 10·log10(signal / noise) of two powers.

    The result is infinite where the noise is zero, and −infinite where there is no signal or the noise is not finite.
    """
    if not np.isfinite(noise) or not signal > 0:
        return -np.inf
    return float(10 * np.log10(signal / noise)) if noise else np.inf


def by_channel(signal: npt.NDArray[Any], noise: npt.NDArray[Any]) -> float:
    """Return the SQNR of a layer in dB, from the mean over its channels of noise / signal (each at most 1).

    In the ratio of the sums, one channel with a large signal would hide the noise of all others. Where all channels are
    alike, both give the same value.
    """
    ratios = np.minimum(noise / np.where(signal > 0, signal, 1.0), 1.0)[signal > 0]
    return decibels(1.0, float(ratios.mean())) if ratios.size else np.inf


def search(
    label: str,
    judge: Judge,
    alone: Callable[[], Mapping[str, float]],
    attempt: Callable[[Sequence[str]], tuple[Path, Outputs]],
) -> tuple[Path, dict[str, Any]]:
    """Find the variant that keeps the budget with the fewest layers in float.

    Args:
        label: The method's name, for messages.
        judge: The budget.
        alone: Returns layer → SQNR in dB when only that layer is quantised; called once, and only where it is needed.
        attempt: Makes the variant with the given layers in float, and runs it on the judge's samples.

    Returns:
        The variant's file, and for the provenance: the layers left in float, the reason for each, and the trials.

    Raises:
        InputError: the budget is kept only with all layers in float, or not even then.
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
