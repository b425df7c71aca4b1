"""Loss and gradients of a projection (the paper's eq. 15 and 23): analytic against automatic differentiation.

The shape of the paper's stream 1, 28125 x (15, 80), for batches of 16 and 64 faces.
"""

from collections.abc import Callable, Sequence

import opt_einsum
import pytest
import tensorly
import torch
from tensorly.tenalg import khatri_rao as tensorly_khatri_rao
from torch import Tensor
from torch.testing import assert_close

import multilinear as ml

Loss = Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]

SHAPES = [(28125, (15, 80), 16), (28125, (15, 80), 64)]


def by_hand(target: Tensor, core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    first, second = inputs
    product = (first[:, :, None] * second[:, None, :]).flatten(1)
    return (product @ core.flatten(1).T - target).square().sum()


def einsum(target: Tensor, core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    return (torch.einsum("oij,ni,nj->no", core, *inputs) - target).square().sum()


def with_opt_einsum(target: Tensor, core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    return (opt_einsum.contract("oij,ni,nj->no", core, *inputs) - target).square().sum()


def with_tensorly(target: Tensor, core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    product = tensorly_khatri_rao([z.T for z in inputs])
    return (core.flatten(1) @ product - target.T).square().sum()


PROVIDERS: dict[str, Loss] = {
    "multilinear": ml.multilinear_loss,
    "by hand": by_hand,
    "einsum": einsum,
    "opt_einsum": with_opt_einsum,
    "tensorly": with_tensorly,
}


def operands(outputs: int, sizes: tuple[int, ...], count: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    core = torch.randn(outputs, *sizes, generator=generator) / 30
    inputs = [torch.randn(count, size, generator=generator) for size in sizes]
    target = torch.randn(count, outputs, generator=generator)
    return target, core.requires_grad_(), [z.requires_grad_() for z in inputs]


@pytest.fixture(autouse=True)
def _backend():
    tensorly.set_backend("pytorch")
    yield
    tensorly.set_backend("numpy")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}, n={shape[2]}")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_loss_and_gradients(benchmark, provider, shape):
    target, core, inputs = operands(*shape)
    variables = [core, *inputs]

    def run() -> tuple[Tensor, ...]:
        loss = PROVIDERS[provider](target, core, inputs)
        return loss.detach(), *torch.autograd.grad(loss, variables)

    expected = by_hand(target, core, inputs)
    for value, reference in zip(run(), (expected.detach(), *torch.autograd.grad(expected, variables)), strict=True):
        assert_close(value, reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max()))  # float32 sums of 28125
    benchmark.group = f"loss and gradients, n={shape[2]}"
    benchmark.pedantic(run, rounds=10, warmup_rounds=1)
