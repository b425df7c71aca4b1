"""Products of a tensor with matrices and vectors along its modes."""

import math
from typing import Any

import torch
from jaxtyping import Num

from multilinear import _checks
from multilinear._arrays import ArrayT, namespace, permute, reshape
from multilinear.autograd import mode_dot as _mode_dot
from multilinear.autograd._dtypes import promote_for_product


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
    mode = _checks.check_mode("mode_dot", mode, tensor.ndim)  # type: ignore[attr-defined]
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
