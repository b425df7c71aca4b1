"""The plain algebra's view of an array: torch, or any library of the Array-API standard, chosen by the input's type."""

from collections.abc import Sequence
from typing import Any, TypeVar

import array_api_compat
import torch

ArrayT = TypeVar("ArrayT")
"""Any array type: what goes in comes out."""


def is_array(value: Any) -> bool:
    """Whether the value is a torch tensor or an Array-API array."""
    return isinstance(value, torch.Tensor) or array_api_compat.is_array_api_obj(value)


def namespace(array: Any) -> Any:
    """The module with the array's functions (for torch its Array-API view)."""
    return array_api_compat.array_namespace(array)


def is_boolean(array: Any) -> bool:
    """Whether the elements are booleans."""
    return (
        array.dtype == torch.bool if isinstance(array, torch.Tensor) else namespace(array).isdtype(array.dtype, "bool")
    )


def permute(array: Any, axes: Sequence[int]) -> Any:
    """The array with its axes in another order."""
    return (
        array.permute(*axes) if isinstance(array, torch.Tensor) else namespace(array).permute_dims(array, tuple(axes))
    )


def reshape(array: Any, shape: Sequence[int]) -> Any:
    """The array with another shape, last index fastest."""
    return (
        array.reshape(tuple(shape))
        if isinstance(array, torch.Tensor)
        else namespace(array).reshape(array, tuple(shape))
    )
