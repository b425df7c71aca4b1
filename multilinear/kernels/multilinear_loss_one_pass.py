"""The first two products of the multilinear loss in one pass over the core, for few samples and columns.

    residual    R = K Bᵀ - X,   loss = ||R||²,   dX = -2 R
    inputs      dK = 2 R B

as in `kernels/multilinear_loss.py`, which names the symbols; but there every line reads the core from memory, here one
read serves both. A program takes a block of rows of B, finds their residuals, and reads the block again while it is in
the multiprocessor's or the second-level cache, to add R B to a sum of dK that stays in registers for all its blocks.
Each warp owns some columns of every chunk: it multiplies them with its part of K, the warps' sums make R, and each warp
adds to its own columns of dK. Every program has its slab of dK, and the slabs are added in their order.

This fits 16 samples and about 1500 columns: the paper's 28125 x 1200, not its 12288 x 10800.
"""

# triton declares neither launch options nor plain constants
# pyright: reportCallIssue=false, reportArgumentType=false

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from multilinear.kernels._factors import PROGRAMS, cdiv, khatri_rao_tile, strides_of

SAMPLES, COLUMNS, ORDER = 16, 1536, 3
"""The largest batch, core and number of inputs: dK's 16 x 1536 sums alone are 96 registers a thread."""

ROWS, WARPS, WIDTH, STAGES = 16, 8, 16, 3


@triton.jit
def _one_pass_kernel(
    target,  # (n, k)
    target_strides,
    core,  # (k, C)
    core_strides,
    inputs,  # each (n, k_m)
    strides,
    residual,  # (n, k), contiguous like all that is written; None where not needed
    of_target,  # (n, k)
    losses,  # (programs,)
    slabs,  # (programs, n, C): dK is their sum
    n,
    k,
    scale,
    SIZES: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WARPS: tl.constexpr,
    WIDTH: tl.constexpr,  # columns of a warp in a chunk
    STAGES: tl.constexpr,
):
    CHUNK: tl.constexpr = WARPS * WIDTH
    CHUNKS: tl.constexpr = (C + CHUNK - 1) // CHUNK
    rows = tl.arange(0, BLOCK_N).to(tl.int64)
    in_rows = (rows < n)[:, None]
    by_warp = (tl.arange(0, WARPS) * WIDTH)[:, None, None] + tl.arange(0, WIDTH)[None, None, :]
    squares = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    dk = ()
    for _ in tl.static_range(CHUNKS):
        dk += (tl.zeros((WARPS, BLOCK_N, WIDTH), tl.float32),)

    for block in range(tl.program_id(0), tl.cdiv(k, BLOCK_K), tl.num_programs(0)):
        outputs = (block * BLOCK_K + tl.arange(0, BLOCK_K)).to(tl.int64)
        parts = tl.zeros((WARPS, BLOCK_K, BLOCK_N), tl.float32)
        for chunk in tl.range(CHUNKS, num_stages=STAGES):
            b = _core_tile(core, core_strides, outputs, chunk * CHUNK + by_warp, k, C)
            flat = chunk * CHUNK + tl.arange(0, CHUNK)
            z = khatri_rao_tile(inputs, strides, SIZES, rows, flat, in_rows & (flat < C)[None, :])
            z = tl.permute(tl.reshape(z, (BLOCK_N, WARPS, WIDTH)), (1, 2, 0))
            parts = tl.dot(b, z, parts, input_precision="tf32x3")

        mask = in_rows & (outputs < k)[None, :]
        x = target + rows[:, None] * target_strides[0] + outputs[None, :] * target_strides[1]
        r = tl.trans(tl.sum(parts, 0)) - tl.load(x, mask=mask, other=0.0).to(tl.float32)
        squares += r * r
        offsets = rows[:, None] * k + outputs[None, :]
        if residual is not None:
            tl.store(residual + offsets, r, mask=mask)
        if of_target is not None:
            tl.store(of_target + offsets, (-2 * scale * r).to(of_target.dtype.element_ty), mask=mask)

        shared = tl.broadcast_to(r[None, :, :], (WARPS, BLOCK_N, BLOCK_K))
        sums = ()
        for c in tl.static_range(CHUNKS):
            b = _core_tile(core, core_strides, outputs, c * CHUNK + by_warp, k, C)
            sums += (tl.dot(shared, b, dk[c], input_precision=PRECISION),)
        dk = sums

    tl.store(losses + tl.program_id(0), tl.sum(tl.sum(squares, 1), 0))
    slab = slabs + tl.program_id(0).to(tl.int64) * n * C
    for c in tl.static_range(CHUNKS):
        columns = c * CHUNK + by_warp
        tl.store(slab + rows[None, :, None] * C + columns, 2 * scale * dk[c], mask=in_rows[None, :, :] & (columns < C))


@triton.jit
def _core_tile(core, strides, outputs, columns, k, C: tl.constexpr):
    offsets = outputs[None, :, None] * strides[0] + columns.to(tl.int64) * strides[1]
    return tl.load(core + offsets, mask=(outputs < k)[None, :, None] & (columns < C), other=0.0).to(tl.float32)


def fits(core: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether the kernel takes this core `(k, C)` and inputs: more, or rows that are not aligned, would spill."""
    (_, columns), samples = core.shape, inputs[0].shape[0]
    aligned = columns % 16 == 0 and core.stride(0) % 16 == 0 and core.stride(1) == 1 and core.data_ptr() % 16 == 0
    return samples <= SAMPLES and columns <= COLUMNS and len(inputs) <= ORDER and aligned


def residual_and_product_gradient(
    target: Tensor,
    core: Tensor,
    inputs: Sequence[Tensor],
    residual: Tensor | None,
    of_target: Tensor | None,
    scale: float,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Parts of the loss, and slabs `(programs, n, C)` whose sum is dK; fills the tensors that are not None."""
    (n, k), columns = target.shape, core.shape[1]
    programs = min(cdiv(k, ROWS), PROGRAMS // 2)
    losses = target.new_empty(programs, dtype=torch.float32)
    slabs = target.new_empty(programs, n, columns, dtype=torch.float32)
    _one_pass_kernel[(programs,)](
        target, target.stride(), core, core.stride(), tuple(inputs), strides_of(inputs),
        residual, of_target, losses, slabs, n, k, scale, tuple(z.shape[1] for z in inputs), columns, precision,
        SAMPLES, ROWS, WARPS, WIDTH, STAGES, num_warps=WARPS,
    )  # fmt: skip
    return losses, slabs
