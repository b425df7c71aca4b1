"""Row-wise Khatri-Rao product with its analytic gradients.

    forward     k[n, (i j l)] = a[n, i] b[n, j] c[n, l]
    backward    da[n, i] = sum over j, l of g[n, (i j l)] b[n, j] c[n, l], and so on for b, c

The backward pass splits the factors into a left and a right group with products p and q, and contracts `g` with each:

    dp[n, i] = sum over j of g[n, (i j)] q[n, j],   dq[n, j] = sum over i of g[n, (i j)] p[n, i]

Two passes over `g` thus serve any number of factors; what is left is the same problem for each group, and small. On a
CPU both passes run over a block at a time, which stays in the cache. Column-wise products are the same operator on
transposed views: where the samples vary fastest in memory, the formulas run on the transposed tensors.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from multilinear.autograd import _memory
from multilinear.autograd._dispatch import takes_formula, takes_kernel
from multilinear.autograd._operator import MultilinearOperator

LARGEST = 4

BLOCK = 1 << 18
"""Elements of the gradient in a block: one megabyte in float32."""


def forward(*factors: Tensor) -> Tensor:
    """Factors `(..., n, k_m)` to `(..., n, k_1 * ... * k_M)`."""
    if _samples_vary_fastest(factors[-1]):
        return _product([factor.mT for factor in factors], 1).mT
    return _product(factors, 0)


def backward(gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    """Gradient of every needed factor; `gradient` is `(..., n, k_1 * ... * k_M)`."""
    factors = [factor.conj() for factor in factors]
    if _samples_vary_fastest(gradient):
        results = _contract(gradient.mT, [factor.mT for factor in factors], needed, 1)
        return [None if result is None else result.mT for result in results]
    return _contract(gradient, factors, needed, 0)


def balanced_split(sizes: Sequence[int]) -> int:
    """The number of modes in the left group, for the smallest sum of both groups' sizes."""
    best, smallest = 1, sizes[0] + count(sizes[1:])
    for split in range(2, len(sizes)):
        total = count(sizes[:split]) + count(sizes[split:])
        if total < smallest:
            best, smallest = split, total
    return best


def count(sizes: Sequence[int]) -> int:
    """Product of sizes: symbolic ones do not get through `math.prod` in torch.compile, nor `numel` in torch.export."""
    total = 1
    for size in sizes:
        total = total * size
    return total


def _samples_vary_fastest(tensor: Tensor) -> bool:
    return tensor.stride(-2) == 1 and tensor.stride(-1) != 1


# From here on a factor's elements lie along axis -1 - after: before the samples (after = 1) or behind them (0).


def _product(factors: Sequence[Tensor], after: int) -> Tensor:
    return reduce(
        lambda a, b: (a.unsqueeze(-1 - after) * b.unsqueeze(-2 - after)).flatten(-2 - after, -1 - after), factors
    )


def _contract(gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool], after: int) -> "list[Tensor | None]":
    if not any(needed):
        return [None] * len(factors)
    if len(factors) == 1:
        return [gradient]
    split = balanced_split([factor.shape[-1 - after] for factor in factors])
    left, right = factors[:split], factors[split:]
    p, q = _product(left, after), _product(right, after)
    matrices = gradient.unflatten(-1 - after, (p.shape[-1 - after], q.shape[-1 - after]))
    results: list[Tensor | None] = [None] * len(factors)
    if any(needed[:split]):
        of_left = (matrices * q.unsqueeze(-2 - after)).sum(-1 - after)
        results[:split] = _contract(of_left, left, needed[:split], after)
    if any(needed[split:]):
        of_right = (matrices * p.unsqueeze(-1 - after)).sum(-2 - after)
        results[split:] = _contract(of_right, right, needed[split:], after)
    return results


def forward_cpu(*factors: Tensor) -> Tensor:
    """`forward` into fresh memory that is cheap to get, where its result lies like that memory."""
    *others, last = factors
    if last.ndim > 2 or not _memory.is_large((elements(*factors),), last):
        return forward(*factors)
    after = int(_samples_vary_fastest(last))
    if after:
        *others, last = (factor.mT for factor in factors)
    first = _product(others, after)
    shape = list(last.shape)
    shape[-1 - after : -1 - after] = [first.shape[-1 - after]]
    memory = _memory.empty(shape, last)
    result = memory.flatten(-2 - after, -1 - after)
    result = result.mT if after else result
    if result.stride() != forward(*map(_memory.layout, factors)).stride():
        return forward(*factors)
    torch.mul(first.unsqueeze(-1 - after), last.unsqueeze(-2 - after), out=memory)
    return result


def backward_cpu(gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    """`backward` in blocks that stay in the cache, with one block of scratch memory."""
    if gradient.ndim > 2 or gradient.numel() <= BLOCK:
        return backward(gradient, factors, needed)
    expected = backward(_memory.layout(gradient), [_memory.layout(factor) for factor in factors], needed)
    factors = [factor.conj() for factor in factors]
    after = int(_samples_vary_fastest(gradient))
    if after:
        gradient, factors = gradient.mT, [factor.mT for factor in factors]
    split = balanced_split([factor.shape[-1 - after] for factor in factors])
    p, q = _product(factors[:split], after), _product(factors[split:], after)
    matrices = gradient.unflatten(-1 - after, (p.shape[-1 - after], q.shape[-1 - after]))
    p, q = p.unsqueeze(-1 - after), q.unsqueeze(-2 - after)
    of_left = torch.empty_like(p)
    of_right = torch.zeros_like(q, dtype=torch.promote_types(q.dtype, torch.float32))  # added up over the blocks
    step = max(BLOCK * len(matrices) // matrices.numel(), 1)  # samples, or where those come last, rows of p
    scratch = torch.empty_like(matrices[:step])
    for start in range(0, len(matrices), step):
        block = slice(start, start + step)
        matrix, of_block = matrices[block], slice(None) if after else block
        product = scratch[: len(matrix)]
        if any(needed[:split]):
            torch.mul(matrix, q[of_block], out=product)
            torch.sum(product, -1 - after, keepdim=True, out=of_left[block])
        if any(needed[split:]):
            torch.mul(matrix, p[block], out=product)
            of_right[of_block] += product.sum(-2 - after, keepdim=True)
    results = [
        *_contract(of_left.squeeze(-1 - after), factors[:split], needed[:split], after),
        *_contract(of_right.squeeze(-2 - after).to(q.dtype), factors[split:], needed[split:], after),
    ]
    return [
        None if result is None or like is None else _lie_like(like, result.mT if after else result)
        for like, result in zip(expected, results, strict=True)
    ]


def _lie_like(like: Tensor, tensor: Tensor) -> Tensor:
    """Graphs of torch.compile read results where the formula's would lie."""
    return tensor if tensor.stride() == like.stride() else torch.empty_like(like, device=tensor.device).copy_(tensor)


def forward_cuda(*factors: Tensor) -> Tensor:
    """`forward`, by the kernel where that is wanted and knows the problem."""
    if _is_for_kernel(factors, factors):
        from multilinear.kernels import face_splitting as kernels

        return kernels.forward(*factors)
    return forward(*factors)


def backward_cuda(gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    """`backward`, by the kernel where that is wanted and knows the problem."""
    if _is_for_kernel(factors, [gradient, *factors]):
        from multilinear.kernels import face_splitting as kernels

        return kernels.backward(gradient, factors, needed)
    return backward(gradient, factors, needed)


def _is_for_kernel(factors: Sequence[Tensor], tensors: Sequence[Tensor]) -> bool:
    matrices = all(x.ndim == 2 and x.shape[0] == factors[0].shape[0] for x in tensors)
    return matrices and takes_kernel("face_splitting", elements(*factors), tensors)


def elements(*factors: Tensor) -> int:
    """Elements of the product."""
    return count(factors[0].shape[:-1]) * count([factor.shape[-1] for factor in factors])


OPERATORS = {
    order: MultilinearOperator(
        f"face_splitting_{order}",
        [f"z{m}" for m in range(order)],
        ",".join(f"n{mode}" for mode in "abcd"[:order]) + f"->n({'abcd'[:order]})",
        forward,
        backward,
        elements=elements,
        kernels={"CPU": (forward_cpu, backward_cpu), "CUDA": (forward_cuda, backward_cuda)},
    )
    for order in range(2, LARGEST + 1)
}


def face_splitting(factors: Sequence[Tensor]) -> Tensor:
    """Any number of factors `(..., n, k_m)`; more than `LARGEST` are multiplied in groups."""
    while len(factors) > LARGEST:
        factors = [OPERATORS[LARGEST](*factors[:LARGEST]), *factors[LARGEST:]]
    return OPERATORS[len(factors)](*factors) if len(factors) > 1 else factors[0]


def khatri_rao(matrices: Sequence[Tensor]) -> Tensor:
    """Any number of matrices `(k_m, n)`: the same operator with the samples in columns."""
    elements = matrices[0].shape[-1] * count([matrix.shape[-2] for matrix in matrices])
    if takes_formula("face_splitting", elements, matrices):
        return _product(matrices, 1)
    return face_splitting([matrix.mT for matrix in matrices]).mT


def face_splitting_backward(
    gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]
) -> "list[Tensor | None]":
    """Gradients of any number of factors, differentiable; those beyond `LARGEST` share their product's gradient."""
    if len(factors) == 1:
        return [gradient if needed[0] else None]
    if len(factors) <= LARGEST:
        return OPERATORS[len(factors)].backward(gradient, factors, needed)
    head, tail = factors[: LARGEST - 1], factors[LARGEST - 1 :]
    tail_needed = needed[LARGEST - 1 :]
    grouped = [*needed[: LARGEST - 1], any(tail_needed)]
    *results, of_tail = OPERATORS[LARGEST].backward(gradient, [*head, face_splitting(tail)], grouped)
    of_factors = [None] * len(tail) if of_tail is None else face_splitting_backward(of_tail, tail, tail_needed)
    return [*results, *of_factors]
