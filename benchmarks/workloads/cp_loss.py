"""W6: squared error of a CP model and the gradients of all factors, as in gradient-based fitting."""

from collections.abc import Sequence
from functools import partial, reduce
from math import prod
from operator import mul
from typing import Any

import tensorly.cp_tensor
import torch
from torch import Tensor

import multilinear as ml
from benchmarks import rivals
from benchmarks.case import AUTODIFF, OURS, Case, Floor, Provider
from benchmarks.rivals import LETTERS
from benchmarks.sizes import Size, full
from benchmarks.workloads.mttkrp import ALL_MODES
from benchmarks.workloads.mttkrp import by_hand as mttkrp_by_hand

Factors = Sequence[Tensor]


def ours(tensor: Tensor, factors: Factors) -> Tensor:
    return ml.cp_loss(tensor, factors)


def reconstruction(tensor: Tensor, factors: Factors) -> Tensor:
    """By hand: one matrix product makes the model."""
    first, *others = factors
    product = reduce(lambda left, right: (left[:, None, :] * right[None, :, :]).flatten(0, 1), others)
    return (first @ product.T - tensor.flatten(1)).square().sum()


def with_einsum(tensor: Tensor, factors: Factors) -> Tensor:
    modes = LETTERS[: tensor.ndim]
    model = torch.einsum(f"{','.join(m + 'z' for m in modes)}->{modes}", *factors)
    return (model - tensor).square().sum()


def with_tensorly(tensor: Tensor, factors: Factors) -> Tensor:
    return (tensorly.cp_tensor.cp_to_tensor((None, list(factors))) - tensor).square().sum()


def expanded_by_hand(tensor: Tensor, factors: Factors) -> Tensor:
    """By hand: `||x||² - 2 <x, m> + ||m||²`, the model never formed, on torch's tape."""
    grams = reduce(mul, (factor.T @ factor for factor in factors))
    inner = (mttkrp_by_hand(tensor, factors, 0) * factors[0]).sum()
    return tensor.square().sum() - 2 * inner + grams.sum()


PROVIDERS: dict[str, Provider] = {
    OURS: ours,
    AUTODIFF: rivals.on_the_tape(ours),
    "model by hand": reconstruction,
    "torch.compile": rivals.compiled(with_einsum),
    "einsum": with_einsum,
    "TensorLy": with_tensorly,
    "expanded by hand": expanded_by_hand,
}


def operands(sizes: Sequence[int], rank: int) -> tuple[Any, ...]:
    return torch.randn(*sizes), [torch.randn(k, rank).requires_grad_() for k in sizes]


def case(sizes: Sequence[int], rank: int, size: Size) -> Case:
    first, others = size(sizes[0]), prod(size(k) for k in sizes[1:])
    return Case(
        name=f"w6-cp-loss-{len(sizes)}way-r{rank}",
        workload="W6",
        shape=f"CP loss, {tuple(sizes)}, R={rank}",
        operands=partial(operands, [size(k) for k in sizes], size(rank)),
        providers=PROVIDERS,
        reference="model by hand",
        floor=Floor(forward=[(first, others, size(rank))], backward=[(others, first, size(rank))]),
    )


def cases(size: Size = full) -> list[Case]:
    return [case(*shape, size) for shape in ALL_MODES]
