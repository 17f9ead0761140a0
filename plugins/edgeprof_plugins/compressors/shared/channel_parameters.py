"""The parameters that all methods which remove whole channels from a network share."""

from __future__ import annotations

from edgeprof.compression.compressor import Parameter

#: The share of channels to remove, and the multiple to which the remaining widths are rounded.
CHANNEL_PARAMETERS = (
    Parameter("amount", "float", default=0.3, minimum=0.0, maximum=0.95, help="share of the channels taken out"),
    Parameter(
        "round_to", "int", default=8, minimum=1, maximum=64, help="channels kept are a multiple of this, if possible"
    ),
)
