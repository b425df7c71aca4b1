"""Tucker tensors: a core multiplied by one matrix in every mode, and their squared distance to a tensor."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Num
from torch import Tensor

from multilinear import _checks
from multilinear._arrays import ArrayT
from multilinear.contractions import multi_mode_dot
from multilinear.maps import squared_error


def tucker_to_tensor(core: Num[ArrayT, "..."], factors: Sequence[Num[ArrayT, "_size _rank"]]) -> Num[ArrayT, "..."]:
    """Tensor from its Tucker form: the core multiplied by one matrix in every mode.

    Args:
        core: Array of shape `(R_0, ..., R_N)`.
        factors: One matrix `(I_m, R_m)` for every mode, in order.

    Returns:
        Tensor of shape `(I_0, ..., I_N)`; dtypes as in `mode_dot`. For torch tensors the gradients are analytic, of
        every order.

    Raises:
        TypeError: No sequence of arrays, several libraries, or a boolean array.
        ValueError: The number of factors is not the core's order, a factor is no matrix or does not fit, or the devices
            differ.

    Example:
        >>> import torch, multilinear as ml
        >>> ml.tucker_to_tensor(torch.ones(1, 1), [torch.tensor([[1.], [2.]]), torch.tensor([[3.], [4.]])])
        tensor([[3., 4.],
                [6., 8.]])

    Reference:
        Tucker, "Some mathematical notes on three-mode factor analysis", Psychometrika 31(3), 1966; Kolda and Bader,
        SIAM Review 51(3), 2009, sec. 4.
    """
    _check_tucker("tucker_to_tensor", core, factors)
    return multi_mode_dot(core, factors)


def tucker_loss(
    tensor: Num[Tensor, "..."], core: Num[Tensor, "..."], factors: Sequence[Num[Tensor, "_size _rank"]]
) -> Num[Tensor, ""]:
    """Squared error of a Tucker model: `||tensor - tucker_to_tensor(core, factors)||²`, summed over all entries.

    Args:
        tensor: Tensor of shape `(I_0, ..., I_N)`.
        core: Tensor of shape `(R_0, ..., R_N)`.
        factors: One matrix `(I_m, R_m)` for every mode, in order.

    Returns:
        Scalar, real for complex operands, in float32 or better. The gradients are analytic, of every order.

    Raises:
        TypeError: An operand is no torch tensor, or boolean.
        ValueError: As in `tucker_to_tensor`; the tensor's shape is not the model's.

    Example:
        >>> import torch, multilinear as ml
        >>> ml.tucker_loss(torch.zeros(2, 2), torch.ones(1, 1), [torch.ones(2, 1), torch.ones(2, 1)])
        tensor(4.)

    Reference:
        De Lathauwer, De Moor and Vandewalle, "On the best rank-1 and rank-(R1, ..., RN) approximation of higher-order
        tensors", SIAM J. Matrix Anal. Appl. 21(4), 2000.
    """
    _checks.check_tensor("tucker_loss", "tensor", tensor)
    _checks.check_tensor("tucker_loss", "core", core)
    _check_tucker("tucker_loss", core, factors)
    _checks.check_same_place("tucker_loss", [tensor, core])
    expected = tuple(factor.shape[0] for factor in factors)
    if tuple(tensor.shape) != expected:
        raise ValueError(
            f"tucker_loss: factors of shapes {_checks.shapes(factors)} make a tensor of shape {expected}, got "
            f"{tuple(tensor.shape)}; pass one matrix (size, rank) for every mode"
        )
    return squared_error(multi_mode_dot(core, factors), tensor)


def _check_tucker(function: str, core: Any, factors: Any) -> None:
    _checks.check_array(function, "core", core)
    _checks.check_arrays(function, "factors", factors)
    _checks.check_same_place(function, [core, *factors])
    for m, factor in enumerate(factors):
        _checks.check_ndim(function, f"factors[{m}]", factor, 2, "(size, rank)")
    ranks = tuple(factor.shape[1] for factor in factors)
    if tuple(core.shape) != ranks:
        raise ValueError(
            f"{function}: the core must have the factors' numbers of columns as its shape, {ranks}, got "
            f"{tuple(core.shape)}; "
            f"pass one matrix (size, rank) for every mode"
        )
