"""Memory for large results on the CPU.

Fresh memory costs more than the arithmetic that fills it: the system hands it out in pages of 4 KiB, one interrupt
each, and takes large blocks back as soon as they are freed. In pages of 2 MiB the same memory arrives four times
faster: 0.06 s instead of 0.24 s for the 531 MB gradient of the paper's texture core (`python -m benchmarks
thresholds`). torch does this for everything under `THP_MEM_ALLOC_ENABLE=1`.
"""

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

LARGE = 16 << 20
"""Bytes from which it pays. Above 32 MiB the C library maps every block anew, above 16 it often does."""

HUGE_PAGE = 2 << 20


def is_large(shape: Sequence[int], like: Tensor) -> bool:
    """Whether `empty` would ask for huge pages."""
    large = math.prod(shape) * like.element_size() >= LARGE
    return large and like.device.type == "cpu" and hasattr(mmap, "MADV_HUGEPAGE")


def layout(tensor: Tensor) -> Tensor:
    """The tensor without its numbers: a formula tells how its results lie without computing them."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uninitialised contiguous tensor with the dtype and device of another; in huge pages if it is large."""
    if not is_large(shape, like):
        return like.new_empty(shape)
    elements = math.prod(shape)
    block = mmap.mmap(-1, elements * like.element_size() + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(block, dtype=like.dtype, count=elements).view(*shape)
