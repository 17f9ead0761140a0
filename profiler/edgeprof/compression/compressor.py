"""The interface of a compressor: it makes a (usually smaller) artifact from an artifact and parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgeprof.evaluation.dataset import Dataset


#: The property of a model that a compressor changes: the precision of weights or arithmetic, the zero weights, the
#: number of channels, the rank of weight matrices, the number of distinct weights, or the weights (by training).
Change = Literal["precision", "sparsity", "channels", "rank", "values", "weights"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a compressor.

    Attributes:
        type: The type to which its text is converted.
        default: The default value; None if there is none.
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
        name: The name under which it is registered and which is written after ``--with``.
        version: The version of the method; part of the variant's provenance.
        takes: Formats (artifact.FORMATS) that it accepts.
        gives: The format that it produces; None for the format that it got.
        parameters: The parameters that can be set.
        needs_data: Whether it calibrates or trains on a dataset.
        changes: The properties of the model that it changes, for ``edgeprof diagnose``; empty for a conversion.
        weight_bits: Bits of the stored weights, if it changes their precision and no parameter determines them.
        for_target: Whether its output depends on the processor for which it is made (``target.current_target``).
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
        """Return the compressor for one of the formats in ``takes``: this object, unless several compressors with
        different parameters and needs share a name, each for its own formats.
        """
        return self

    @abstractmethod
    def apply(
        self, source: Path, target: Path, parameters: Mapping[str, Any], data: Dataset | None, *, seed: int = 0
    ) -> dict[str, Any]:
        """Write the compressed model to ``target`` (a new file; the caller moves it to its place and hashes it).

        The result must be the same for the same seed. ``source`` is a file; for the format ``python`` it is the spec as
        a path (``/folder/file.py:attribute``, ``package.module:attribute``).

        Returns:
            Facts for the provenance: what was actually done (changed layers, achieved ratios).

        Raises:
            InputError: The model or the data cannot be used; the message names the node, layer or shape.
        """
