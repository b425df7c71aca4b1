"""Products of vectors and matrices: outer, Kronecker, Khatri-Rao (column by column) and face-splitting (row by row)."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Num

from multilinear import _checks
from multilinear._arrays import ArrayT, reshape
from multilinear.autograd import face_splitting as _face_splitting
from multilinear.autograd._dtypes import promote


def outer(vectors: Sequence[Num[ArrayT, "_size"]]) -> Num[ArrayT, "..."]:
    """Outer product of vectors: entry `[i, j, ...]` is `a[i] * b[j] * ...`.

    Args:
        vectors: One or more vectors of shapes `(I_k,)`.

    Returns:
        Tensor of shape `(I_1, ..., I_K)`; dtypes promote as in the array library. One vector is returned as it is.

    Raises:
        TypeError: No sequence of arrays, several libraries, or a boolean array.
        ValueError: The sequence is empty, an array is no vector, or the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> ml.outer([torch.tensor([1, 2]), torch.tensor([3, 4, 5])])
        tensor([[ 3,  4,  5],
                [ 6,  8, 10]])

    Reference:
        Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51(3), 2009, sec. 2.
    """
    _checks.check_arrays("outer", "vectors", vectors)
    for position, vector in enumerate(vectors):
        _checks.check_ndim("outer", f"vectors[{position}]", vector, 1, "(size,)")
    return reduce(lambda a, b: _spread(a, 1, after=True) * _spread(b, _ndim(a)), vectors)


def kronecker(matrices: Sequence[Num[ArrayT, "..."]]) -> Num[ArrayT, "..."]:
    """Kronecker product: every entry of the first matrix times the whole of the next.

    Args:
        matrices: One or more matrices of shapes `(I_k, J_k)`, or one or more vectors.

    Returns:
        Matrix of shape `(I_1 * ... * I_K, J_1 * ... * J_K)`, or a vector; dtypes promote as in the array library.
        One matrix is returned as it is.

    Raises:
        TypeError: No sequence of arrays, several libraries, or a boolean array.
        ValueError: The sequence is empty, vectors and matrices are mixed, there are other modes, or the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> ml.kronecker([torch.tensor([[1, 2]]), torch.tensor([[1, 0], [0, 1]])])
        tensor([[1, 0, 2, 0],
                [0, 1, 0, 2]])

    Reference:
        Van Loan, "The ubiquitous Kronecker product", J. Comput. Appl. Math. 123, 2000.
    """
    _checks.check_arrays("kronecker", "matrices", matrices)
    orders = {_ndim(matrix) for matrix in matrices}
    if orders not in ({1}, {2}):
        raise ValueError(
            f"kronecker: all operands must be matrices, or all vectors, got shapes {_checks.shapes(matrices)}; "
            f"reshape a vector to (size, 1) or (1, size)"
        )
    return reduce(_kronecker_pair if orders == {2} else _kronecker_vectors, matrices)


def khatri_rao(
    matrices: Sequence[Num[ArrayT, "_rows rank"]], *, weights: Num[ArrayT, "rank"] | None = None
) -> Num[ArrayT, "_product rank"]:
    """Khatri-Rao product: the Kronecker product taken column by column.

    Column `r` of the result is `kronecker([m[:, r] for m in matrices])`; the rows of the last matrix vary fastest, as
    in `unfold`. For samples in rows, as in a network, use `face_splitting`.

    Args:
        matrices: One or more matrices of shape `(I_k, R)`, all with the same `R`.
        weights: Vector of shape `(R,)`; column `r` of the result is multiplied by `weights[r]`.

    Returns:
        Matrix of shape `(I_1 * ... * I_K, R)`; dtypes promote as in the array library. One matrix without weights is
        returned as it is (not a copy). For torch tensors the gradients are analytic, of every order.

    Raises:
        TypeError: No sequence of arrays, several libraries, or a boolean array.
        ValueError: The sequence is empty, an array is no matrix, the numbers of columns or the devices differ, or the
            weights are not one per column.

    Example:
        >>> import torch, multilinear as ml
        >>> a = torch.tensor([[1., 2.], [3., 4.]])
        >>> b = torch.tensor([[10., 100.], [20., 200.]])
        >>> ml.khatri_rao([a, b])
        tensor([[ 10., 200.],
                [ 20., 400.],
                [ 30., 400.],
                [ 60., 800.]])

    Reference:
        Khatri and Rao, "Solutions to some functional equations and their applications to characterization of
        probability distributions", Sankhya A 30, 1968; Kolda and Bader, SIAM Review 51(3), 2009, sec. 2.6.
    """
    _checks.check_arrays("khatri_rao", "matrices", matrices)
    _check_matrices("khatri_rao", matrices, axis=1, sizes="columns", form="(rows, rank)")
    if weights is not None:
        _checks.check_array("khatri_rao", "weights", weights)
        _checks.check_same_place("khatri_rao", [matrices[0], weights])
        _checks.check_weights("khatri_rao", weights, _shape(matrices[0])[1])
        first: Any = matrices[0]
        matrices = [first * weights, *matrices[1:]]
    if len(matrices) == 1:
        return matrices[0]
    return _khatri_rao_torch(matrices) if isinstance(matrices[0], torch.Tensor) else reduce(_khatri_rao_pair, matrices)


def face_splitting(matrices: Sequence[Num[ArrayT, "rows _columns"]]) -> Num[ArrayT, "rows _product"]:
    """Face-splitting product: the Kronecker product taken row by row, one row per sample.

    Row `n` of the result is `kronecker([m[n] for m in matrices])`: the transposed Khatri-Rao product, which is what a
    network with the batch first needs. The name has nothing to do with faces.

    Args:
        matrices: One or more matrices of shape `(N, I_k)`, all with the same `N`.

    Returns:
        Matrix of shape `(N, I_1 * ... * I_K)`; dtypes promote as in the array library. One matrix is returned as it is
        (not a copy). For torch tensors the gradients are analytic, of every order.

    Raises:
        TypeError: No sequence of arrays, several libraries, or a boolean array.
        ValueError: The sequence is empty, an array is no matrix, or the numbers of rows or the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> ml.face_splitting([torch.tensor([[1, 2], [3, 4]]), torch.tensor([[10, 20], [30, 40]])])
        tensor([[ 10,  20,  20,  40],
                [ 90, 120, 120, 160]])

    Reference:
        Slyusar, "End products in matrices in radar applications", Radioelectronics and Communications Systems 41(3),
        1998; the paper's "synthesis", sec. 3.5.
    """
    _checks.check_arrays("face_splitting", "matrices", matrices)
    _check_matrices("face_splitting", matrices, axis=0, sizes="rows", form="(samples, size)")
    if len(matrices) == 1:
        return matrices[0]
    if isinstance(matrices[0], torch.Tensor):
        return _face_splitting_torch(matrices)
    return reduce(_face_splitting_pair, matrices)


def _check_matrices(function: str, matrices: Sequence[Any], axis: int, sizes: str, form: str) -> None:
    for position, matrix in enumerate(matrices):
        _checks.check_ndim(function, f"matrices[{position}]", matrix, 2, form)
    first = matrices[0].shape[axis]
    if any(matrix.shape[axis] != first for matrix in matrices):
        counts = [matrix.shape[axis] for matrix in matrices]
        wrong = form.strip("()").split(", ")[::-1]
        raise ValueError(
            f"{function}: all matrices need the same number of {sizes}, got {counts} from shapes "
            f"{_checks.shapes(matrices)}; "
            f"pass matrices of shape {form}, not ({', '.join(wrong)})"
        )


def _khatri_rao_torch(matrices: Any) -> Any:
    return _face_splitting.khatri_rao(promote(matrices))


def _face_splitting_torch(matrices: Any) -> Any:
    return _face_splitting.face_splitting(promote(matrices))


def _kronecker_pair(a: Any, b: Any) -> Any:
    (rows_a, columns_a), (rows_b, columns_b) = _shape(a), _shape(b)
    blocks = reshape(a, (rows_a, 1, columns_a, 1)) * reshape(b, (1, rows_b, 1, columns_b))
    return reshape(blocks, (rows_a * rows_b, columns_a * columns_b))


def _kronecker_vectors(a: Any, b: Any) -> Any:
    return reshape(reshape(a, (-1, 1)) * reshape(b, (1, -1)), (math.prod(_shape(a)) * math.prod(_shape(b)),))


def _khatri_rao_pair(a: Any, b: Any) -> Any:
    (rows_a, rank), (rows_b, _) = _shape(a), _shape(b)
    return reshape(reshape(a, (rows_a, 1, rank)) * reshape(b, (1, rows_b, rank)), (rows_a * rows_b, rank))


def _face_splitting_pair(a: Any, b: Any) -> Any:
    (rows, columns_a), (_, columns_b) = _shape(a), _shape(b)
    return reshape(reshape(a, (rows, columns_a, 1)) * reshape(b, (rows, 1, columns_b)), (rows, columns_a * columns_b))


def _spread(array: Any, axes: int, *, after: bool = False) -> Any:
    """The array with axes of size 1 before its own, or after them."""
    ones = (1,) * axes
    return reshape(array, (*_shape(array), *ones) if after else (*ones, *_shape(array)))


def _shape(array: Any) -> tuple[int, ...]:
    return tuple(array.shape)


def _ndim(array: Any) -> int:
    return array.ndim
