"""Operators that are linear in each of their tensors, with analytic derivatives of every order.

Let `f(x_1, ..., x_M)` be linear in each argument and write `<a, b>` for the real inner product. Its backward
pass `b_i(g, x)` is defined by `<b_i(g, x), v> = <g, f(x with x_i replaced by v)>` and does not depend on `x_i`. It is
linear in `g` and in every other `x_j`, so its own backward pass, with cotangents `v_i`, needs nothing new:

    d/dg   = sum over i        of f(x with x_i := v_i)
    d/dx_j = sum over i != j   of b_j(g, x with x_i := v_i)

Two functions, `forward` and `backward`, are thus closed under differentiation, and this file turns such a pair
into a differentiable operator. Both must accept leading batch dimensions that broadcast (vmap adds them); gradients
keep the full batch, and autograd's engine sums them over broadcast dimensions. Neither may return an argument or a view
of one.

Which of torch's mechanisms carries the derivative depends on who asks:

    forward mode      the formula itself, in ATen operations: torch's product rule is exact at every order
    torch.func        an autograd.Function with setup_context and vmap
    torch.compile     inside transforms of torch.func, and of DTensors, the formula; elsewhere a dispatcher operator
    everything else   a dispatcher operator: eager, autograd, torch.export, meta and fake tensors

By default small problems and compiled graphs take the formula, too (`_dispatch.py`). A device may have code of its own
behind the dispatcher operator. How tensors that are split over processes go through it says the einsum that the
operator is (`_sharding.py`).

No single mechanism of torch 2.13 serves all three: a dispatcher operator alone returns zero tangents in forward
mode without an error, and an autograd.Function with a `jvp` method is rejected or dropped by torch.compile.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from multilinear.autograd._dispatch import are_plain, check_backend, is_distributed, takes_formula
from multilinear.autograd._transforms import forward_mode_active, functorch_active

_LIBRARY = torch.library.Library("multilinear", "DEF")

Forward = Callable[..., Tensor]
Backward = Callable[[Tensor, Sequence[Tensor], Sequence[bool]], "list[Tensor | None]"]


class MultilinearOperator:
    """A multilinear function of a fixed number of tensors, registered with torch as `multilinear::{name}`.

    Args:
        name: Name in torch's operator library.
        arguments: Names of the tensors, two or more.
        equation: What the operator is as an einsum, "oab,na,nb->no"; merged dimensions of the result in brackets.
        forward: `forward(*tensors)`, in ATen operations.
        backward: `backward(gradient, tensors, needed)`: for every tensor its gradient, or None where `needed` is False.
        elements: `elements(*tensors)`, the size of the largest tensor involved, by which `_dispatch.py` chooses.
        kernels: For a device's dispatch key ("CPU", "CUDA") the pair `(forward, backward)` to run there.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        equation: str,
        forward: Forward,
        backward: Backward,
        *,
        elements: Callable[..., int],
        kernels: Mapping[str, tuple[Forward, Backward]] | None = None,
    ):
        self.name = name
        self.equation = equation
        self.formula = forward
        self.backward_formula = backward
        self._kind = name.rstrip("_0123456789")
        self._elements = elements
        self.kernels = dict(kernels or {})
        self._register(name, arguments)
        self._operator = getattr(torch.ops.multilinear, name).default
        self._backward_operator = getattr(torch.ops.multilinear, f"{name}_backward").default
        self._function, self._backward_function = _make_functions(self)
        self._is_sharded = False

    def __call__(self, *tensors: Tensor) -> Tensor:
        """`forward(*tensors)`, differentiable."""
        check_backend(self._kind, tensors[0])
        if forward_mode_active() or takes_formula(self._kind, self._elements(*tensors), tensors):
            return self.formula(*tensors)
        self._prepare(tensors)
        if functorch_active() or _traces_subclasses(tensors):
            return self.formula(*tensors) if torch.compiler.is_compiling() else self._function.apply(*tensors)
        return self._operator(*tensors)

    def backward(self, gradient: Tensor, tensors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
        """`backward(gradient, tensors, needed)`, differentiable."""
        needed = [bool(need) for need in needed]
        if forward_mode_active() or takes_formula(self._kind, self._elements(*tensors), tensors):
            return self.backward_formula(gradient, tensors, needed)
        self._prepare(tensors)
        if functorch_active() or _traces_subclasses(tensors):
            if torch.compiler.is_compiling():
                return self.backward_formula(gradient, tensors, needed)
            results = self._backward_function.apply(needed, gradient, *tensors)
        else:
            results = self._backward_operator(gradient, *tensors, to_bits(needed))
        return [result if need else None for result, need in zip(results, needed, strict=True)]

    def _prepare(self, tensors: Sequence[Tensor]) -> None:
        """Tells DTensor its rules, the first time that one comes."""
        if is_distributed(tensors) and not self._is_sharded:
            from multilinear.autograd._sharding import register

            register(self.equation, self._operator, self._backward_operator)
            self._is_sharded = True

    def _register(self, name: str, arguments: Sequence[str]) -> None:
        tensors = ", ".join(f"Tensor {argument}" for argument in arguments)
        gradients = ", ".join(["Tensor"] * len(arguments))
        _LIBRARY.define(f"{name}({tensors}) -> Tensor")
        _LIBRARY.define(f"{name}_backward(Tensor gradient, {tensors}, int needed) -> ({gradients})")

        for key in ("CompositeExplicitAutograd", *self.kernels):
            self._implement(key)

        def save(ctx: Any, inputs: Sequence[Tensor], output: Tensor) -> None:
            ctx.save_for_backward(*inputs)

        def save_backward(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
            ctx.save_for_backward(*inputs[:-1])
            ctx.needed = from_bits(inputs[-1], len(inputs) - 2)
            ctx.set_materialize_grads(False)

        def differentiate(ctx: Any, gradient: Tensor) -> "tuple[Tensor | None, ...]":
            return tuple(self.backward(gradient, ctx.saved_tensors, ctx.needs_input_grad))

        def differentiate_backward(ctx: Any, *cotangents: Tensor | None) -> "tuple[Tensor | None, ...]":
            needs = ctx.needs_input_grad[:-1]
            return *self._second_derivative(ctx.saved_tensors, cotangents, ctx.needed, needs), None

        torch.library.register_autograd(f"multilinear::{name}", differentiate, setup_context=save, lib=_LIBRARY)
        torch.library.register_autograd(
            f"multilinear::{name}_backward", differentiate_backward, setup_context=save_backward, lib=_LIBRARY
        )

        def batched(info: Any, in_dims: Sequence[int | None], *tensors: Tensor) -> tuple[Tensor, int]:
            return self._operator(*_lift(in_dims, tensors)), 0

        def batched_backward(info: Any, in_dims: Sequence[int | None], gradient: Tensor, *arguments: Any) -> Any:
            *tensors, needed = arguments
            gradient = _lift_fully(info.batch_size, in_dims[0], gradient)
            results = self._backward_operator(gradient, *_lift(in_dims[1:], tensors), needed)
            return results, _out_dims(from_bits(needed, len(tensors)))

        torch.library.register_vmap(f"multilinear::{name}", batched, lib=_LIBRARY)
        torch.library.register_vmap(f"multilinear::{name}_backward", batched_backward, lib=_LIBRARY)

    def _implement(self, key: str) -> None:
        def pair() -> tuple[Forward, Backward]:
            return self.kernels.get(key, (self.formula, self.backward_formula))

        # Detached, because torch.matmul copies its operands into another layout where one requires a gradient.
        def run(*tensors: Tensor) -> Tensor:
            return pair()[0](*(tensor.detach() for tensor in tensors))

        def run_backward(*arguments: Any) -> tuple[Tensor, ...]:
            *given, needed = arguments
            gradient, *tensors = (tensor.detach() for tensor in given)
            return _fill(pair()[1](gradient, tensors, from_bits(needed, len(tensors))), gradient)

        for suffix, function in (("", run), ("_backward", run_backward)):
            _LIBRARY.impl(f"{self.name}{suffix}", function, key)
            if key == "CompositeExplicitAutograd":
                torch.library.register_fake(f"multilinear::{self.name}{suffix}", function, lib=_LIBRARY)

    def _second_derivative(
        self,
        saved: Sequence[Tensor],
        cotangents: Sequence[Tensor | None],
        computed: Sequence[bool],
        needs: Sequence[bool],
    ) -> "tuple[Tensor | None, ...]":
        """Gradients of sum_i <cotangent_i, b_i(gradient, tensors)> with respect to the gradient and every tensor."""
        gradient, *tensors = saved
        total: list[Tensor | None] = [None] * len(saved)
        for i, cotangent in enumerate(cotangents):
            if cotangent is None or not computed[i]:
                continue
            replaced = [*tensors[:i], cotangent, *tensors[i + 1 :]]
            parts: list[Tensor | None] = [self(*replaced) if needs[0] else None]
            others = [need and j != i for j, need in enumerate(needs[1:])]
            parts += self.backward(gradient, replaced, others) if any(others) else [None] * len(tensors)
            total = [_sum(a, b) for a, b in zip(total, parts, strict=True)]
        return tuple(total)


def _make_functions(operator: MultilinearOperator) -> tuple[Any, Any]:
    """The pair of autograd.Functions that carries reverse mode and vmap of torch.func."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*tensors: Tensor) -> Tensor:
            return operator._operator(*tensors)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            gradients = BackwardFunction.apply(list(ctx.needs_input_grad), gradient, *ctx.saved_tensors)
            return tuple(_mask(gradients, ctx.needs_input_grad))

        @staticmethod
        def vmap(info: Any, in_dims: Sequence[int | None], *tensors: Tensor) -> tuple[Tensor, int]:
            return Function.apply(*_lift(in_dims, tensors)), 0

    class BackwardFunction(torch.autograd.Function):
        @staticmethod
        def forward(needed: list[bool], gradient: Tensor, *tensors: Tensor) -> Any:
            return operator._backward_operator(gradient, *tensors, to_bits(needed))

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs[1:])
            ctx.needed = inputs[0]
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
            needs = ctx.needs_input_grad[1:]
            return None, *operator._second_derivative(ctx.saved_tensors, cotangents, ctx.needed, needs)

        @staticmethod
        def vmap(info: Any, in_dims: Any, needed: list[bool], gradient: Tensor, *tensors: Tensor) -> Any:
            gradient = _lift_fully(info.batch_size, in_dims[1], gradient)
            return BackwardFunction.apply(needed, gradient, *_lift(in_dims[2:], tensors)), _out_dims(needed)

    Function.__name__ = operator.name
    BackwardFunction.__name__ = f"{operator.name}_backward"
    return Function, BackwardFunction


def to_bits(needed: Sequence[bool]) -> int:
    """Which gradients are needed, the first tensor's the lowest bit: DTensor's cache tells integers apart."""
    return sum(1 << position for position, need in enumerate(needed) if need)


def from_bits(bits: int, count: int) -> list[bool]:
    """What `to_bits` took."""
    return [bool(bits >> position & 1) for position in range(count)]


def _traces_subclasses(tensors: Sequence[Tensor]) -> bool:
    """Whether Dynamo traces tensors such as DTensors, to whose rules (`_prepare`) an operator cannot be added then."""
    return torch.compiler.is_dynamo_compiling() and not are_plain(tensors)


def _lift(in_dims: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The batch dimension first; a tensor without one gets size 1, which broadcasts."""
    return [x.unsqueeze(0) if d is None else x.movedim(d, 0) for d, x in zip(in_dims, tensors, strict=False)]


def _lift_fully(size: int, in_dim: int | None, tensor: Tensor) -> Tensor:
    return tensor.expand(size, *tensor.shape) if in_dim is None else tensor.movedim(in_dim, 0)


def _out_dims(needed: Sequence[bool]) -> tuple[int | None, ...]:
    return tuple(0 if need else None for need in needed)


def _fill(gradients: "Sequence[Tensor | None]", like: Tensor) -> tuple[Tensor, ...]:
    """An operator has to return tensors: an empty one stands for a gradient that nobody asked for."""
    return tuple(like.new_empty(0) if gradient is None else gradient for gradient in gradients)


def _mask(gradients: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    return [gradient if need else None for gradient, need in zip(gradients, needed, strict=True)]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
