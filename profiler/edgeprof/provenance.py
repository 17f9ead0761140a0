"""The provenance of joules; it accompanies them to every place where they are shown (contract §2)."""

from __future__ import annotations

from typing import Literal

#: ``counter``: a hardware energy counter; ``measured``: sampled power; ``estimated``: a model, with its wide
#: uncertainty; ``simulated``: a virtual board; ``none``: nothing measures.
Provenance = Literal["counter", "measured", "estimated", "simulated", "none"]

#: The provenances from best to worst.
PROVENANCES: tuple[Provenance, ...] = ("counter", "measured", "estimated", "simulated", "none")


def provenance_of_sum(provenances: list[Provenance]) -> Provenance:
    """The provenance of the sum of a machine's parts.

    An estimated part (memory, by RAPL) beside counted or measured parts does not make the sum an estimate: the part
    itself stays ``estimated``, its limits are in the uncertainty of the sum, and a remark names it.
    """
    return worst([p for p in provenances if p != "estimated"] or provenances)


def worst(provenances: list[Provenance]) -> Provenance:
    """The worst of several provenances; ``none`` if the list is empty."""
    return max(provenances, key=PROVENANCES.index, default="none")
