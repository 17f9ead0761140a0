"""Discover the sensors and measure the characteristics of each power source, once per boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprof.sensing.boot import BootCache
from edgeprof.sensing.characterize import characterise
from edgeprof.sensing.device import settings
from edgeprof.sensing.discover import Discovery, discover

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots
    from edgeprof.sensing.characteristic import Characteristic
    from edgeprof.sensing.sensor import Sensor
    from edgeprof.sensing.trace import Key

#: How long (s) to read fast: enough for the refresh of sources with at least four values per second.
CHARACTERISE_S = 2.0


def prepare(
    host: PluginHost,
    roots: Roots,
    only: Sequence[str] | None = None,
    rail: str | None = None,
    *,
    note: Callable[[str], None] = lambda _text: None,
    among: Collection[str] | None = None,
) -> Discovery:
    """Discover the sensors, with the refresh and the step of every power and energy channel measured on this device.

    Args:
        host: The plugin host that has the sources.
        roots: The trees to search, which also have the id of the boot.
        only: ``--sensor``, as in ``discover``.
        rail: ``--rail``, as in ``discover``.
        note: Called with a text before a wait of some seconds.
        among: Only these sources are asked; None: all of them.

    Raises:
        InputError: see ``discover``.
    """
    for problem in settings.restore_settings():
        note(f"an earlier run was killed and left something changed: {problem}")
    cache = BootCache(roots)

    def study(sensors: Sequence[Sensor]) -> dict[Key, Characteristic]:
        powered = [s for s in sensors if any(c.tells_joules for c in s.channels)]
        new = [sensor for sensor in powered if cache.get(sensor) is None]
        if new:
            note(f"measuring the refresh of {', '.join(dict.fromkeys(s.name for s in new))} (once per boot)")
        known: dict[Key, Characteristic] = {}
        for sensor in powered:
            known.update(characterise(sensor, CHARACTERISE_S, cache=cache))
        return known

    return discover(host, roots, only, rail, study=study, among=among)
