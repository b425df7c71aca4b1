"""Squared error of the multilinear map with its gradients, which the forward pass finds (the paper's eq. 12-15, 23).

With B the core as a matrix `(k, C)` and K the row-wise Khatri-Rao product of the inputs, `(n, C)`:

    residual    R = K Bᵀ - X,   loss = ||R||²,   dX = -2 R
    inputs      dK = 2 R B, and from dK every dz_m in one pass (`kernels/face_splitting.py`)
    core        dB = 2 Rᵀ K

Three matrix products. K is an operand of two of them and never in memory: a program makes the tile it multiplies with
from the inputs, which the caches hold. The first product's epilogue subtracts the target and sums the squares.

Precision. All arithmetic is float32, half precision is a way to store. The residual is what is left when two large
numbers cancel, so its product is 3xTF32 (operands split in two, three products), as exact as float32. What follows
cancels nothing: there single TF32 does where torch's setting for matrix products or half precision allows it, else
3xTF32, too.
"""

# triton declares neither launch options nor plain constants
# pyright: reportCallIssue=false, reportArgumentType=false

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from multilinear.kernels import face_splitting, multilinear_loss_one_pass
from multilinear.kernels._factors import block, cdiv, khatri_rao_tile, split, strides_of

SAMPLES = 64
"""Samples that a program handles at a time, at most."""


@triton.jit
def _residual_kernel(
    target,  # (n, k)
    target_strides,
    core,  # (k, C)
    core_strides,
    inputs,  # each (n, k_m)
    strides,
    residual,  # (n, k), contiguous like all that is written; None where not needed
    of_target,  # (n, k)
    losses,  # (programs,)
    n,
    k,
    scale,
    SIZES: tl.constexpr,
    C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    n_blocks = tl.cdiv(n, BLOCK_N)  # the blocks of samples that share rows of the core run side by side
    rows = (tl.program_id(0) % n_blocks).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    outputs = (tl.program_id(0) // n_blocks).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask = (outputs < k)[:, None] & (rows < n)[None, :]
    r = tl.zeros((BLOCK_K, BLOCK_N), tl.float32)
    for start in range(0, C, BLOCK_C):
        columns = start + tl.arange(0, BLOCK_C)
        in_columns = (columns < C)[None, :]
        b = _core_tile(core, core_strides, outputs, columns, (outputs < k)[:, None] & in_columns)
        z = khatri_rao_tile(inputs, strides, SIZES, rows, columns, (rows < n)[:, None] & in_columns)
        r = tl.dot(b, tl.trans(z), r, input_precision="tf32x3")
    x = target + rows[None, :] * target_strides[0] + outputs[:, None] * target_strides[1]
    r -= tl.load(x, mask=mask, other=0.0).to(tl.float32)
    tl.store(losses + tl.program_id(0), tl.sum(tl.sum(r * r, 1), 0))
    offsets = rows[None, :] * k + outputs[:, None]
    if residual is not None:
        tl.store(residual + offsets, r, mask=mask)
    if of_target is not None:
        tl.store(of_target + offsets, (-2 * scale * r).to(of_target.dtype.element_ty), mask=mask)


@triton.jit
def _product_gradient_kernel(
    residual,  # (n, k), contiguous
    core,  # (k, C)
    core_strides,
    slabs,  # (splits, n, C), contiguous: dK is their sum
    n,
    k,
    scale,
    splits,
    steps,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    n_blocks, c_blocks = tl.cdiv(n, BLOCK_N), tl.cdiv(C, BLOCK_C)
    rows = (tl.program_id(0) % n_blocks).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = (tl.program_id(0) // n_blocks) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.program_id(0) // (n_blocks * c_blocks)
    dk = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for step in range(steps):
        # From the core's last rows to its first: the residual's product left the last ones in the cache.
        k_block = steps * splits - 1 - (step * splits + split)
        outputs = (k_block * BLOCK_K + tl.arange(0, BLOCK_K)).to(tl.int64)
        r = residual + rows[:, None] * k + outputs[None, :]
        r = tl.load(r, mask=(rows < n)[:, None] & (outputs < k)[None, :], other=0.0)
        b = _core_tile(core, core_strides, outputs, columns, (outputs < k)[:, None] & (columns < C)[None, :])
        dk = tl.dot(r, b, dk, input_precision=PRECISION)
    offsets = (split.to(tl.int64) * n + rows)[:, None] * C + columns[None, :]
    tl.store(slabs + offsets, 2 * scale * dk, mask=(rows < n)[:, None] & (columns < C)[None, :])


@triton.jit
def _core_gradient_kernel(
    residual,  # (n, k), contiguous
    inputs,  # each (n, k_m)
    strides,
    of_core,  # (k, C), contiguous
    n,
    k,
    scale,
    SIZES: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    c_blocks = tl.cdiv(C, BLOCK_C)
    columns = tl.program_id(0) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    outputs = (tl.program_id(0) // c_blocks).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    db = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
    for start in range(0, n, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N).to(tl.int64)
        source = residual + rows[None, :] * k + outputs[:, None]
        r = tl.load(source, mask=(outputs < k)[:, None] & (rows < n)[None, :], other=0.0)
        z = khatri_rao_tile(inputs, strides, SIZES, rows, columns, (rows < n)[:, None] & (columns < C)[None, :])
        db = tl.dot(r, z, db, input_precision=PRECISION)
    of_core += outputs[:, None] * C + columns[None, :]
    mask = (outputs < k)[:, None] & (columns < C)[None, :]
    tl.store(of_core, (2 * scale * db).to(of_core.dtype.element_ty), mask=mask)


@triton.jit
def _core_tile(core, strides, outputs, columns, mask):
    offsets = outputs[:, None] * strides[0] + columns[None, :].to(tl.int64) * strides[1]
    return tl.load(core + offsets, mask=mask, other=0.0).to(tl.float32)


def loss_and_gradients(
    target: Tensor, core: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool], scale: float = 1.0
) -> "tuple[Tensor, list[Tensor | None]]":
    """`scale` times the loss, a float32 scalar, and its gradient for every needed tensor of `[target, core, *inputs]`.

    `target` is `(n, k)`, `core` is `(k, k_1, ..., k_M)`, `inputs` are `(n, k_m)`, all of one dtype. A core whose modes
    but the first do not lie in memory as one is copied.
    """
    target, core, *inputs = (x.resolve_neg() for x in (target, core, *inputs))  # kernels read the memory as it is
    shape, core, scale = core.shape, core.flatten(1), float(scale)
    (n, k), columns = target.shape, core.shape[1]
    if target.numel() == 0 or columns == 0:
        return _of_nothing(target, [target, core.unflatten(1, shape[1:]), *inputs], needed, scale)
    needs_target, needs_core, *needs_inputs = needed
    # by cuBLAS's setting, as the common one raises an error where somebody has set this one alone
    exact = target.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32"
    precision = "tf32x3" if exact else "tf32"

    of_target = target.new_empty(n, k) if needs_target else None
    one_pass = any(needs_inputs) and multilinear_loss_one_pass.fits(core, inputs)
    keeps_residual = needs_core or (any(needs_inputs) and not one_pass)
    residual = target.new_empty(n, k, dtype=torch.float32) if keeps_residual else None
    slabs: Tensor | None = None
    of_core: Tensor | None = None
    of_inputs: list[Tensor | None] = [None] * len(inputs)
    with torch.cuda.device_of(target):
        if one_pass:
            losses, slabs = multilinear_loss_one_pass.residual_and_product_gradient(
                target, core, inputs, residual, of_target, scale, precision
            )
        else:
            losses = _residual(target, core, inputs, residual, of_target, scale)
            if any(needs_inputs) and residual is not None:
                slabs = _product_gradient(residual, core, scale, precision)
        if needs_core and residual is not None:
            of_core = _core_gradient(residual, core, inputs, scale, precision).view(shape)
        if slabs is not None:
            of_product = slabs.sum(0)
            of_inputs = [of_product.to(target.dtype)]
            if len(inputs) > 1:
                of_inputs = face_splitting.backward(of_product, inputs, needs_inputs)
    return losses.sum(dtype=torch.float64).mul(scale).float(), [of_target, of_core, *of_inputs]


def _residual(
    target: Tensor,
    core: Tensor,
    inputs: Sequence[Tensor],
    residual: Tensor | None,
    of_target: Tensor | None,
    scale: float,
) -> Tensor:
    """Parts of the loss; fills the tensors that are not None."""
    (n, k), columns = target.shape, core.shape[1]
    narrow = columns % 16 != 0 or len(inputs) > 3  # unaligned rows and a fourth input take registers for addresses
    block_n = block(n, SAMPLES // 2 if narrow else SAMPLES, 16)
    block_k, block_c, warps = {16: (64, 64, 4), 32: (64, 32, 4), 64: (128, 32, 8)}[block_n]
    block_c = 32 if narrow else block_c
    programs = cdiv(n, block_n) * cdiv(k, block_k)
    losses = target.new_empty(programs, dtype=torch.float32)
    _residual_kernel[(programs,)](
        target, target.stride(), core, core.stride(), tuple(inputs), strides_of(inputs), residual, of_target, losses,
        n, k, scale, tuple(z.shape[1] for z in inputs), columns, block_n, block_k, block_c,
        num_warps=warps, num_stages=3,
    )  # fmt: skip
    return losses


def _product_gradient(residual: Tensor, core: Tensor, scale: float, precision: str) -> Tensor:
    """Slabs `(splits, n, C)` whose sum is dK."""
    (n, k), columns = residual.shape, core.shape[1]
    block_n, block_k, block_c = block(n, SAMPLES, 16), 32, 128
    programs = cdiv(n, block_n) * cdiv(columns, block_c)
    splits, steps = split(cdiv(k, block_k), programs)
    slabs = residual.new_empty(splits, n, columns)
    _product_gradient_kernel[(programs * splits,)](
        residual, core, core.stride(), slabs, n, k, scale, splits, steps, columns, precision,
        block_n, block_k, block_c, num_warps=8 if block_n == SAMPLES else 4, num_stages=3,
    )  # fmt: skip
    return slabs


def _core_gradient(residual: Tensor, core: Tensor, inputs: Sequence[Tensor], scale: float, precision: str) -> Tensor:
    (n, k), columns = residual.shape, core.shape[1]
    block_n, block_k, block_c = block(n, 32, 16), 64, 128
    of_core = core.new_empty(k, columns)
    _core_gradient_kernel[(cdiv(k, block_k) * cdiv(columns, block_c),)](
        residual, tuple(inputs), strides_of(inputs), of_core, n, k, scale, tuple(z.shape[1] for z in inputs), columns,
        precision, block_n, block_k, block_c, num_warps=8, num_stages=1,
    )  # fmt: skip
    return of_core


def _of_nothing(
    target: Tensor, tensors: Sequence[Tensor], needed: Sequence[bool], scale: float
) -> "tuple[Tensor, list[Tensor | None]]":
    """The map of no samples or from no columns is zero, and so are all gradients but the target's."""
    gradients = [torch.zeros_like(tensor) if need else None for tensor, need in zip(tensors, needed, strict=True)]
    gradients[0] = 2 * scale * target if needed[0] else None
    return target.float().square().sum().mul(scale), gradients
