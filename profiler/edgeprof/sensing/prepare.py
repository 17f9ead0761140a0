"""Discovery, and then what each power source really does: measured once per boot, cached, applied to its channels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeprof.sensing.board.topology import arrange
from edgeprof.sensing.boot import BootCache
from edgeprof.sensing.characterize import annotated, characterise
from edgeprof.sensing.device import settings
from edgeprof.sensing.discover import Discovery, discover

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeprof.plugins import PluginHost
    from edgeprof.roots import Roots

#: Reading fast for so long tells the refresh of anything that has at least four values a second.
CHARACTERISE_S = 2.0


def prepare(
    host: PluginHost,
    roots: Roots,
    only: Sequence[str] | None = None,
    rail: str | None = None,
    *,
    note: Callable[[str], None] = lambda _text: None,
) -> Discovery:
    """``discover``, with the refresh and step of every power and energy channel as measured on this device.

    Args:
        host: Holds the sources.
        roots: Where to look; also tells which boot it is.
        only: ``--sensor``.
        rail: ``--rail``.
        note: Told once, before a wait of seconds.

    Raises:
        InputError: see ``discover``.
    """
    for problem in settings.recover():
        note(f"an earlier run was killed and left something changed: {problem}")
    found = discover(host, roots, only, rail)
    cache = BootCache(roots)
    powered = [s for s in found.sensors if any(c.quantity in {"power", "energy"} for c in s.channels)]
    new = [sensor for sensor in powered if cache.get(sensor) is None]
    if new:
        note(f"measuring the refresh of {', '.join(dict.fromkeys(s.name for s in new))} (once per boot)")
    known = {}
    for sensor in powered:
        known.update(characterise(sensor, CHARACTERISE_S, cache=cache))
    if not known:
        return found
    channels = list(annotated(found.topology.channels, known).values())
    topology = arrange(found.topology.board, channels, rail)
    return replace(found, topology=topology, unavailable=[c for c in topology.channels if not c.available])
