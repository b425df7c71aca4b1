"""Vectors and matrices from tensors, and back: the only place that fixes the order of elements.

`order="C"` numbers the last index fastest, as numpy and torch store arrays; `order="F"` numbers the first index
fastest, as Kolda and Bader and the paper's vec do. With C order a Tucker or CP unfolding multiplies the other factors
in their natural order, with F order in reverse:

    unfold(x, n, "C") == factors[n] @ khatri_rao(the others in their natural order).T
    unfold(x, n, "F") == factors[n] @ khatri_rao(the others in reverse order).T
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Shaped

from multilinear import _checks
from multilinear._arrays import ArrayT, permute, reshape

Order = Literal["C", "F"]


def vec(tensor: Shaped[ArrayT, "..."], order: Order = "C") -> Shaped[ArrayT, "elements"]:
    """Vectorise: all elements in one vector.

    The paper's vec stacks the columns of a matrix: that is `order="F"`.

    Args:
        tensor: Array of any shape.
        order: "C", last index fastest, or "F", first index fastest.

    Returns:
        Vector of all elements, same dtype and device; a view where the library can give one.

    Raises:
        TypeError: The tensor is no array, or boolean.
        ValueError: The order is neither "C" nor "F".

    Example:
        >>> import torch, multilinear as ml
        >>> matrix = torch.tensor([[1, 2], [3, 4]])
        >>> ml.vec(matrix), ml.vec(matrix, order="F")
        (tensor([1, 2, 3, 4]), tensor([1, 3, 2, 4]))

    Reference:
        Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51(3), 2009, sec. 2.4.
    """
    _checks.check_array("vec", "tensor", tensor)
    _checks.check_order("vec", order)
    return reshape(_ordered(tensor, order), (_size(tensor),))


def unvec(vector: Shaped[ArrayT, "elements"], shape: Sequence[int], order: Order = "C") -> Shaped[ArrayT, "..."]:
    """Inverse of `vec`: a tensor of the given shape from the vector of its elements.

    Args:
        vector: Array with one mode.
        shape: Shape of the result; its product is the vector's length.
        order: The order that `vec` used.

    Returns:
        Tensor with `vec(result, order) == vector`.

    Raises:
        TypeError: The vector is no array, or boolean; the shape is no sequence of integers.
        ValueError: The vector has not one mode, its length does not fit the shape, or the order is unknown.

    Example:
        >>> import torch, multilinear as ml
        >>> ml.unvec(torch.tensor([1, 3, 2, 4]), (2, 2), order="F")
        tensor([[1, 2],
                [3, 4]])

    Reference:
        Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51(3), 2009, sec. 2.4.
    """
    _checks.check_array("unvec", "vector", vector)
    _checks.check_ndim("unvec", "vector", vector, 1, "(elements,)")
    _checks.check_order("unvec", order)
    sizes = _checks.check_shape("unvec", shape)
    if _size(vector) != math.prod(sizes):
        raise ValueError(
            f"unvec: the vector has {_size(vector)} elements but shape {sizes} holds {math.prod(sizes)}; "
            f"pass the shape of the tensor that was vectorised"
        )
    return _unordered(vector, sizes, order)


def unfold(tensor: Shaped[ArrayT, "..."], mode: int, order: Order = "C") -> Shaped[ArrayT, "mode others"]:
    """Mode-n matricization: one row per index of the mode, the other modes side by side as columns.

    Not `torch.Tensor.unfold`, which cuts a sliding window.

    Args:
        tensor: Array of shape `(I_0, ..., I_N)`.
        mode: The mode of the rows, counted from 0; negative modes count from the end.
        order: Of the columns: "C", last remaining mode fastest, or "F" (Kolda and Bader), first remaining mode fastest.

    Returns:
        Matrix of shape `(I_mode, product of the other sizes)`; a view where the library can give one.

    Raises:
        TypeError: The tensor is no array, or boolean; the mode is no integer.
        ValueError: The mode is out of range, or the order unknown.

    Example:
        >>> import torch, multilinear as ml
        >>> x = torch.arange(8).reshape(2, 2, 2)
        >>> ml.unfold(x, 1)
        tensor([[0, 1, 4, 5],
                [2, 3, 6, 7]])
        >>> ml.unfold(x, 1, order="F")
        tensor([[0, 4, 1, 5],
                [2, 6, 3, 7]])

    Reference:
        Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51(3), 2009, sec. 2.4 (order "F");
        the paper's footnote 2 and eq. 2 (order "C").
    """
    _checks.check_array("unfold", "tensor", tensor)
    _checks.check_order("unfold", order)
    mode = _checks.check_mode("unfold", mode, _ndim(tensor))
    return _matricize(tensor, [mode], _all_but(_ndim(tensor), [mode]), order)


def fold(
    matrix: Shaped[ArrayT, "mode others"], mode: int, shape: Sequence[int], order: Order = "C"
) -> Shaped[ArrayT, "..."]:
    """Inverse of `unfold`: the tensor of the given shape whose mode-n matricization is the matrix.

    Args:
        matrix: Array of shape `(I_mode, product of the other sizes)`.
        mode: The mode that the rows are, counted from 0; negative modes count from the end.
        shape: Shape `(I_0, ..., I_N)` of the result.
        order: The order that `unfold` used.

    Returns:
        Tensor with `unfold(result, mode, order) == matrix`.

    Raises:
        TypeError: The matrix is no array, or boolean; mode or shape are no integers.
        ValueError: The matrix has not two modes, or does not fit the shape; the mode is out of range, or the order
            unknown.

    Example:
        >>> import torch, multilinear as ml
        >>> x = torch.arange(24).reshape(2, 3, 4)
        >>> torch.equal(ml.fold(ml.unfold(x, 1), 1, (2, 3, 4)), x)
        True

    Reference:
        Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51(3), 2009, sec. 2.4.
    """
    _checks.check_array("fold", "matrix", matrix)
    _checks.check_ndim("fold", "matrix", matrix, 2, "(rows of the mode, other modes)")
    _checks.check_order("fold", order)
    sizes = _checks.check_shape("fold", shape)
    mode = _checks.check_mode("fold", mode, len(sizes))
    others = _all_but(len(sizes), [mode])
    expected = (sizes[mode], math.prod([sizes[m] for m in others]))
    if _shape(matrix) != expected:
        raise ValueError(
            f"fold: mode {mode} of shape {sizes} unfolds to {expected}, got a matrix of shape {_shape(matrix)}; "
            f"pass the shape and the mode that unfold had"
        )
    # The columns are the other modes in the chosen order; put them into axes, then every axis into its place.
    columns = others if order == "C" else others[::-1]
    folded = reshape(matrix, [sizes[m] for m in [mode, *columns]])
    return permute(folded, _inverse([mode, *columns]))


def matricize(
    tensor: Shaped[ArrayT, "..."],
    row_modes: Sequence[int],
    column_modes: Sequence[int] | None = None,
    order: Order = "C",
) -> Shaped[ArrayT, "rows columns"]:
    """Matrix from any split of the modes into rows and columns.

    Args:
        tensor: Array of shape `(I_0, ..., I_N)`.
        row_modes: Modes that number the rows, in this order; may be empty (one row).
        column_modes: Modes that number the columns, in this order; by default the remaining ones in natural order.
        order: "C": within rows and within columns the last listed mode is fastest; "F": the first listed one.

    Returns:
        Matrix of shape `(product of row sizes, product of column sizes)`; a view where the library can give one.

    Raises:
        TypeError: The tensor is no array, or boolean; a mode is no integer.
        ValueError: A mode is out of range, or not every mode occurs exactly once; the order is unknown.

    Example:
        >>> import torch, multilinear as ml
        >>> x = torch.arange(8).reshape(2, 2, 2)
        >>> ml.matricize(x, [0, 1])
        tensor([[0, 1],
                [2, 3],
                [4, 5],
                [6, 7]])

    Reference:
        Kolda, "Multilinear operators for higher-order decompositions", Sandia report SAND2006-2081, 2006, sec. 2.2.
    """
    _checks.check_array("matricize", "tensor", tensor)
    _checks.check_order("matricize", order)
    ndim = _ndim(tensor)
    rows = [_checks.check_mode("matricize", mode, ndim) for mode in row_modes]
    if column_modes is None:
        columns = _all_but(ndim, rows)
    else:
        columns = [_checks.check_mode("matricize", mode, ndim) for mode in column_modes]
    if sorted(rows + columns) != list(range(ndim)):
        raise ValueError(
            f"matricize: every mode of a tensor with {ndim} modes must occur once, got rows {rows} and columns "
            f"{columns}; "
            f"leave column_modes out to take the remaining modes"
        )
    return _matricize(tensor, rows, columns, order)


def _matricize(tensor: ArrayT, rows: list[int], columns: list[int], order: str) -> ArrayT:
    sizes = _shape(tensor)
    shape = (math.prod([sizes[m] for m in rows]), math.prod([sizes[m] for m in columns]))
    if order == "F":
        rows, columns = rows[::-1], columns[::-1]
    return reshape(permute(tensor, [*rows, *columns]), shape)


def _ordered(tensor: ArrayT, order: str) -> ArrayT:
    """The tensor with its axes such that C order reads the elements in the given order."""
    return tensor if order == "C" else permute(tensor, _reversed(_ndim(tensor)))


def _unordered(vector: ArrayT, sizes: tuple[int, ...], order: str) -> ArrayT:
    return reshape(vector, sizes) if order == "C" else permute(reshape(vector, sizes[::-1]), _reversed(len(sizes)))


def _reversed(ndim: int) -> list[int]:
    """The axes from the last to the first; torch.compile cannot slice the range itself."""
    return list(range(ndim))[::-1]


def _all_but(ndim: int, modes: list[int]) -> list[int]:
    return [mode for mode in range(ndim) if mode not in modes]


def _inverse(axes: list[int]) -> list[int]:
    return [axes.index(axis) for axis in range(len(axes))]


def _shape(array: Any) -> tuple[int, ...]:
    return tuple(array.shape)


def _ndim(array: Any) -> int:
    return array.ndim


def _size(array: Any) -> int:
    return math.prod(_shape(array))
