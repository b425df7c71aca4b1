"""Every way that torch differentiates a function, each comparing an operator with its definition.

A check takes a `Case` and the options of `Case.inputs` and returns the largest error relative to the largest expected
number. The definition is differentiated by the same transform, so in float64 an error is rounding or a mistake.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev
from torch.utils import _pytree as pytree

from multilinear.testing import transforms as tf
from multilinear.testing.cases import Case

Inputs = Callable[[Case, dict], Sequence[Any]]


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


def plain(case: Case, options: dict) -> list[Tensor]:
    """The case's arguments."""
    return case.inputs(**options)


def leaves(case: Case, options: dict) -> list[Tensor]:
    """Arguments that require gradients."""
    return case.inputs(**options, requires_grad=True)


def non_contiguous(case: Case, options: dict) -> list[Tensor]:
    """Transposed, strided and offset arguments that require gradients."""
    values = []
    for x in case.inputs(**options):
        storage = torch.zeros([2 * size + 1 for size in x.shape[::-1]], dtype=x.dtype, device=x.device)
        view = storage[tuple(slice(1, None, 2) for _ in x.shape)].permute(*range(x.ndim)[::-1])
        values.append(view.copy_(x).requires_grad_())
    return values


def stacked(*sizes: int, dim: int = 0) -> Inputs:
    """Arguments with batch dimensions in front, or at `dim`."""

    def make(case: Case, options: dict) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        values = []
        for x in case.inputs(**options):
            value = torch.randn(*sizes, *x.shape, dtype=x.dtype, generator=generator).to(x.device)
            values.append(value.movedim(0, min(dim, x.ndim)))
        return values

    return make


def compare(transform: Callable[[tf.Function], tf.Function], inputs: Inputs = plain) -> Callable[..., float]:
    """The transform of the operator against the transform of its definition."""

    def run(case: Case, **options: Any) -> float:
        arguments = inputs(case, options)
        return largest_error(transform(case.operator)(*arguments), transform(case.definition)(*arguments))

    return run


def compare_compiled(transform: Callable[[tf.Function], tf.Function], inputs: Inputs = plain) -> Callable[..., float]:
    """The same with the operator's transform compiled into one graph."""

    def run(case: Case, **options: Any) -> float:
        torch._dynamo.reset()
        arguments = inputs(case, options)
        compiled = torch.compile(transform(case.operator), backend="aot_eager", fullgraph=True)
        return largest_error(compiled(*arguments), transform(case.definition)(*arguments))

    return run


def compare_compiled_training(backend: str, sizes: Sequence[int] = (3,)) -> Callable[..., float]:
    """A compiled forward pass and its backward pass; for several sizes, with dynamic shapes."""

    def run(case: Case, **options: Any) -> float:
        torch._dynamo.reset()
        dynamic = True if len(sizes) > 1 else None
        compiled = torch.compile(case.operator, backend=backend, fullgraph=True, dynamic=dynamic)
        errors = []
        for n in sizes:
            x = case.inputs(n, **options, requires_grad=True)
            errors.append(largest_error(compiled(*x), case.definition(*x)))
            errors.append(largest_error(tf.gradient(compiled)(*x), tf.gradient(case.definition)(*x)))
        return max(errors)

    return run


def compiled_dual_numbers(case: Case, **options: Any) -> float:
    """Dual numbers that enter a compiled function from outside."""
    torch._dynamo.reset()
    x = case.inputs(**options)
    compiled = torch.compile(lambda *x: case.operator(*x), backend="aot_eager")
    return largest_error(tf.dual_numbers(compiled)(*x), tf.dual_numbers(case.definition)(*x))


def exported(case: Case, **options: Any) -> float:
    """The operator in a program of torch.export."""

    class Module(torch.nn.Module):
        def forward(self, *x: Tensor) -> Any:
            return case.operator(*x)

    x = case.inputs(**options)
    program = torch.export.export(Module(), tuple(x))
    return largest_error(program.module()(*x), case.definition(*x))


def empty(case: Case, **options: Any) -> float:
    """Value and gradient where n is 0."""
    x = case.inputs(0, **options, requires_grad=True)
    value = largest_error(case.operator(*x), case.definition(*x))
    return max(value, largest_error(tf.gradient(case.operator)(*x), tf.gradient(case.definition)(*x)))


def meta(case: Case, **options: Any) -> float:
    """Shape and dtype on the meta device."""
    results = case.operator(*case.inputs(**{**options, "device": "meta"}))
    expected = case.definition(*case.inputs(**options))
    facts = lambda values: [(tuple(x.shape), x.dtype) for x in pytree.tree_leaves(values)]  # noqa: E731
    return 0.0 if facts(results) == facts(expected) else float("inf")


_TABLE = (
    Check("value", "value", compare(tf.itself), complex=True),
    Check("value_non_contiguous", "value", compare(tf.itself, non_contiguous), complex=True),
    Check("meta", "value", meta, complex=True),
    Check("gradient", "gradient", compare(tf.gradient, leaves), complex=True),
    Check("gradient_non_contiguous", "gradient", compare(tf.gradient, non_contiguous), complex=True),
    Check("gradient_one_argument", "gradient", compare(tf.one_gradient_at_a_time), complex=True),
    Check("gradient_empty", "gradient", empty),
    Check("gradient_checkpointed", "gradient", compare(tf.checkpointed_gradient, leaves)),
    Check("gradient_batched", "gradient", compare(tf.batched_gradient, leaves)),
    Check("func_grad", "gradient", compare(tf.over_all(grad, tf.scalar))),
    Check("jacrev", "gradient", compare(tf.over_all(jacrev))),
    Check("second", "second", compare(tf.nested_gradient(2), leaves), complex=True),
    Check("hessian_vector", "second", compare(tf.hessian_vector)),
    Check("hessian", "second", compare(tf.over_all(hessian, tf.scalar))),
    Check("jacrev_jacrev", "second", compare(tf.twice(jacrev, jacrev))),
    Check("jacrev_jacfwd", "second", compare(tf.twice(jacrev, jacfwd))),
    Check("jacfwd_jacfwd", "second", compare(tf.twice(jacfwd, jacfwd))),
    Check("forward_over_reverse", "second", compare(tf.forward_over_reverse)),
    Check("third", "third", compare(tf.nested_gradient(3), leaves), complex=True),
    Check("third_forward", "third", compare(tf.forward_three_times)),
    Check("jvp", "forward", compare(tf.forward)),
    Check("dual_numbers", "forward", compare(tf.dual_numbers)),
    Check("jacfwd", "forward", compare(tf.over_all(jacfwd))),
    Check("vmap", "vmap", compare(tf.mapped, stacked(5)), complex=True),
    Check("vmap_last_argument", "vmap", compare(tf.mapped_last, stacked(5)), complex=True),
    Check("vmap_moved", "vmap", compare(tf.mapped_moved, stacked(5, dim=1)), complex=True),
    Check("vmap_nested", "vmap", compare(tf.mapped_twice, stacked(2, 5)), complex=True),
    Check("vmap_nested_last", "vmap", compare(tf.mapped_mapped_last, stacked(2, 5)), complex=True),
    Check("vmap_grad", "vmap", compare(tf.mapped_gradient, stacked(5))),
    Check("vmap_hessian", "vmap", compare(tf.mapped_hessian, stacked(5))),
    Check("grad_vmap", "vmap", compare(tf.gradient_of_mapped, stacked(5))),
    Check("vmap_jvp", "vmap", compare(tf.mapped_forward, stacked(5))),
    Check("export", "compile", exported),
    Check("compile", "compile", compare_compiled_training("aot_eager")),
    Check("compile_inductor", "compile", compare_compiled_training("inductor")),
    Check("compile_dynamic", "compile", compare_compiled_training("aot_eager", sizes=(3, 7))),
    Check("compile_grad", "compile", compare_compiled(tf.over_all(grad, tf.scalar))),
    Check("compile_vmap", "compile", compare_compiled(tf.mapped, stacked(5))),
    Check("compile_jvp", "compile", compare_compiled(tf.forward)),
    Check("compile_hessian", "compile", compare_compiled(tf.over_all(hessian, tf.scalar))),
    Check("compile_vmap_grad", "compile", compare_compiled(tf.mapped_gradient, stacked(5))),
    Check("compile_dual_numbers", "compile", compiled_dual_numbers),
)
CHECKS = {check.name: check for check in _TABLE}
