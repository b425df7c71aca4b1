"""CP decomposition by alternating least squares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from multilinear.autograd import cp_loss as _cp_loss
from multilinear.autograd import face_splitting as _face_splitting
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
from multilinear.decomposition._models import CPDecomposition
from multilinear.decomposition._solve import leading, signs_of, solve_gram
from multilinear.decomposition._tucker_error import CANCELLED
from multilinear.products import khatri_rao

Init = Literal["svd", "random"] | Sequence[Tensor]
Acceleration = Literal["extrapolation", "none"]


@without_autocast
def cp_als(
    tensor: Float[Tensor, "..."],
    rank: int,
    *,
    init: Init = "svd",
    starts: int = 1,
    max_iterations: int = 100,
    tolerance: float = 1e-8,
    acceleration: Acceleration = "extrapolation",
    random_state: RandomState = None,
    progress: Progress | None = None,
) -> CPDecomposition:
    """CP decomposition by alternating least squares: every sweep solves for every factor, the others held.

    The error never grows. The modes share their large products (a dimension tree): two passes over the tensor serve a
    sweep of any order. Dependent components are solved with a pseudo-inverse, never divided by zero.

    Args:
        tensor: Tensor of shape `(I_0, ..., I_N)`, float32 or float64.
        rank: Number of components; may exceed the sizes of modes.
        init: "svd" (leading singular vectors of every unfolding, normal numbers beyond them), "random" (normal), or one
            matrix `(I_m, R)` for every mode.
        starts: How many starts to try; those after the first are random. The best is returned.
        max_iterations: Most sweeps of a start.
        tolerance: A start ends when its relative error changes by no more than this. Float32 settles near 1e-5.
        acceleration: "extrapolation" goes on in the direction of the last sweep where that lowers the error, with
            growing steps, and takes it back where not; "none" is plain alternating least squares.
        random_state: Seed or generator (on the CPU) of random starts.
        progress: Called with a `Sweep` after each; raising StopIteration in it ends the start.

    Returns:
        The model. An all-zero tensor gives weights 0 and error 0; a component that the start left at zero stays there.

    Raises:
        TypeError: The tensor is no torch tensor of float32 or float64; the rank is no integer.
        ValueError: The tensor has NaN, infinity, no element or fewer than 2 modes; the rank is larger than any tensor
            of this shape needs; given factors have another shape.

    Example:
        >>> import torch, multilinear as ml
        >>> from multilinear.decomposition import cp_als
        >>> numbers = torch.Generator().manual_seed(0)
        >>> x = ml.cp_to_tensor([torch.rand(size, 2, generator=numbers) for size in (4, 5, 6)])
        >>> model = cp_als(x, 2, max_iterations=500)
        >>> model.error < 1e-3, torch.allclose(model.to_tensor(), x, atol=1e-2)
        (True, True)

    Reference:
        Kolda and Bader, SIAM Review 51(3), 2009, sec. 3.4; Phan, Tichavský and Cichocki, IEEE Trans. Signal Processing
        61(19), 2013 (dimension tree); Ang, Cohen, Gillis and Hien, "Accelerating block coordinate descent for
        nonnegative tensor factorization", Numer. Linear Algebra Appl. 28, 2021 (extrapolation with restart).
    """
    tensor = check_data("cp_als", "tensor", tensor, 2)
    check_rank("cp_als", tensor, rank)
    stopping = Stopping("cp_als", max_iterations, tolerance, progress)
    stopping.check()
    if acceleration not in ("extrapolation", "none"):
        raise ValueError(f'cp_als: acceleration must be "extrapolation" or "none", got {acceleration!r}')
    sequence = Starts("cp_als", tensor, rank, init, starts, random_state)
    norm = squared_norm("cp_als", tensor)
    problem = _Problem(tensor, norm)
    best: CPDecomposition | None = None
    for start in range(starts):
        state = _State(sequence.factors(start), accelerated=acceleration == "extrapolation")
        state, trace = iterate(problem.step, state, stopping, start)
        if best is None or trace.errors[-1] < best.error:
            best = normalised(state.factors, trace.errors, trace.converged)
    assert best is not None
    return best


@dataclass(frozen=True)
class _State:
    factors: list[Tensor]  # columns of length 1 in all modes but the last
    loss: float = math.inf
    previous: list[Tensor] | None = None
    partial: Tensor | None = None  # the tensor times the right modes' factors, where it is known already
    stride: float = 1.0
    accelerated: bool = True


class _Problem:
    """One tensor as a matrix between the left and the right half of its modes."""

    def __init__(self, tensor: Tensor, norm: float):
        self.tensor, self.norm = tensor, norm
        self.split = _face_splitting.balanced_split(tensor.shape)
        self.matrix = tensor.reshape(tensor.shape[: self.split].numel(), -1)

    def step(self, state: _State) -> tuple[_State, float]:
        """One sweep, then perhaps a step on in its direction."""
        factors, partial = list(state.factors), state.partial
        grams = [factor.mT @ factor for factor in factors]
        result = factors[0]
        for group in (range(self.split), range(self.split, self.tensor.ndim)):
            if partial is None or group.start > 0:
                partial = self._partial(factors, group)
            for mode in group:
                result = _within(partial, factors, group, mode)
                gram = reduce(mul, (gram for m, gram in enumerate(grams) if m != mode))
                factors[mode] = solve_gram(gram, result)
                if mode < self.tensor.ndim - 1:
                    factors[mode] = _unit_columns(factors[mode])[0]
                grams[mode] = factors[mode].mT @ factors[mode]
        loss = self._loss(factors, (result.double() * factors[-1]).sum())
        stride, partial, swept = state.stride, None, factors
        if state.accelerated and state.previous is not None:
            further = [x + stride * (x - y) for x, y in zip(factors, state.previous, strict=True)]
            further[:-1] = [_unit_columns(factor)[0] for factor in further[:-1]]
            ahead = self._partial(further, range(self.split))
            inner = (ahead.double() * khatri_rao(further[: self.split])).sum()
            new = self._loss(further, inner)
            if new < loss:
                factors, loss, partial, stride = further, new, ahead, 1.5 * stride
            else:
                stride = max(stride / 3, 0.3)
        return _State(factors, loss, swept, partial, stride, state.accelerated), relative_error(loss, self.norm)

    def _partial(self, factors: Sequence[Tensor], group: range) -> Tensor:
        """The tensor times the factors outside the group, `(rows of the group, rank)`."""
        if group.start == 0:
            return self.matrix @ khatri_rao(factors[self.split :])
        return self.matrix.mT @ khatri_rao(factors[: self.split])

    def _loss(self, factors: Sequence[Tensor], inner: Tensor) -> float:
        """Expanded, or by residuals where the three terms cancel."""
        grams = reduce(mul, (factor.double().mT @ factor.double() for factor in factors))
        loss = self.norm - 2 * inner.item() + grams.sum().item()
        if loss > CANCELLED * torch.finfo(self.tensor.dtype).eps * self.norm:
            return loss
        return _cp_loss.by_residuals(self.tensor, factors).item()


class Starts:
    """The factors that a CP fit starts from."""

    def __init__(
        self, function: str, tensor: Tensor, rank: int, init: object, starts: int, random_state: RandomState
    ) -> None:
        check_positive(function, "starts", starts)
        self.tensor, self.rank, self.init = tensor, rank, init
        self.numbers = generator(function, random_state)
        if isinstance(init, list | tuple):
            _check_init(function, tensor, rank, init)
        elif init not in ("svd", "random"):
            raise ValueError(f'{function}: init must be "svd", "random" or a list of factors, got {init!r}')

    def factors(self, start: int) -> list[Tensor]:
        """Those of the given number; numbers have to be asked for in order."""
        if start == 0 and isinstance(self.init, list | tuple):
            factors = [factor.detach().to(self.tensor) for factor in self.init]
        elif start == 0 and self.init == "svd":
            factors = [self._singular(mode) for mode in range(self.tensor.ndim)]
        else:
            factors = [random_matrix(size, self.rank, self.tensor, self.numbers) for size in self.tensor.shape]
        return factors

    def _singular(self, mode: int) -> Tensor:
        size = self.tensor.shape[mode]
        vectors, _ = leading(self.tensor, mode, min(self.rank, size, self.tensor.numel() // size))
        missing = self.rank - vectors.shape[1]
        return torch.cat([vectors, random_matrix(size, missing, self.tensor, self.numbers)], dim=1)


def normalised(factors: Sequence[Tensor], errors: tuple[float, ...], converged: bool) -> CPDecomposition:
    """The model with unit columns, components ordered by weight, every sign in the last mode."""
    pairs = [_unit_columns(factor) for factor in factors]
    weights = reduce(mul, (norms for _, norms in pairs))
    order = weights.argsort(descending=True)
    units = [unit[:, order] for unit, _ in pairs]
    for mode, unit in enumerate(units[:-1]):
        signs = signs_of(unit)
        units[mode], units[-1] = unit * signs, units[-1] * signs
    return CPDecomposition(weights[order], tuple(units), errors, converged)


def check_rank(function: str, tensor: Tensor, rank: object) -> None:
    """A number of components that the shape can have use for."""
    rank = check_positive(function, "rank", rank)
    shape = tuple(tensor.shape)
    largest = math.prod(shape) // max(shape)
    if rank > largest:
        raise ValueError(
            f"{function}: rank {rank} is larger than any tensor of shape {shape} needs; choose at most {largest}, the "
            f"product of all modes but the largest"
        )


def _within(partial: Tensor, factors: Sequence[Tensor], group: range, mode: int) -> Tensor:
    """The MTTKRP of the mode, from the partial product of its group."""
    needed = [m == mode for m in group]
    results = _face_splitting.backward(partial.mT, [factors[m].mT for m in group], needed)
    found = results[mode - group.start]
    assert found is not None
    return found.mT


def _unit_columns(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of length 1, those of zeros left as they are, and their lengths."""
    norms = torch.linalg.vector_norm(matrix, dim=0)
    return matrix / torch.where(norms > 0, norms, 1), norms


def _check_init(function: str, tensor: Tensor, rank: int, init: Sequence[object]) -> None:
    if len(init) != tensor.ndim:
        raise ValueError(f"{function}: init must hold one matrix for each of the {tensor.ndim} modes, got {len(init)}")
    for mode, factor in enumerate(init):
        expected = (tensor.shape[mode], rank)
        if not isinstance(factor, Tensor) or tuple(factor.shape) != expected:
            came = tuple(factor.shape) if isinstance(factor, Tensor) else type(factor).__name__
            raise ValueError(f"{function}: init[{mode}] must be a matrix of shape {expected}, got {came}")
        if not torch.isfinite(factor).all():
            raise ValueError(f"{function}: init[{mode}] holds NaN or infinity; start from finite numbers")
