"""Value ranges of inputs that a PyTorch graph implies: indices into a table, and classes."""

import contextlib
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Set, Tuple

#: Operator → the positions of the arguments with the indices, the table, and the dimension that is indexed (negative:
#: always dimension 0).
_INDEXED = {
    "embedding": (1, 0, -1),
    "embedding_bag": (1, 0, -1),
    "index_select": (2, 0, 1),
    "gather": (2, 0, 1),
    "scatter": (2, 0, 1),
    "scatter_add": (2, 0, 1),
}
#: Operators whose result has the values of their first argument in another form.
_SAME_VALUES = {
    *("to", "_to_copy", "type_as", "long", "int", "view", "reshape", "unsqueeze", "squeeze", "expand", "clone"),
    *("contiguous", "alias", "detach", "flatten", "permute", "transpose", "t", "slice", "select"),
}

#: An operator: its name, its arguments and its result. Values may be any hashable objects.
_Operator = Tuple[str, Sequence[Any], Any]


def of_program(program: Any) -> Dict[str, Sequence[Any]]:
    """Return, for a torch.export program, input name → the values that fit, as ``("below", limit)``."""

    def operators() -> Iterator[_Operator]:
        for node in program.graph.nodes:
            if node.op == "call_function":
                yield str(getattr(node.target, "__name__", node.target)).partition(".")[0], node.args, node

    def size(value: Any, dimension: int) -> Optional[int]:
        width = value.meta["val"].shape[dimension]
        return width if isinstance(width, int) else None

    inputs = {node: node.name for node in program.graph.nodes if node.name in program.graph_signature.user_inputs}
    with contextlib.suppress(Exception):
        return _fits(operators(), inputs, size, lambda value: value if isinstance(value, int) else None)
    return {}


def of_script(module: Any) -> Dict[str, Sequence[Any]]:
    """Return, for a TorchScript module, input name → the values that fit, as ``("below", limit)``."""

    def operators(block: Any) -> Iterator[_Operator]:
        for node in block.nodes():
            given, results = list(node.inputs()), list(node.outputs())
            yield (
                node.kind().rpartition("::")[2],
                [value.debugName() for value in given],
                (results[0].debugName() if results else None),
            )
            for value in (*given, *results):
                values[value.debugName()] = value
            for inner in node.blocks():
                yield from operators(inner)

    values = {}  # type: Dict[str, Any]

    def size(name: str, dimension: int) -> Optional[int]:
        return int(_attribute(module, values[name]).shape[dimension])

    def number(name: str) -> Optional[int]:
        constant = values[name].toIValue()
        return constant if isinstance(constant, int) else None

    with contextlib.suppress(Exception):
        graph = module.inlined_graph
        first, *given = list(graph.inputs())
        names = [argument.name for argument in module.forward.schema.arguments[1:]]
        values[first.debugName()] = first
        return _fits(operators(graph), {value.debugName(): name for value, name in zip(given, names)}, size, number)
    return {}


def _attribute(module: Any, value: Any) -> Any:
    """The tensor or module behind a value of a graph: a (nested) attribute of the module, or a constant."""
    node = value.node()
    if node.kind() == "prim::GetAttr":
        return getattr(_attribute(module, next(iter(node.inputs()))), node.s("name"))
    return module if node.kind() == "prim::Param" else value.toIValue()


def _fits(
    operators: Iterator[_Operator],
    inputs: Dict[Any, str],
    size: Callable[[Any, int], Optional[int]],
    number: Callable[[Any], Optional[int]],
) -> Dict[str, Sequence[Any]]:
    """The limits of inputs that the operators imply.

    Args:
        operators: The operators, in order.
        inputs: Value → the name of the input.
        size: Returns the size of a table along a dimension.
        number: Returns a value as a constant integer; None where it is not one.
    """
    source = dict(inputs)
    limits: Dict[str, Set[int]] = {}
    for op, given, result in operators:
        if op in _INDEXED:
            indices, table, dimension = _INDEXED[op]
            if len(given) > indices and _is_key(given[indices]) and given[indices] in source:
                along = 0 if dimension < 0 else number(given[dimension])
                limit = None
                with contextlib.suppress(Exception):  # the table is computed, or is another input
                    limit = None if along is None else size(given[table], along)
                if limit:
                    limits.setdefault(source[given[indices]], set()).add(limit)
        elif op == "one_hot" and len(given) > 1 and given[0] in source:
            classes = number(given[1])
            if classes is not None and classes > 0:
                limits.setdefault(source[given[0]], set()).add(classes)
        elif op in _SAME_VALUES and given and _is_key(given[0]) and given[0] in source:
            source[result] = source[given[0]]
    return {name: ("below", min(sizes)) for name, sizes in limits.items()}


def _is_key(value: Any) -> bool:
    return not isinstance(value, (list, dict, set, slice))
