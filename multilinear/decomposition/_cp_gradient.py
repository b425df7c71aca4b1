"""CP decomposition by its gradient: all factors at once, with L-BFGS."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from multilinear.cp import cp_loss
from multilinear.decomposition._cp_als import Init, Starts, check_rank, normalised
from multilinear.decomposition._iterations import (
    Progress,
    RandomState,
    Stopping,
    Sweep,
    check_data,
    relative_error,
    squared_norm,
    without_autocast,
)
from multilinear.decomposition._models import CPDecomposition


@without_autocast
def cp_gradient(
    tensor: Float[Tensor, "..."],
    rank: int,
    *,
    init: Init = "svd",
    starts: int = 1,
    max_iterations: int = 500,
    tolerance: float = 1e-9,
    ridge: float = 0.0,
    random_state: RandomState = None,
    progress: Progress | None = None,
) -> CPDecomposition:
    """CP decomposition by L-BFGS on `cp_loss`, all factors at once.

    Beside `cp_als` it costs more for an easy tensor and is surer where components are nearly collinear or too many
    are asked for.

    Args:
        tensor: Tensor of shape `(I_0, ..., I_N)`, float32 or float64.
        rank: Number of components; may exceed the sizes of modes.
        init: "svd" (leading singular vectors of every unfolding, normal numbers beyond them), "random" (normal), or one
            matrix `(I_m, R)` for every mode.
        starts: How many starts to try; those after the first are random. The best is returned.
        max_iterations: Most iterations of L-BFGS in a start, which may take a quarter more evaluations than that.
        tolerance: A start ends when the loss relative to the tensor's norm changes by no more than this in an
            iteration, or no entry of its gradient is larger.
        ridge: Weight of the factors' squared norms beside the squared error of the tensor scaled to norm 1. A little,
            such as 1e-4, keeps collinear components from growing against each other.
        random_state: Seed or generator (on the CPU) of random starts.
        progress: Called with a `Sweep` after each evaluation that found a better model; raising StopIteration in it
            ends the start.

    Returns:
        The model. `errors` holds the relative error, without the ridge, whenever the objective reached a new lowest.
        An all-zero tensor gives weights 0 and error 0.

    Raises:
        TypeError: The tensor is no torch tensor of float32 or float64; the rank is no integer.
        ValueError: The tensor has NaN, infinity, no element or fewer than 2 modes; the rank is larger than any tensor
            of this shape needs; given factors have another shape; the ridge is negative.

    Example:
        >>> import torch, multilinear as ml
        >>> from multilinear.decomposition import cp_gradient
        >>> numbers = torch.Generator().manual_seed(0)
        >>> x = ml.cp_to_tensor([torch.rand(size, 2, generator=numbers) for size in (4, 5, 6)])
        >>> cp_gradient(x, 2).error < 1e-2
        True

    Reference:
        Acar, Dunlavy and Kolda, "A scalable optimization approach for fitting canonical tensor decompositions", J.
        Chemometrics 25(2), 2011.
    """
    tensor = check_data("cp_gradient", "tensor", tensor, 2)
    check_rank("cp_gradient", tensor, rank)
    stopping = Stopping("cp_gradient", max_iterations, tolerance, progress)
    stopping.check()
    if not 0 <= ridge < math.inf:
        raise ValueError(f"cp_gradient: ridge must be at least 0, got {ridge}")
    sequence = Starts("cp_gradient", tensor, rank, init, starts, random_state)
    norm = squared_norm("cp_gradient", tensor)
    scaled = tensor / (math.sqrt(norm) or 1.0)
    share = math.sqrt(norm) ** (1 / tensor.ndim)  # of the tensor's norm in every factor
    best, lowest = None, math.inf
    for start in range(starts):
        factors = _sized(scaled, sequence.factors(start), share if start == 0 and isinstance(init, list | tuple) else 0)
        if not norm:
            factors = [torch.zeros_like(factor) for factor in factors]
        run = _Descent(scaled, factors, ridge, stopping, start)
        run.descend()
        if best is None or run.lowest < lowest:
            lowest = run.lowest
            best = normalised([factor * share for factor in run.best], tuple(run.errors), run.converged)
    assert best is not None
    return best


class _Descent:
    """One start, on the tensor scaled to norm 1."""

    def __init__(self, tensor: Tensor, factors: list[Tensor], ridge: float, stopping: Stopping, start: int):
        self.tensor, self.ridge, self.stopping, self.start = tensor, ridge, stopping, start
        self.factors = [factor.clone().requires_grad_() for factor in factors]
        self.best, self.lowest = factors, math.inf
        self.errors: list[float] = []
        self.converged = False
        self.optimizer = torch.optim.LBFGS(
            self.factors,
            max_iter=stopping.max_iterations,
            tolerance_grad=stopping.tolerance,
            tolerance_change=stopping.tolerance,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

    def descend(self) -> None:
        try:
            with torch.enable_grad():
                self.optimizer.step(self._evaluate)
        except StopIteration:
            return
        done, (most,) = self.optimizer.state[self.factors[0]], self.optimizer.param_groups
        self.converged = done["n_iter"] < most["max_iter"] and done["func_evals"] < most["max_eval"]

    def _evaluate(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = cp_loss(self.tensor, self.factors)
        penalty = sum((factor.square().sum() for factor in self.factors), start=loss.new_zeros(()))
        objective = loss + self.ridge * penalty
        objective.backward()
        value = objective.item()
        if not math.isfinite(value) and not self.errors:
            raise FloatingPointError(
                f"cp_gradient: the loss of start {self.start} is {value}; start from smaller numbers or use float64"
            )
        if value < self.lowest:
            self.best, self.lowest = [factor.detach().clone() for factor in self.factors], value
            self.errors.append(relative_error(loss.detach(), 1.0))
            if self.stopping.progress is not None:
                self.stopping.progress(Sweep(self.start, len(self.errors), self.errors[-1]))
        return objective


def _sized(tensor: Tensor, factors: list[Tensor], share: float) -> list[Tensor]:
    """Given factors brought to the scaled tensor; others with columns such that the model has the tensor's norm."""
    if share:
        return [factor / share for factor in factors]
    norm = torch.stack([factor.mT @ factor for factor in factors]).prod(0).sum().clamp_min(0).sqrt().item()
    return [factor / (norm or 1.0) ** (1 / len(factors)) for factor in factors]
