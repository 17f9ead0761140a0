"""One compressor name for several formats: ``prune`` works on an ONNX file, a TFLite file and a PyTorch module.

The implementation for each format is an ordinary Compressor with its own parameters and needs. A Family represents
all of them under one registered name and selects the one that fits the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprof.artifact import recognise
from edgeprof.compression.compressor import Compressor
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset


class Family(Compressor):
    """The compressors that share one name.

    Args:
        name: The registered name.
        members: One or more compressors whose ``takes`` do not overlap.
    """

    def __init__(self, name: str, members: Sequence[Compressor]) -> None:
        self.name = name
        self.members = tuple(members)
        self.version = "+".join(dict.fromkeys(member.version for member in self.members))
        self.takes = tuple(form for member in self.members for form in member.takes)
        self.parameters = tuple({p.name: p for member in self.members for p in member.parameters}.values())
        self.changes = tuple(dict.fromkeys(kind for member in self.members for kind in member.changes))
        needs = {member.needs_data for member in self.members}
        # Only what is true of all members; the member for a format gives the exact value.
        self.needs_data = needs.pop() if len(needs) == 1 else "no"

    def for_format(self, model_format: str) -> Compressor:
        for member in self.members:
            if model_format in member.takes:
                return member
        return self

    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        model_format = recognise(str(source)).format
        member = self.for_format(model_format)
        if member is self:
            raise InputError(f"{self.name} takes {', '.join(self.takes)}; {source} is {model_format}")
        accepted = {p.name for p in member.parameters}
        return member.apply(source, target, {k: v for k, v in parameters.items() if k in accepted}, data, seed=seed)
