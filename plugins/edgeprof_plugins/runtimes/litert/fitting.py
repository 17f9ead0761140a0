"""Find which values the inputs of a TFLite graph may have: indices into a table, sizes, counts of repeats."""

import contextlib
from typing import Any, Dict, List, Optional, Sequence, Tuple

from edgeprof.worker.inputs import keep_fit

Fit = Tuple[Any, ...]

#: Operators whose output is their first input's values in another form.
_SAME_VALUES = {"CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE"}
#: (operator, position of the input) → a value that is valid for all elements of this input.
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
    """Return the values that suit each input, by the input's name; inputs without a known restriction are left out.

    Args:
        interpreter: An interpreter whose tensors are allocated.
        names: Index of an input's tensor → the input's name.

    The library has no public way to list operators. If its private one fails, the result is empty.
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
                    keep_fit(shown, source[index], _accepted_values(interpreter, operator, number, shapes))
            if operator["op_name"] in _SAME_VALUES and inputs and inputs[0] in source and outputs:
                source[outputs[0]] = source[inputs[0]]
    return shown


def _accepted_values(
    interpreter: Any, operator: Dict[str, Any], number: int, shapes: Dict[int, List[int]]
) -> Optional[Fit]:
    """Return which values an operator accepts in the input at position ``number``; None if any value will do."""
    op, inputs, outputs = operator["op_name"], operator["inputs"], operator["outputs"]
    if (op, number) == ("GATHER", 1):
        return _values_below(_gathered_sizes(*(shapes[index] for index in (inputs[0], inputs[1], outputs[0]))))
    if (op, number) == ("EMBEDDING_LOOKUP", 0):
        return _values_below(shapes[inputs[1]][:1])
    if (op, number) == ("GATHER_ND", 1):
        return _values_below(shapes[inputs[0]][: shapes[inputs[1]][-1]])
    if (op, number) == ("ONE_HOT", 0):
        return _values_below([int(interpreter.get_tensor(inputs[1]))])
    if (op, number) == ("RESHAPE", 1):
        return ("inferred",)
    value = _ALL.get((op, number))
    return None if value is None else ("all", value)


def _gathered_sizes(table: List[int], indices: List[int], result: List[int]) -> List[int]:
    """Return the sizes of all axes that the indices may refer to: the shapes may fit more than one."""
    return [
        size
        for axis, size in enumerate(table)
        if table[:axis] + indices + table[axis + 1 :] == result or len(result) != len(table) + len(indices) - 1
    ] or table


def _values_below(sizes: List[int]) -> Optional[Fit]:
    return ("below", min(sizes)) if sizes and min(sizes) > 0 else None
