"""The three terms of the expanded CP loss `||x - m||² = ||x||² - 2 <x, m> + ||m||²`, for real tensors in eager mode.

    <x, m>      its gradient with respect to factor k is the MTTKRP in mode k, with respect to x the model itself
    ||m||²      sum over r, s of the product over k of (factor_kᵀ factor_k)[r, s]

The MTTKRPs of all modes cost two products with x, one more than the value alone, so the value is taken from them and
they are kept: the backward pass then only multiplies them by its gradient. A backward pass that is itself
differentiated makes them again by the differentiable operator.
"""

from collections.abc import Sequence
from functools import reduce
from operator import mul
from typing import Any

import torch
from torch import Tensor

from multilinear.autograd import cp


def terms(tensor: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """`||x||²`, `<x, m>` and `||m||²`."""
    grams = reduce(mul, (factor.mT @ factor for factor in factors))
    return tensor.square().sum(), _Inner.apply(tensor, *factors), grams.sum()  # type: ignore[return-value]


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
        count = len(needed)
        tensor, *saved = ctx.saved_tensors  # once: activation checkpointing unpacks them only once
        factors = saved[:count]
        of_tensor = gradient * cp.cp_to_tensor(factors) if needs_tensor else None
        if torch.is_grad_enabled():  # create_graph: the kept results have no history
            results = cp.mttkrps(tensor, factors, needed)
        else:
            kept = iter(saved[count:])
            results = [next(kept) if need else None for need in needed]
        return of_tensor, *(None if result is None else gradient * result for result in results)
