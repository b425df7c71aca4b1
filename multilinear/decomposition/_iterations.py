"""What all iterative fits share: when they stop, what they report, and where their random numbers come from."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

State = TypeVar("State")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sweep:
    """What a fit tells `progress` after every sweep over the modes.

    Attributes:
        start: Which of the starts, from 0.
        number: How many sweeps this start has done, from 1.
        error: Relative error, `||tensor - model|| / ||tensor||`.
    """

    start: int
    number: int
    error: float


Progress = Callable[[Sweep], object]
RandomState = int | torch.Generator | None


def without_autocast(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function in the precision of what it gets, also in a region of autocast, which would round its products."""

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return run


@dataclass(frozen=True)
class Stopping:
    """When a fit ends, and whom it tells."""

    function: str
    max_iterations: int
    tolerance: float
    progress: Progress | None = None

    def check(self) -> None:
        """Refuses numbers that make no sense."""
        check_positive(self.function, "max_iterations", self.max_iterations)
        if not self.tolerance >= 0:
            raise ValueError(
                f"{self.function}: tolerance must be at least 0, got {self.tolerance}; it is a change of the relative "
                f"error between sweeps, such as 1e-8"
            )


@dataclass(frozen=True)
class Trace:
    """Relative error after every sweep of the best start, and whether the last change was within the tolerance."""

    errors: tuple[float, ...]
    converged: bool


def iterate(
    step: Callable[[State], tuple[State, float]], state: State, stopping: Stopping, start: int = 0
) -> tuple[State, Trace]:
    """Repeats the step until its error settles, the sweeps are used up, or `progress` raises StopIteration."""
    errors: list[float] = []
    for number in range(1, stopping.max_iterations + 1):
        state, error = step(state)
        if not math.isfinite(error):
            raise FloatingPointError(
                f"{stopping.function}: the error became {error} in sweep {number}; scale the tensor to numbers about 1 "
                f"or use float64"
            )
        errors.append(error)
        try:
            if stopping.progress is not None:
                stopping.progress(Sweep(start, number, error))
        except StopIteration:
            return state, Trace(tuple(errors), False)
        if len(errors) > 1 and abs(errors[-2] - error) <= stopping.tolerance:
            return state, Trace(tuple(errors), True)
    return state, Trace(tuple(errors), False)


def relative_error(loss: float | Tensor, norm: float | Tensor) -> float:
    """`sqrt(loss / norm)` of squared norms; 0 for an all-zero tensor, whose model is exact."""
    return math.sqrt(max(float(loss), 0.0) / (float(norm) or 1.0))


def generator(function: str, random_state: RandomState) -> torch.Generator:
    """The generator of a fit's random numbers, which are drawn on the CPU so that every device sees the same."""
    if isinstance(random_state, torch.Generator):
        if random_state.device.type != "cpu":
            raise ValueError(
                f"{function}: random_state must be a generator on the CPU, got one on {random_state.device}; "
                f"pass a seed or torch.Generator()"
            )
        return random_state
    if random_state is None:
        return torch.default_generator
    if isinstance(random_state, bool) or not isinstance(random_state, int):
        raise TypeError(
            f"{function}: random_state must be a seed, a torch.Generator or None, got {type(random_state).__name__}"
        )
    return torch.Generator().manual_seed(random_state)


def random_matrix(rows: int, columns: int, like: Tensor, numbers: torch.Generator) -> Tensor:
    """Normally distributed numbers, drawn in float64 on the CPU."""
    return torch.randn(rows, columns, dtype=torch.float64, generator=numbers).to(like)


def check_data(function: str, name: str, value: Any, fewest_modes: int) -> Tensor:
    """A tensor of float32 or float64 with so many modes, none of size 0; without its history."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}: {name} must be a torch.Tensor, got {type(value).__name__}; try torch.as_tensor")
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{function}: {name} must be float32 or float64, got {value.dtype}; convert it with .float()")
    if value.ndim < fewest_modes:
        raise ValueError(
            f"{function}: {name} must have at least {fewest_modes} modes, got shape {tuple(value.shape)}; "
            f"add the missing mode"
        )
    if value.numel() == 0:
        raise ValueError(f"{function}: {name} is empty, its shape is {tuple(value.shape)}; there is nothing to fit")
    return value.detach()


def squared_norm(function: str, tensor: Tensor, name: str = "tensor") -> float:
    """Sum of squares by rows, added in float64; refuses NaN and infinity."""
    rows = tensor.flatten(1) if tensor.ndim > 1 else tensor.unsqueeze(0)
    total = torch.linalg.vector_norm(rows, dim=1).double().square().sum().item()
    if not math.isfinite(total):
        raise ValueError(
            f"{function}: {name} holds NaN or infinity, or numbers too large to square; mend it first, for instance "
            f"with torch.nan_to_num, or scale it"
        )
    return total


def check_positive(function: str, name: str, value: Any) -> int:
    """A whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{function}: {name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{function}: {name} must be at least 1, got {value}")
    return value


def check_sizes(function: str, name: str, value: Any) -> tuple[int, ...]:
    """Several whole numbers from 1 on."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{function}: {name} must be a list or tuple of integers, got {value!r}")
    return tuple(check_positive(function, f"{name}[{place}]", size) for place, size in enumerate(value))
