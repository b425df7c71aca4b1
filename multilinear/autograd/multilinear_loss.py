"""The squared error of the multilinear map (the paper's eq. 15) with its gradients (eq. 23), in one pass over the core.

    residual    r = K Bᵀ - x,   K = face_splitting(z)
    loss        ||r||²
    gradients   dx = -2 r,   dB = 2 rᵀ K,   dK = 2 r B,   dz_m = face_splitting's backward of dK

All of it needs the rows of B that it has just read, so that blocks of rows go through the three matrix products while
they are in the cache: the core, the largest thing here by far, is read from memory once instead of twice, and neither K
nor the residual of all outputs is kept. The gradients are thus found with the value, and the backward pass multiplies
them by its own gradient. A backward pass that is itself differentiated, or is run twice, makes them again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multilinear.autograd import _memory, face_splitting, multilinear_map
from multilinear.autograd._dispatch import check_backend, is_distributed, is_eager, takes_formula, takes_kernel
from multilinear.autograd._transforms import forward_mode_active, functorch_active, is_batched_gradient

BLOCK = 1 << 19, 1 << 22
"""Fewest and most elements of the core, or of the residual, in a block of rows: 2 and 16 MB in float32, on a CPU."""

SAMPLES = 1024
"""Samples that go through the core together: bounds the memory for K."""


def is_supported(target: Tensor, core: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether `multilinear_loss` of this file takes these operands: real ones of full precision, outside transforms."""
    operands = (target, core, *inputs)
    return (
        (is_eager(*operands) or _is_split_by_rows(target, core, inputs))
        and target.numel() * core.numel() > 0
        and core.dtype in (torch.float32, torch.float64)
        and all(x.dtype == core.dtype for x in operands)
        and len(inputs) <= multilinear_map.LARGEST
        and not takes_formula("multilinear_loss", multilinear_map.elements(core, *inputs), operands)
    )


def _is_split_by_rows(target: Tensor, core: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether these are DTensors of which every process can take its part of the loss, outside transforms."""
    if not is_distributed([core]) or forward_mode_active() or functorch_active():
        return False
    from multilinear.autograd._sharding import loss_indices

    return loss_indices(core, target, inputs) is not None


def multilinear_loss(target: Tensor, core: Tensor, inputs: Sequence[Tensor], scale: float) -> Tensor:
    """`scale` times the sum of squares; target `(n, k)`, core `(k, k_1, ..., k_M)`, inputs `(n, k_m)`."""
    check_backend("multilinear_loss", core)
    if not torch.is_grad_enabled():  # of which a Function's needs_input_grad does not know
        return loss_and_gradients(target, core, inputs, [False] * (len(inputs) + 2), scale)[0]
    loss: Any = _Loss.apply(scale, target, core, *inputs)
    return loss


def loss_and_gradients(
    target: Tensor, core: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool], scale: float
) -> "tuple[Tensor, list[Tensor | None]]":
    """The loss and its gradients with respect to the target, the core and every input, where needed."""
    if is_distributed([core]):
        from multilinear.autograd import _sharding

        return _sharding.loss_and_gradients(loss_and_gradients, target, core, inputs, needed, scale)
    if takes_kernel("multilinear_loss", multilinear_map.elements(core, *inputs), [target, core, *inputs]):
        from multilinear.kernels import multilinear_loss as kernels

        return kernels.loss_and_gradients(target, core, inputs, needed, scale)
    needs_target, needs_core, *needs_inputs = needed
    samples, outputs = target.shape
    matrix = core.flatten(1)
    rows = _rows_per_block(matrix.shape[1], min(samples, SAMPLES)) if core.device.type == "cpu" else outputs
    blocks = range(0, outputs, rows)
    norms = target.new_zeros(len(range(0, samples, SAMPLES)), len(blocks), min(samples, SAMPLES))
    of_target = _memory.empty(target.shape, target) if needs_target else None
    of_matrix = _memory.empty(matrix.shape, matrix) if needs_core else None
    of_inputs = [torch.empty_like(z) if need else None for z, need in zip(inputs, needs_inputs, strict=True)]
    for part, first in enumerate(range(0, samples, SAMPLES)):
        of_samples = slice(first, first + SAMPLES)
        factors = [z[of_samples] for z in inputs]
        product = face_splitting.forward(*factors)
        of_product = torch.zeros_like(product) if any(needs_inputs) else None
        for index, start in enumerate(blocks):
            block = slice(start, start + rows)
            core_rows = matrix[block]
            residual = torch.addmm(target[of_samples, block], product, core_rows.mT, beta=-1)
            torch.linalg.vector_norm(residual, dim=1, out=norms[part, index, : len(residual)])
            if not any(needed):
                continue
            residual *= 2 * scale
            if of_target is not None:
                torch.neg(residual, out=of_target[of_samples, block])
            if of_product is not None:
                of_product.addmm_(residual, core_rows)
            if of_matrix is not None and part == 0:
                torch.mm(residual.mT, product, out=of_matrix[block])
            elif of_matrix is not None:
                of_matrix[block].addmm_(residual.mT, product)
        if of_product is not None:
            parts = face_splitting.backward(of_product, factors, needs_inputs)
            for result, gradient in zip(of_inputs, parts, strict=True):
                if result is not None and gradient is not None:
                    result[of_samples] = gradient
    loss = norms.double().square().sum().mul(scale).to(target.dtype)
    return loss, [of_target, None if of_matrix is None else of_matrix.view(core.shape), *of_inputs]


def _rows_per_block(columns: int, samples: int) -> int:
    """Four times as many rows as samples: dK, read and written once a block, then costs little beside the core."""
    fewest, most = (max(elements // max(columns, samples), 1) for elements in BLOCK)
    return min(max(4 * samples, fewest), most)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scale: float, target: Tensor, core: Tensor, *inputs: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[1:]
        with torch.no_grad():
            loss, ctx.gradients = loss_and_gradients(target, core, inputs, needed, scale)
        ctx.save_for_backward(target, core, *inputs)
        ctx.scale = scale
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        target, core, *inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or is_batched_gradient(gradient):  # what was kept has no history and no batch
            residual = (2 * ctx.scale * gradient) * (multilinear_map.multilinear_map(core, inputs) - target)
            order = len(inputs)
            results = multilinear_map.OPERATORS[order].backward(residual, [core, *inputs], needed[1:])
            return None, -residual if needed[0] else None, *results
        # Handed out once, so that autograd can keep the core's gradient without copying it.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = loss_and_gradients(target, core, inputs, needed, ctx.scale)
        number = _local(gradient)
        if number.device.type == "cpu" and number.item() == 1:
            return None, *gradients
        for x in gradients:
            if x is not None:
                _local(x).mul_(number)
        return None, *gradients


def _local(x: Any) -> Tensor:
    """The numbers of this process; those of a scalar are everybody's."""
    if not is_distributed([x]):
        return x
    return x.full_tensor() if x.ndim == 0 else x.to_local()
