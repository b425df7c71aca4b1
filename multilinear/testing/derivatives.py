"""Every way that torch differentiates a function, each comparing an operator with its definition.

A check takes a `Case` and the options of `Case.inputs` and returns the largest error relative to the largest expected
number. The definition is differentiated by the same transform, so in float64 an error is rounding or a mistake.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from multilinear.testing.cases import Case

Function = Callable[..., Any]


@dataclass(frozen=True)
class Check:
    """One way of differentiating.

    Args:
        name: What it does.
        group: Column of the table that `verify` prints.
        run: `run(case, **options)` returns the error.
        complex: Whether it makes sense for complex tensors.
    """

    name: str
    group: str
    run: Callable[..., float]
    complex: bool = False


def largest_error(actual: Any, expected: Any) -> float:
    """Largest difference, relative to the largest expected number or to 1; infinite for another shape or dtype."""
    errors = [0.0]
    actual_leaves, expected_leaves = pytree.tree_leaves(actual), pytree.tree_leaves(expected)
    if len(actual_leaves) != len(expected_leaves):
        return float("inf")
    for a, b in zip(actual_leaves, expected_leaves, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if b.numel():
            difference = (a.detach() - b.detach()).abs().max().item()
            error = difference / max(b.detach().abs().max().item(), 1.0)
            errors.append(error if error == error else float("inf"))
    return max(errors)


def scalar(function: Function) -> Function:
    """A real number that depends on all of the function's results, with third derivatives."""

    def run(*inputs: Tensor) -> Tensor:
        results = [torch.view_as_real(x) if x.is_complex() else x for x in pytree.tree_leaves(function(*inputs))]
        return sum((x**3).sum() for x in results)  # type: ignore[return-value]

    return run


def _compare(transform: Callable[[Function], Function], inputs: Callable[[Case, dict], Sequence[Any]]) -> Any:
    def run(case: Case, **options: Any) -> float:
        arguments = inputs(case, options)
        return largest_error(transform(case.operator)(*arguments), transform(case.definition)(*arguments))

    return run


def _plain(case: Case, options: dict) -> list[Tensor]:
    return case.inputs(**options)


def _leaves(case: Case, options: dict) -> list[Tensor]:
    return case.inputs(**options, requires_grad=True)


def _stacked(*sizes: int, dim: int = 0) -> Callable[[Case, dict], list[Tensor]]:
    """Arguments with batch dimensions in front, or at `dim`."""

    def make(case: Case, options: dict) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        stacked = []
        for x in case.inputs(**options):
            values = torch.randn(*sizes, *x.shape, dtype=x.dtype, generator=generator).to(x.device)
            stacked.append(values.movedim(0, min(dim, x.ndim)))
        return stacked

    return make


def _all(inputs: Sequence[Any]) -> tuple[int, ...]:
    return tuple(range(len(inputs)))


def _gradient(f: Function) -> Function:
    return lambda *x: torch.autograd.grad(scalar(f)(*x), x, allow_unused=True, materialize_grads=True)


def _second(f: Function, order: int = 2) -> Function:
    """Reverse over reverse, `order` times, each time along a fixed direction."""

    def run(*x: Tensor) -> Any:
        value = scalar(f)(*x)
        for _ in range(order - 1):
            gradients = torch.autograd.grad(value, x, create_graph=True, allow_unused=True, materialize_grads=True)
            products = [(g * torch.cos(z + 1)).sum() for g, z in zip(gradients, x, strict=True)]
            value = torch.stack([product.real if product.is_complex() else product for product in products]).sum()
        return torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)

    return run


def _batched_gradient(f: Function) -> Function:
    def run(*x: Tensor) -> Any:
        results = [r for r in pytree.tree_leaves(f(*x)) if r.requires_grad]
        generator = torch.Generator().manual_seed(2)
        cotangents = [torch.randn(4, *r.shape, dtype=r.dtype, generator=generator).to(r.device) for r in results]
        return torch.autograd.grad(
            results, x, cotangents, is_grads_batched=True, allow_unused=True, materialize_grads=True
        )

    return run


def _jvp(f: Function) -> Function:
    return lambda *x: jvp(f, x, tuple(torch.cos(z) for z in x))


def _dual(f: Function) -> Function:
    def run(*x: Tensor) -> Any:
        with forward_ad.dual_level():
            results = f(*(forward_ad.make_dual(z, torch.cos(z)) for z in x))
            return [forward_ad.unpack_dual(r).tangent for r in pytree.tree_leaves(results)]

    return run


def _forward_over_reverse(f: Function) -> Function:
    return lambda *x: jvp(grad(scalar(f), _all(x)), x, tuple(torch.cos(z) for z in x))


def _over_all(transform: Callable[..., Function], of: Callable[[Function], Function] = lambda f: f) -> Any:
    return lambda f: lambda *x: transform(of(f), _all(x))(*x)


def _twice(outer: Callable[..., Function], inner: Callable[..., Function]) -> Any:
    return lambda f: lambda *x: outer(inner(scalar(f), _all(x)), _all(x))(*x)


def _third_forward(f: Function) -> Function:
    return lambda x, *rest: jacfwd(jacfwd(jacfwd(lambda z: scalar(f)(z, *rest))))(x)


def _vmap_last(f: Function) -> Function:
    """Only the last argument has a batch."""
    return lambda *x: vmap(lambda z: f(*(y[0] for y in x[:-1]), z))(x[-1])


def _vmap_moved(f: Function) -> Function:
    def run(*x: Tensor) -> Any:
        in_dims = tuple(min(1, z.ndim - 1) for z in x)
        return vmap(f, in_dims=in_dims, out_dims=-1)(*x)

    return run


def _non_contiguous(case: Case, options: dict) -> list[Tensor]:
    """Transposed, strided and offset copies."""
    values = []
    for x in case.inputs(**options):
        storage = torch.zeros([2 * size + 1 for size in x.shape[::-1]], dtype=x.dtype, device=x.device)
        view = storage[tuple(slice(1, None, 2) for _ in x.shape)].permute(*range(x.ndim)[::-1])
        values.append(view.copy_(x).requires_grad_())
    return values


def _partial(f: Function) -> Function:
    """Gradients of one argument at a time."""

    def run(*x: Tensor) -> Any:
        gradients = []
        for wanted in range(len(x)):
            given = [z.detach().requires_grad_(m == wanted) for m, z in enumerate(x)]
            value = scalar(f)(*given)
            if value.requires_grad:  # an MTTKRP does not depend on its own mode's factor
                gradients.append(
                    torch.autograd.grad(value, given[wanted], allow_unused=True, materialize_grads=True)[0]
                )
            else:
                gradients.append(torch.zeros_like(x[wanted]))
        return gradients

    return run


def _empty(case: Case, **options: Any) -> float:
    inputs = case.inputs(0, **options, requires_grad=True)
    value = largest_error(case.operator(*inputs), case.definition(*inputs))
    return max(value, largest_error(_gradient(case.operator)(*inputs), _gradient(case.definition)(*inputs)))


def _meta(case: Case, **options: Any) -> float:
    inputs = case.inputs(**{**options, "device": "meta"})
    expected = case.definition(*case.inputs(**options))
    shape = lambda result: [(tuple(x.shape), x.dtype) for x in pytree.tree_leaves(result)]  # noqa: E731
    return 0.0 if shape(case.operator(*inputs)) == shape(expected) else float("inf")


def _checkpointed(f: Function) -> Function:
    return lambda *x: _gradient(lambda *z: checkpoint(f, *z, use_reentrant=False))(*x)


def _exported(case: Case, **options: Any) -> float:
    class Module(torch.nn.Module):
        def forward(self, *x: Tensor) -> Any:
            return case.operator(*x)

    inputs = case.inputs(**options)
    program = torch.export.export(Module(), tuple(inputs))
    return largest_error(program.module()(*inputs), case.definition(*inputs))


def _compiled(
    transform: Callable[[Function], Function], inputs: Any, backend: str = "aot_eager", **compile_options: Any
) -> Any:
    """The transform inside the compiled graph, without a graph break."""

    def run(case: Case, **options: Any) -> float:
        torch._dynamo.reset()
        arguments = inputs(case, options)
        compiled = torch.compile(transform(case.operator), backend=backend, fullgraph=True, **compile_options)
        return largest_error(compiled(*arguments), transform(case.definition)(*arguments))

    return run


def _compiled_training(backend: str, dynamic: bool | None = None) -> Any:
    """A compiled forward pass and its backward pass; with dynamic shapes for two sizes."""

    def run(case: Case, **options: Any) -> float:
        torch._dynamo.reset()
        compiled = torch.compile(case.operator, backend=backend, fullgraph=True, dynamic=dynamic)
        errors = []
        for n in (3, 7) if dynamic else (3,):
            x = case.inputs(n, **options, requires_grad=True)
            errors.append(largest_error(compiled(*x), case.definition(*x)))
            errors.append(largest_error(_gradient(compiled)(*x), _gradient(case.definition)(*x)))
        return max(errors)

    return run


def _compiled_dual(case: Case, **options: Any) -> float:
    torch._dynamo.reset()
    compiled = torch.compile(lambda *x: case.operator(*x), backend="aot_eager")
    arguments = case.inputs(**options)
    return largest_error(_dual(compiled)(*arguments), _dual(case.definition)(*arguments))


def _identity(f: Function) -> Function:
    return f


CHECKS = {
    check.name: check
    for check in (
        Check("value", "value", _compare(_identity, _plain), complex=True),
        Check("value_non_contiguous", "value", _compare(_identity, _non_contiguous), complex=True),
        Check("meta", "value", _meta, complex=True),
        Check("gradient", "gradient", _compare(_gradient, _leaves), complex=True),
        Check("gradient_non_contiguous", "gradient", _compare(_gradient, _non_contiguous), complex=True),
        Check("gradient_one_argument", "gradient", _compare(_partial, _plain), complex=True),
        Check("gradient_empty", "gradient", _empty),
        Check("gradient_checkpointed", "gradient", _compare(_checkpointed, _leaves)),
        Check("gradient_batched", "gradient", _compare(_batched_gradient, _leaves)),
        Check("func_grad", "gradient", _compare(_over_all(grad, scalar), _plain)),
        Check("jacrev", "gradient", _compare(_over_all(jacrev), _plain)),
        Check("second", "second", _compare(_second, _leaves), complex=True),
        Check(
            "hessian_vector",
            "second",
            _compare(
                lambda f: lambda *x: torch.autograd.functional.hvp(scalar(f), x, tuple(torch.cos(z) for z in x)), _plain
            ),
        ),
        Check("jacrev_jacrev", "second", _compare(_twice(jacrev, jacrev), _plain)),
        Check("hessian", "second", _compare(_over_all(hessian, scalar), _plain)),
        Check("jacrev_jacfwd", "second", _compare(_twice(jacrev, jacfwd), _plain)),
        Check("jacfwd_jacfwd", "second", _compare(_twice(jacfwd, jacfwd), _plain)),
        Check("forward_over_reverse", "second", _compare(_forward_over_reverse, _plain)),
        Check("third", "third", _compare(lambda f: _second(f, order=3), _leaves), complex=True),
        Check("third_forward", "third", _compare(_third_forward, _plain)),
        Check("jvp", "forward", _compare(_jvp, _plain)),
        Check("dual_numbers", "forward", _compare(_dual, _plain)),
        Check("jacfwd", "forward", _compare(_over_all(jacfwd), _plain)),
        Check("vmap", "vmap", _compare(lambda f: vmap(f), _stacked(5)), complex=True),
        Check("vmap_last_argument", "vmap", _compare(_vmap_last, _stacked(5)), complex=True),
        Check("vmap_moved", "vmap", _compare(_vmap_moved, _stacked(5, dim=1)), complex=True),
        Check("vmap_nested", "vmap", _compare(lambda f: vmap(vmap(f)), _stacked(2, 5)), complex=True),
        Check("vmap_nested_moved", "vmap", _compare(lambda f: vmap(_vmap_last(f)), _stacked(2, 5)), complex=True),
        Check("vmap_grad", "vmap", _compare(lambda f: lambda *x: vmap(grad(scalar(f), _all(x)))(*x), _stacked(5))),
        Check(
            "vmap_hessian", "vmap", _compare(lambda f: lambda *x: vmap(hessian(scalar(f), _all(x)))(*x), _stacked(5))
        ),
        Check(
            "grad_vmap", "vmap", _compare(lambda f: lambda *x: grad(scalar(_vmap_last(f)), _all(x))(*x), _stacked(5))
        ),
        Check("vmap_jvp", "vmap", _compare(lambda f: vmap(_jvp(f)), _stacked(5))),
        Check("export", "compile", _exported),
        Check("compile", "compile", _compiled_training("aot_eager")),
        Check("compile_inductor", "compile", _compiled_training("inductor")),
        Check("compile_dynamic", "compile", _compiled_training("aot_eager", dynamic=True)),
        Check("compile_grad", "compile", _compiled(_over_all(grad, scalar), _plain)),
        Check("compile_vmap", "compile", _compiled(lambda f: vmap(f), _stacked(5))),
        Check("compile_jvp", "compile", _compiled(_jvp, _plain)),
        Check("compile_hessian", "compile", _compiled(_over_all(hessian, scalar), _plain)),
        Check(
            "compile_vmap_grad",
            "compile",
            _compiled(lambda f: lambda *x: vmap(grad(scalar(f), _all(x)))(*x), _stacked(5)),
        ),
        Check("compile_dual_numbers", "compile", _compiled_dual),
    )
}
