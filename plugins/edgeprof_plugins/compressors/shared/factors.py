"""Low-rank factors of a weight matrix: W ≈ A·B with the largest singular values.

They come from the eigenvalues of the Gram matrix of the smaller side (Golub and Van Loan, Matrix Computations, 8.6),
computed in float64. Squaring loses half of the digits, so singular values above 10⁻⁸ of the largest remain correct;
float32 weights carry no smaller ones. For a 4096 × 4096 matrix this takes a fraction of the time of numpy's SVD, and
for a long matrix still less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.compression.compressor import Parameter
from edgeprof.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Matrix = npt.NDArray[Any]

#: The energy kept where neither an energy nor a rank is given.
_ENERGY = 0.9
PARAMETERS = (
    Parameter("energy", "float", minimum=0.01, maximum=0.9999, help=f"share of Σσ² that each layer keeps ({_ENERGY})"),
    Parameter("rank", "int", minimum=1, maximum=65536, help="the rank of every layer, in place of energy"),
)
#: The number of columns converted to float64 at once.
_BLOCK = 1024


def check(parameters: Mapping[str, Any]) -> None:
    """Check that energy and rank are not both given.

    Raises:
        InputError: both are given.
    """
    if parameters.get("energy") is not None and parameters.get("rank") is not None:
        raise InputError("low-rank takes energy or rank, not both", remedy="--with low-rank:energy=0.9")


def factors(matrix: Matrix, parameters: Mapping[str, Any]) -> tuple[Matrix, Matrix, float]:
    """Return the best approximation of a given rank (Eckart and Young 1936), with √σ in each of the two factors.

    Args:
        matrix: Shape (m, n), finite values.
        parameters: ``rank``, or ``energy``: the smallest rank that keeps that share of Σσ².

    Returns:
        ``(left, right, share)``: two matrices of shapes (m, r) and (r, n), in float64 where the matrix is, else in
        float32; and the share of Σσ² that they keep.
    """
    if matrix.shape[0] > matrix.shape[1]:
        left, right, share = factors(matrix.T, parameters)
        return right.T, left.T, share
    gram = np.zeros((len(matrix), len(matrix)))
    for start in range(0, matrix.shape[1], _BLOCK):
        part = matrix[:, start : start + _BLOCK].astype(np.float64)
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    squares = np.maximum(values[::-1], 0)  # σ², rounding may leave the last ones below 0
    power = np.cumsum(squares)
    total = float(power[-1]) or 1.0
    energy = parameters.get("energy") or _ENERGY
    rank = min(parameters.get("rank") or int(np.searchsorted(power, energy * total)) + 1, len(squares))
    basis = vectors[:, ::-1][:, :rank]
    root = squares[:rank] ** 0.25
    inverse = np.divide(1, root, out=np.zeros_like(root), where=root > 0)
    kind = np.float64 if matrix.dtype.itemsize > 4 else np.float32
    right = (basis * inverse).T.astype(kind) @ matrix.astype(kind, copy=False)
    return (basis * root).astype(kind), right, float(power[rank - 1]) / total
