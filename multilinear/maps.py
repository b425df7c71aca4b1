"""The multilinear map of a batch and its squared error: the paper's projection (eq. 1-5) and loss (eq. 12-15)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Num
from torch import Tensor

from multilinear import _checks
from multilinear.autograd import factored_gradient as _factored
from multilinear.autograd import mode_dot as _mode_dot
from multilinear.autograd import multilinear_loss as _multilinear_loss
from multilinear.autograd import multilinear_map as _multilinear_map
from multilinear.autograd._dtypes import promote_for_product
from multilinear.autograd._transforms import forward_mode_active, functorch_active
from multilinear.autograd.face_splitting import count

Reduction = Literal["sum", "mean", "none"]


def multilinear_map(
    core: Num[Tensor, "outputs *_inputs"], inputs: Sequence[Num[Tensor, "*_batch _size"]]
) -> Num[Tensor, "*batch outputs"]:
    """Multilinear map of a batch: `y[..., o] = sum over i, j, ... of core[o, i, j, ...] z1[..., i] z2[..., j] ...`.

    The batch comes first; with the samples in columns instead this is `unfold(core, 0) @ khatri_rao([z1.T, z2.T])`.
    An input that is one vector holds for the whole batch and is multiplied into the core once.

    Args:
        core: Tensor of shape `(k, k_1, ..., k_M)`, with M at least 1.
        inputs: M tensors of shapes `(..., k_m)`; the leading dimensions broadcast.

    Returns:
        Tensor of shape `(..., k)`. Mixed dtypes promote; under autocast the operands go to the autocast dtype, as in
        `torch.matmul`. Complex inputs are not conjugated. The gradients are analytic, of every order. From a million
        elements on, only the core and the inputs are kept for the backward pass, not the `(n, k_1 * ... * k_M)`
        products.

    Raises:
        TypeError: An operand is no torch tensor, or boolean; the inputs are no list or tuple.
        ValueError: The number of inputs is not the core's order minus one, a size or the leading dimensions do not
            fit, or the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> core = torch.arange(12.).reshape(3, 2, 2)
        >>> z1, z2 = torch.tensor([[1., 0.], [1., 1.]]), torch.tensor([[0., 1.], [1., 1.]])
        >>> ml.multilinear_map(core, [z1, z2])
        tensor([[ 1.,  5.,  9.],
                [ 6., 22., 38.]])

    Reference:
        The paper's eq. 1-5; its gradients are derived in eq. 16 and 19-23.
    """
    _check_map("multilinear_map", core, inputs)
    if _factored.applies(core, inputs):
        return _factored.tap(_map(core.detach(), inputs), core, inputs)
    return _map(core, inputs)


def multilinear_loss(
    target: Num[Tensor, "*batch outputs"],
    core: Num[Tensor, "outputs *_inputs"],
    inputs: Sequence[Num[Tensor, "*_batch _size"]],
    *,
    reduction: Reduction = "sum",
) -> Num[Tensor, "..."]:
    """Squared error of the multilinear map: `||target - multilinear_map(core, inputs)||²`.

    The sum runs over outputs and samples, as in the paper, not the mean that `torch.nn.MSELoss` takes. For large real
    problems the gradients are found together with the value, in one pass over the core: a value alone is cheaper under
    `torch.no_grad()`. To fit inputs to a core that stays as it is, see `compress`.

    Args:
        target: Tensor of shape `(..., k)`, with the leading dimensions that the map has.
        core: Tensor of shape `(k, k_1, ..., k_M)`.
        inputs: M tensors of shapes `(..., k_m)`; the leading dimensions broadcast.
        reduction: "sum" over outputs and samples (the paper's norm); "none": one sum over outputs for every sample;
            "mean" of these over the samples.

    Returns:
        Scalar, or a tensor of the leading dimensions for "none"; real for complex operands. The difference is taken and
        summed in float32 or better, which is also the result's dtype.

    Raises:
        TypeError: As in `multilinear_map`.
        ValueError: As in `multilinear_map`; the target's shape is not the map's, or the reduction is unknown.

    Example:
        >>> import torch, multilinear as ml
        >>> core, z = torch.ones(3, 2), torch.tensor([[1., 2.]], requires_grad=True)
        >>> loss = ml.multilinear_loss(torch.zeros(1, 3), core, [z])
        >>> loss.backward()
        >>> loss.item(), z.grad
        (27.0, tensor([[18., 18.]]))

    Reference:
        The paper's eq. 12-15; the gradient with respect to an input is eq. 23, 2 Aᵀ (A z - x).
    """
    _check_map("multilinear_loss", core, inputs)
    _checks.check_tensor("multilinear_loss", "target", target)
    _checks.check_same_place("multilinear_loss", [core, target])
    if reduction not in ("sum", "mean", "none"):
        raise ValueError(
            f'multilinear_loss: reduction must be "sum", "mean" or "none", got {reduction!r}; the paper sums'
        )
    expected = (*_batch_shape(inputs), core.shape[0])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"multilinear_loss: target must have the shape of the map, {expected}, got {tuple(target.shape)}; "
            f"the batch comes first"
        )
    in_factors = _factored.applies(core, [target, *inputs])
    weight, rows = _one_batch(*promote_for_product([core.detach() if in_factors else core, *inputs]))
    if not (target.is_floating_point() or target.is_complex()):  # integers carry no gradient back to the core
        target = target.to(torch.promote_types(weight.dtype, torch.float32))
    if in_factors:  # in the core's precision, as the gradient goes to the core through the target
        target = _factored.tap_target(target.to(torch.promote_types(target.dtype, core.dtype)), core, inputs)
    samples = count(target.shape[:-1])
    if reduction != "none" and _multilinear_loss.is_supported(target, weight, rows):
        scale = 1 / samples if reduction == "mean" else 1
        return _multilinear_loss.multilinear_loss(target.reshape(samples, -1), weight, rows, scale)
    prediction = _multilinear_map.multilinear_map(weight, rows).reshape(target.shape)
    if reduction == "none":
        return squared_error(prediction, target, per_sample=True)
    total = squared_error(prediction, target)
    return total if reduction == "sum" else total / max(samples, 1)


def compress(
    target: Num[Tensor, "*batch outputs"], core: Num[Tensor, "outputs *inputs"]
) -> tuple[Num[Tensor, "*batch columns"], Num[Tensor, "columns *inputs"], Num[Tensor, ""]]:
    """A smaller problem with the same loss, for a core that stays as it is while its inputs are sought.

    `multilinear_loss(target, core, z)` equals `multilinear_loss(small_target, small_core, z) + constant` for every `z`,
    gradients included. A core of k outputs and c = k_1 * ... * k_M columns, k greater than c, becomes one of c outputs:
    the factor R of its QR decomposition, and the target its coordinates in the range of Q. One decomposition of
    O(k c²) thus makes every later step k / c times smaller.

    Args:
        target: Tensor of shape `(..., k)`.
        core: Tensor of shape `(k, k_1, ..., k_M)`, of a floating-point or complex dtype.

    Returns:
        `(small_target, small_core, constant)` of shapes `(..., c)`, `(c, k_1, ..., k_M)` and `()`. None of them carries
        a gradient.

    Raises:
        TypeError: An operand is no torch tensor, or its numbers are integers.
        ValueError: The core has no more outputs than columns, or requires a gradient; the target's last size is not the
            core's first; the devices differ.

    Example:
        >>> import torch, multilinear as ml
        >>> core, target = torch.randn(500, 3, 4), torch.randn(8, 500)
        >>> small_target, small_core, constant = ml.compress(target, core)
        >>> small_target.shape, small_core.shape
        (torch.Size([8, 12]), torch.Size([12, 3, 4]))
        >>> z = [torch.randn(8, 3), torch.randn(8, 4)]
        >>> torch.allclose(
        ...     ml.multilinear_loss(target, core, z), ml.multilinear_loss(small_target, small_core, z) + constant
        ... )
        True

    Reference:
        Golub and Van Loan, "Matrix Computations", 4th edition, 2013, sec. 5.3.3 (least squares by QR).
    """
    _checks.check_tensor("compress", "target", target)
    _checks.check_tensor("compress", "core", core)
    _checks.check_same_place("compress", [target, core])
    columns = core.shape[1:].numel()
    if not (core.dtype.is_floating_point or core.dtype.is_complex):
        raise TypeError(f"compress: the core must hold floating-point numbers, got {core.dtype}; convert it first")
    if core.ndim < 2 or core.shape[0] <= columns:
        raise ValueError(
            f"compress: the core must have more outputs than columns, got {core.shape[:1].numel()} outputs and "
            f"{columns} columns from shape {tuple(core.shape)}; this problem is as small as it gets"
        )
    if core.requires_grad:
        raise ValueError("compress: the core requires a gradient, and a compressed one has none; pass core.detach()")
    if target.ndim == 0 or target.shape[-1] != core.shape[0]:
        raise ValueError(
            f"compress: target must have shape (..., {core.shape[0]}), got {tuple(target.shape)}; the batch comes first"
        )
    with torch.no_grad():
        target, core = promote_for_product([target, core])
        orthonormal, small = torch.linalg.qr(core.flatten(1))
        coordinates = target @ orthonormal.conj()
        constant = squared_error(coordinates @ orthonormal.mT, target)
    return coordinates, small.reshape(columns, *core.shape[1:]), constant


def squared_error(prediction: Tensor, target: Tensor, *, per_sample: bool = False) -> Tensor:
    """Sum of `|prediction - target|²` over everything, or over the last dimension, in float32 or better."""
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    residual = prediction - target
    if residual.dtype != dtype:
        residual = prediction.to(dtype) - target.to(dtype)
    if dtype.is_complex:
        residual = torch.view_as_real(residual).flatten(-2)
    return residual.square().sum(-1) if per_sample else residual.square().sum()


def _map(core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    core, *inputs = promote_for_product([core, *inputs])
    batch = _batch_shape(inputs)
    core, rows = _one_batch(core, *inputs)
    result = _multilinear_map.multilinear_map(core, rows)
    return result if len(batch) == 1 else result.reshape(*batch, core.shape[0])


def _one_batch(core: Tensor, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The same problem with every input a matrix, one row a sample, and what is constant multiplied into the core."""
    batch = _batch_shape(inputs)
    varying = list(inputs)
    samples = count(batch)
    if samples > 1:
        core, varying = _absorb_constants(core, varying, batch)
    return core, [
        z if z.ndim == 2 and z.shape[:-1] == batch else z.expand(*batch, -1).reshape(samples, z.shape[-1])
        for z in varying
    ]


def _absorb_constants(core: Tensor, inputs: list[Tensor], batch: torch.Size) -> tuple[Tensor, list[Tensor]]:
    """Multiplies inputs that are the same for the whole batch into the core, from the last mode to the first."""
    varying = []
    for mode in range(len(inputs), 0, -1):
        z = inputs[mode - 1]
        if count(z.shape[:-1]) == 1 or _is_expanded(z):
            vector = z[(0,) * (z.ndim - 1)]
            core = _mode_dot.mode_dot(core, vector.unsqueeze(0), mode).squeeze(mode)
        else:
            varying.insert(0, z)
    if varying:
        return core, varying
    return core.unsqueeze(1), [core.new_ones(1).expand(*batch, 1)]


def _is_expanded(z: Tensor) -> bool:
    """One vector expanded over the batch. Not one whose gradient or tangent is asked for: its rows may differ."""
    if z.requires_grad or forward_mode_active() or functorch_active():
        return False
    return all(stride == 0 for stride in z.stride()[:-1])


def _check_map(function: str, core: Tensor, inputs: Sequence[Tensor]) -> None:
    _checks.check_tensor(function, "core", core)
    _checks.check_tensors(function, "inputs", inputs)
    _checks.check_same_place(function, [core, inputs[0]])
    if core.ndim != len(inputs) + 1:
        raise ValueError(
            f"{function}: a core with {core.ndim} modes maps {max(core.ndim - 1, 0)} inputs, got {len(inputs)} "
            f"(core is "
            f"{tuple(core.shape)}, inputs are {_checks.shapes(inputs)}); the core's first mode is the output"
        )
    for position, z in enumerate(inputs):
        if z.ndim == 0 or z.shape[-1] != core.shape[position + 1]:
            raise ValueError(
                f"{function}: inputs[{position}] must have shape (..., {core.shape[position + 1]}), got "
                f"{tuple(z.shape)} "
                f"(core is {tuple(core.shape)}); the batch comes first"
            )
    _batch_shape(inputs, function)


def _batch_shape(inputs: Sequence[Tensor], function: str = "multilinear_map") -> torch.Size:
    first = inputs[0].shape[:-1]
    if all(z.shape[:-1] == first for z in inputs):
        return first
    try:
        return torch.broadcast_shapes(*(z.shape[:-1] for z in inputs))
    except RuntimeError as error:
        raise ValueError(
            f"{function}: the leading dimensions of the inputs must broadcast, got shapes {_checks.shapes(inputs)}; "
            f"give every input the same batch, or one vector for the whole batch"
        ) from error
