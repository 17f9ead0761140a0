"""Compute the refresh and the filter of an INA3221 from the values of its driver.

The chip averages by a running exponential filter, new = old + (x − old)/N once per cycle (SBOS576, 7.4.1). Its time
constant is therefore N × cycle, where a cycle is enabled channels × 2 × conversion time. The driver reports N
(``samples``) and ``update_interval`` in whole ms, which is one cycle since Linux 5.14 and N cycles before ("hwmon:
(ina3221) use CVRF only for single-shot conversion", 2021). A cycle is at most 3 × 2 × 8.244 = 49 ms, so a larger value
includes N.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgeprof.sensing.sensor import INSTANTANEOUS, Filter

#: SBOS576, table of conversion times (s).
CONVERSION_TIMES_S = (140e-6, 204e-6, 332e-6, 588e-6, 1100e-6, 2116e-6, 4156e-6, 8244e-6)
_LONGEST_CYCLE_MS = 50.0
#: The conversion times are typical values; the longest ones are a tenth larger (SBOS576, 6.5).
_CONVERSION_LIMIT = 0.1


@dataclass(frozen=True)
class Timing:
    """The refresh and the filter of a chip.

    Attributes:
        cycle_s: Time from one update to the next (s); None if unknown.
        filter: The filter of its readings.
        may_block: Whether the driver is an old one, whose reads wait for a conversion (up to 430 ms).
        note: A sentence on what is uncertain.
    """

    cycle_s: float | None
    filter: Filter
    may_block: bool = False
    note: str = ""


#: NVIDIA's IIO driver writes 0x7727 unless the device tree says otherwise: 64 averages of 1.1 ms, three channels.
IIO_DEFAULT = Timing(6 * 1.1e-3, Filter("exponential", tau_s=64 * 6 * 1.1e-3))


def timing(samples: float | None, update_interval_ms: float | None, enabled: int, release: str | None) -> Timing:
    """Compute the cycle and the filter of a chip with the hwmon driver.

    Args:
        samples: Value of the driver's file; None if there is none (Linux before 5.4).
        update_interval_ms: Value of the driver's file (ms).
        enabled: Number of enabled channels.
        release: ``uname -r``, which decides if the numbers allow both meanings; None if unknown.
    """
    if samples is None or update_interval_ms is None or enabled < 1:
        return Timing(None, INSTANTANEOUS, note="the driver does not report its averaging")
    old_kernel = _is_before_5_14(release)
    includes_samples = samples > 1 and (update_interval_ms > _LONGEST_CYCLE_MS or old_kernel)
    if includes_samples:
        exact = update_interval_ms * 1e-3 / samples / (2 * enabled)
        fitting = [min(CONVERSION_TIMES_S, key=lambda t: abs(t - exact))]
    else:
        # The kernel rounds to the nearest whole ms.
        fitting = [t for t in CONVERSION_TIMES_S if round(2e3 * enabled * t) == round(update_interval_ms)]
    if not fitting:
        return Timing(
            None, INSTANTANEOUS, old_kernel, f"update_interval {update_interval_ms:g} fits no conversion time"
        )
    # The shortest that fits is what NVIDIA's nvpower.sh sets (140 µs on three channels, 332 µs on one).
    cycle = 2 * enabled * fitting[0]
    note, limit = "", _CONVERSION_LIMIT
    if samples > 1 and len(fitting) > 1:
        most = samples * 2 * enabled * fitting[-1]
        note = f"tau {samples * cycle:.2g} s, at most {most:.2g} s: update_interval is in whole ms"
        # The limit spans from the shortest time that fits, which is assumed, to the longest.
        limit = math.hypot(fitting[-1] / fitting[0] - 1, _CONVERSION_LIMIT)
    filtering = Filter("exponential", tau_s=samples * cycle, tau_limit=limit) if samples > 1 else INSTANTANEOUS
    return Timing(cycle, filtering, old_kernel or update_interval_ms > _LONGEST_CYCLE_MS, note)


def _is_before_5_14(release: str | None) -> bool:
    version = re.match(r"(\d+)\.(\d+)", release or "")
    return version is not None and (int(version[1]), int(version[2])) < (5, 14)
