"""How the models of a diagnosis are loaded: with inputs from the user, or by default in the form of the samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError
from edgeprof.worker.arrays import read_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.worker.graph import Graph


@dataclass(frozen=True)
class Inputs:
    """The given inputs, and what else the runtime is given.

    Attributes:
        shapes: Input name → shape (``--input``).
        dtypes: Input name → type, if it was given with the shape.
        data: An .npz with one array for each input (``--input-data``).
        frames: For a pipeline: the source of the frames (``--frames``).
        device: The device that loads the models (``--device``); None for the runtime's default.
        options: The options of the runtime (``--option``).
        sample: The dataset's first sample, a batch of one, by name ("" for the only input); empty without a dataset.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None
    sample: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    frames: str | None = None
    device: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def with_sample(self, dataset: Dataset | None) -> Inputs:
        """Return these inputs with a dataset's first sample."""
        if dataset is None:
            return self
        return replace(self, sample=dict(next(iter(dataset.batches(1)), {})))

    def for_graph(self) -> dict[str, Any]:
        """Return name → array or shape for ``Runtime.inspect_with_inputs``; the user's inputs override the dataset's.

        Raises:
            InputError: The .npz cannot be read.
        """
        arrays_by_name: dict[str, Any] = dict(self.sample)
        if self.data is not None:
            try:
                arrays_by_name = dict(read_arrays(str(self.data)))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"--input-data {self.data} cannot be read: {error}", remedy="Give an .npz, one array per input."
                ) from error
        return {**({} if self.shapes and "" in arrays_by_name else arrays_by_name), **self.shapes}

    def shapes_for(self, graph: Graph | None) -> dict[str, tuple[int, ...]]:
        """Return the shapes for loading a model: the given ones, or the dataset's if the model leaves sizes open."""
        if self.shapes or self.data is not None or graph is None:
            return dict(self.shapes)
        sample = self.sample
        if set(sample) == {""} and len(graph.inputs) == 1:
            sample = {next(iter(graph.inputs)): sample[""]}
        if set(sample) != set(graph.inputs) or not any(None in shape[1:] for shape in graph.inputs.values()):
            return {}
        return {
            name: tuple(
                sample_size if declared is None else declared
                for declared, sample_size in zip(shape, sample[name].shape, strict=False)
            )
            for name, shape in graph.inputs.items()
        }
