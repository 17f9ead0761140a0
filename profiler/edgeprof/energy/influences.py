"""The errors that all windows of a run share: what causes them, and how they add up over the channels of a sum.

An error of one cause is one number for all that it acts on: what it does to the channels is added with its sign, and
between two variants it cancels as far as it does the same to both. Errors of different causes are added as squares
(GUM 5.1.2 and F.1.2.3). A gain is its channel's own (the shunt's, above all); an offset and a clock are their chip's,
whose one converter serves all of its channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.sag import U_HIDDEN
from edgeprof.energy.uncertainty import RECTANGULAR, Component

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.sensing.sensor import Channel

#: The relative limit of a filter's time constant where its channel states none: typical times of a converter.
TAU_LIMIT = 0.1
#: Names that begin so are no error of another variant's figure.
OWN = "level"


@dataclass(frozen=True)
class Share:
    """What one channel contributes to a figure.

    Attributes:
        channel: The channel.
        joules: Its part of the figure, J per inference.
        seconds: For how long its level acts, s per inference; 0 where it cancels (net energy).
        watts: Its mean power in the windows, W.
        u_level: Standard uncertainty of its quantised level, J per inference.
        tau_slope_w: What its part changes by with its filter's time constant, W per inference.
        sag_j: What was taken off because the rail's voltage sags, J per inference.
    """

    channel: Channel
    joules: float
    seconds: float
    watts: float
    u_level: float
    tau_slope_w: float
    sag_j: float = 0.0


@dataclass(frozen=True)
class Influence:
    """An error of one cause.

    Attributes:
        name: The cause; of one name is one error.
        line: The budget's line that it belongs to.
        u: Standard uncertainty of the figure from it, signed, J per inference.
        rectangular: Whether it is a limit.
    """

    name: str
    line: str
    u: float
    rectangular: bool = False

    def component(self) -> Component:
        return Component(self.line, abs(self.u), rectangular=self.rectangular)


def shared_influences(shares: Sequence[Share]) -> list[Influence]:
    """All that a figure's channels may be wrong by together, one of each cause."""
    summed: dict[str, Influence] = {}
    for share in shares:
        for influence in (
            *_scale_influences(share),
            *_clock_influences(share),
            *_level_influences(share),
            *_sag_influences(share),
        ):
            before = summed[influence.name].u if influence.name in summed else 0.0
            summed[influence.name] = Influence(
                influence.name, influence.line, before + influence.u, influence.rectangular
            )
    return list(summed.values())


def _scale_influences(share: Share) -> list[Influence]:
    """Gain and offset: of the data sheet, or of a calibration.

    A calibration's line turns about its pivot, where gain and level are uncorrelated: an error of the gain acts on the
    distance from there, which is what the covariance of the two amounts to (GUM 5.2.2).
    """
    channel, key = share.channel, f"{share.channel.sensor}/{share.channel.name}"
    calibration = channel.calibration
    if calibration is None:
        limits = []
        if channel.gain_limit is not None:
            limits.append(Influence(f"gain {key}", "gain", channel.gain_limit * RECTANGULAR * share.joules, True))
        if channel.offset_limit is not None and share.seconds and (channel.quantity == "power" or channel.offset_limit):
            u = channel.offset_limit * RECTANGULAR * share.seconds
            limits.append(Influence(f"offset {chip_name(channel)}", "offset", u, True))
        return limits
    if share.seconds:
        turned = calibration.u_gain * (calibration.raw(share.watts) - calibration.pivot_w) * share.seconds
        limits = [Influence(f"offset {key}", "offset", calibration.u_level_w * share.seconds)]
    else:
        turned = calibration.u_gain / calibration.gain * share.joules
        limits = []
    meter = (calibration.meter_limit or 0.0) * RECTANGULAR * share.joules
    return [
        Influence(f"gain {key}", "gain", turned),
        Influence(f"meter {calibration.against}", "gain", meter, True),
        *limits,
    ]


def _clock_influences(share: Share) -> list[Influence]:
    shape = share.channel.filter
    if shape.kind != "exponential" or not shape.tau_s:
        return []
    u = u_tau(share.channel) * share.tau_slope_w
    return [
        Influence(f"clock {chip_name(share.channel)}", "filter", u, shape.tau_limit is None or shape.tau_limit >= 0.1)
    ]


def u_tau(channel: Channel) -> float:
    """Standard uncertainty of a filter's time constant (s)."""
    limit = channel.filter.tau_limit
    return (channel.filter.tau_s or 0.0) * (TAU_LIMIT if limit is None else limit) * RECTANGULAR


def _level_influences(share: Share) -> list[Influence]:
    if not share.u_level:
        return []
    return [Influence(f"{OWN} {share.channel.sensor}/{share.channel.name}", "resolution", share.u_level)]


def _sag_influences(share: Share) -> list[Influence]:
    if not share.sag_j:
        return []
    name = f"sag {share.channel.sensor}/{share.channel.name}"
    return [Influence(name, "model", U_HIDDEN * share.sag_j)]


def chip_name(channel: Channel) -> str:
    """What shares one converter and one clock: ``ina3221 i2c 1-0040``."""
    place = channel.location.partition(" channel ")[0] if " channel " in channel.location else channel.location
    return f"{channel.sensor} {place}".strip()


def as_squares(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value**2 for value in values))
