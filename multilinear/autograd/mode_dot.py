"""Product of a tensor with a matrix along one mode, with its analytic gradients.

    forward     y[l, j, r] = sum over i of matrix[j, i] x[l, i, r]
    backward    dx = matrixᵀ g,   dmatrix[j, i] = sum over l, r of g[l, j, r] x[l, i, r]

The modes before the multiplied one are merged into `l`, those after it into `r`: views for a contiguous tensor.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from multilinear.autograd import _memory
from multilinear.autograd._dispatch import is_distributed, takes_formula
from multilinear.autograd._operator import MultilinearOperator
from multilinear.autograd.face_splitting import count


def forward(tensor: Tensor, matrix: Tensor) -> Tensor:
    """Tensor `(..., L, I, R)` and matrix `(..., J, I)` to `(..., L, J, R)`."""
    if tensor.shape[-1] == 1:  # the last mode: one matrix product instead of many matrix-vector products
        return tensor.squeeze(-1).matmul(matrix.mT).unsqueeze(-1)
    if tensor.shape[-3] == 1:
        return matrix.matmul(tensor.squeeze(-3)).unsqueeze(-3)
    return (matrix if matrix.ndim == 2 else matrix.unsqueeze(-3)).matmul(tensor)


def backward(
    gradient: Tensor,
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    product: Callable[[Tensor, Tensor], Tensor] = forward,
) -> "list[Tensor | None]":
    """Gradients of the tensor and of the matrix; `gradient` is `(..., L, J, R)`, `product` does what `forward` does."""
    tensor, matrix = tensors
    return [
        product(gradient, matrix.mT.conj()) if needed[0] else None,
        _gradient_matrix(gradient, tensor.conj()) if needed[1] else None,
    ]


def _gradient_matrix(gradient: Tensor, tensor: Tensor) -> Tensor:
    (left, rows, right), columns = gradient.shape[-3:], tensor.shape[-2]
    if left == 1:
        return gradient.squeeze(-3).matmul(tensor.squeeze(-3).mT)
    if right == 1:
        return gradient.squeeze(-1).mT.matmul(tensor.squeeze(-1))
    if rows == 1:
        return tensor.matmul(gradient.mT).sum(-3).mT
    if rows * columns <= right * (rows + columns):  # whichever temporary is smaller
        return gradient.matmul(tensor.mT).sum(-3)
    return gradient.transpose(-3, -2).flatten(-2).matmul(tensor.transpose(-3, -2).flatten(-2).mT)


def forward_cpu(tensor: Tensor, matrix: Tensor) -> Tensor:
    """`forward` into fresh memory that is cheap to get, and without matrix products where a loop over one size does."""
    if tensor.ndim > 3 or matrix.ndim > 2:
        return forward(tensor, matrix)
    (left, size, right), rows = tensor.shape, matrix.shape[0]
    if rows == 1 and right > 1:  # a vector: as many small products as the left modes have elements
        return matrix.expand(left, 1, size).bmm(tensor)
    if not _memory.is_large((left, rows, right), tensor):
        return forward(tensor, matrix)
    result = _memory.empty((left, rows, right), tensor)
    if size == 1:
        return torch.mul(tensor, matrix, out=result)
    if right == 1:
        torch.mm(tensor.squeeze(-1), matrix.mT, out=result.squeeze(-1))
    elif left == 1:
        torch.mm(matrix, tensor.squeeze(0), out=result.squeeze(0))
    else:
        torch.bmm(matrix.expand(left, rows, size), tensor, out=result)
    return result


def elements(tensor: Tensor, matrix: Tensor) -> int:
    """Elements of the tensor or of the result, whichever has more."""
    left, size, right = tensor.shape[-3:]
    return left * max(size, matrix.shape[-2]) * right


OPERATOR = MultilinearOperator(
    "mode_dot",
    ["tensor", "matrix"],
    "lir,ji->ljr",
    forward,
    backward,
    elements=elements,
    kernels={"CPU": (forward_cpu, partial(backward, product=forward_cpu))},
)


def mode_dot(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    """Tensor `(I_0, ..., I_N)` times matrix `(J, I_mode)`: the mode's size becomes J."""
    if tensor.ndim == 3 and mode == 1:
        return OPERATOR(tensor, matrix)
    left, right = tensor.shape[:mode], tensor.shape[mode + 1 :]
    if mode > 1 and is_distributed([tensor]):  # merging the first mode with others would need it in equal parts
        batch = tensor.reshape(left[0], count(left[1:]), tensor.shape[mode], count(right))
        return OPERATOR(batch, matrix).reshape(*left, matrix.shape[0], *right)
    merged = tensor.reshape(count(left), tensor.shape[mode], count(right))
    outer = mode in (0, tensor.ndim - 1) and takes_formula("outer_mode_dot", elements(merged, matrix), [tensor, matrix])
    return (forward if outer else OPERATOR)(merged, matrix).reshape(*left, matrix.shape[0], *right)
