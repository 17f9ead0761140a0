"""Identities of individual channels: which channels are the same wherever they appear, and which have to stay.

Each output of a layer is a new channel with a number. An operator that couples two tensors (an addition) makes their
channels the same, index by index. An operator that rearranges values (a Concat, a Reshape) rearranges the numbers.
Channels that have become the same are removed or kept together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]


class Track(NamedTuple):
    """The channels of a tensor.

    Attributes:
        ids: The channel at each index along ``axis``; a channel may occur several times, for example after flattening.
        axis: The channel axis, counted from the front.
        rank: The rank of the tensor.
    """

    ids: Ids
    axis: int
    rank: int


class Use(NamedTuple):
    """An axis of an initializer along which channels lie.

    Attributes:
        name: The name of the initializer.
        axis: The axis of the initializer.
        ids: The channel at each index.
        read: Whether a layer multiplies these channels with the values (else the values produce or scale them).
    """

    name: str
    axis: int
    ids: Ids
    read: bool


class Group(NamedTuple):
    """Channels produced by the same layers: they compete with one another, and at least one of them stays.

    Attributes:
        roots: One number for each channel.
        makers: Indices of the nodes that produce them.
    """

    roots: Ids
    makers: tuple[int, ...]


class Register:
    """All channels of one graph: a union-find structure over their numbers."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reasons: dict[int, str] = {}
        self._marks: list[tuple[Ids, Hashable]] = []

    def new(self, count: int) -> Ids:
        """Return the numbers of ``count`` new channels."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def roots(self, ids: Ids) -> Ids:
        """Return, for each channel, the number that represents it and all channels that are the same."""
        distinct, inverse = np.unique(ids, return_inverse=True)
        answer: Ids = np.array([self._root(int(channel)) for channel in distinct], np.int64)[inverse.reshape(ids.shape)]
        return answer

    def join(self, a: Ids, b: Ids) -> None:
        """Make two arrays of channels the same, index by index."""
        for left, right in np.unique(np.stack([a, b]), axis=1).T.tolist():
            first, second = sorted((self._root(left), self._root(right)))
            if first != second:
                self._parent[second] = first
                reason = self._reasons.pop(second, None)
                if reason is not None:
                    self._reasons.setdefault(first, reason)

    def pin(self, ids: Ids, reason: str) -> None:
        """Mark channels that must stay, with the reason; only the first reason of a channel is kept."""
        for root in np.unique(self.roots(ids)).tolist():
            self._reasons.setdefault(root, reason)

    def reason(self, ids: Ids) -> str:
        """Return the reason for the first of these channels that must stay; "" if all may be removed."""
        roots = self.roots(ids).tolist()
        return next((self._reasons[root] for root in roots if root in self._reasons), "")

    def mark(self, ids: Ids, mark: Hashable) -> None:
        """Mark channels; at least one of the channels with the same marks stays. An int mark is the index of a node."""
        self._marks.append((ids, mark))

    def groups(self) -> list[Group]:
        """Return the removable channels in groups that compete with one another, in graph order."""
        roots_by_marks: dict[tuple[Any, ...], list[int]] = {}
        for root, marks in self._marked():
            if root not in self._reasons:
                roots_by_marks.setdefault(marks, []).append(root)
        return [
            Group(np.array(r, np.int64), tuple(m for m in k if isinstance(m, int))) for k, r in roots_by_marks.items()
        ]

    def reasons(self) -> list[str]:
        """Return why the other channels must stay, each reason once."""
        return list(dict.fromkeys(self._reasons[root] for root, _ in self._marked() if root in self._reasons))

    def _marked(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        marks: dict[int, dict[Hashable, None]] = {}
        for ids, mark in self._marks:
            for root in np.unique(self.roots(ids)).tolist():
                marks.setdefault(root, {})[mark] = None
        for root in sorted(marks):
            yield root, tuple(marks[root])

    def _root(self, index: int) -> int:
        parent = self._parent
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index


def rearranged(register: Register, ids: Ids, axis: int, before: Iterable[int], after: Iterable[int]) -> tuple[Ids, int]:
    """Follow the channels of a tensor that is reshaped from ``before`` to ``after`` in C order, both without the batch.

    If the channels then vary along several axes, they are cut along the longest of these, and channels at the same
    index of that axis become the same channel.

    Returns:
        The channels along the new axis, and that axis.
    """
    shape = tuple(before)
    axis_shape = [1] * len(shape)
    axis_shape[axis] = len(ids)
    full = np.broadcast_to(ids.reshape(axis_shape), shape).reshape(tuple(after))
    varying = [k for k in range(full.ndim) if bool((full != full.take([0], k)).any())]
    along = max(varying or range(full.ndim), key=lambda k: full.shape[k])
    across = np.moveaxis(full, along, 0).reshape(full.shape[along], -1)
    if len(varying) > 1:
        for column in np.unique(across, axis=1).T:
            register.join(across[:, 0], column)
    return np.ascontiguousarray(across[:, 0]), along
