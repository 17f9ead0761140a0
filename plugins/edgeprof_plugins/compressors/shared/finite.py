"""Refuse weights that are NaN or infinite: no method can scale, sort, cluster or factor them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

#: The number of values checked at once, so that a large weight needs no second array of its size.
_BLOCK = 1 << 20


def require_finite(model: str, name: str, values: npt.NDArray[Any]) -> None:
    """Check the weights of a layer.

    Args:
        model: The model, for the message.
        name: The name of the weights.
        values: The weights, of any type.

    Raises:
        InputError: a value is NaN or infinite.
    """
    flat = values.reshape(-1)
    count = sum(
        int(np.count_nonzero(~np.isfinite(flat[start : start + _BLOCK]))) for start in range(0, flat.size, _BLOCK)
    )
    if count:
        raise InputError(
            f"{model} has weights that are NaN or infinite: {count} of {flat.size} in {name}",
            remedy="Its training diverged, or the file is damaged: export an earlier checkpoint.",
        )
