"""The multilinear map of a batch with its analytic gradients (the paper's eq. 2, 4 and 23).

    forward     y[n] = B (z_1[n] ⊗ ... ⊗ z_M[n])                    y = K Bᵀ with K = face_splitting(z)
    backward    dB = gᵀ K,   dK = g B,   dz_m = face_splitting's backward of dK

With g = 2 (y - x) the last line is 2 Aᵀ (A z_m - x): eq. 23. Only the core and the inputs are kept for the backward
pass; K, which is larger than both as soon as the batch is, is made again.
"""

from collections.abc import Sequence

from torch import Tensor

from multilinear.autograd import face_splitting
from multilinear.autograd._operator import MultilinearOperator

LARGEST = 4


def forward(core: Tensor, *inputs: Tensor) -> Tensor:
    """Core `(..., k, k_1, ..., k_M)` and inputs `(..., n, k_m)` to `(..., n, k)`."""
    matrix = _as_matrix(core, len(inputs))
    return face_splitting.forward(*inputs).matmul(matrix.mT)


def backward(gradient: Tensor, tensors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    """Gradients of the core and of every input; `gradient` is `(..., n, k)`."""
    core, *inputs = tensors
    gradient_core: Tensor | None = None
    if needed[0]:
        product = face_splitting.forward(*inputs).conj()
        gradient_core = gradient.mT.matmul(product).unflatten(-1, core.shape[-len(inputs) :])
    if not any(needed[1:]):
        return [gradient_core, *[None] * len(inputs)]
    gradient_product = gradient.matmul(_as_matrix(core, len(inputs)).conj())
    return [gradient_core, *face_splitting.backward(gradient_product, inputs, needed[1:])]


def _as_matrix(core: Tensor, order: int) -> Tensor:
    """The core as `(..., k, k_1 * ... * k_M)`, without batch dimensions that are all 1: one large product is faster."""
    matrix = core.flatten(-order)
    return matrix.reshape(matrix.shape[-2:]) if face_splitting.count(matrix.shape[:-2]) == 1 else matrix


def elements(core: Tensor, *inputs: Tensor) -> int:
    """Elements of the core or of the samples' products, whichever are more."""
    outputs, *sizes = core.shape[-len(inputs) - 1 :]
    return max(outputs, inputs[0].shape[-2]) * face_splitting.count(sizes)


OPERATORS = {
    order: MultilinearOperator(
        f"multilinear_map_{order}",
        ["core", *(f"z{m}" for m in range(order))],
        f"o{'abcd'[:order]}," + ",".join(f"n{mode}" for mode in "abcd"[:order]) + "->no",
        forward,
        backward,
        elements=elements,
    )
    for order in range(1, LARGEST + 1)
}


def multilinear_map(core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Any number of inputs `(n, k_m)`; those beyond `LARGEST` are multiplied into the last one."""
    if len(inputs) > LARGEST:
        core = core.flatten(LARGEST)
        inputs = [*inputs[: LARGEST - 1], face_splitting.face_splitting(inputs[LARGEST - 1 :])]
    return OPERATORS[len(inputs)](core, *inputs)
