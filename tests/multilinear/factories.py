"""Inputs for the tests: float64 by default, from a fixed seed."""

import torch
from torch import Tensor


def random_tensors(shapes, *, dtype=torch.float64, requires_grad=False, seed=0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_(requires_grad) for shape in shapes]


def assert_close(actual, expected, **tolerances) -> None:
    if isinstance(expected, float):
        expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(actual), torch.as_tensor(expected), **tolerances)
