"""One compressor name, several formats: ``prune`` is the same word for an ONNX file, a TFLite file and a module.

Each format's way of doing it is an ordinary Compressor with its own parameters and needs; a Family stands for all of
them under the one registered name and hands out the one that fits the model.
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
    """The compressors of one name.

    Args:
        name: As registered.
        members: One or more, whose ``takes`` do not overlap.
    """

    def __init__(self, name: str, members: Sequence[Compressor]) -> None:
        self.name = name
        self.members = tuple(members)
        self.version = "+".join(dict.fromkeys(member.version for member in self.members))
        self.takes = tuple(form for member in self.members for form in member.takes)
        self.parameters = tuple({p.name: p for member in self.members for p in member.parameters}.values())
        self.changes = tuple(dict.fromkeys(kind for member in self.members for kind in member.changes))
        needs = {member.needs_data for member in self.members}
        # What is true of all of them; the member of a format says it exactly.
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
