"""Functions of a function: every way that torch has to differentiate it or to map it over a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jvp, vmap
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

Function = Callable[..., Any]


def itself(f: Function) -> Function:
    """No derivative."""
    return f


def scalar(f: Function) -> Function:
    """A real number that depends on all of the function's results, with third derivatives."""

    def run(*x: Tensor) -> Tensor:
        results = [torch.view_as_real(y) if y.is_complex() else y for y in pytree.tree_leaves(f(*x))]
        return torch.stack([(y**3).sum() for y in results]).sum()

    return run


def gradient(f: Function) -> Function:
    """Reverse mode with respect to all arguments."""
    return lambda *x: torch.autograd.grad(scalar(f)(*x), x, allow_unused=True, materialize_grads=True)


def one_gradient_at_a_time(f: Function) -> Function:
    """Reverse mode where one argument requires a gradient."""

    def run(*x: Tensor) -> Any:
        gradients = []
        for wanted in range(len(x)):
            given = [z.detach().requires_grad_(m == wanted) for m, z in enumerate(x)]
            value = scalar(f)(*given)
            if value.requires_grad:  # an MTTKRP does not depend on its own mode's factor
                found = torch.autograd.grad(value, given[wanted], allow_unused=True, materialize_grads=True)
                gradients.append(found[0])
            else:
                gradients.append(torch.zeros_like(x[wanted]))
        return gradients

    return run


def checkpointed_gradient(f: Function) -> Function:
    """Reverse mode through activation checkpointing."""
    return gradient(lambda *x: checkpoint(f, *x, use_reentrant=False))


def batched_gradient(f: Function) -> Function:
    """Reverse mode for several cotangents at once, by torch's older vmap."""

    def run(*x: Tensor) -> Any:
        results = [y for y in pytree.tree_leaves(f(*x)) if y.requires_grad]
        generator = torch.Generator().manual_seed(2)
        cotangents = [torch.randn(4, *y.shape, dtype=y.dtype, generator=generator).to(y.device) for y in results]
        options = {"is_grads_batched": True, "allow_unused": True, "materialize_grads": True}
        return torch.autograd.grad(results, x, cotangents, **options)

    return run


def nested_gradient(order: int) -> Callable[[Function], Function]:
    """Reverse over reverse, `order` times, each time along a fixed direction."""

    def transform(f: Function) -> Function:
        def run(*x: Tensor) -> Any:
            value = scalar(f)(*x)
            for _ in range(order - 1):
                gradients = torch.autograd.grad(value, x, create_graph=True, allow_unused=True, materialize_grads=True)
                products = [(g * torch.cos(z + 1)).sum() for g, z in zip(gradients, x, strict=True)]
                value = torch.stack([product.real if product.is_complex() else product for product in products]).sum()
            return torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)

        return run

    return transform


def hessian_vector(f: Function) -> Function:
    """Reverse over reverse by `torch.autograd.functional`."""
    return lambda *x: torch.autograd.functional.hvp(scalar(f), x, direction(x))


def over_all(transform: Callable[..., Function], of: Callable[[Function], Function] = itself) -> Any:
    """A transform of torch.func with respect to all arguments."""
    return lambda f: lambda *x: transform(of(f), everything(x))(*x)


def twice(outer: Callable[..., Function], inner: Callable[..., Function]) -> Any:
    """One transform of torch.func around another, both with respect to all arguments."""
    return lambda f: lambda *x: outer(inner(scalar(f), everything(x)), everything(x))(*x)


def forward(f: Function) -> Function:
    """Forward mode along a fixed direction by `torch.func.jvp`."""
    return lambda *x: jvp(f, x, direction(x))


def dual_numbers(f: Function) -> Function:
    """Forward mode along a fixed direction by dual numbers."""

    def run(*x: Tensor) -> Any:
        with forward_ad.dual_level():
            results = f(*(forward_ad.make_dual(z, v) for z, v in zip(x, direction(x), strict=True)))
            return [forward_ad.unpack_dual(y).tangent for y in pytree.tree_leaves(results)]

    return run


def forward_over_reverse(f: Function) -> Function:
    """Forward mode of the gradient."""
    return lambda *x: jvp(grad(scalar(f), everything(x)), x, direction(x))


def forward_three_times(f: Function) -> Function:
    """Forward mode of forward mode of forward mode, with respect to the first argument."""
    return lambda x, *rest: jacfwd(jacfwd(jacfwd(lambda z: scalar(f)(z, *rest))))(x)


def mapped(f: Function) -> Function:
    """Every argument has a batch."""
    return vmap(f)


def mapped_twice(f: Function) -> Function:
    """Every argument has two batches."""
    return vmap(vmap(f))


def mapped_last(f: Function) -> Function:
    """Only the last argument has a batch."""
    return lambda *x: vmap(lambda z: f(*(y[0] for y in x[:-1]), z))(x[-1])


def mapped_moved(f: Function) -> Function:
    """The batch is the second dimension of every argument and the last of the result."""
    return lambda *x: vmap(f, in_dims=tuple(min(1, z.ndim - 1) for z in x), out_dims=-1)(*x)


def mapped_mapped_last(f: Function) -> Function:
    """Every argument has one batch, the last has two."""
    return vmap(mapped_last(f))


def mapped_gradient(f: Function) -> Function:
    """A gradient for every sample."""
    return lambda *x: vmap(grad(scalar(f), everything(x)))(*x)


def mapped_hessian(f: Function) -> Function:
    """A Hessian for every sample."""
    return lambda *x: vmap(hessian(scalar(f), everything(x)))(*x)


def gradient_of_mapped(f: Function) -> Function:
    """The gradient through a map over the last argument's batch."""
    return lambda *x: grad(scalar(mapped_last(f)), everything(x))(*x)


def mapped_forward(f: Function) -> Function:
    """Forward mode for every sample."""
    return vmap(forward(f))


def everything(x: Sequence[Any]) -> tuple[int, ...]:
    """The positions of all arguments."""
    return tuple(range(len(x)))


def direction(x: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A tangent for every argument."""
    return tuple(torch.cos(z) for z in x)
