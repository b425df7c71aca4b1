"""Products of a tensor with matrices and vectors along its modes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Num

from multilinear import _checks
from multilinear._arrays import ArrayT, namespace, permute, reshape
from multilinear.autograd import cp as _cp
from multilinear.autograd import mode_dot as _mode_dot
from multilinear.autograd._dtypes import promote_for_product
from multilinear.matricization import unfold
from multilinear.products import khatri_rao


def mode_dot(tensor: Num[ArrayT, "..."], matrix_or_vector: Num[ArrayT, "..."], mode: int) -> Num[ArrayT, "..."]:
    """Mode-n product: every fibre of the mode is multiplied by the matrix, or contracted with the vector.

    A vector drops the mode, so the modes after it move down by one; `multi_mode_dot` counts the modes of the original
    tensor.

    Args:
        tensor: Array of shape `(I_0, ..., I_N)`.
        matrix_or_vector: Matrix `(J, I_mode)` or vector `(I_mode,)`. A complex one is not conjugated.
        mode: Counted from 0; negative modes count from the end.

    Returns:
        Tensor with `J` in place of `I_mode`, or without that mode; dtypes promote as in the array library, and under
        autocast as `torch.matmul`. For torch tensors the gradients are analytic, of every order.

    Raises:
        TypeError: An operand is no array, or boolean; several libraries; the mode is no integer.
        ValueError: The mode is out of range, the sizes do not fit, or the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> x = torch.arange(8.).reshape(2, 2, 2)
        >>> ml.mode_dot(x, torch.tensor([1., 10.]), 0)
        tensor([[40., 51.],
                [62., 73.]])
        >>> ml.mode_dot(x, torch.ones(5, 2), 1).shape
        torch.Size([2, 5, 2])

    Reference:
        Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51(3), 2009, sec. 2.5; the paper's
        footnote 2.
    """
    _checks.check_array("mode_dot", "tensor", tensor)
    _checks.check_array("mode_dot", "matrix_or_vector", matrix_or_vector)
    _checks.check_same_place("mode_dot", [tensor, matrix_or_vector])
    mode = _checks.check_mode("mode_dot", mode, _ndim(tensor))
    _check_operand("mode_dot", tensor, matrix_or_vector, mode)
    return _mode_product(tensor, matrix_or_vector, mode)


def _mode_product(tensor: Any, operand: Any, mode: int) -> Any:
    if operand.ndim == 1:
        product = _mode_product(tensor, reshape(operand, (1, operand.shape[0])), mode)
        return reshape(product, (*tensor.shape[:mode], *tensor.shape[mode + 1 :]))
    if isinstance(tensor, torch.Tensor):
        tensor, operand = promote_for_product([tensor, operand])
        return _mode_dot.mode_dot(tensor, operand, mode)
    others = [m for m in range(tensor.ndim) if m != mode]
    rows = permute(tensor, [mode, *others])
    sizes = tuple(rows.shape[1:])
    matrix = reshape(rows, (rows.shape[0], math.prod(sizes)))
    product = reshape(namespace(tensor).matmul(operand, matrix), (operand.shape[0], *sizes))
    return permute(product, [*range(1, mode + 1), 0, *range(mode + 1, tensor.ndim)])


def _check_operand(function: str, tensor: Any, operand: Any, mode: int) -> None:
    if operand.ndim not in (1, 2):
        raise ValueError(
            f"{function}: the operand of mode {mode} must be a matrix (rows, {tensor.shape[mode]}) or a vector "
            f"({tensor.shape[mode]},), got shape {tuple(operand.shape)}; reshape it"
        )
    if operand.shape[-1] != tensor.shape[mode]:
        what = (
            f"matrix has {operand.shape[-1]} columns"
            if operand.ndim == 2
            else f"vector has {operand.shape[-1]} elements"
        )
        raise ValueError(
            f"{function}: {what} but mode {mode} of the tensor has size {tensor.shape[mode]} (tensor is "
            f"{tuple(tensor.shape)}, operand is {tuple(operand.shape)}); transpose the matrix or choose another mode"
        )


def multi_mode_dot(
    tensor: Num[ArrayT, "..."], operands: Sequence[Num[ArrayT, "..."]], modes: Sequence[int] | None = None
) -> Num[ArrayT, "..."]:
    """Mode-n products in several modes, each at most once.

    The modes are those of the ORIGINAL tensor: a vector drops its mode without renumbering the others. The products are
    done in the order that shrinks the tensor fastest, which does not change the result.

    Args:
        tensor: Array of shape `(I_0, ..., I_N)`.
        operands: Matrices `(J, I_mode)` and vectors `(I_mode,)`.
        modes: One mode for each operand; by default the first operands' count of modes, 0, 1, ...

    Returns:
        Tensor with every operand applied; dtypes as in `mode_dot`. Without operands, the tensor itself.

    Raises:
        TypeError: An operand is no array, or boolean; several libraries; a mode is no integer.
        ValueError: The numbers of operands and modes differ, a mode occurs twice or is out of range, the sizes do not
            fit, or the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> x = torch.ones(2, 3, 4)
        >>> ml.multi_mode_dot(x, [torch.ones(2), torch.ones(5, 4)], modes=[0, 2]).shape
        torch.Size([3, 5])

    Reference:
        Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51(3), 2009, sec. 2.5.
    """
    _checks.check_array("multi_mode_dot", "tensor", tensor)
    if isinstance(operands, list | tuple) and not operands:
        return tensor
    _checks.check_arrays("multi_mode_dot", "operands", operands)
    _checks.check_same_place("multi_mode_dot", [tensor, *operands])
    ndim = _ndim(tensor)
    given = range(len(operands)) if modes is None else modes
    places = [_checks.check_mode("multi_mode_dot", mode, ndim) for mode in given]
    if len(places) != len(operands):
        raise ValueError(
            f"multi_mode_dot: every operand needs a mode, got {len(operands)} operands and {len(places)} modes; "
            f"leave modes out to take the first ones"
        )
    if len(set(places)) < len(places):
        raise ValueError(f"multi_mode_dot: every mode may occur once, got modes {places}; multiply the matrices first")
    for operand, mode in zip(operands, places, strict=True):
        _check_operand("multi_mode_dot", tensor, operand, mode)
    return _multi_mode_product(tensor, list(zip(operands, places, strict=True)))


def mttkrp(
    tensor: Num[ArrayT, "..."],
    factors: Sequence[Num[ArrayT, "_size rank"] | None],
    mode: int,
    *,
    weights: Num[ArrayT, "rank"] | None = None,
) -> Num[ArrayT, "size rank"]:
    """Matricized tensor times Khatri-Rao product: `unfold(tensor, mode) @ khatri_rao(the other factors)`.

    The work of every CP algorithm. The Khatri-Rao product of all other factors is never formed.

    Args:
        tensor: Array of shape `(I_0, ..., I_N)`.
        factors: One matrix `(I_m, R)` for every mode, in order; the one of `mode` is not used and may be None.
        mode: Counted from 0; negative modes count from the end.
        weights: Vector of shape `(R,)`: column `r` of the result is multiplied by `weights[r]`.

    Returns:
        Matrix of shape `(I_mode, R)`; dtypes as in `mode_dot`. Complex factors are not conjugated. For torch tensors
        the gradients are analytic, of every order.

    Raises:
        TypeError: An operand is no array, or boolean; several libraries; the mode is no integer.
        ValueError: The number of factors is not the tensor's order, a shape does not fit, the mode is out of range, the
            weights are not one per column, or the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> x = torch.arange(8.).reshape(2, 2, 2)
        >>> b, c = torch.tensor([[1.], [10.]]), torch.tensor([[1.], [0.]])
        >>> ml.mttkrp(x, [None, b, c], 0)
        tensor([[20.],
                [64.]])

    Reference:
        Bader and Kolda, "Efficient MATLAB computations with sparse and factored tensors", SIAM J. Sci. Comput. 30(1),
        2007, sec. 5.2.
    """
    ndim = _check_tensor("mttkrp", tensor)
    mode = _checks.check_mode("mttkrp", mode, ndim)
    _check_count("mttkrp", tensor, factors)
    if ndim > 1:  # with one mode its factor still says how many columns the result has
        factors = [None if m == mode else factor for m, factor in enumerate(factors)]
    _check_factors("mttkrp", tensor, factors, weights, skip=mode)
    result = _mttkrps(tensor, factors, [m == mode for m in range(ndim)])[mode]
    return result if weights is None else result * weights


def mttkrps(
    tensor: Num[ArrayT, "..."],
    factors: Sequence[Num[ArrayT, "_size rank"]],
    *,
    weights: Num[ArrayT, "rank"] | None = None,
) -> "list[Num[ArrayT, '_size rank']]":
    """The MTTKRP in every mode, sharing the work: two matrix products for torch tensors of any order.

    Args:
        tensor: Array of shape `(I_0, ..., I_N)`.
        factors: One matrix `(I_m, R)` for every mode, in order.
        weights: Vector of shape `(R,)`: column `r` of every result is multiplied by `weights[r]`.

    Returns:
        List of `mttkrp(tensor, factors, m, weights=weights)` for every mode `m`.

    Raises:
        TypeError: As in `mttkrp`.
        ValueError: As in `mttkrp`.

    Example:
        >>> import torch, multilinear as ml
        >>> x, factors = torch.ones(2, 3, 4), [torch.ones(2, 5), torch.ones(3, 5), torch.ones(4, 5)]
        >>> [tuple(matrix.shape) for matrix in ml.mttkrps(x, factors)]
        [(2, 5), (3, 5), (4, 5)]

    Reference:
        Phan, Tichavský and Cichocki, "Fast alternating LS algorithms for high order CANDECOMP/PARAFAC tensor
        factorizations", IEEE Trans. Signal Processing 61(19), 2013.
    """
    ndim = _check_tensor("mttkrps", tensor)
    _check_count("mttkrps", tensor, factors)
    _check_factors("mttkrps", tensor, factors, weights)
    results = _mttkrps(tensor, factors, [True] * ndim)
    return results if weights is None else [result * weights for result in results]


def _multi_mode_product(tensor: Any, products: list[tuple[Any, int]]) -> Any:
    """All products, the one that shrinks the tensor most first; modes of the original tensor."""
    dropped: list[int] = []
    while products:
        best = products[0]
        for candidate in products[1:]:
            if _shrinks_more(candidate[0], best[0]):
                best = candidate
        products = [product for product in products if product[1] != best[1]]
        operand, mode = best
        tensor = _mode_product(tensor, operand, mode - sum(d < mode for d in dropped))
        if operand.ndim == 1:
            dropped.append(mode)
    return tensor


def _shrinks_more(a: Any, b: Any) -> bool:
    """Whether rows / columns is smaller; a vector has no row."""
    rows_a, rows_b = (0 if x.ndim == 1 else x.shape[0] for x in (a, b))
    return rows_a * b.shape[-1] < rows_b * a.shape[-1]


def _mttkrps(tensor: Any, factors: Sequence[Any], needed: Sequence[bool]) -> list[Any]:
    if not isinstance(tensor, torch.Tensor):
        return [_mttkrp_plain(tensor, factors, mode) if need else None for mode, need in enumerate(needed)]
    given = [factor for factor in factors if factor is not None]
    tensor, *given = promote_for_product([tensor, *given])
    rank = given[0].shape[1] if given else 1
    rest = iter(given)
    filled = [
        tensor.new_zeros(n, rank) if f is None else next(rest) for f, n in zip(factors, tensor.shape, strict=True)
    ]
    return _cp.mttkrps(tensor, [factor.conj() for factor in filled], needed)  # the operator conjugates: undo it


def _mttkrp_plain(tensor: Any, factors: Sequence[Any], mode: int) -> Any:
    xp = namespace(tensor)
    others = [factor for m, factor in enumerate(factors) if m != mode]
    if not others:
        rank = 1 if factors[0] is None else factors[0].shape[1]
        return reshape(tensor, (tensor.shape[0], 1)) * xp.ones((1, rank), dtype=tensor.dtype)
    return xp.matmul(unfold(tensor, mode), khatri_rao(others))


def _check_tensor(function: str, tensor: Any) -> int:
    _checks.check_array(function, "tensor", tensor)
    if tensor.ndim == 0:
        raise ValueError(f"{function}: tensor must have at least 1 mode, got a scalar; reshape it to (1,)")
    return tensor.ndim


def _check_count(function: str, tensor: Any, factors: Any) -> None:
    if not isinstance(factors, list | tuple):
        raise TypeError(
            f"{function}: factors must be a list or tuple of matrices, got {type(factors).__name__}; one for every mode"
        )
    if len(factors) != tensor.ndim:
        raise ValueError(
            f"{function}: factors must hold one matrix for each of the {tensor.ndim} modes, got {len(factors)}; "
            f"the factor of a skipped mode may be None"
        )


def _check_factors(function: str, tensor: Any, factors: Any, weights: Any, skip: int | None = None) -> None:
    given = {m: factor for m, factor in enumerate(factors) if m != skip or factor is not None}
    for m, factor in given.items():
        _checks.check_array(function, f"factors[{m}]", factor)
    if weights is not None:
        _checks.check_array(function, "weights", weights)
    _checks.check_same_place(function, [tensor, *given.values(), *([] if weights is None else [weights])])
    ranks = set()
    for m, factor in given.items():
        _checks.check_ndim(function, f"factors[{m}]", factor, 2, "(size, rank)")
        ranks.add(factor.shape[1])
        if factor.shape[0] != tensor.shape[m]:
            raise ValueError(
                f"{function}: factors[{m}] has {factor.shape[0]} rows but mode {m} of the tensor has size "
                f"{tensor.shape[m]} "
                f"(tensor is {tuple(tensor.shape)}, factor is {tuple(factor.shape)}); pass matrices (size, rank)"
            )
    if len(ranks) > 1:
        raise ValueError(
            f"{function}: all factors need the same number of columns, got {_checks.shapes(list(given.values()))}; "
            f"one column per component"
        )
    if weights is not None:
        _checks.check_weights(function, weights, ranks.pop() if ranks else 1)


def _ndim(array: Any) -> int:
    return array.ndim
