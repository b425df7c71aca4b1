"""The paper's derivation (eq. 16-23): the linear operator A with `vec(B (Z1 ⊙ ... ⊙ ZM)) = A vec(Zi)`, explicitly.

An oracle for tests: quadratic in everything, in numpy, sharing no code with the operators. Here, as in the paper,
samples are columns: `Zm` is `(k_m, n)`, and vec stacks columns (first index fastest).

The printed identities, as they must be read (⊙ acts column by column, and on block matrices block by block):

    vec(Z1 ⊙ Z2) = ((I_n ⊙ Z1) ⊗ I_d2) vec(Z2)              I_n ⊙ Z1 is (n d1, n): column j holds Z1[:, j] in block j
    vec(Z1 ⊙ Z2) = (I_{n d1} ⊙ (Z2 (I_n ⊗ 1ᵀ_d1))) vec(Z1)   the printed "1" is a row of d1 ones
    vec(B Z)     = (I_n ⊗ B) vec(Z)
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray


def product_of_left(left: Matrix, size: int) -> Matrix:
    """Eq. 21: the matrix `(I_n ⊙ left) ⊗ I_size` that maps vec(right) to vec(left ⊙ right); right has `size` rows."""
    n = left.shape[1]
    return np.kron(_khatri_rao(np.eye(n), left), np.eye(size))


def product_of_right(right: Matrix, size: int) -> Matrix:
    """Eq. 22: the matrix `I ⊙ (right (I_n ⊗ 1ᵀ))` that maps vec(left) to vec(left ⊙ right); left has `size` rows."""
    n = right.shape[1]
    repeated = right @ np.kron(np.eye(n), np.ones((1, size)))
    return _khatri_rao(np.eye(n * size), repeated)


def projection(matrix: Matrix, samples: int) -> Matrix:
    """Eq. 20: the matrix `I_n ⊗ B` that maps vec(Z) to vec(B Z)."""
    return np.kron(np.eye(samples), matrix)


def operator(matrix: Matrix, factors: Sequence[Matrix], position: int) -> Matrix:
    """The operator A of eq. 23 for the factor at `position` (counted from 0).

    Args:
        matrix: The unfolded core B, shape `(k, k_1 * ... * k_M)`, last index fastest.
        factors: `Z1, ..., ZM` of shapes `(k_m, n)`; the one at `position` only lends its shape.
        position: Which factor A multiplies.

    Returns:
        Array of shape `(k * n, k_position * n)`.
    """
    rows, samples = factors[position].shape
    left, right = factors[:position], factors[position + 1 :]
    result = projection(matrix, samples)
    rest = rows * int(np.prod([z.shape[0] for z in right], dtype=int))
    if left:
        result = result @ product_of_left(reduce(_khatri_rao, left), rest)
    if right:
        result = result @ product_of_right(reduce(_khatri_rao, right), rows)
    return result


def loss(target: Matrix, matrix: Matrix, factors: Sequence[Matrix], position: int = 0) -> float:
    """`||vec(X) - A vec(Z_position)||²` (eq. 16): the same number for every position."""
    residual = operator(matrix, factors, position) @ vec(factors[position]) - vec(target)
    return float(np.sum(np.abs(residual) ** 2))


def gradient(target: Matrix, matrix: Matrix, factors: Sequence[Matrix], position: int) -> Matrix:
    """`2 Aᵀ (A vec(Z) - vec(X))` as a matrix of Z's shape (eq. 23)."""
    a = operator(matrix, factors, position)
    flat = 2 * a.T @ (a @ vec(factors[position]) - vec(target))
    return flat.reshape(factors[position].shape, order="F")


def vec(matrix: Matrix) -> Matrix:
    """The columns of a matrix, one below the other."""
    return matrix.reshape(-1, order="F")


def _khatri_rao(a: Matrix, b: Matrix) -> Matrix:
    return np.stack([np.kron(a[:, r], b[:, r]) for r in range(a.shape[1])], axis=1)
