"""What the kernels share: entries of the row-wise Khatri-Rao product, made where they are used.

A kernel takes any number of factors as tuples: pointers, strides (row, column), and sizes known when it is compiled, so
that one source serves every order and finding the factors' columns takes no division.
"""

# triton declares neither launch options nor plain constants nor loops
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 264
"""Programs that keep a GPU busy: two for each of an H100's 132 multiprocessors."""


@triton.jit
def khatri_rao_tile(
    factors,  # pointers, each (n, k_m)
    strides,  # (row, column) of each
    SIZES: tl.constexpr,  # k_m
    rows,  # (N,), 64-bit
    columns,  # (C,), of the product
    mask,  # (N, C)
):
    """Entries `[rows, columns]` of the product `k[n, (i j l)] = a[n, i] b[n, j] c[n, l]` in float32; 0 off the mask."""
    tile = mask.to(tl.float32)
    rest = columns
    for m in tl.static_range(len(SIZES) - 1, -1, -1):
        index = (rest % SIZES[m]).to(tl.int64)
        rest = rest // SIZES[m]
        offsets = rows[:, None] * strides[m][0] + index[None, :] * strides[m][1]
        tile *= tl.load(factors[m] + offsets, mask=mask, other=0.0).to(tl.float32)
    return tile


def strides_of(tensors: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Strides of every tensor, as a kernel takes them."""
    return tuple(tensor.stride() for tensor in tensors)


def cdiv(a: int, b: int) -> int:
    """The quotient, rounded up."""
    return -(-a // b)


def block(size: int, largest: int, smallest: int = 1) -> int:
    """The power of two that covers `size`, within bounds that are powers of two."""
    return max(min(1 << (size - 1).bit_length(), largest), smallest)


def split(steps: int, programs: int) -> tuple[int, int]:
    """In how many parts to split a loop that `programs` programs run, so that the GPU is busy; the steps of a part."""
    parts = min(steps, cdiv(PROGRAMS, programs))
    each = cdiv(steps, parts)
    return cdiv(steps, each), each
