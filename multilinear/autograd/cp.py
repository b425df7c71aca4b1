"""CP tensor and MTTKRP: each is the other's derivative.

    forward     x[i, j, l] = sum over r of a[i, r] b[j, r] c[l, r]
    backward    da[i, r] = sum over j, l of g[i, j, l] b[j, r] c[l, r], and so on: the MTTKRP of g in every mode

Split the modes into a left and a right group with Khatri-Rao products L and R. Then x = L Rᵀ and

    dL = g R,   dR = gᵀ L

so that two matrix products serve all modes (a dimension tree of depth one), and the small dL, dR go through the
backward pass of the Khatri-Rao product. The split makes the two groups as equal as it can.
"""

from collections.abc import Sequence

from torch import Tensor

from multilinear.autograd import face_splitting
from multilinear.autograd._operator import MultilinearOperator

LARGEST = 4


def forward(*factors: Tensor) -> Tensor:
    """Factors `(..., I_m, R)` to `(..., I_0, ..., I_N)`."""
    sizes = [factor.shape[-2] for factor in factors]
    split = face_splitting.balanced_split(sizes)
    matrix = _product(factors[:split]).mT.matmul(_product(factors[split:]))
    return matrix.unflatten(-1, sizes[split:]).unflatten(-1 - len(sizes[split:]), sizes[:split])


def backward(gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    """Gradient of every needed factor; `gradient` is `(..., I_0, ..., I_N)`."""
    order = len(factors)
    split = face_splitting.balanced_split([factor.shape[-2] for factor in factors])
    matrix = gradient.flatten(split - order).flatten(-1 - split, -2)
    left, right = factors[:split], factors[split:]
    results: list[Tensor | None] = [None] * order
    if any(needed[:split]):
        of_left = _product(right).conj().matmul(matrix.mT)  # (..., R, rows)
        results[:split] = _factors(of_left, left, needed[:split])
    if any(needed[split:]):
        of_right = _product(left).conj().matmul(matrix)  # (..., R, columns)
        results[split:] = _factors(of_right, right, needed[split:])
    return results


def _product(factors: Sequence[Tensor]) -> Tensor:
    """Khatri-Rao product with the components as rows, `(..., R, I_0 * ... * I_N)`."""
    return face_splitting.forward(*(factor.mT for factor in factors))


def _factors(gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    rows = face_splitting.backward(gradient, [factor.mT for factor in factors], needed)
    return [None if row is None else row.mT for row in rows]


def elements(*factors: Tensor) -> int:
    """Elements of the tensor."""
    return face_splitting.count([factor.shape[-2] for factor in factors])


OPERATORS = {
    order: MultilinearOperator(
        f"cp_to_tensor_{order}",
        [f"factor{m}" for m in range(order)],
        ",".join(f"{mode}r" for mode in "abcd"[:order]) + f"->{'abcd'[:order]}",
        forward,
        backward,
        elements=elements,
    )
    for order in range(2, LARGEST + 1)
}


def cp_to_tensor(factors: Sequence[Tensor]) -> Tensor:
    """Any number of factors `(I_m, R)`; those beyond `LARGEST` are multiplied into the last one."""
    if len(factors) == 1:
        return factors[0].sum(-1)
    return OPERATORS[min(len(factors), LARGEST)](*_grouped(factors)).reshape([factor.shape[0] for factor in factors])


def mttkrps(tensor: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    """`<mttkrp_m, v> = <tensor, cp_to_tensor(factors with factor m := v)>` for every needed mode, differentiable."""
    if len(factors) == 1:
        return [tensor.unsqueeze(-1).repeat(1, factors[0].shape[-1]) if needed[0] else None]
    if len(factors) <= LARGEST:
        return OPERATORS[len(factors)].backward(tensor, factors, needed)
    tail, tail_needed = factors[LARGEST - 1 :], needed[LARGEST - 1 :]
    of_groups = OPERATORS[LARGEST].backward(
        tensor.flatten(LARGEST - 1), _grouped(factors), [*needed[: LARGEST - 1], any(tail_needed)]
    )
    *results, of_tail = of_groups
    if of_tail is None:
        return [*results, *[None] * len(tail)]
    rows = face_splitting.face_splitting_backward(of_tail.mT, [factor.mT for factor in tail], tail_needed)
    return [*results, *(None if row is None else row.mT for row in rows)]


def _grouped(factors: Sequence[Tensor]) -> Sequence[Tensor]:
    if len(factors) <= LARGEST:
        return factors
    tail = face_splitting.face_splitting([factor.mT for factor in factors[LARGEST - 1 :]]).mT
    return [*factors[: LARGEST - 1], tail]
