"""CP tensors: sums of outer products, and their squared distance to a tensor."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor

from multilinear import _checks
from multilinear._arrays import ArrayT, namespace, permute, reshape
from multilinear.autograd import cp as _cp
from multilinear.autograd import cp_loss as _cp_loss
from multilinear.autograd._dispatch import backend, is_eager
from multilinear.autograd._dtypes import promote_for_product
from multilinear.maps import squared_error
from multilinear.products import khatri_rao


def cp_to_tensor(
    factors: Sequence[Num[ArrayT, "_size rank"]], *, weights: Num[ArrayT, "rank"] | None = None
) -> Num[ArrayT, "..."]:
    """Tensor from its CP factors: `x[i, j, ...] = sum over r of weights[r] a[i, r] b[j, r] ...`.

    Args:
        factors: One or more matrices of shapes `(I_m, R)`, one for every mode.
        weights: Vector of shape `(R,)`; by default ones.

    Returns:
        Tensor of shape `(I_0, ..., I_N)`; dtypes promote as in the array library, and under autocast as
        `torch.matmul`. For torch tensors the gradients are analytic, of every order: MTTKRPs.

    Raises:
        TypeError: No sequence of arrays, several libraries, or a boolean array.
        ValueError: The sequence is empty, a factor is no matrix, the numbers of columns or the devices differ, or the
            weights are not one per column.

    Example:
        >>> import torch, multilinear as ml
        >>> ml.cp_to_tensor([torch.tensor([[1., 1.], [0., 1.]]), torch.tensor([[1., 2.], [3., 4.]])])
        tensor([[3., 7.],
                [2., 4.]])

    Reference:
        Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51(3), 2009, sec. 3.
    """
    _check_factors("cp_to_tensor", factors, weights)
    if isinstance(factors[0], torch.Tensor):
        return _from_tensors(factors, weights)
    first, *others = _weighted(factors, weights)
    xp = namespace(first)
    if not others:
        return xp.sum(first, axis=1)
    matrix = xp.matmul(first, permute(khatri_rao(others), (1, 0)))
    return reshape(matrix, [factor.shape[0] for factor in (first, *others)])


def cp_loss(
    tensor: Num[Tensor, "..."],
    factors: Sequence[Num[Tensor, "_size rank"]],
    *,
    weights: Num[Tensor, "rank"] | None = None,
) -> Num[Tensor, ""]:
    """Squared error of a CP model: `||tensor - cp_to_tensor(factors, weights=weights)||²`, summed over all entries.

    For real float32 and float64 tensors the model is never formed. The loss is expanded into
    `||x||² - 2 <x, m> + ||m||²`, whose last term needs the factors' Gram matrices only. Near a perfect fit, where these
    terms cancel, and where components nearly cancel each other, the squared differences are summed in blocks instead.
    To choose, the function looks at the value, for which a GPU has to be waited for. Inside `torch.func`, forward mode
    and compiled graphs, where it cannot look, and for other dtypes it forms the model.

    Args:
        tensor: Tensor of shape `(I_0, ..., I_N)`.
        factors: One matrix `(I_m, R)` for every mode, in order.
        weights: Vector of shape `(R,)`; by default ones.

    Returns:
        Scalar, real for complex operands, in float32 or better. The gradients are analytic, of every order.

    Raises:
        TypeError: An operand is no torch tensor, or boolean.
        ValueError: The number of factors is not the tensor's order, a shape does not fit, or the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> a, b = torch.tensor([[1.], [2.]]), torch.tensor([[3.], [4.]])
        >>> ml.cp_loss(torch.zeros(2, 2), [a, b])
        tensor(125.)

    Reference:
        Acar, Dunlavy and Kolda, "A scalable optimization approach for fitting canonical tensor decompositions", J.
        Chemometrics 25(2), 2011, sec. 3 (Gram form and gradient).
    """
    _checks.check_tensor("cp_loss", "tensor", tensor)
    _check_factors("cp_loss", factors, weights)
    _checks.check_tensors("cp_loss", "factors", factors)
    _checks.check_same_place("cp_loss", [tensor, *factors])
    expected = tuple(factor.shape[0] for factor in factors)
    if tuple(tensor.shape) != expected:
        raise ValueError(
            f"cp_loss: factors of shapes {_checks.shapes(factors)} make a tensor of shape {expected}, got "
            f"{tuple(tensor.shape)}; pass one matrix (size, rank) for every mode"
        )
    tensor, *weighted = promote_for_product([tensor, *_weighted(factors, weights)])
    if not _is_plain(tensor):
        return squared_error(_cp.cp_to_tensor(weighted), tensor)
    loss, size = _cp_loss.expanded(tensor, weighted)
    # Rounding leaves an error of about eps * size; this keeps its share of the loss below eps ** 0.75.
    if loss.detach() > torch.finfo(tensor.dtype).eps ** 0.25 * size:
        return loss
    return _cp_loss.by_residuals(tensor, weighted)


def _is_plain(tensor: Tensor) -> bool:
    """Real numbers of enough precision, and a value that Python may look at to choose the branch."""
    if tensor.dtype not in (torch.float32, torch.float64) or tensor.ndim < 2:
        return False
    return is_eager(tensor) and backend() != "autodiff"


def _from_tensors(factors: Any, weights: Any) -> Any:
    return _cp.cp_to_tensor(promote_for_product(_weighted(factors, weights)))


def _weighted(factors: Sequence[Any], weights: Any) -> Sequence[Any]:
    return factors if weights is None else [factors[0] * weights, *factors[1:]]


def _check_factors(function: str, factors: Any, weights: Any) -> None:
    _checks.check_arrays(function, "factors", factors)
    for m, factor in enumerate(factors):
        _checks.check_ndim(function, f"factors[{m}]", factor, 2, "(size, rank)")
    ranks = [factor.shape[1] for factor in factors]
    if len(set(ranks)) > 1:
        raise ValueError(
            f"{function}: all factors need the same number of columns, got {ranks} from shapes "
            f"{_checks.shapes(factors)}; "
            f"pass matrices of shape (size, rank), not (rank, size)"
        )
    if weights is not None:
        _checks.check_array(function, "weights", weights)
        _checks.check_same_place(function, [factors[0], weights])
        _checks.check_weights(function, weights, ranks[0])
