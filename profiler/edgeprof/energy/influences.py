"""The errors that all windows of a run share: their causes, and how they add up over the channels of a sum.

An error of one cause has one value, whatever it acts on. Its effects on several channels are therefore added with their
signs, and between two variants it cancels as far as it affects both equally. Errors of different causes are independent
and are added as squares (GUM 5.1.2 and F.1.2.3). Each channel has a gain error of its own (mainly that of its shunt);
an offset and a clock belong to the chip, whose one converter serves all of its channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprof.energy.uncertainty import RECTANGULAR, Component

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeprof.sensing.sensor import Channel

#: The assumed relative limit of a filter's time constant where its channel states none, as for a typical converter.
TAU_LIMIT = 0.1
#: The relative standard uncertainty of the variance that a filter hides (edgeprof.energy.sag): fluctuations between two
#: readings stay hidden, and few readings are close together.
U_HIDDEN = 0.3
#: Influences whose names begin with this word are particular to one variant, and do not cancel between variants.
OWN = "level"


@dataclass(frozen=True)
class Share:
    """The contribution of one channel to a figure.

    Attributes:
        channel: The channel.
        joules: Its part of the figure, in J per unit.
        seconds: For how long an offset acts, in s per unit; 0 where an offset cancels (net energy).
        watts: Its mean power in the windows, in W.
        u_level: The standard uncertainty of its quantised level, in J per unit.
        tau_slope_w: The derivative of its part by the filter's time constant, in W per unit.
        sag_j: What was subtracted because the voltage of the rail sags, in J per unit.
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
        name: The cause; influences with the same name are one and the same error.
        line: The line of the budget that it belongs to.
        u: The standard uncertainty of the figure that it causes, with its sign, in J per unit.
        rectangular: Whether it comes from a limit, so that its distribution is rectangular.
    """

    name: str
    line: str
    u: float
    rectangular: bool = False

    def component(self) -> Component:
        """This influence as a line of the budget."""
        return Component(self.line, abs(self.u), rectangular=self.rectangular)


def shared_influences(shares: Sequence[Share]) -> list[Influence]:
    """The shared errors of all channels of a figure, one for each cause."""
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
    """The errors of gain and offset, from the data sheet or from a calibration.

    The gain and the offset of a calibration are correlated. At the pivot, the power at which gain and level are
    uncorrelated, only the level is uncertain, and an error of the gain acts on the distance from the pivot. This has
    the same effect as the covariance term of GUM 5.2.2.
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
        gain_error = calibration.u_gain * (calibration.raw(share.watts) - calibration.pivot_w) * share.seconds
        limits = [Influence(f"offset {key}", "offset", calibration.u_level_w * share.seconds)]
    else:
        gain_error = calibration.u_gain / calibration.gain * share.joules
        limits = []
    meter = (calibration.meter_limit or 0.0) * RECTANGULAR * share.joules
    return [
        Influence(f"gain {key}", "gain", gain_error),
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
    """The standard uncertainty of a filter's time constant (s)."""
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
    """The chip of a channel, whose channels share a converter and a clock: ``ina3221 i2c 1-0040``."""
    place = channel.location.partition(" channel ")[0] if " channel " in channel.location else channel.location
    return f"{channel.sensor} {place}".strip()


def as_squares(values: Sequence[float]) -> float:
    """The root of the sum of squares, by which independent uncertainties are added (GUM 5.1.2)."""
    return math.sqrt(math.fsum(value**2 for value in values))
