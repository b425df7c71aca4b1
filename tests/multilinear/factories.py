"""What every test of `multilinear` uses."""

import torch

from multilinear.testing import random_tensors as random_tensors


def assert_close(actual, expected, **tolerances) -> None:
    if isinstance(expected, float):
        expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(actual), torch.as_tensor(expected), **tolerances)
