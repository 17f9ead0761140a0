"""The contract of a compressor: an artifact and parameters in, a smaller (it is hoped) artifact out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset


#: What of a model a compressor changes: the precision of weights or arithmetic, which weights are zero, how many
#: channels there are, the rank of weight matrices, how many distinct values weights have, or the weights by training.
Change = Literal["precision", "sparsity", "channels", "rank", "values", "weights"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a compressor.

    Attributes:
        type: What its text is turned into.
        default: Taken where none is given; None for none.
        required: Whether it must be given.
        minimum: The lowest value allowed, inclusive.
        maximum: The highest value allowed, inclusive.
        choices: The only values allowed, for text.
        help: One line with the unit.
    """

    name: str
    type: Literal["int", "float", "bool", "str"]
    default: Any = None
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: Sequence[str] = ()
    help: str = ""


class Compressor(ABC):
    """A method that makes a variant of a model file.

    Attributes:
        name: As registered and as written after ``--with``.
        version: Of the method; part of the variant's provenance.
        takes: Formats (artifact.FORMATS) that it accepts.
        gives: The format it produces; None for the one it got.
        parameters: What can be set.
        needs_data: Whether it calibrates or trains on a dataset.
        changes: What of the model it changes, which ``edgeprof diagnose`` reasons about; nothing for a conversion.
        weight_bits: Of the weights that it stores, where it changes their precision and the parameters do not say.
        for_target: Whether what it makes depends on the processor that it is made for (``target.current_target``).
    """

    name: str
    version: str
    takes: Sequence[str]
    gives: str | None = None
    parameters: Sequence[Parameter] = ()
    needs_data: Literal["no", "calibration", "training"] = "no"
    changes: Sequence[Change] = ()
    weight_bits: int | None = None
    for_target: bool = False

    def for_format(self, model_format: str) -> Compressor:  # noqa: ARG002 - for those that serve several
        """The compressor that does it for one of the formats in ``takes``: itself, unless a name serves several formats
        in several ways, each with parameters and needs of its own.
        """
        return self

    @abstractmethod
    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        """Write the compressed model to ``target`` (a new file; the caller makes that atomic and checksums it).

        Deterministic for a seed. ``source`` is a file; for the format ``python`` it is the spec, written as a path
        (``/folder/file.py:attribute``, ``package.module:attribute``).

        Returns:
            Provenance worth keeping: what was really done (layers touched, ratios reached).

        Raises:
            InputError: the model or the data cannot be used; the sentence names the node, layer or shape.
        """
