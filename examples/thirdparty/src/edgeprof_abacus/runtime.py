"""The runtime abacus: dense networks in a text format.

The file begins with ``abacus 1``; ``inputs N`` gives the width of the input; each ``layer relu|linear`` is followed by
one row for each neuron: its weights, then its bias. ``#`` begins a comment.

edgeprof also runs this file in its worker, perhaps with an older Python (--worker-python). Therefore it uses Python 3.6
grammar, imports only the standard library at the top, and imports large libraries inside ``load``.
"""

from typing import Any, Dict, List, Tuple

from edgeprof import hookimpl
from edgeprof.worker.runtime import Availability, LoadError, LoadOptions, Runtime, Session, TensorSpec

MAGIC = b"abacus 1\n"


class Abacus(Runtime):
    name = "abacus"
    formats = ("abacus",)
    own_formats = {"abacus": (0, MAGIC)}

    def availability(self) -> Availability:
        return Availability(version="1.0.0", reason=None, remedy=None)

    def devices(self) -> List[str]:
        return ["cpu"]

    def load(self, path: str, options: LoadOptions) -> Session:
        if options.device != "cpu":
            raise LoadError(f"abacus knows no device {options.device!r}", "Use --device cpu.")
        for option in options.options:
            raise LoadError(f"abacus has no option {option!r}", "Leave out --option.")
        try:
            with open(path, encoding="ascii") as file:
                width, layers = parse(file.read())
        except (OSError, ValueError) as error:
            raise LoadError(f"{path} is not an abacus model: {error}") from error
        return Network(width, layers)


class Network(Session):
    """Input ``x`` (batch, inputs) float32, output ``y`` (batch, neurons of the last layer) float32."""

    def __init__(self, width: int, layers: "List[Tuple[bool, List[List[float]]]]") -> None:
        import numpy as np

        self._layers = [
            (relu, np.array([row[:-1] for row in rows], np.float32).T, np.array([row[-1] for row in rows], np.float32))
            for relu, rows in layers
        ]
        self._width = width
        self.inputs = [TensorSpec("x", ("batch", width), "float32", None)]
        self.outputs = [TensorSpec("y", ("batch", len(layers[-1][1])), "float32", None)]
        self.facts = {"layers": str(len(layers))}

    def run(self, feeds: Dict[str, Any]) -> Dict[str, Any]:
        values = feeds["x"]
        if values.dtype.name != "float32" or values.ndim != 2 or values.shape[1] != self._width:
            raise ValueError(f"x must be float32 [batch, {self._width}], not {values.dtype.name} {list(values.shape)}")
        for relu, weights, bias in self._layers:
            values = values @ weights + bias
            if relu:
                values = values.clip(0)
        return {"y": values}


def parse(text: str) -> "Tuple[int, List[Tuple[bool, List[List[float]]]]]":
    """Return the width of the input, and for each layer whether it ends in a ReLU, and its rows.

    Raises:
        ValueError: the text does not follow the format; the message gives the number of the line.
    """
    if not text.startswith(MAGIC.decode("ascii")):
        raise ValueError("it does not begin with 'abacus 1'")
    width = 0
    layers = []  # type: List[Tuple[bool, List[List[float]]]]
    for number, line in enumerate(text.splitlines()[1:], 2):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] == "inputs" and len(words) == 2 and words[1].isdigit() and int(words[1]) > 0:
            width = int(words[1])
        elif words[0] == "layer" and words[1:] in (["relu"], ["linear"]) and width and (not layers or layers[-1][1]):
            layers.append((words[1] == "relu", []))
        elif layers:
            needed = (width if len(layers) == 1 else len(layers[-2][1])) + 1
            try:
                row = [float(word) for word in words]
            except ValueError:
                raise ValueError(f"line {number}: {line!r} is no row of numbers") from None
            if len(row) != needed:
                raise ValueError(f"line {number}: {len(row)} numbers where {needed} are needed")
            layers[-1][1].append(row)
        else:
            raise ValueError(f"line {number}: {line!r} is not understood")
    if not layers or not layers[-1][1]:
        raise ValueError("it has no layers, or the last is empty")
    return width, layers


@hookimpl
def register_runtimes(register):
    register("abacus", Abacus)
