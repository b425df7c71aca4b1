"""Assertions about an operator: that it is multilinear, and that its derivatives are right."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

STEP = 1e-4
"""Step of the central differences: their error is about STEP² plus 1e-16 / STEP."""


def assert_multilinear(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    positions: Sequence[int] | None = None,
    *,
    rtol: float = 1e-10,
    seed: int = 0,
) -> None:
    """Asserts that a function is linear in each of its arguments, the others held fixed.

    Args:
        function: Takes the inputs as separate arguments, returns a tensor or several.
        inputs: Floating-point or complex tensors.
        positions: The arguments to test; by default all.
        rtol: Allowed error, relative to the largest number in the result.
        seed: Of the second argument and the coefficients.

    Raises:
        AssertionError: The function is not linear in some argument; the message says in which.

    Example:
        >>> import multilinear as ml
        >>> from multilinear.testing import assert_multilinear, random_tensors
        >>> assert_multilinear(lambda a, b: ml.khatri_rao([a, b]), random_tensors([(2, 3), (4, 3)]))
        >>> assert_multilinear(lambda a, b: a * b + 1, random_tensors([(3,), (3,)]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        AssertionError: assert_multilinear: the function is not linear in argument 0: ...
    """
    generator = torch.Generator().manual_seed(seed)
    s, t = 1.75, -0.625
    for position in range(len(inputs)) if positions is None else positions:
        x = inputs[position]
        y = torch.randn(x.shape, dtype=x.dtype, generator=generator).to(x.device)
        combined, of_x, of_y = (
            pytree.tree_leaves(function(*inputs[:position], value, *inputs[position + 1 :]))
            for value in (s * x + t * y, x, y)
        )
        for number, (actual, a, b) in enumerate(zip(combined, of_x, of_y, strict=True)):
            expected = s * a + t * b
            error = _largest(actual - expected)
            if not error <= rtol * max(_largest(expected), 1.0):
                which = f" in result {number}" if len(combined) > 1 else ""
                raise AssertionError(
                    f"assert_multilinear: the function is not linear in argument {position}: f(s x + t y) differs from "
                    f"s f(x) + t f(y) by {error:.3g}{which}, where the largest number is {_largest(expected):.3g}"
                )


def assert_gradients(
    function: Callable[..., Any],
    reference: Callable[..., Any] | None,
    inputs: Sequence[Tensor],
    orders: int = 2,
    *,
    jacobian: Callable[[int], Any] | None = None,
    rtol: float = 1e-10,
    finite_rtol: float = 1e-5,
) -> None:
    """Asserts that a function's derivatives are right, and says which computation disagrees, and where.

    Every entry of every derivative comes from up to four independent computations: the function's own backward pass,
    central differences, autodiff of a reference, and an explicit matrix. Order k is the derivative of the (k-1)-th
    backward pass with fixed cotangents.

    Args:
        function: Takes the inputs as separate arguments, returns a tensor or several.
        reference: The same function in operations that autograd differentiates; None for none.
        inputs: float64 tensors on one device.
        orders: How many derivatives to check.
        jacobian: For each position the explicit Jacobian, (results, elements of that input), both in C order: such as
            `multilinear.appendix.operator` for the multilinear map. Checked at order 1.
        rtol: Allowed error against reference and jacobian, relative to the largest entry.
        finite_rtol: Allowed error against central differences.

    Raises:
        TypeError: An input is not float64.
        AssertionError: Two computations disagree; the message gives the derivative, the element and all values.

    Example:
        >>> import torch, multilinear as ml
        >>> from multilinear.testing import assert_gradients, random_tensors
        >>> inputs = random_tensors([(2, 3), (4, 3)])
        >>> assert_gradients(lambda a, b: ml.khatri_rao([a, b]), lambda a, b: (a[:, None] * b).flatten(0, 1), inputs)
    """
    inputs = [_leaf(position, value) for position, value in enumerate(inputs)]
    functions = [function] if reference is None else [function, reference]
    for order in range(1, orders + 1):
        flat = [_flattened(f) for f in functions]
        for position in range(len(inputs)):
            found = {"analytic": _autograd_jacobian(flat[0], inputs, position)}
            if reference is not None:
                found["reference"] = _autograd_jacobian(flat[1], inputs, position)
            if jacobian is not None and order == 1:
                found["explicit operator"] = torch.as_tensor(jacobian(position), dtype=torch.float64).cpu()
            found["finite differences"] = _finite_jacobian(flat[0], inputs, position)
            _compare(order, position, inputs[position].shape, found, rtol, finite_rtol)
        functions = [_backward_pass(f) for f in functions]


def _leaf(position: int, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != torch.float64:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"assert_gradients: inputs[{position}] must be a float64 tensor, got {kind}; use .double()")
    return value.detach().clone().requires_grad_()


def _flattened(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """All results in one vector."""
    return lambda *inputs: torch.cat([x.reshape(-1) for x in pytree.tree_leaves(function(*inputs))])


def _backward_pass(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's gradients for fixed cotangents, themselves differentiable."""
    flat = _flattened(function)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        result = flat(*inputs)
        cotangent = torch.cos(torch.arange(result.numel(), dtype=result.dtype, device=result.device))
        return _gradients(result, inputs, cotangent, create_graph=True)

    return run


def _gradients(result: Tensor, inputs: Sequence[Tensor], cotangent: Tensor, create_graph: bool) -> tuple[Tensor, ...]:
    if not result.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    return torch.autograd.grad(
        result,
        inputs,
        cotangent,
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )


def _autograd_jacobian(function: Callable[..., Tensor], inputs: Sequence[Tensor], position: int) -> Tensor:
    result = function(*inputs)
    rows = []
    for unit in torch.eye(result.numel(), dtype=result.dtype, device=result.device):
        (row,) = _gradients(result, [inputs[position]], unit, create_graph=False)
        rows.append(row.detach().reshape(-1).cpu())
    return torch.stack(rows) if rows else torch.zeros(0, inputs[position].numel(), dtype=torch.float64)


def _finite_jacobian(function: Callable[..., Tensor], inputs: Sequence[Tensor], position: int) -> Tensor:
    columns = []
    for element in range(inputs[position].numel()):
        sides = []
        for step in (STEP, -STEP):
            moved = [x.detach().clone() for x in inputs]
            moved[position].view(-1)[element] += step
            sides.append(function(*(x.requires_grad_() for x in moved)).detach().cpu())
        columns.append((sides[0] - sides[1]) / (2 * STEP))
    rows = function(*inputs).numel()
    return torch.stack(columns, dim=1) if columns else torch.zeros(rows, 0, dtype=torch.float64)


def _compare(
    order: int, position: int, shape: torch.Size, found: dict[str, Tensor], rtol: float, finite_rtol: float
) -> None:
    for name, jacobian in found.items():
        if jacobian.shape != found["analytic"].shape:
            raise AssertionError(
                f"assert_gradients: the {name} Jacobian of order {order} for argument {position} has shape "
                f"{tuple(jacobian.shape)}, the analytic one {tuple(found['analytic'].shape)}; (results, "
                f"elements) is expected"
            )
    scale = max(1.0, *(_largest(jacobian) for jacobian in found.values()))
    allowed = {name: (finite_rtol if name == "finite differences" else rtol) * scale for name in found}
    names = list(found)
    for first, name in enumerate(names):
        for other in names[first + 1 :]:
            difference = (found[name] - found[other]).abs()
            if not difference.numel() or _largest(difference) <= max(allowed[name], allowed[other]):
                continue
            worst = int(difference.nan_to_num(nan=float("inf")).argmax())
            raise AssertionError(_report(order, position, shape, found, allowed, worst))


def _report(
    order: int, position: int, shape: torch.Size, found: dict[str, Tensor], allowed: dict[str, float], worst: int
) -> str:
    row, column = divmod(worst, found["analytic"].shape[1])
    element = tuple(int(i) for i in torch.unravel_index(torch.tensor(column), shape)) if shape else ()
    values = {name: jacobian[row, column].item() for name, jacobian in found.items()}
    lines = "".join(f"\n    {name:20s}{value: .12g}" for name, value in values.items())
    return (
        f"assert_gradients: order {order}, result {row} with respect to element {element} of argument "
        f"{position}:{lines}"
        f"\n  {_verdict(values, allowed)}"
    )


def _verdict(values: dict[str, float], allowed: dict[str, float]) -> str:
    """Which of the computations stands alone."""
    odd = []
    for name, value in values.items():
        others = [other for other in values if other != name]
        agree = lambda a, b: abs(values[a] - values[b]) <= max(allowed[a], allowed[b])  # noqa: E731
        together = all(agree(a, b) for a in others for b in others)
        if (
            together
            and len(others) > 1
            and not any(abs(value - values[o]) <= max(allowed[name], allowed[o]) for o in others)
        ):
            odd.append(name)
    return (
        f"the {odd[0]} result disagrees with all others"
        if odd
        else "they disagree; add a reference to say which is wrong"
    )


def _largest(x: Tensor) -> float:
    """Largest absolute value; infinite for NaN, 0 for an empty tensor."""
    if not x.numel():
        return 0.0
    value = x.detach().abs().max().item()
    return value if value == value else float("inf")
