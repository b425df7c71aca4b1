"""The paper's derivation (eq. 16, 19-23): the linear operator A with `vec(B (Z1 ⊙ ... ⊙ ZM)) = A vec(Zi)`, explicitly.

An oracle for tests: quadratic in everything, in numpy, sharing no code with the operators. Here, as in the paper,
samples are columns: `Zm` is `(k_m, n)`, and vec stacks columns (first index fastest). With `sparse=True` the matrices
are scipy.sparse arrays: A has k nonzeros in a column where the dense one stores k n.

The printed identities, as they must be read (⊙ acts column by column, and on block matrices block by block):

    vec(Z1 ⊙ Z2) = ((I_n ⊙ Z1) ⊗ I_d2) vec(Z2)              I_n ⊙ Z1 is (n d1, n): column j holds Z1[:, j] in block j
    vec(Z1 ⊙ Z2) = (I_{n d1} ⊙ (Z2 (I_n ⊗ 1ᵀ_d1))) vec(Z1)   the printed "1" is a row of d1 ones
    vec(B Z)     = (I_n ⊗ B) vec(Z)
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray


def product_of_left(left: Matrix, size: int, *, sparse: bool = False) -> Any:
    """Eq. 21: the matrix `(I_n ⊙ left) ⊗ I_size` that maps vec(right) to vec(left ⊙ right); right has `size` rows."""
    return _kronecker(_identity_khatri_rao(left, sparse), np.eye(size), sparse)


def product_of_right(right: Matrix, size: int, *, sparse: bool = False) -> Any:
    """Eq. 22: the matrix `I ⊙ (right (I_n ⊗ 1ᵀ))` that maps vec(left) to vec(left ⊙ right); left has `size` rows."""
    repeated = right @ np.kron(np.eye(right.shape[1]), np.ones((1, size)))
    return _identity_khatri_rao(repeated, sparse)


def projection(matrix: Matrix, samples: int, *, sparse: bool = False) -> Any:
    """Eq. 20: the matrix `I_n ⊗ B` that maps vec(Z) to vec(B Z)."""
    return _kronecker(np.eye(samples), matrix, sparse)


def operator(matrix: Matrix, factors: Sequence[Matrix], position: int, *, sparse: bool = False) -> Any:
    """The operator A of eq. 23 for the factor at `position` (counted from 0).

    Args:
        matrix: The unfolded core B, shape `(k, k_1 * ... * k_M)`, last index fastest.
        factors: `Z1, ..., ZM` of shapes `(k_m, n)`; the one at `position` only lends its shape.
        position: Which factor A multiplies.
        sparse: Whether to build a scipy.sparse array.

    Returns:
        Array of shape `(k * n, k_position * n)`.
    """
    rows, samples = factors[position].shape
    left, right = factors[:position], factors[position + 1 :]
    result = projection(matrix, samples, sparse=sparse)
    if left:
        size = rows * prod(z.shape[0] for z in right)
        result = result @ product_of_left(reduce(_khatri_rao, left), size, sparse=sparse)
    if right:
        result = result @ product_of_right(reduce(_khatri_rao, right), rows, sparse=sparse)
    return result


def loss(
    target: Matrix, matrix: Matrix, factors: Sequence[Matrix], position: int = 0, *, sparse: bool = False
) -> float:
    """`||vec(X) - A vec(Z_position)||²` (eq. 16): the same number for every position."""
    residual = operator(matrix, factors, position, sparse=sparse) @ vec(factors[position]) - vec(target)
    return float(np.sum(np.abs(residual) ** 2))


def gradient(
    target: Matrix, matrix: Matrix, factors: Sequence[Matrix], position: int, *, sparse: bool = False
) -> Matrix:
    """`2 Aᵀ (A vec(Z) - vec(X))` as a matrix of Z's shape (eq. 23)."""
    a = operator(matrix, factors, position, sparse=sparse)
    flat = 2 * a.T @ (a @ vec(factors[position]) - vec(target))
    return flat.reshape(factors[position].shape, order="F")


def vec(matrix: Matrix) -> Matrix:
    """The columns of a matrix, one below the other."""
    return matrix.reshape(-1, order="F")


def _khatri_rao(a: Matrix, b: Matrix) -> Matrix:
    return np.stack([np.kron(a[:, r], b[:, r]) for r in range(a.shape[1])], axis=1)


def _identity_khatri_rao(matrix: Matrix, sparse: bool) -> Any:
    """`I ⊙ matrix`: the columns of the matrix as the blocks of a block diagonal."""
    if not sparse:
        return _khatri_rao(np.eye(matrix.shape[1]), matrix)
    from scipy.sparse import block_diag

    return block_diag([matrix[:, [column]] for column in range(matrix.shape[1])], format="csr")


def _kronecker(a: Any, b: Any, sparse: bool) -> Any:
    if not sparse:
        return np.kron(a, b)
    from scipy.sparse import csr_array, kron

    return kron(csr_array(a), csr_array(b), format="csr")
