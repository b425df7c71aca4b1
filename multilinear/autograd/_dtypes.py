"""The one dtype rule of the torch operators, applied once per public call.

Mixed dtypes promote as torch promotes them. An operator that contains a matrix product takes part in autocast as
`torch.matmul` does: floating-point operands go to the autocast dtype, float64 ones excepted, and gradients come back
in the operand's own dtype.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

_HALVED = (torch.float32, torch.float16, torch.bfloat16)  # what autocast casts


def promote(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """All tensors in their common dtype."""
    dtype = tensors[0].dtype
    if all(tensor.dtype == dtype for tensor in tensors):
        return tensors
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return [tensor.to(dtype) for tensor in tensors]


def promote_for_product(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """All tensors in the dtype of a matrix product: the autocast dtype where autocast is on, else the common one."""
    device = tensors[0].device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        tensors = [tensor.to(dtype) if tensor.dtype in _HALVED else tensor for tensor in tensors]
    return promote(tensors)
