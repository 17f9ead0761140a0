"""Channels one by one: which are the same channel wherever they appear, and which have to stay.

A layer's outputs are new channels, each with a number. An operator that couples two tensors (an addition) makes their
channels the same, index by index; one that rearranges (a Concat, a Reshape) rearranges numbers. What has become the
same goes or stays together.
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
        ids: The channel at each index along ``axis``; one may come several times, as after flattening.
        axis: Counted from the front.
        rank: The tensor's.
    """

    ids: Ids
    axis: int
    rank: int


class Use(NamedTuple):
    """One axis of an initializer that runs over channels.

    Attributes:
        name: The initializer's.
        axis: Its own.
        ids: The channel at each index.
        read: Whether the values are what a layer multiplies these channels with (else: makes or scales them).
    """

    name: str
    axis: int
    ids: Ids
    read: bool


class Group(NamedTuple):
    """Channels made by the same layers: they compete with one another, and one of them stays.

    Attributes:
        roots: One number for each channel.
        makers: The nodes that make them.
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
        """The number that stands for each channel and all that are the same."""
        distinct, inverse = np.unique(ids, return_inverse=True)
        answer: Ids = np.array([self._root(int(channel)) for channel in distinct], np.int64)[inverse.reshape(ids.shape)]
        return answer

    def join(self, a: Ids, b: Ids) -> None:
        """Make them the same, index by index."""
        for left, right in np.unique(np.stack([a, b]), axis=1).T.tolist():
            first, second = sorted((self._root(left), self._root(right)))
            if first != second:
                self._parent[second] = first
                reason = self._reasons.pop(second, None)
                if reason is not None:
                    self._reasons.setdefault(first, reason)

    def pin(self, ids: Ids, reason: str) -> None:
        """They stay, because of that; the first reason counts."""
        for root in np.unique(self.roots(ids)).tolist():
            self._reasons.setdefault(root, reason)

    def reason(self, ids: Ids) -> str:
        """Return the reason of the first of these channels that must stay; "" if all of them may go."""
        roots = self.roots(ids).tolist()
        return next((self._reasons[root] for root in roots if root in self._reasons), "")

    def mark(self, ids: Ids, mark: Hashable) -> None:
        """Mark channels. One of the channels that carry the same marks always stays; an int mark is a node's index."""
        self._marks.append((ids, mark))

    def groups(self) -> list[Group]:
        """Return the removable channels in groups that compete with one another, in the graph's order."""
        roots_by_marks: dict[tuple[Any, ...], list[int]] = {}
        for root, marks in self._marked():
            if root not in self._reasons:
                roots_by_marks.setdefault(marks, []).append(root)
        return [
            Group(np.array(r, np.int64), tuple(m for m in k if isinstance(m, int))) for k, r in roots_by_marks.items()
        ]

    def reasons(self) -> list[str]:
        """Why the others stay, each reason once."""
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
    """Channels of a tensor of shape ``before`` that is read as ``after``, in C order; the batch is in neither.

    Where they lie along several axes afterwards, they are cut along the longest of these, and what lies across becomes
    the same channel.

    Returns:
        The channels along the axis, and that axis.
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
