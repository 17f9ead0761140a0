"""What a model really computes: its layers, their multiply-accumulates and the precision that they run in.

``Runtime.inspect`` returns a Graph of a model as that runtime executes it. Python 3.6 grammar, standard library only.
"""

from typing import Any, Callable, Dict, FrozenSet, NamedTuple, Optional, Sequence, Tuple

#: Precisions that are computed with integers.
INTEGER = frozenset({"int8", "int8-dynamic", "int16x8"})


class Zeros(NamedTuple):
    """How many of a layer's weights are zero, and where.

    Attributes:
        weights: All of them.
        zeros: Those that are zero.
        channels: Those in output channels that are zero as a whole.
        blocks: Those of 2:4 blocks: of four weights in a row at least two are zero.
    """

    weights: int
    zeros: int
    channels: int
    blocks: int


class Layer(NamedTuple):
    """A node that multiplies: with weights, or two activations with one another.

    Attributes:
        name: The name of the node in the graph.
        op: Its operator.
        macs: Multiply-accumulates for one sample; None where a size is open.
        precision: The precision of the arithmetic: ``float32``, ``float16``, ``int8`` (calibrated), ``int8-dynamic``
            (ranges taken while it runs), ``int16x8``.
        stored: The precision of the weights in the file; ``computed`` where the file has none.
        channels: How many output channels it has.
        weights: Reads the weights as real numbers, output channels first; None where they are computed.
        depthwise: Whether each channel is computed from one input channel only.
        zeros: What was counted in the weights where they stayed in another process, and ``weights`` is None.
    """

    name: str
    op: str
    macs: Optional[int]
    precision: str
    stored: str
    channels: int
    weights: Optional[Callable[[], Any]] = None
    depthwise: bool = False
    zeros: Optional[Zeros] = None


class Graph(NamedTuple):
    """A model as it is executed.

    Attributes:
        layers: The nodes that multiply, in order, including those in branches and loop bodies.
        nodes: How many operators are executed in all.
        conversions: How many of them only turn integers into floats and back.
        batch_norms: Names of batch normalisations that were not fused.
        training: Names of nodes in training mode.
        ranges: Quantised activation → the smallest and the largest real number that it can hold.
        note: What the figures rest on, or why there are none.
        integers: What to do where layers store integers and this runtime does not compute in them.
        tensors: Names of the tensors that ``Runtime.taps`` can follow, in order; empty where it can follow none.
        seen_as: Tensor → the tensor that its readers really get: where it is quantised and dequantised on the way, the
            dequantised one, whose values are clipped and rounded.
        engine: Whose kernels compute here (``arm``, ``x86``), where a model can be prepared for one or the other; ""
            where there is only one.
        inputs: Input → its shape as the file declares it; None for what it leaves open.
        assumed: Which sizes were assumed where the file leaves them open, as a sentence; "" where none were.
        makers: Tensor → the node that computes it, by the name that the parameter ``exclude`` of a method takes.
        compiled_for: The other processor that a part of the model was compiled for, so that what this part computes is
            unknown; "" where there is none.
        left_behind: Operator → how many nodes with it stay on this machine's CPU, where a part of the model was
            compiled for another processor.
        slow: Precision → what is slow about it in this runtime, as the end of a sentence.
    """

    layers: Sequence[Layer]
    nodes: int
    conversions: int = 0
    batch_norms: Sequence[str] = ()
    training: Sequence[str] = ()
    ranges: Dict[str, Tuple[float, float]] = {}
    note: str = ""
    integers: str = ""
    tensors: Sequence[str] = ()
    seen_as: Dict[str, str] = {}
    engine: str = ""
    inputs: Dict[str, Tuple[Optional[int], ...]] = {}
    assumed: str = ""
    makers: Dict[str, str] = {}
    compiled_for: str = ""
    left_behind: Dict[str, int] = {}
    slow: Dict[str, str] = {"int16x8": "for which most runtimes have reference kernels only"}

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers whose sizes are known."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def unsized(self) -> Sequence[Layer]:
        """The layers whose multiply-accumulates are not known."""
        return [layer for layer in self.layers if layer.macs is None]

    def share(self, precisions: FrozenSet[str] = INTEGER) -> float:
        """The share of all multiply-accumulates that run in these precisions, from 0 to 1; 0 where there are none."""
        return sum(layer.macs or 0 for layer in self.layers if layer.precision in precisions) / (self.macs or 1)
