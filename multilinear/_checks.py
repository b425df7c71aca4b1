"""Checks of what the caller passed: every message names the function, the rule, what came and what to try."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multilinear._arrays import is_array, is_boolean, namespace
from multilinear.autograd._dispatch import is_distributed


def check_array(function: str, name: str, value: Any) -> None:
    """An array of numbers."""
    if isinstance(value, Tensor) and value.dtype != torch.bool:
        return
    if not is_array(value):
        raise TypeError(
            f"{function}: {name} must be an array (torch, numpy, or any Array-API library), got "
            f"{type(value).__name__}; "
            f"convert it first, for instance with torch.as_tensor"
        )
    if is_boolean(value):
        raise TypeError(f"{function}: {name} is boolean, which has no arithmetic; convert it, for instance to int64")


def check_arrays(function: str, name: str, values: Any) -> None:
    """A non-empty sequence of arrays of one library on one device."""
    if not isinstance(values, list | tuple):
        raise TypeError(
            f"{function}: {name} must be a list or tuple of arrays, got {_describe(values)}; "
            f"write {function}([a, b]) for two of them"
        )
    if not values:
        raise ValueError(f"{function}: {name} is empty; pass at least one array")
    if not all(isinstance(value, Tensor) and value.dtype != torch.bool for value in values):
        for position, value in enumerate(values):
            check_array(function, f"{name}[{position}]", value)
    check_same_place(function, values)


def check_tensor(function: str, name: str, value: Any) -> None:
    """A torch tensor of numbers."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}: {name} must be a torch.Tensor, got {type(value).__name__}; try torch.as_tensor")
    check_array(function, name, value)


def check_tensors(function: str, name: str, values: Any) -> None:
    """A non-empty sequence of torch tensors on one device."""
    check_arrays(function, name, values)
    if not all(isinstance(value, Tensor) for value in values):
        for position, value in enumerate(values):
            check_tensor(function, f"{name}[{position}]", value)


def check_same_place(function: str, values: Sequence[Any]) -> None:
    """All arrays come from one library and lie on one device."""
    first = values[0]
    if isinstance(first, Tensor):
        device = first.device
        if all(isinstance(value, Tensor) and value.device == device for value in values):
            _check_all_or_none_distributed(function, values)
            return
        others = [value for value in values if not isinstance(value, Tensor)]
        mixed = others or [value for value in values if value.device != first.device]
    else:
        others = [value for value in values if isinstance(value, Tensor) or namespace(value) is not namespace(first)]
        mixed = []
    if others:
        kinds = sorted({type(value).__module__.split(".")[0] for value in values})
        raise TypeError(f"{function}: all arrays must come from one library, got {kinds}; convert them to one")
    if mixed:
        devices = [str(value.device) for value in values]
        raise ValueError(f"{function}: all tensors must be on one device, got {devices}; move them with .to(device)")


def _check_all_or_none_distributed(function: str, values: Sequence[Tensor]) -> None:
    if is_distributed(values) and not all(is_distributed([value]) for value in values):
        kinds = [type(value).__name__ for value in values]
        raise TypeError(
            f"{function}: all tensors must be DTensors or none of them, got {kinds}; distribute the others over the "
            f"same mesh, DTensor.from_local(z, mesh, [Replicate()]), or use multilinear.distributed.OutputParallel"
        )


def check_ndim(function: str, name: str, array: Any, ndim: int, form: str) -> None:
    """An array with `ndim` modes; `form` says what they are, such as "(rows, rank)"."""
    if array.ndim != ndim:
        raise ValueError(
            f"{function}: {name} must have {ndim} mode{'s' * (ndim != 1)}, {form}, got shape {tuple(array.shape)}; "
            f"reshape it or add the missing mode"
        )


def check_order(function: str, order: Any) -> None:
    """Element order "C" or "F"."""
    if order not in ("C", "F"):
        raise ValueError(
            f'{function}: order must be "C" (last index fastest) or "F" (first index fastest), got {order!r}'
        )


def check_shape(function: str, shape: Any) -> tuple[int, ...]:
    """A shape: non-negative sizes."""
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError as error:
        raise TypeError(
            f"{function}: shape must be a sequence of integers, got {shape!r}; such as (3, 4, 2)"
        ) from error
    if any(size < 0 for size in sizes):
        raise ValueError(f"{function}: shape must not have negative sizes, got {sizes}; write every size out")
    return sizes


def check_mode(function: str, mode: Any, ndim: int) -> int:
    """A mode of a tensor with `ndim` modes, counted from 0; negative modes count from the end."""
    try:
        index = operator.index(mode)
    except TypeError as error:
        raise TypeError(f"{function}: mode must be an integer, got {mode!r}; modes count from 0") from error
    if ndim == 0:
        raise ValueError(f"{function}: a scalar has no modes, got mode {index}; reshape it to (1,)")
    if not -ndim <= index < ndim:
        raise ValueError(
            f"{function}: mode {index} is out of range for a tensor with {ndim} mode{'s' * (ndim != 1)}; "
            f"modes count from 0 to {ndim - 1}, or from -{ndim} to -1"
        )
    return index % ndim


def check_weights(function: str, weights: Any, rank: int) -> None:
    """One weight per component."""
    if tuple(weights.shape) != (rank,):
        raise ValueError(
            f"{function}: weights must have shape ({rank},), one per component, got {tuple(weights.shape)}; "
            f"pass a vector as long as the matrices are wide"
        )


def shapes(arrays: Sequence[Any]) -> list[tuple[int, ...]]:
    """The shapes of the arrays, for a message."""
    return [tuple(array.shape) for array in arrays]


def _describe(value: Any) -> str:
    return f"one array of shape {tuple(value.shape)}" if is_array(value) else type(value).__name__
