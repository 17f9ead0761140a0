"""The arrays of ``--input-data``, under the names of the model's inputs. Python 3.6 grammar and numpy."""

import re
from typing import Any, Dict, List, Sequence

from edgeprof.worker import tensors
from edgeprof.worker.arrays import ArraysError, read_arrays
from edgeprof.worker.runtime import LoadError, TensorSpec


def read_inputs(path: str, specs: Sequence[TensorSpec]) -> Dict[str, Any]:
    """Read the arrays of an .npz file by name; arrays that were saved without names go to the inputs in their order.

    Raises:
        LoadError: the file cannot be read.
    """
    try:
        arrays = read_arrays(path)
    except (OSError, ArraysError) as error:
        raise LoadError(
            "the inputs in {} cannot be read: {}".format(path, error),
            "Save them with numpy.savez(FILE, **{input name: array}), without Python objects.",
        ) from error
    arrays = _join_sequences(arrays, specs)
    if len(arrays) == len(specs) and all(re.match(r"arr_\d+$", name) for name in arrays):
        return {spec.name: arrays["arr_{}".format(i)] for i, spec in enumerate(specs)}
    return arrays


def _join_sequences(arrays: Dict[str, Any], specs: Sequence[TensorSpec]) -> Dict[str, Any]:
    """Join the arrays NAME.0, NAME.1 … into the sequence NAME for each input that takes a sequence."""
    gathered = dict(arrays)
    for spec in specs:
        if "sequence" in spec.dtype and spec.name not in arrays:
            parts: List[Any] = []
            while "{}.{}".format(spec.name, len(parts)) in gathered:
                parts.append(gathered.pop("{}.{}".format(spec.name, len(parts))))
            if parts:
                gathered[spec.name] = tensors.object_array(parts)
    return gathered
