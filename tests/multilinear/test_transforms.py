"""The private names of torch that the operators' dispatch reads, asked inside every transform.

If one of these fails after an upgrade of torch, change `multilinear/autograd/_transforms.py`: without it
forward mode would give zero tangents without an error.
"""

import pytest
import torch
from torch.autograd import forward_ad

from multilinear.autograd._transforms import forward_mode_active, functorch_active, is_batched_gradient

REVERSE = {
    "grad": lambda f: torch.func.grad(f),
    "vjp": lambda f: lambda x: torch.func.vjp(f, x)[0],
    "jacrev": lambda f: torch.func.jacrev(f),
    "vmap": lambda f: torch.vmap(f),
}
FORWARD = {
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x,)),
    "jacfwd": lambda f: torch.func.jacfwd(f),
    "hessian": lambda f: torch.func.hessian(f),
}


def seen_inside(transform):
    seen = []

    def probe(x):
        seen.append((forward_mode_active(), functorch_active()))
        return x.sum()

    transform(probe)(torch.ones(3))
    return seen


def test_nothing_is_active_outside():
    assert not forward_mode_active()
    assert not functorch_active()


@pytest.mark.parametrize("name", REVERSE)
def test_reverse_transforms_are_seen(name):
    seen = seen_inside(REVERSE[name])
    assert seen and all(functorch and not forward for forward, functorch in seen)


@pytest.mark.parametrize("name", FORWARD)
def test_forward_transforms_are_seen(name):
    seen = seen_inside(FORWARD[name])
    assert seen and all(forward for forward, _ in seen)


def test_dual_numbers_are_seen():
    with forward_ad.dual_level():
        assert forward_mode_active()
    assert not forward_mode_active()


@pytest.mark.parametrize("batched", [True, False])
def test_batched_gradients_are_seen(batched):
    seen = []
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    y.register_hook(lambda gradient: seen.append(is_batched_gradient(gradient)))
    torch.autograd.grad(y, x, torch.eye(3) if batched else torch.ones(3), is_grads_batched=batched)
    assert seen == [batched]
