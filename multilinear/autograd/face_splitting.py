"""Row-wise Khatri-Rao product with its analytic gradients.

    forward     k[n, (i j l)] = a[n, i] b[n, j] c[n, l]
    backward    da[n, i] = sum over j, l of g[n, (i j l)] b[n, j] c[n, l], and so on for b, c

The backward pass contracts `g` with the factors from the last to the first and keeps the partial results: two passes
over `g` give the gradients of any number of factors. Column-wise products are the same operator on transposed views:
elementwise kernels keep the memory order of their inputs, so nothing is copied.
"""

from collections.abc import Sequence
from functools import reduce

from torch import Tensor

from multilinear.autograd._operator import MultilinearOperator

LARGEST = 4


def forward(*factors: Tensor) -> Tensor:
    """Factors `(..., n, k_m)` to `(..., n, k_1 * ... * k_M)`."""
    return reduce(_row_product, factors)


def backward(gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    """Gradient of every needed factor; `gradient` is `(..., n, k_1 * ... * k_M)`."""
    factors = [factor.conj() for factor in factors]
    sizes = [factor.shape[-1] for factor in factors]
    first, last = _span(needed)
    results: list[Tensor | None] = [None] * len(factors)

    rest = [gradient] * len(
        factors
    )  # rest[m]: gradient contracted with the factors right of m, (..., n, k_1 * ... * k_m)
    for m in range(len(factors) - 1, first, -1):
        by_factor = rest[m].unflatten(-1, (_product(sizes[:m]), sizes[m]))
        rest[m - 1] = (by_factor * factors[m].unsqueeze(-2)).sum(-1)

    left: Tensor | None = None  # product of the factors left of m, (..., n, k_1 * ... * k_{m-1})
    for m in range(last + 1):
        if needed[m] and left is None:
            results[m] = rest[m]
        elif needed[m] and left is not None:
            by_left = rest[m].unflatten(-1, (left.shape[-1], sizes[m]))
            results[m] = (by_left * left.unsqueeze(-1)).sum(-2)
        if m < last:
            left = factors[m] if left is None else _row_product(left, factors[m])
    return results


def _row_product(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)


def _span(needed: Sequence[bool]) -> tuple[int, int]:
    """First and last position of a needed gradient; (len, -1) if there is none."""
    wanted = [m for m, need in enumerate(needed) if need]
    return (wanted[0], wanted[-1]) if wanted else (len(needed), -1)


def _product(sizes: Sequence[int]) -> int:
    return reduce(lambda a, b: a * b, sizes, 1)


OPERATORS = {
    order: MultilinearOperator(f"face_splitting_{order}", [f"z{m}" for m in range(order)], forward, backward)
    for order in range(2, LARGEST + 1)
}


def face_splitting(factors: Sequence[Tensor]) -> Tensor:
    """Any number of factors `(..., n, k_m)`; more than `LARGEST` are multiplied in groups."""
    while len(factors) > LARGEST:
        factors = [OPERATORS[LARGEST](*factors[:LARGEST]), *factors[LARGEST:]]
    return OPERATORS[len(factors)](*factors) if len(factors) > 1 else factors[0]


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
