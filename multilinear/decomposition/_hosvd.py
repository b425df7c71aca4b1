"""Higher-order singular value decomposition: truncated in every mode, or sequentially."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from multilinear.contractions import mode_dot, multi_mode_dot
from multilinear.decomposition._iterations import (
    check_data,
    check_positive,
    relative_error,
    squared_norm,
    without_autocast,
)
from multilinear.decomposition._models import TuckerDecomposition
from multilinear.decomposition._solve import leading
from multilinear.decomposition._tucker_error import squared_residual

Truncation = Literal["sequential", "classic"]


@without_autocast
def hosvd(
    tensor: Float[Tensor, "..."],
    ranks: int | Sequence[int | None] | None = None,
    *,
    tolerance: float | None = None,
    truncation: Truncation = "sequential",
) -> TuckerDecomposition:
    """Higher-order SVD (M-mode SVD): orthonormal factors from the singular vectors of the unfoldings.

    At most `sqrt(N)` times worse than the best Tucker model of these ranks in N modes; `tucker` improves on it. Large
    tensors, for instance from a memory map, are read in blocks and never copied as a whole.

    Args:
        tensor: Tensor of shape `(I_0, ..., I_N)`, float32 or float64.
        ranks: One for every mode; None leaves its mode as it is, without a factor. One number holds for all modes. By
            default as many as the mode has, for an exact model.
        tolerance: Instead of ranks: the smallest ranks with a relative error of at most this, mode by mode.
        truncation: "sequential" takes every mode's vectors from what the modes before it have left, which is faster and
            usually closer; "classic" takes all from the tensor itself, which makes the core of a full model
            all-orthogonal.

    Returns:
        The model, with its relative error and singular values. An all-zero tensor gives a core of zeros and error 0.
        With a rank below a quarter of an unfolding whose smaller side is above 2000 the vectors are found by subspace
        iteration and approximate.

    Raises:
        TypeError: The tensor is no torch tensor of float32 or float64; the ranks are no integers.
        ValueError: The tensor has NaN, infinity, no element or fewer than 2 modes; a rank exceeds its mode or the
            product of the others; both ranks and tolerance are given.

    Example:
        >>> import torch
        >>> from multilinear.decomposition import hosvd
        >>> x = torch.arange(24.).reshape(2, 3, 4)
        >>> model = hosvd(x, tolerance=1e-4)
        >>> model.core.shape
        torch.Size([2, 2, 2])
        >>> torch.allclose(model.to_tensor(), x, atol=1e-3)
        True

    Reference:
        De Lathauwer, De Moor and Vandewalle, "A multilinear singular value decomposition", SIAM J. Matrix Anal. Appl.
        21(4), 2000 (classic); Vannieuwenhoven, Vandebril and Meerbergen, "A new truncation strategy for the
        higher-order singular value decomposition", SIAM J. Sci. Comput. 34(2), 2012 (sequential).
    """
    tensor = check_data("hosvd", "tensor", tensor, 2)
    if truncation not in ("sequential", "classic"):
        raise ValueError(f'hosvd: truncation must be "sequential" or "classic", got {truncation!r}')
    if ranks is not None and tolerance is not None:
        raise ValueError("hosvd: pass ranks or a tolerance, not both; the tolerance chooses the ranks")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise ValueError(f"hosvd: tolerance must be from 0 up to below 1, got {tolerance}; it is a relative error")
    wanted = check_ranks("hosvd", tensor, ranks)
    norm = squared_norm("hosvd", tensor)
    core, factors, values = truncate(tensor, wanted, truncation, tolerance, norm)
    kept = squared_norm("hosvd", core, "the core")
    error = relative_error(squared_residual(tensor, core, factors, norm, kept), norm)
    return TuckerDecomposition(core, tuple(factors), (error,), True, tuple(values))


def truncate(
    tensor: Tensor, ranks: Sequence[int | None], truncation: Truncation, tolerance: float | None, norm: float
) -> tuple[Tensor, list[Tensor | None], list[Tensor | None]]:
    """Core, factors and singular values."""
    core = tensor
    factors: list[Tensor | None] = []
    spectra: list[Tensor | None] = []
    for mode, rank in enumerate(ranks):
        if rank is None:
            factors.append(None)
            spectra.append(None)
            continue
        vectors, values = leading(
            core if truncation == "sequential" else tensor, mode, None if tolerance is not None else rank
        )
        if tolerance is not None:
            rank = _smallest_rank(values, tolerance**2 * norm / len(ranks))
            vectors = vectors[:, :rank]
        if truncation == "sequential":
            core = mode_dot(core, vectors.mT, mode)
        factors.append(vectors.contiguous())
        spectra.append(values)
    if truncation == "classic":
        modes = [mode for mode, factor in enumerate(factors) if factor is not None]
        core = multi_mode_dot(tensor, [factor.mT for factor in factors if factor is not None], modes)
    return core, factors, spectra


def check_ranks(function: str, tensor: Tensor, ranks: object) -> list[int | None]:
    """One rank for every mode, none larger than its mode or than the others together can give."""
    shape = tuple(tensor.shape)
    if ranks is None:
        return [min(size, math.prod(shape) // size) for size in shape]
    if isinstance(ranks, int):
        ranks = [ranks] * len(shape)
    if not isinstance(ranks, Sequence) or isinstance(ranks, str):
        raise TypeError(f"{function}: ranks must be an integer or a list of them, got {ranks!r}")
    if len(ranks) != len(shape):
        raise ValueError(
            f"{function}: ranks must hold one number for each of the {len(shape)} modes, got {len(ranks)}; "
            f"None leaves a mode as it is"
        )
    for mode, (rank, size) in enumerate(zip(ranks, shape, strict=True)):
        if rank is None:
            continue
        check_positive(function, f"ranks[{mode}]", rank)
        if rank > size:
            raise ValueError(
                f"{function}: rank {rank} is larger than mode {mode}, which has size {size} (tensor is {shape}); "
                f"choose at most {size}"
            )
        others = math.prod(
            (n if r is None else r) for m, (r, n) in enumerate(zip(ranks, shape, strict=True)) if m != mode
        )
        if rank > others:
            raise ValueError(
                f"{function}: rank {rank} of mode {mode} is larger than the product of the others, {others} (ranks are "
                f"{list(ranks)}), and what is beyond it would be empty; choose at most {others}"
            )
    return list(ranks)


def _smallest_rank(values: Tensor, allowed: float) -> int:
    """The fewest singular values such that the squares of those left out sum to no more than allowed."""
    left_out = torch.cat([values.double().square().flip(0).cumsum(0).flip(0)[1:], values.new_zeros(1).double()])
    return int((left_out > allowed).sum()) + 1
