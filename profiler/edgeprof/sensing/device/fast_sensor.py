"""``--fast-sensor``: less averaging in a board's INA3221s for one run, so that short windows can be resolved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.errors import UnavailableError
from edgeprof.sensing.files import listing, number_of, text_of

if TYPE_CHECKING:
    from edgeprof.roots import Roots
    from edgeprof.sensing.device.settings import Settings

#: With conversions of 140 µs and three channels, the time constant is 13 ms: just above the interval of readings at
#: 100 Hz, so that nothing between two readings is lost, and a thirtieth of the stock 0.43 s.
SAMPLES = 16


def lower_samples(roots: Roots, settings: Settings) -> list[str]:
    """Set the ``samples`` of every INA3221 that averages more than ``SAMPLES`` to that number.

    Returns:
        What was changed, one sentence for each chip.

    Raises:
        UnavailableError: there is no INA3221, or its file may not be written.
    """
    if not roots.is_live and not roots.is_simulated:
        raise UnavailableError("--fast-sensor changes a device, and this is a captured tree of one")
    done = []
    for path in listing(roots.sysfs / "class/hwmon"):
        samples = number_of(path / "samples")
        if text_of(path / "name") == "ina3221" and samples is not None and samples > SAMPLES:
            settings.write(path / "samples", str(SAMPLES))
            now = number_of(path / "samples")
            if now is None or now >= samples:
                raise UnavailableError(f"{path / 'samples'} did not take {SAMPLES}: it says {now}")
            done.append(f"{path.name} averages {now:g} samples instead of {samples:g} during this run")
    if not done:
        raise UnavailableError(
            f"--fast-sensor: there is no INA3221 here that averages more than {SAMPLES} samples",
            remedy="Run without it; edgeprof sensors shows each channel's filter.",
        )
    return done
