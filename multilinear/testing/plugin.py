"""Pytest fixtures for tests of tensor operators: `pytest_plugins = ["multilinear.testing.plugin"]` in conftest.py."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from multilinear.testing import inputs


@pytest.fixture
def random_tensors() -> Callable[..., list[Tensor]]:
    """The function `multilinear.testing.random_tensors`."""
    return inputs.random_tensors


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """`torch.empty` and its kin hand out NaN: a kernel that reads what nobody wrote is seen."""
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    settings.fill_uninitialized_memory = before[1]
