"""What a TFLite graph shows of its inputs' values: indices into a table, sizes, repeats."""

import contextlib
from typing import Any, Dict, List, Optional, Sequence, Tuple

from edgeprof.worker.inputs import keep_fit

Fit = Tuple[Any, ...]

#: Operators whose output is their first input's values in another form.
_SAME_VALUES = {"CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE"}
#: (operator, number of the input) → the value that all its elements may have.
_ALL = {
    ("TILE", 1): 1,
    ("BROADCAST_TO", 1): 1,
    ("FILL", 0): 1,
    ("PAD", 1): 0,
    ("PADV2", 1): 0,
    ("MIRROR_PAD", 1): 0,
    ("TOPK_V2", 1): 1,
    ("ONE_HOT", 1): 10,
    ("SLICE", 1): 0,
    ("SLICE", 2): -1,
    ("STRIDED_SLICE", 1): 0,
    ("STRIDED_SLICE", 2): 2**31 - 1,
    ("STRIDED_SLICE", 3): 1,
    ("RANGE", 0): 0,
    ("RANGE", 1): 10,
    ("RANGE", 2): 1,
    ("REVERSE_V2", 1): 0,
    ("EXPAND_DIMS", 1): 0,
}


def fits(interpreter: Any, names: Dict[int, str]) -> Dict[str, Sequence[Any]]:
    """Input name → what suits it; nothing where the graph shows nothing.

    Args:
        interpreter: With its tensors allocated.
        names: Number of an input's tensor → its name.

    The operators are no part of the library's public interface: where they cannot be had, nothing is shown.
    """
    shown = {}  # type: Dict[str, Sequence[Any]]
    with contextlib.suppress(Exception):
        shapes = {
            detail["index"]: [int(size) for size in detail["shape"]] for detail in interpreter.get_tensor_details()
        }
        source = dict(names)
        for operator in interpreter._get_ops_details():  # noqa: SLF001 - nothing public lists them
            inputs, outputs = list(operator["inputs"]), list(operator["outputs"])
            for number, index in enumerate(inputs):
                if index in source:
                    keep_fit(shown, source[index], _use(interpreter, operator, number, shapes))
            if operator["op_name"] in _SAME_VALUES and inputs and inputs[0] in source and outputs:
                source[outputs[0]] = source[inputs[0]]
    return shown


def _use(interpreter: Any, operator: Dict[str, Any], number: int, shapes: Dict[int, List[int]]) -> Optional[Fit]:
    """What an operator that reads an input at this place makes of its values."""
    op, inputs, outputs = operator["op_name"], operator["inputs"], operator["outputs"]
    if (op, number) == ("GATHER", 1):
        return _below(_gathered_sizes(*(shapes[index] for index in (inputs[0], inputs[1], outputs[0]))))
    if (op, number) == ("EMBEDDING_LOOKUP", 0):
        return _below(shapes[inputs[1]][:1])
    if (op, number) == ("GATHER_ND", 1):
        return _below(shapes[inputs[0]][: shapes[inputs[1]][-1]])
    if (op, number) == ("ONE_HOT", 0):
        return _below([int(interpreter.get_tensor(inputs[1]))])
    if (op, number) == ("RESHAPE", 1):
        return ("inferred",)
    value = _ALL.get((op, number))
    return None if value is None else ("all", value)


def _gathered_sizes(table: List[int], indices: List[int], result: List[int]) -> List[int]:
    """The sizes that indices may count along: the shape of the result alone tells the axis, so it may be several."""
    return [
        size
        for axis, size in enumerate(table)
        if table[:axis] + indices + table[axis + 1 :] == result or len(result) != len(table) + len(indices) - 1
    ] or table


def _below(sizes: List[int]) -> Optional[Fit]:
    return ("below", min(sizes)) if sizes and min(sizes) > 0 else None
