"""The service of jetson-stats, for a Jetson whose rails cannot be read in another way: ``--sensor jtop``.

Call: ``jtop.jtop(interval=0.5)``, ``start``, ``power["rail"][NAME]`` with ``volt`` mV, ``curr`` mA, ``power`` mW
(``pip install 'edgeprof[jetson]'``; the service must be of the same version).
Refresh: the service's interval, at best 0.5 s. Traps: if it knows no total, its ``tot`` is a sum of all rails, which
counts rails inside others twice; its ``avg`` is not a mean; neither is used (a ``tot`` with a name is a rail). Its
socket needs the group jtop. It is used only if it is named, since the drivers' files are faster and more precise.
Sources: rbonghi/jetson_stats, jtop/jtop.py and jtop/core/power.py.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from edgeprof import hookimpl
from edgeprof.errors import UnavailableError
from edgeprof.sensing.sensor import Channel, Sensor

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    from edgeprof.hookspecs import Register
    from edgeprof.roots import Roots

NAME = "jtop"
INTERVAL_S, _FIRST_S = 0.5, 5.0


class Jtop(Sensor):
    """The service's rails.

    Args:
        make: Makes a client, as ``jtop.jtop`` does; a client can be used only once.
        rails: Names of the rails.
    """

    name = NAME
    slow = True

    def __init__(self, make: Any, rails: Sequence[str]) -> None:
        self._make = make
        self._client: Any = None
        self._channels = tuple(
            Channel(
                NAME,
                rail,
                "power",
                role="part",
                resolution=1e-3,
                update_interval_s=INTERVAL_S,
                location="the service jtop",
                note="through jetson-stats: at its interval, in whole mW",
            )
            for rail in rails
        )

    @property
    def channels(self) -> Sequence[Channel]:
        return self._channels

    def open(self) -> None:
        if self._client is None:
            self._client = started(self._make)

    def read(self, values: MutableSequence[float], times: MutableSequence[float]) -> None:
        if not self._client.ok(spin=True):
            raise UnavailableError("the service jtop has stopped", remedy="sudo systemctl restart jtop")
        rails = _service_rails(self._client)
        now = time.monotonic()
        for index, channel in enumerate(self._channels):
            rail = rails.get(channel.name) or {}
            values[index] = rail["power"] * 1e-3 if rail.get("online", "power" in rail) else math.nan
            times[index] = now

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def started(make: Any) -> Any:
    """Start a client that has received its first answer.

    Raises:
        UnavailableError: the service does not run or refuses the connection.
    """
    client = make(interval=INTERVAL_S)
    try:
        client.start()
    except Exception as error:  # noqa: BLE001 - JtopException, of an optional library
        raise UnavailableError(
            f"the service jtop does not answer: {error}", remedy="sudo systemctl restart jtop; join the group jtop"
        ) from None
    return client


def _service_rails(client: Any) -> dict[str, Any]:
    """Return all rails by name, the total included if it is a rail.

    The service lists a rail that is the board's total apart from the others, under the rail's name. A total that the
    service has computed as a sum has no name and is left out.
    """
    power: dict[str, Any] = client.power
    total, rails = power.get("tot") or {}, dict(power["rail"])
    return {total["name"]: total, **rails} if total.get("name") else rails


def find(roots: Roots, addresses: Sequence[str] = ()) -> list[Sensor]:
    """Return the service's rails if the user asked for them (``--sensor jtop``), else an empty list.

    Raises:
        UnavailableError: jetson-stats is not installed, or its service does not run.
    """
    if not addresses or not roots.is_live:
        return []
    try:
        from jtop import jtop
    except ImportError:
        raise UnavailableError("jetson-stats is not installed", remedy="pip install 'edgeprof[jetson]'") from None
    return service(jtop)


def service(make: Any) -> list[Sensor]:
    """Return the rails that a jtop client reports.

    Raises:
        UnavailableError: the service does not run, or it reports no rail.
    """
    client = started(make)
    try:
        rails = list(_service_rails(client))
    finally:
        client.close()
    if not rails:
        raise UnavailableError("the service jtop reports no rails")
    return [Jtop(make, rails)]


@hookimpl
def register_sensors(register: Register) -> None:
    register(NAME, find)
