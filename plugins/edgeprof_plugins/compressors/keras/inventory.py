"""The kernels of a Keras model: the variables that its layers multiply with, and how often.

Keras names these variables ``kernel``, or by a name that ends so: ``depthwise_kernel``, ``recurrent_kernel``. How often
a kernel is used for one sample follows from the shapes that its layer takes and returns when the model is traced once.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeprof_plugins.compressors.shared.coverage import Part, coverage, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Shape = tuple[int | None, ...]

_OTHER = "biases, norms and other constants"
_TABLE = "a table that is looked up, not multiplied"
_INTEGERS = "its weights are integers already"
#: Layers that multiply with the kernels of their cell once for each step of time.
_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN"})
#: Other layers that repeat the layer in them; the trace shows one of the calls, and does not say how many there are.
_REPEATING = frozenset({"TimeDistributed", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "RNN", "StackedRNNCells"})


@dataclass(frozen=True)
class Kernel:
    """A variable that a layer multiplies with.

    Attributes:
        name: Its path in the model, as in ``conv2d/kernel``.
        variable: The Keras variable.
        layer: The layer that has it.
        macs: Multiply-accumulates for one sample; None where they are not known.
    """

    name: str
    variable: Any
    layer: Any
    macs: int | None


class Inventory:
    """The kernels and other parameters of a model before a method changes it.

    Args:
        model: The model.
        trace: Runs the model once for one sample.
    """

    def __init__(self, model: Any, trace: Any) -> None:
        layers = list(_tree(model))
        with _recorded(layers) as calls:
            trace()
        self.kernels: list[Kernel] = []
        self.parts: list[Part] = []
        taken: set[int] = set()
        names: Counter[str] = Counter()
        for layer, outside in layers:
            for variable in _variables(layer):
                if id(variable) in taken:
                    continue
                taken.add(id(variable))
                name = _path(variable)
                names[name] += 1
                name = name if names[name] == 1 else f"{name} ({names[name]})"
                self._add(name, variable, layer, _uses(variable, layer, outside, calls))

    def _add(self, name: str, variable: Any, layer: Any, macs: int | None) -> None:
        size, family = math.prod(variable.shape), type(layer).__name__
        if not name.partition(" ")[0].endswith("kernel"):
            table = family == "Embedding"
            if size > 1:
                self.parts.append(Part(name, family if table else "other", size, 0, _TABLE if table else _OTHER))
            return
        integer = "int" in str(variable.dtype)
        self.parts.append(Part(name, family, size, macs, _INTEGERS if integer else ""))
        if not integer:
            self.kernels.append(Kernel(name, variable, layer, macs))

    def by_names(self, changed: Iterable[str], why: Mapping[str, str]) -> dict[str, Any]:
        """Return the coverage of a method that changed these kernels."""
        return coverage(self.parts, whole(changed), why, _OTHER)


def _tree(layer: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each layer once, with the layers around it, the outermost first."""
    seen: set[int] = set()
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(layer, ())]
    while waiting:
        current, around = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current, around
        inner = list(current._flatten_layers(include_self=False, recursive=False))  # noqa: SLF001 - Keras 2 and 3 have it
        waiting += [(child, (*around, current)) for child in reversed(inner)]


def _variables(layer: Any) -> list[Any]:
    """The variables of a layer itself, without those of the layers in it."""
    inner = {id(variable) for child, _ in _tree(layer) if child is not layer for variable in child.weights}
    return [variable for variable in layer.weights if id(variable) not in inner]


def _path(variable: Any) -> str:
    path: str = getattr(variable, "path", None) or variable.name
    return path.partition(":")[0]


@contextlib.contextmanager
def _recorded(layers: list[tuple[Any, tuple[Any, ...]]]) -> Iterator[dict[int, list[tuple[Shape, Shape]]]]:
    """Record the shapes of each call of a layer: identity of the layer → (shape of its input, shape of its output)."""
    calls: dict[int, list[tuple[Shape, Shape]]] = {}
    base: Any = next(
        kind for kind in type(layers[0][0]).__mro__ if kind.__name__ == "Layer" and "__call__" in vars(kind)
    )
    original = base.__call__

    def call(layer: Any, *given: Any, **named: Any) -> Any:
        value = original(layer, *given, **named)
        first = given[0] if given else next(iter(named.values()), None)
        shapes = [_shape(item) for item in (first, value)]
        if shapes[0] is not None and shapes[1] is not None:
            calls.setdefault(id(layer), []).append((shapes[0], shapes[1]))
        return value

    base.__call__ = call
    try:
        yield calls
    finally:
        base.__call__ = original


def _shape(value: Any) -> Shape | None:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def _uses(variable: Any, layer: Any, outside: tuple[Any, ...], calls: Mapping[int, Any]) -> int | None:
    """Multiply-accumulates with a kernel for one sample; None if the shapes do not say."""
    kinds = {type(other).__name__ for other in (*outside, layer)}
    if _REPEATING & kinds:
        return None
    recurrent = outside[-1] if outside and type(outside[-1]).__name__ in _RECURRENT else None
    total = 0
    for given, returned in calls.get(id(layer if recurrent is None else recurrent), []):
        macs = _in_call(variable, layer, given, returned) if recurrent is None else _in_steps(variable, given[1])
        if macs is None:
            return None
        total += macs
    return total or None


def _in_steps(variable: Any, steps: int | None) -> int | None:
    return None if steps is None else steps * math.prod(variable.shape)


def _in_call(variable: Any, layer: Any, given: Shape, returned: Shape) -> int | None:
    kind, size = type(layer).__name__, math.prod(variable.shape)
    if kind == "Dense":
        places: Shape = returned[:-1]
    elif "Conv" in kind:
        grid = given if "Transpose" in kind else returned
        places = grid[:-1] if layer.data_format == "channels_last" else (grid[0], *grid[2:])
    elif kind == "EinsumDense":
        return _in_einsum(layer.equation, given, tuple(variable.shape))
    else:
        return None
    return None if any(place is None for place in places) else size * math.prod(p for p in places if p is not None)


def _in_einsum(equation: str, given: Shape, kernel: Shape) -> int | None:
    terms = equation.partition("->")[0].split(",")
    if "." in equation or len(terms) != 2 or [len(term) for term in terms] != [len(given), len(kernel)]:
        return None
    sizes = dict(zip("".join(terms), (*given, *kernel), strict=True))
    return None if None in sizes.values() else math.prod(size for size in sizes.values() if size is not None)
