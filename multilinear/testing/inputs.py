"""Arguments for tests."""

from collections.abc import Sequence

import torch
from torch import Tensor


def random_tensors(
    shapes: Sequence[Sequence[int]],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    requires_grad: bool = False,
    seed: int = 0,
) -> list[Tensor]:
    """Normally distributed tensors, the same for the same seed on every device.

    Args:
        shapes: One shape for every tensor.
        dtype: Floating-point or complex.
        device: Where to put them; the numbers are drawn on the CPU.
        requires_grad: Whether they are leaves with a gradient.
        seed: Of the generator.

    Returns:
        One tensor for every shape.

    Example:
        >>> from multilinear.testing import random_tensors
        >>> a, b = random_tensors([(2, 3), (4, 3)])
        >>> a.shape, b.dtype
        (torch.Size([2, 3]), torch.float64)
    """
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(tuple(shape), dtype=dtype, generator=generator).to(device) for shape in shapes]
    return [value.requires_grad_(requires_grad) for value in values]
