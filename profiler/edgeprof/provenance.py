"""Where a joule comes from; the word travels with it to every place where it is shown (contract §2)."""

from __future__ import annotations

from typing import Literal

#: ``counter``: a hardware energy counter; ``measured``: sampled power; ``estimated``: a model, with its wide
#: uncertainty; ``simulated``: a virtual board; ``none``: nothing measures.
Provenance = Literal["counter", "measured", "estimated", "simulated", "none"]

#: Best to worst.
PROVENANCES: tuple[Provenance, ...] = ("counter", "measured", "estimated", "simulated", "none")


def provenance_of_sum(provenances: list[Provenance]) -> Provenance:
    """What the sum of a machine's parts may call itself.

    A part that is a model (memory, by RAPL) beside others that are counted or measured does not make the sum one: the
    part keeps the word ``estimated``, its limits are in the sum's uncertainty, and a remark names it.
    """
    return worst([p for p in provenances if p != "estimated"] or provenances)


def worst(provenances: list[Provenance]) -> Provenance:
    """What a sum of such joules may call itself; ``none`` for an empty one."""
    return max(provenances, key=PROVENANCES.index, default="none")
