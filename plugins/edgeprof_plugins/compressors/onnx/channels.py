"""Follows channels through every operator of an ONNX graph: which must be removed together, and which must stay.

Each followed tensor has a :class:`~edgeprof_plugins.compressors.onnx.ids.Track`. Channels must stay if they enter an
operator that is not known here, or that mixes them (a Softmax over channels, a DepthToSpace); the reason names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof_plugins.compressors.onnx.ids import Register, Track, Use, rearranged
from edgeprof_plugins.compressors.onnx.view import (
    CannotFollowError,
    View,
    attribute,
    inside,
    known,
    product,
    set_attribute,
    text,
    unset_attribute,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprof_plugins.compressors.onnx.file import OnnxFile
    from edgeprof_plugins.compressors.onnx.ids import Group, Ids

    Shape = tuple[int | None, ...]
    Count = Callable[[Ids], int]

#: Operators that compute each output value from one input value.
_VALUE_BY_VALUE = frozenset({
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Clip", "Softplus",
    "Softsign", "Gelu", "FastGelu", "QuickGelu", "Mish", "Swish", "Identity", "Dropout", "Cast", "Abs", "Neg", "Exp",
    "Log", "Sqrt", "Reciprocal", "Erf", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "ThresholdedRelu",
})  # fmt: skip
_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Mean", "PRelu", "Where"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceProd"})
_SOFTMAX = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})


class Channels:
    """The channels of one graph.

    Args:
        model: The file; it is changed by ``rewrite`` only.

    Attributes:
        uses: Every axis of an initializer along which channels lie.
        weights: The uses whose values measure the importance of a channel: initializer, axis, channels.
        made: Node → the channels that it produces.
    """

    def __init__(self, model: OnnxFile) -> None:
        self.model = model
        self.graph = model.model.graph
        self.view = View(model)
        self.register = Register()
        self.uses: list[Use] = []
        self.weights: list[tuple[str, int, Ids]] = []
        self.made: dict[int, Ids] = {}
        self._tracks: dict[str, Track] = {}
        self._fixes: list[Callable[[Count], None]] = []
        self._first: dict[tuple[str, int], Ids] = {}
        for index, node in enumerate(self.graph.node):
            self._visit_node(index, node)
        for output in self.graph.output:
            self._pin_channels(output.name, f"{output.name} is an output of the model")
        self._settle_shared()

    def groups(self) -> list[Group]:
        """Return the channels that can be removed, in groups that compete."""
        return self.register.groups()

    def pinned(self) -> list[str]:
        """Return why other channels cannot be removed, one sentence for each reason."""
        return self.register.reasons()

    def reasons(self) -> dict[str, str]:
        """Return weight → why its output channels stay."""
        reasons = {name: self.register.reason(ids) for name, _, ids in self.weights}
        return {name: reason or "none of its channels is among the least" for name, reason in reasons.items()}

    def why_not(self) -> str:
        """Return a sentence that explains why no channel can be removed."""
        reasons = self.pinned()
        if not reasons:
            return "it has no convolution or dense layer whose weights are in the file"
        return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")

    def label(self, index: int) -> str:
        """Return the name of a node in messages: its own name, or its operator and output."""
        node = self.graph.node[index]
        return node.name or f"{node.op_type} → {node.output[0]}"

    def rewrite(self, count: Count) -> None:
        """Update channel counts in the graph (shapes, splits, groups) to the number of channels kept."""
        for fix in self._fixes:
            fix(count)

    # --- what is known --------------------------------------------------------------------------------------------

    def _pin_channels(self, name: str, reason: str) -> None:
        if name in self._tracks:
            self.register.pin(self._tracks[name].ids, reason)

    def _use_along(self, name: str, axis: int, ids: Ids, *, read: bool = False) -> None:
        """Record a use; an initializer that several nodes read is cut in the same way for all of them."""
        self.register.join(self._first.setdefault((name, axis), ids), ids)
        self.uses.append(Use(name, axis, ids, read))

    def _settle_shared(self) -> None:
        """Keep the channels of an initializer if some of its readers do not use that axis as channels."""
        seen: dict[tuple[str, int], int] = {}
        for use in self.uses:
            seen[use.name, use.axis] = seen.get((use.name, use.axis), 0) + 1
        for use in self.uses:
            if seen[use.name, use.axis] != self.view.readers.get(use.name, 0):
                self.register.pin(use.ids, f"{use.name} is shared by nodes that read it differently")

    # --- operators ------------------------------------------------------------------------------------------------

    def _visit_node(self, index: int, node: Any) -> None:
        for name in inside(node):
            self._pin_channels(name, f"{self.label(index)} ({node.op_type}) reads it in a subgraph")
        tracked = [name for name in node.input if name in self._tracks]
        makes = node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"}
        if node.op_type in {"Shape", "Size"} or not (tracked or makes):
            return  # reading a shape does not prevent removal; its consumers are checked when they are visited
        try:
            self._follow_node(index, node)
            if node.op_type not in _ELEMENTWISE | {"Concat"}:
                for name in node.input[1:]:
                    self._pin_channels(name, f"{self.label(index)} ({node.op_type}) computes with it as a parameter")
        except CannotFollowError as why:
            explanation = f": {why}" if str(why) else " cannot be followed"
            for name in tracked:
                self._pin_channels(name, f"{self.label(index)} ({node.op_type}){explanation}")

    def _follow_node(self, index: int, node: Any) -> None:
        op = node.op_type
        if node.domain not in _DOMAINS:
            raise CannotFollowError("an operator of another domain")
        if op in _OWN:
            _OWN[op](self, index, node)
        elif op in _VALUE_BY_VALUE:
            self._pass_through(node)
        elif op in _POOLS:
            self._pass_through(node, lambda track: track.axis == 1)
        elif op in _SOFTMAX:
            self._follow_softmax(node)
        elif op in _ELEMENTWISE:
            self._follow_elementwise(node)
        elif op in _REDUCTIONS:
            self._follow_reduction(node)
        else:
            raise CannotFollowError

    def _pass_through(self, node: Any, fits: Callable[[Track], bool] | None = None) -> None:
        track = self._tracks.get(node.input[0])
        if track is None or (fits is not None and not fits(track)):
            raise CannotFollowError("it mixes channels")
        if any(name and name in self.view.readers for name in node.output[1:]):
            raise CannotFollowError("its second output names channels")
        self._tracks[node.output[0]] = track

    def _make_channels(self, index: int, axis: int, output: Track) -> None:
        """Record the outputs of a layer: new channels, produced by the rows of a weight."""
        node, ids = self.graph.node[index], output.ids
        weight = node.input[1]
        self._use_along(weight, axis, ids)
        self.weights.append((weight, axis, ids))
        self.register.mark(ids, index)
        self.made[index] = ids
        self._tracks[node.output[0]] = output
        if len(node.input) > 2 and node.input[2]:
            self._per_channel(node, node.input[2], ids)

    def _per_channel(self, node: Any, name: str, ids: Ids) -> None:
        """Record a constant whose last axis is the channels, or that has one value for all channels."""
        dims = self.view.dims(name) if self.model.has(name) else None
        if dims and dims[-1] == len(ids):
            self._use_along(name, len(dims) - 1, ids)
        elif dims is None or any(size != 1 for size in dims):
            self.register.pin(ids, f"the constants of {node.name or node.output[0]} ({node.op_type}) are computed")

    def _weight_shape(self, name: str) -> tuple[int, ...]:
        dims = self.view.dims(name) if self.model.has(name) else None
        if dims is None or len(dims) < 2:
            raise CannotFollowError("its weights are computed")
        return tuple(int(size or 0) for size in dims)

    def _read_channels(self, node: Any, weight: str, axis: int, wanted: int, ids: Ids | None = None) -> None:
        """Record the inputs of a layer: the columns of its weight."""
        track = self._tracks.get(node.input[0])
        if track is None:
            return
        ids = track.ids if ids is None else ids
        if track.axis != wanted or len(ids) != self._weight_shape(weight)[axis]:
            self._pin_channels(
                node.input[0], f"{node.name or node.output[0]} ({node.op_type}) reads it in another order"
            )
            return
        self._use_along(weight, axis, ids, read=True)

    def convolution(self, index: int, node: Any) -> None:
        """Follow a convolution: output channels are axis 0 of the weights, input channels axis 1."""
        self._follow_convolution(index, node, out=0, inner=1)

    def transposed_convolution(self, index: int, node: Any) -> None:
        """Follow a transposed convolution: output channels are axis 1 of the weights, input channels axis 0."""
        self._follow_convolution(index, node, out=1, inner=0)

    def _follow_convolution(self, index: int, node: Any, *, out: int, inner: int) -> None:
        weight, shape = node.input[1], self._weight_shape(node.input[1])
        groups = attribute(node, "group", 1)
        track = self._tracks.get(node.input[0])
        count = shape[out] * (groups if out == 1 else 1)
        if groups == 1:
            self._read_channels(node, weight, inner, 1)
            self._make_channels(index, out, Track(self.register.new(count), 1, len(shape)))
        elif track is None or track.axis != 1:
            raise CannotFollowError("a grouped convolution of what is not followed")
        elif len(track.ids) == groups and (out == 0 or shape[1] == 1):
            # Depthwise: each channel has its own kernels, and their norm counts towards its importance.
            ids = np.repeat(track.ids, count // groups)
            self._use_along(weight, 0, ids)
            self.weights.append((weight, 0, ids))
            self._tracks[node.output[0]] = Track(ids, 1, track.rank)
            self._fixes.append(lambda count_kept: set_attribute(node, "group", count_kept(track.ids)))
            if len(node.input) > 2 and node.input[2]:
                self._per_channel(node, node.input[2], ids)
        elif out == 0:
            # Every group loses the same inputs and outputs, so that the weight remains one rectangular tensor.
            blocks = track.ids.reshape(groups, -1)
            for block in blocks[1:]:
                self.register.join(blocks[0], block)
            self._read_channels(node, weight, inner, 1, blocks[0])
            ids = np.tile(self.register.new(count // groups), groups)
            self._make_channels(index, out, Track(ids, 1, track.rank))
        else:
            raise CannotFollowError("a grouped transposed convolution")

    def gemm(self, index: int, node: Any) -> None:
        """Follow a Gemm: its channels are the columns of the weights, or the rows with ``transB``."""
        shape = self._weight_shape(node.input[1])
        if attribute(node, "transA", 0):
            raise CannotFollowError("its input is transposed")
        produced_axis = 0 if attribute(node, "transB", 0) else 1
        self._read_channels(node, node.input[1], 1 - produced_axis, 1)
        self._make_channels(index, produced_axis, Track(self.register.new(shape[produced_axis]), 1, 2))

    def matmul(self, index: int, node: Any) -> None:
        """Follow a MatMul of the last axis of the input with a weight matrix, whose columns are the new channels."""
        shape, source = self._weight_shape(node.input[1]), self.view.dims(node.input[0])
        if len(shape) != 2 or source is None or len(source) < 2:
            raise CannotFollowError("it multiplies more than a matrix of weights")
        self._read_channels(node, node.input[1], 0, len(source) - 1)
        self._make_channels(index, 1, Track(self.register.new(shape[1]), len(source) - 1, len(source)))

    def normalised(self, _: int, node: Any) -> None:
        """Follow a normalisation over the channels of axis 1, whose constants have one value for each channel."""
        self._pass_through(node, lambda track: track.axis == 1)
        for name in node.input[1:]:
            self._per_channel(node, name, self._tracks[node.input[0]].ids)

    def _follow_softmax(self, node: Any) -> None:
        if self.model.opset() < 13:
            raise CannotFollowError("it mixes channels")
        axis = attribute(node, "axis", -1)
        self._pass_through(node, lambda track: axis % track.rank != track.axis)

    def _follow_elementwise(self, node: Any) -> None:
        """Follow any number of inputs that are broadcast as in numpy: axes are counted from the end."""
        if attribute(node, "broadcast", 0):
            raise CannotFollowError("it broadcasts as operator sets before 7 did")
        names = [name for name in node.input if name]
        shapes = {name: self.view.dims(name) for name in names}
        tracks = {name: self._tracks[name] for name in names if name in self._tracks}
        ends = {track.axis - track.rank for track in tracks.values() if len(track.ids) > 1}
        if len(ends) != 1:
            raise CannotFollowError("it mixes channels of different axes" if ends else "")
        end = ends.pop()
        ids = next(track.ids for track in tracks.values() if len(track.ids) > 1)
        rank = max(track.rank for track in tracks.values())
        for name in names:
            track, dims = tracks.get(name), shapes[name]
            if track is not None and track.axis - track.rank == end and len(track.ids) == len(ids):
                self.register.join(ids, track.ids)
            elif track is not None:  # one channel is broadcast to all others
                self.register.pin(track.ids, f"{node.name or node.output[0]} ({node.op_type}) spreads one channel")
                if track.axis - track.rank != end or len(track.ids) != 1:
                    raise CannotFollowError("it adds tensors of different channels")
            elif dims is None:
                raise CannotFollowError("one of its inputs cannot be followed")
            elif len(dims) >= -end and dims[end] != 1:
                if not self.model.has(name) or dims[end] != len(ids):
                    raise CannotFollowError("one of its inputs cannot be followed")
                self._use_along(name, len(dims) + end, ids)
            rank = max(rank, len(dims or ()))
        self._tracks[node.output[0]] = Track(ids, rank + end, rank)

    def _follow_reduction(self, node: Any) -> None:
        track = self._tracks[node.input[0]]
        axes = {axis % track.rank for axis in self.view.integers(node, 1, "axes") or range(track.rank)}
        if track.axis in axes:
            raise CannotFollowError("it mixes channels")
        self._tracks[node.output[0]] = track if attribute(node, "keepdims", 1) else _dropped_channels(track, axes)

    def reshaped(self, _: int, node: Any) -> None:
        """Follow channels through a Reshape or Flatten: unchanged, or as blocks of a merged or divided axis."""
        track = self._tracks[node.input[0]]
        before, after = self.view.dims(node.input[0]), self._shape_after(node)
        if track.axis == 0 or before is None or after is None or not after:
            raise CannotFollowError("sizes are open")
        stays_whole = track.axis < len(after) and all(
            a == b and a is not None for a, b in _channel_pairs(before, after, track.axis)
        )
        if stays_whole:  # only axes behind the channel axis are rearranged
            ids, axis = track.ids, track.axis
        else:
            if product(before[1:]) is None or product(before[1:]) != product(after[1:]) or len(after) < 2:
                raise CannotFollowError("sizes are open, or the batch is rearranged")
            ids, along = rearranged(self.register, track.ids, track.axis - 1, known(before[1:]), known(after[1:]))
            axis = along + 1
        self._tracks[node.output[0]] = Track(ids, axis, len(after))
        if node.op_type == "Reshape":
            # 0 keeps the batch; -1 is the one open size.
            wanted = [0, *(-1 if size is None else size for size in after[1:])]
            self._fixes.append(self._size_fix(node, 1, wanted, self._tracks[node.output[0]]))
            self._fixes.append(lambda _: unset_attribute(node, "allowzero"))

    def _shape_after(self, node: Any) -> Shape | None:
        """The output shape of a Reshape or Flatten, which keeps the batch size of the input."""
        before = self.view.dims(node.input[0])
        if node.op_type == "Flatten":
            if attribute(node, "axis", 1) != 1 or before is None or None in before[1:]:
                return None
            return (before[0], product(before[1:]))
        wanted = self.view.constant(node.input[1])
        if before is None:
            return None
        total = product(before[1:])
        if wanted is None:
            after = self.view.dims(node.output[0])
            return after if after and total is not None and product(after[1:]) == total else None
        copied = not attribute(node, "allowzero", 0)
        given = [int(value) for value in wanted.reshape(-1)]
        sizes = [before[i] if s == 0 and copied and i < len(before) else s for i, s in enumerate(given)]
        if -1 in sizes[1:]:
            rest = product([size for size in sizes[1:] if size != -1])
            open_size = None if total is None or not rest else total // rest
            sizes = [open_size if size == -1 else size for size in sizes]
        same = (given[0] == 0 and copied) or given[0] == before[0] or total == product(sizes[1:]) is not None
        return (before[0], *sizes[1:]) if same and sum(size is None for size in sizes[1:]) <= 1 else None

    # --- operators that rearrange channels ------------------------------------------------------------------------

    def transposed(self, _: int, node: Any) -> None:
        """Follow channels to the axis to which ``perm`` moves them."""
        track = self._tracks[node.input[0]]
        order = attribute(node, "perm", list(range(track.rank))[::-1])
        self._tracks[node.output[0]] = track._replace(axis=list(order).index(track.axis))

    def squeezed(self, _: int, node: Any) -> None:
        """Follow channels where axes of size 1 are removed; the channel axis must stay."""
        track, dims = self._tracks[node.input[0]], self.view.dims(node.input[0])
        axes = self.view.integers(node, 1, "axes")
        if axes is None and (dims is None or None in dims):
            raise CannotFollowError("sizes are open")
        gone = {a % track.rank for a in axes} if axes is not None else {i for i, s in enumerate(dims or ()) if s == 1}
        if track.axis in gone:
            raise CannotFollowError("it takes away the axis of the channels")
        self._tracks[node.output[0]] = _dropped_channels(track, gone)

    def unsqueezed(self, _: int, node: Any) -> None:
        """Follow channels where axes of size 1 are inserted."""
        track = self._tracks[node.input[0]]
        axes = self.view.integers(node, 1, "axes") or []
        rank = track.rank + len(axes)
        old = [axis for axis in range(rank) if axis not in {a % rank for a in axes}]
        self._tracks[node.output[0]] = Track(track.ids, old[track.axis], rank)

    def concatenated(self, index: int, node: Any) -> None:
        """Concatenate channels along the channel axis, or make them the same when another axis is concatenated."""
        tracks = [self._tracks.get(name) for name in node.input]
        first = next(track for track in tracks if track is not None)
        axis = attribute(node, "axis", 0) % first.rank
        if any(track is not None and track.axis != first.axis for track in tracks):
            raise CannotFollowError("it joins channels of different axes")
        if axis != first.axis:
            if any(track is None or len(track.ids) != len(first.ids) for track in tracks):
                raise CannotFollowError("one of its inputs cannot be followed")
            for track in tracks[1:]:
                self.register.join(first.ids, (track or first).ids)
            self._tracks[node.output[0]] = first
            return
        parts = []
        for name, track in zip(node.input, tracks, strict=True):
            size = None if track is not None else (self.view.dims(name) or (None,) * first.rank)[axis]
            if track is None and size is None:
                raise CannotFollowError("one of its inputs cannot be followed")
            parts.append(track.ids if track is not None else self._fixed_channels(int(size or 0), index, name))
        self._tracks[node.output[0]] = first._replace(ids=np.concatenate(parts))

    def _fixed_channels(self, count: int, index: int, name: str) -> Ids:
        """Create channels that no layer produces; they must stay."""
        ids = self.register.new(count)
        self.register.pin(
            ids, f"{self.label(index)} ({self.graph.node[index].op_type}) takes channels of {name} as given"
        )
        return ids

    def divided(self, index: int, node: Any) -> None:
        """Follow a Split along the channel axis, whose sizes change with the channels removed, or along another."""
        track = self._tracks[node.input[0]]
        if attribute(node, "axis", 0) % track.rank != track.axis:
            self._tracks.update(dict.fromkeys(node.output, track))
            return
        sizes = self.view.integers(node, 1, "split")
        if sizes is None:
            part = -(-len(track.ids) // len(node.output))
            sizes = [part] * (len(node.output) - 1)
            sizes.append(len(track.ids) - sum(sizes))
        pieces = np.split(track.ids, np.cumsum(sizes)[:-1])
        for number, (name, piece) in enumerate(zip(node.output, pieces, strict=True)):
            self.register.mark(piece, ("piece", index, number))  # so that no piece becomes empty
            self._tracks[name] = track._replace(ids=piece)

        def fix(count: Count) -> None:
            sizes = [count(piece) for piece in pieces]
            unset_attribute(node, "num_outputs")
            if self.model.opset() >= 13:
                self.view.set_input(node, 1, sizes)
            else:
                set_attribute(node, "split", sizes)

        self._fixes.append(fix)

    def sliced(self, _: int, node: Any) -> None:
        """Follow channels through a Slice along any axis except the channel axis."""
        track = self._tracks[node.input[0]]
        axes = self.view.integers(node, 3, "axes") or range(len(self.view.integers(node, 1, "starts") or []))
        if any(axis % track.rank == track.axis for axis in axes):
            raise CannotFollowError("it takes channels by their number")
        self._tracks[node.output[0]] = track

    def padded(self, index: int, node: Any) -> None:
        """Follow a Pad; the channels that it adds come from no layer and stay."""
        track = self._tracks[node.input[0]]
        pads = self.view.integers(node, 1, "pads") or []
        axes = [axis % track.rank for axis in (self.view.integers(node, 3, "axes") or range(len(pads) // 2))]
        place = axes.index(track.axis) if track.axis in axes else None
        before, after = (0, 0) if place is None else (pads[place], pads[place + len(axes)])
        if before < 0 or after < 0 or ((before or after) and text(node, "mode", "constant") != "constant"):
            raise CannotFollowError("it repeats or crops channels")
        ids = [
            self._fixed_channels(before, index, "the padding"),
            track.ids,
            self._fixed_channels(after, index, "the padding"),
        ]
        self._tracks[node.output[0]] = track._replace(ids=np.concatenate(ids))

    def resized(self, _: int, node: Any) -> None:
        """Follow a Resize that does not change the channel axis."""
        track = self._tracks[node.input[0]]
        for position, name in enumerate(node.input):
            values = self.view.constant(name) if name and position else None
            if name and position and values is None:
                raise CannotFollowError("its sizes are computed")
            if values is None or values.size in {0, 2 * track.rank}:  # a region of interest
                continue
            sizes = values.reshape(-1).tolist()
            if len(sizes) != track.rank or sizes[track.axis] != (1 if values.dtype.kind == "f" else len(track.ids)):
                raise CannotFollowError("it mixes channels, or names some axes only")
            if values.dtype.kind != "f":
                self._fixes.append(self._size_fix(node, position, sizes, track))
        self._tracks[node.output[0]] = track

    def _size_fix(self, node: Any, position: int, sizes: list[int], track: Track) -> Callable[[Count], None]:
        before, after = sizes[: track.axis], sizes[track.axis + 1 :]
        return lambda count: self.view.set_input(node, position, [*before, count(track.ids), *after])


#: Operators that have their own method.
_OWN: dict[str, Callable[[Channels, int, Any], None]] = {
    "Conv": Channels.convolution,
    "ConvTranspose": Channels.transposed_convolution,
    "Gemm": Channels.gemm,
    "MatMul": Channels.matmul,
    "BatchNormalization": Channels.normalised,
    "InstanceNormalization": Channels.normalised,
    "Flatten": Channels.reshaped,
    "Reshape": Channels.reshaped,
    "Transpose": Channels.transposed,
    "Squeeze": Channels.squeezed,
    "Unsqueeze": Channels.unsqueezed,
    "Concat": Channels.concatenated,
    "Split": Channels.divided,
    "Slice": Channels.sliced,
    "Pad": Channels.padded,
    "Resize": Channels.resized,
    "Upsample": Channels.resized,
}


def _channel_pairs(before: Shape, after: Shape, last: int) -> list[tuple[int | None, int | None]]:
    return list(zip(before[1 : last + 1], after[1 : last + 1], strict=False))


def _dropped_channels(track: Track, axes: set[int]) -> Track:
    return Track(track.ids, track.axis - sum(axis < track.axis for axis in axes), track.rank - len(axes))
