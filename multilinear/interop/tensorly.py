"""`multilinear` as a tensor-algebra backend of TensorLy 0.10.

    import tensorly as tl
    import multilinear.interop.tensorly
    tl.tenalg.set_backend("multilinear")

Every decomposition of TensorLy then runs on the operators here, on whichever array library `tl.set_backend` has
chosen, with analytic gradients where that is torch. Functions of TensorLy's that have no counterpart here (`inner`,
`batched_outer`, `higher_order_moment`, `tensordot`, TT matrices) are those of its own core backend.

Differences to the core backend: `unfolding_dot_khatri_rao` of a matrix applies the weights, which the core drops.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import tensorly as tl
from tensorly.tenalg import core_tenalg
from tensorly.tenalg.base_tenalg import TenalgBackend

import multilinear as ml

NAME = "multilinear"


class MultilinearTenalgBackend(TenalgBackend, backend_name=NAME):
    """The backend that TensorLy knows as "multilinear"."""


def mode_dot(tensor: Any, matrix_or_vector: Any, mode: int, transpose: bool = False) -> Any:
    """TensorLy's `mode_dot`: with `transpose` the conjugate transpose of the matrix is applied."""
    return ml.mode_dot(tensor, _conjugate_transpose(matrix_or_vector) if transpose else matrix_or_vector, mode)


def multi_mode_dot(
    tensor: Any,
    matrix_or_vec_list: Sequence[Any],
    modes: Sequence[int] | None = None,
    skip: int | None = None,
    transpose: bool = False,
) -> Any:
    """TensorLy's `multi_mode_dot`: `skip` counts the operands in the order of their modes; a mode may occur twice."""
    places = range(len(matrix_or_vec_list)) if modes is None else modes
    pairs = sorted(zip(places, matrix_or_vec_list, strict=False), key=lambda pair: pair[0])
    pairs = [pair for position, pair in enumerate(pairs) if position != skip]
    if transpose:
        pairs = [(mode, _conjugate_transpose(operand)) for mode, operand in pairs]
    if len({mode for mode, _ in pairs}) == len(pairs):
        return ml.multi_mode_dot(tensor, [operand for _, operand in pairs], [mode for mode, _ in pairs])
    dropped = 0
    for mode, operand in pairs:
        tensor = ml.mode_dot(tensor, operand, mode - dropped)
        dropped += operand.ndim == 1
    return tensor


def kronecker(matrices: Sequence[Any], skip_matrix: int | None = None, reverse: bool = False) -> Any:
    """TensorLy's `kronecker`."""
    kept = _without(matrices, skip_matrix)
    return ml.kronecker(kept[::-1] if reverse else kept)


def khatri_rao(matrices: Sequence[Any], weights: Any = None, skip_matrix: int | None = None, mask: Any = None) -> Any:
    """TensorLy's `khatri_rao`: vectors count as matrices of one column; a mask multiplies the rows of the result."""
    kept = _without(matrices, skip_matrix)
    if len(kept) == 1:
        return kept[0]
    if kept[0].ndim == 1:
        warnings.warn("khatri_rao: vectors are taken as matrices with one column", stacklevel=2)
        kept = [tl.reshape(vector, (-1, 1)) for vector in kept]
    result = ml.khatri_rao(kept, weights=weights)
    return result if mask is None else result * tl.reshape(mask, (-1, 1))


def outer(tensors: Sequence[Any]) -> Any:
    """TensorLy's `outer`: of tensors of any order."""
    shape = [size for tensor in tensors for size in tensor.shape]
    return tl.reshape(ml.outer([ml.vec(tensor) for tensor in tensors]), shape)


def unfolding_dot_khatri_rao(tensor: Any, cp_tensor: Any, mode: int) -> Any:
    """TensorLy's MTTKRP, which conjugates the factors and weights."""
    weights, factors = cp_tensor
    conjugated = [tl.conj(factor) for factor in factors]
    return ml.mttkrp(tensor, conjugated, mode, weights=None if weights is None else tl.conj(weights))


def _conjugate_transpose(operand: Any) -> Any:
    return tl.conj(tl.transpose(operand))


def _without(matrices: Sequence[Any], skip: int | None) -> list[Any]:
    return [matrix for position, matrix in enumerate(matrices) if position != skip]


OURS = {
    "mode_dot": mode_dot,
    "multi_mode_dot": multi_mode_dot,
    "kronecker": kronecker,
    "khatri_rao": khatri_rao,
    "outer": outer,
    "unfolding_dot_khatri_rao": unfolding_dot_khatri_rao,
}
THEIRS = {
    "inner": core_tenalg.inner,
    "batched_outer": core_tenalg.batched_outer,
    "higher_order_moment": core_tenalg.higher_order_moment,
    "tensordot": core_tenalg.tensordot,
    "_tt_matrix_to_tensor": core_tenalg.tt_matrix_to_tensor,
}
for _name, _function in {**OURS, **THEIRS}.items():
    MultilinearTenalgBackend.register_method(_name, _function)
_manager: Any = tl.tenalg
if NAME not in _manager.available_backend_names:
    _manager.available_backend_names.append(NAME)
