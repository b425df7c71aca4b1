"""Best Tucker model of given ranks: higher-order orthogonal iteration."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from multilinear.autograd.face_splitting import balanced_split
from multilinear.contractions import mode_dot, multi_mode_dot
from multilinear.decomposition._hosvd import check_ranks, truncate
from multilinear.decomposition._iterations import (
    Progress,
    RandomState,
    Stopping,
    check_data,
    check_positive,
    generator,
    iterate,
    random_matrix,
    relative_error,
    squared_norm,
    without_autocast,
)
from multilinear.decomposition._models import TuckerDecomposition
from multilinear.decomposition._solve import leading
from multilinear.decomposition._tucker_error import squared_residual

Factors = list[Tensor | None]


@without_autocast
def tucker(
    tensor: Float[Tensor, "..."],
    ranks: int | Sequence[int | None],
    *,
    init: Literal["hosvd", "random"] | Sequence[Tensor | None] = "hosvd",
    starts: int = 1,
    max_iterations: int = 100,
    tolerance: float = 1e-8,
    random_state: RandomState = None,
    progress: Progress | None = None,
) -> TuckerDecomposition:
    """Tucker model by higher-order orthogonal iteration (HOOI): every sweep improves every factor, the others held.

    The error never grows. Both halves of the modes share their large product: two passes over the tensor a sweep.

    Args:
        tensor: Tensor of shape `(I_0, ..., I_N)`, float32 or float64.
        ranks: One for every mode; None leaves its mode as it is, without a factor. One number holds for all modes.
        init: "hosvd" (sequentially truncated), "random", or factors with orthonormal columns to go on from.
        starts: How many starts to try; those after the first are random. The best is returned.
        max_iterations: Most sweeps of a start.
        tolerance: A start ends when its relative error changes by no more than this.
        random_state: Seed or generator (on the CPU) of random starts.
        progress: Called with a `Sweep` after each; raising StopIteration in it ends the start.

    Returns:
        The model, with the relative error after every sweep of the best start.

    Raises:
        TypeError: The tensor is no torch tensor of float32 or float64; the ranks are no integers.
        ValueError: The tensor has NaN, infinity, no element or fewer than 2 modes; a rank exceeds its mode or the
            product of the others; given factors have another shape or columns that are not orthonormal.

    Example:
        >>> import torch, multilinear as ml
        >>> from multilinear.decomposition import tucker
        >>> x = ml.tucker_to_tensor(torch.randn(2, 2, 2), [torch.randn(size, 2) for size in (5, 6, 7)])
        >>> model = tucker(x, 2)
        >>> model.error < 1e-5, model.core.shape
        (True, torch.Size([2, 2, 2]))

    Reference:
        De Lathauwer, De Moor and Vandewalle, "On the best rank-1 and rank-(R1, ..., RN) approximation of higher-order
        tensors", SIAM J. Matrix Anal. Appl. 21(4), 2000; Kolda and Bader, SIAM Review 51(3), 2009, fig. 4.4.
    """
    tensor = check_data("tucker", "tensor", tensor, 2)
    wanted = check_ranks("tucker", tensor, ranks)
    stopping = Stopping("tucker", max_iterations, tolerance, progress)
    stopping.check()
    check_positive("tucker", "starts", starts)
    given = None if isinstance(init, str) else _check_factors(tensor, wanted, init)
    if given is None and init not in ("hosvd", "random"):
        raise ValueError(f'tucker: init must be "hosvd", "random" or a list of factors, got {init!r}')
    numbers = generator("tucker", random_state)
    norm = squared_norm("tucker", tensor)

    def step(state: tuple[Tensor, Factors]) -> tuple[tuple[Tensor, Factors], float]:
        core, factors = sweep(tensor, state[1], wanted)
        loss = squared_residual(tensor, core, factors, norm, squared_norm("tucker", core, "the core"))
        return (core, factors), relative_error(loss, norm)

    best: TuckerDecomposition | None = None
    for start in range(starts):
        if start == 0 and given is not None:
            factors = given
        elif start == 0 and init == "hosvd":
            factors = truncate(tensor, wanted, "sequential", None, norm)[1]
        else:
            factors = [
                None if rank is None else torch.linalg.qr(random_matrix(size, rank, tensor, numbers)).Q
                for rank, size in zip(wanted, tensor.shape, strict=True)
            ]
        (core, factors), trace = iterate(step, (tensor, factors), stopping, start)
        if best is None or trace.errors[-1] < best.error:
            best = TuckerDecomposition(core, tuple(factors), trace.errors, trace.converged)
    assert best is not None
    return best


def sweep(tensor: Tensor, factors: Factors, ranks: Sequence[int | None]) -> tuple[Tensor, Factors]:
    """New factors in every mode, each the best with the others held, and their core."""
    order, factors = tensor.ndim, list(factors)
    split = balanced_split(tensor.shape)
    core = tensor
    for group in (range(split), range(split, order)):
        partial = _project(tensor, factors, [mode for mode in range(order) if mode not in group])
        for mode in group:
            rank = ranks[mode]
            core = _project(partial, factors, [other for other in group if other != mode])
            if rank is not None:
                vectors = leading(core, mode, rank)[0]
                factors[mode] = vectors
                core = mode_dot(core, vectors.mT, mode)
    return core, factors


def _project(tensor: Tensor, factors: Factors, modes: Sequence[int]) -> Tensor:
    pairs = [(mode, factor) for mode, factor in ((mode, factors[mode]) for mode in modes) if factor is not None]
    return multi_mode_dot(tensor, [factor.mT for _, factor in pairs], [mode for mode, _ in pairs])


def _check_factors(tensor: Tensor, ranks: Sequence[int | None], init: Sequence[Tensor | None]) -> Factors:
    if len(init) != tensor.ndim:
        raise ValueError(
            f"tucker: init must hold one matrix for each of the {tensor.ndim} modes, got {len(init)}; None for a mode "
            f"left as it is"
        )
    factors: Factors = []
    for mode, (factor, rank) in enumerate(zip(init, ranks, strict=True)):
        if rank is None or factor is None:
            if not (rank is None and factor is None):
                raise ValueError(
                    f"tucker: init[{mode}] and ranks[{mode}] must both be None, or none; got rank {rank} and "
                    f"{'no factor' if factor is None else 'a factor'}"
                )
            factors.append(None)
            continue
        expected = (tensor.shape[mode], rank)
        if not isinstance(factor, Tensor) or tuple(factor.shape) != expected:
            came = tuple(factor.shape) if isinstance(factor, Tensor) else type(factor).__name__
            raise ValueError(f"tucker: init[{mode}] must be a matrix of shape {expected}, got {came}")
        factor = factor.detach().to(tensor)
        gram = factor.mT @ factor
        if not torch.allclose(gram, torch.eye(rank).to(gram), atol=100 * torch.finfo(tensor.dtype).eps ** 0.75):
            raise ValueError(
                f"tucker: the columns of init[{mode}] must be orthonormal; pass torch.linalg.qr(matrix).Q, which spans "
                f"the same"
            )
        factors.append(factor)
    return factors
