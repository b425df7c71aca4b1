"""Squared error of a Tucker model with orthonormal factors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from multilinear.contractions import multi_mode_dot

CANCELLED = 1e4
"""Times the machine's precision: a share of the tensor's norm below which `norm - ||core||²` is mostly rounding."""
BLOCK = 1 << 22


def squared_residual(
    tensor: Tensor, core: Tensor, factors: Sequence[Tensor | None], norm: float, core_norm: float
) -> float:
    """`||tensor||² - ||core||²`, or, where that would cancel, the squared differences summed in blocks of rows."""
    loss = norm - core_norm
    if loss > CANCELLED * torch.finfo(tensor.dtype).eps * norm:
        return loss
    others = [(mode, factor) for mode, factor in enumerate(factors) if factor is not None and mode > 0]
    wide = multi_mode_dot(core, [factor for _, factor in others], [mode for mode, _ in others]).flatten(1)
    matrix = tensor.flatten(1)
    rows = max(BLOCK // matrix.shape[1], 1)
    first = factors[0]
    total = 0.0
    for start in range(0, len(matrix), rows):
        block = slice(start, start + rows)
        model = wide[block] if first is None else first[block] @ wide
        total += (model - matrix[block]).double().square().sum().item()
    return total
