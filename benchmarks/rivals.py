"""Ways to run a formula: our operators on torch's tape, einsum with and without a path, torch.compile."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import opt_einsum
import torch
from torch import Tensor

import multilinear as ml
from benchmarks.case import Prepared, Unavailable

LETTERS = "abcdefghij"


def on_the_tape(call: Callable[..., Any]) -> Callable[..., Any]:
    """Our operators, the same forward formulas, differentiated by torch: what the analytic gradient itself brings."""
    return _under("autodiff", call)


def always_analytic(call: Callable[..., Any]) -> Callable[..., Any]:
    """Our operators with their analytic gradients also where the problem is too small for them to pay."""
    return _under("torch", call)


def _under(backend: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        with _backend(backend):
            return call(*args)

    return run


def _backend(name: str) -> AbstractContextManager[Any]:
    use = cast(Any, getattr(ml, "use", None))
    if use is None:
        raise Unavailable("multilinear.use does not exist")
    try:
        return use(name)
    except ValueError as error:
        raise Unavailable(str(error)) from error


def compiled(call: Callable[..., Any]) -> Prepared:
    """torch.compile for the very shapes of a case; compiling itself is not measured."""

    def prepare(*args: Any) -> tuple[Any, ...]:
        return torch.compile(call, dynamic=False), *args

    return Prepared(prepare, lambda function, *args: function(*args))


def einsum_left_to_right(equation: str, *operands: Tensor) -> Tensor:
    """torch.einsum without opt_einsum, which it asks for the order of contraction by default."""
    with torch.backends.opt_einsum.flags(enabled=False):
        return torch.einsum(equation, *operands)


def contract(equation: str, *operands: Tensor) -> Tensor:
    return cast(Tensor, opt_einsum.contract(equation, *operands))
