"""The CP loss `||x - m||²`, m the model, in two ways that never hold m: for real tensors in eager mode.

Expanded, `||x||² - 2 <x, m> + ||m||²`:

    <x, m>      its gradient with respect to factor k is the MTTKRP of x in mode k, with respect to x the model itself
    ||m||²      sum over r, s of the product over k of (factor_kᵀ factor_k)[r, s]

By residuals r = m - x, in blocks of rows, where the expanded terms would cancel:

    gradient    2 times the MTTKRP of r in mode k for factor k, -2 r for x

Both find their gradients while they find the value, for little more, and keep only them: the backward pass then
multiplies by its gradient. A backward pass that is itself differentiated makes them again by differentiable operators.
"""

from collections.abc import Sequence
from functools import reduce
from operator import mul
from typing import Any

import torch
from torch import Tensor

from multilinear.autograd import cp

BLOCK = 1 << 18
"""Elements of the tensor in a block: one or two megabytes, which stay in the cache."""


def expanded(tensor: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The loss by its three terms, and the size of what is added up in them, which its rounding is relative to.

    That is `||x||²` or, where components nearly cancel in the model, their inner products.
    """
    tensor, *factors = _without_needless_gradients(tensor, *factors)
    grams = reduce(mul, (factor.mT @ factor for factor in factors))
    inner: Any = _Inner.apply(tensor, *factors)
    norm = tensor.square().sum() if tensor.requires_grad else _squared_norm(tensor)
    size = torch.maximum(norm.detach(), grams.detach().abs().sum())
    return norm - 2 * inner + grams.sum(), size


def by_residuals(tensor: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """The loss as a sum over the entries of the tensor."""
    loss: Any = _Residual.apply(*_without_needless_gradients(tensor, *factors))
    return loss


def _without_needless_gradients(*tensors: Tensor) -> Sequence[Tensor]:
    """Under `no_grad` detached, which a Function's needs_input_grad would not notice."""
    return tensors if torch.is_grad_enabled() else [tensor.detach() for tensor in tensors]


def _squared_norm(tensor: Tensor) -> Tensor:
    """Sum of squares without a tensor of squares: by rows, which are added in float64."""
    return torch.linalg.vector_norm(tensor.flatten(1), dim=1).double().square().sum().to(tensor.dtype)


class _Inner(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, *factors: Tensor) -> Tensor:
        _, *needed = ctx.needs_input_grad
        first, *others = cp.mttkrps(tensor, factors, [True, *needed[1:]])
        kept = [result for result, need in zip([first, *others], needed, strict=True) if need]
        ctx.save_for_backward(tensor, *factors, *kept)
        assert first is not None
        return (first * factors[0]).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        needs_tensor, *needed = ctx.needs_input_grad
        tensor, factors, kept = _split(ctx.saved_tensors, len(needed))
        of_tensor = gradient * cp.cp_to_tensor(factors) if needs_tensor else None
        if torch.is_grad_enabled():  # create_graph: the kept results have no history
            results = cp.mttkrps(tensor, factors, needed)
        else:
            results = [kept.pop(0) if need else None for need in needed]
        return of_tensor, *(None if result is None else gradient * result for result in results)


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, *factors: Tensor) -> Tensor:
        first, *others = (factor.detach() for factor in factors)
        rows = max(BLOCK // max(tensor.shape[1:].numel(), 1), 1)
        total = torch.zeros((), dtype=torch.float64, device=tensor.device)
        sums = [
            torch.zeros_like(x) if need else None
            for x, need in zip((tensor, *factors), ctx.needs_input_grad, strict=True)
        ]
        for start in range(0, tensor.shape[0], rows):
            block = slice(start, start + rows)
            residual = cp.forward(first[block], *others) - tensor[block]
            total += residual.square().sum()
            _, *needed = ctx.needs_input_grad
            results = cp.backward(2 * residual, [first[block], *others], needed) if any(needed) else []
            for position, (result, of_factor) in enumerate(zip(results, sums[1:], strict=False)):
                if result is not None and of_factor is not None:
                    (of_factor[block] if position == 0 else of_factor).add_(result)
            if sums[0] is not None:
                sums[0][block] = -2 * residual
        ctx.save_for_backward(tensor, *factors, *(x for x in sums if x is not None))
        return total.to(tensor.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        needs_tensor, *needed = ctx.needs_input_grad
        tensor, factors, kept = _split(ctx.saved_tensors, len(needed))
        if not torch.is_grad_enabled():
            return tuple(gradient * kept.pop(0) if need else None for need in ctx.needs_input_grad)
        residual = 2 * gradient * (cp.cp_to_tensor(factors) - tensor)
        return (-residual if needs_tensor else None), *cp.mttkrps(residual, factors, needed)


def _split(saved: Sequence[Tensor], count: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The tensor, its factors, and what the forward pass kept."""
    tensor, *rest = saved
    return tensor, list(rest[:count]), list(rest[count:])
