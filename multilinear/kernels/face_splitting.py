"""Row-wise Khatri-Rao product and its gradients, each in one pass.

    forward     k[n, (i j l)] = a[n, i] b[n, j] c[n, l]
    backward    dc[n, l] = sum over i, j of g[n, (i j l)] a[n, i] b[n, j], and so on for a, b

The backward kernel reads a tile of `g`, (rows, J, L) for one value p = (i ...) of all indices but the last two, and
takes everything from it before it reads the next:

    u[n, j] = sum over l of g c        db += left u         left[n, p] the product of the other factors
    w[n, l] = sum over j of g b        dc += left w
    q[n, p] = sum over j of u b        the gradient of left, which for three factors is a's

so `g` is read once, whichever gradients are needed. Of four factors, the first two get theirs from q, which is J L
times smaller than `g`. Where there are too few rows to fill a GPU, the loop over p (for two factors: over blocks of j)
is split; the parts go to slabs of their own and are added in the order of the slabs, so results never vary.

Column-wise products are the same on transposed views: tiles and result then follow the rows, which lie side by side.
"""

# triton declares neither launch options nor plain constants
# pyright: reportCallIssue=false, reportArgumentType=false

from collections.abc import Sequence
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from multilinear.kernels._factors import block, cdiv, khatri_rao_tile, split, strides_of

TILE = 2048
"""Elements that a program handles at a time: 16 a thread."""


@triton.jit
def _forward_kernel(
    factors,  # each (n, k_m)
    strides,
    product,  # (n, C)
    product_strides,
    n,
    C,
    SIZES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    column_blocks = tl.cdiv(C, BLOCK_C)
    rows = (tl.program_id(0) // column_blocks).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = (tl.program_id(0) % column_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (rows < n)[:, None] & (columns < C)[None, :]
    tile = khatri_rao_tile(factors, strides, SIZES, rows, columns, mask)
    offsets = rows[:, None] * product_strides[0] + columns[None, :].to(tl.int64) * product_strides[1]
    tl.store(product + offsets, tile.to(product.dtype.element_ty), mask=mask)


@triton.jit
def _backward_kernel(
    gradient,  # (n, C)
    gradient_strides,
    left_factors,  # each (n, k_m), none for two factors
    left_strides,
    middle,  # (n, J)
    middle_strides,
    last,  # (n, L)
    last_strides,
    of_left,  # (j blocks * l blocks, n, P); None where not needed
    of_middle,  # (left splits * l blocks, n, J)
    of_last,  # (splits, n, L)
    n,
    left_splits,
    left_steps,  # values of p a program takes
    middle_splits,
    middle_steps,  # blocks of j a program takes
    LEFT_SIZES: tl.constexpr,
    P: tl.constexpr,
    J: tl.constexpr,
    L: tl.constexpr,
    BY_COLUMNS: tl.constexpr,  # whether the results' rows lie side by side
    BLOCK_N: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    L_BLOCKS: tl.constexpr = (L + BLOCK_L - 1) // BLOCK_L

    program = tl.program_id(0)
    l_block = program % L_BLOCKS
    middle_split = (program // L_BLOCKS) % middle_splits
    left_split = (program // (L_BLOCKS * middle_splits)) % left_splits
    rows = (program // (L_BLOCKS * middle_splits * left_splits)).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < n

    ls = l_block * BLOCK_L + tl.arange(0, BLOCK_L)
    c_mask = in_rows[:, None] & (ls < L)[None, :]
    c = _factor_tile(last, last_strides, rows, ls, c_mask)
    dc = tl.zeros((BLOCK_N, BLOCK_L), tl.float32)

    db = tl.zeros((BLOCK_N, BLOCK_J), tl.float32)
    for step in tl.range(middle_steps * left_steps, num_stages=3):  # p runs fastest
        p = left_split * left_steps + step % left_steps
        j_block = middle_split * middle_steps + step // left_steps
        js = j_block * BLOCK_J + tl.arange(0, BLOCK_J)
        b_mask = (in_rows & (p < P))[:, None] & (js < J)[None, :]
        mask = b_mask[:, :, None] & c_mask[:, None, :]

        columns = (p * J + js)[None, :, None].to(tl.int64) * L + ls[None, None, :]
        offsets = rows[:, None, None] * gradient_strides[0] + columns * gradient_strides[1]
        g = tl.load(gradient + offsets, mask=mask, other=0.0).to(tl.float32)

        b = _factor_tile(middle, middle_strides, rows, js, b_mask)
        left = khatri_rao_tile(left_factors, left_strides, LEFT_SIZES, rows, p + tl.arange(0, 1), in_rows[:, None])
        if of_last is not None:
            dc += left * tl.sum(g * b[:, :, None], 1)
        if of_left is not None or of_middle is not None:
            u = tl.sum(g * c[:, None, :], 2)
            if of_left is not None:
                slab = j_block * L_BLOCKS + l_block
                target = of_left + _offsets(slab, rows, p, n, P, BY_COLUMNS)
                q = tl.sum(u * b, 1).to(of_left.dtype.element_ty)
                tl.store(target, q, mask=in_rows & (p < P) & (j_block * BLOCK_J < J))
            if of_middle is not None:
                db += left * u
                last_p = step % left_steps == left_steps - 1
                slab = left_split * L_BLOCKS + l_block
                target = of_middle + _offsets(slab, rows[:, None], js[None, :], n, J, BY_COLUMNS)
                b_mask = in_rows[:, None] & (js < J)[None, :]
                tl.store(target, db.to(of_middle.dtype.element_ty), mask=b_mask & last_p)
                db = tl.where(last_p, 0.0, db)
    if of_last is not None:
        slab = left_split * middle_splits + middle_split
        target = of_last + _offsets(slab, rows[:, None], ls[None, :], n, L, BY_COLUMNS)
        tl.store(target, dc.to(of_last.dtype.element_ty), mask=c_mask)


@triton.jit
def _factor_tile(factor, strides, rows, columns, mask):
    offsets = rows[:, None] * strides[0] + columns[None, :].to(tl.int64) * strides[1]
    return tl.load(factor + offsets, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _offsets(slab, rows, columns, n, WIDTH: tl.constexpr, BY_COLUMNS: tl.constexpr):
    """Of elements of a `(slabs, n, WIDTH)` tensor."""
    start = slab.to(tl.int64) * n * WIDTH
    if BY_COLUMNS:
        return start + columns.to(tl.int64) * n + rows
    return start + rows * WIDTH + columns


def forward(*factors: Tensor) -> Tensor:
    """Factors `(n, k_m)` to `(n, k_1 * ... * k_M)`, laid out as ATen does it (`_by_columns`)."""
    n, sizes = factors[0].shape[0], tuple(factor.shape[1] for factor in factors)
    columns = prod(sizes)
    by_columns = _by_columns(factors[-1]) or all(0 < factor.stride(0) < factor.stride(1) for factor in factors)
    product = factors[0].new_empty(columns, n).mT if by_columns else factors[0].new_empty(n, columns)
    if product.numel() == 0:
        return product
    block_n = block(n, 128 if by_columns else 4)
    block_c = block(columns, TILE // block_n)
    grid = (cdiv(n, block_n) * cdiv(columns, block_c),)
    with torch.cuda.device_of(product):
        _forward_kernel[grid](
            factors, strides_of(factors), product, product.stride(), n, columns, sizes, block_n, block_c
        )
    return product


def backward(gradient: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> "list[Tensor | None]":
    """Gradient of every needed factor, laid out like `gradient`, which is `(n, k_1 * ... * k_M)`."""
    *left, middle, last = factors
    n, sizes = last.shape[0], tuple(factor.shape[1] for factor in factors)
    if gradient.numel() == 0 or not any(needed):
        return [torch.zeros_like(factor) if need else None for factor, need in zip(factors, needed, strict=True)]
    by_columns = _by_columns(gradient)
    p = prod(sizes[:-2])
    block_n, block_j, block_l = _backward_blocks(n, *sizes[-2:], by_columns=gradient.stride(0) < gradient.stride(1))
    row_blocks, j_blocks, l_blocks = cdiv(n, block_n), cdiv(sizes[-2], block_j), cdiv(sizes[-1], block_l)
    left_splits, left_steps, middle_splits, middle_steps = 1, p, 1, j_blocks
    if left:
        left_splits, left_steps = split(p, row_blocks * l_blocks)
    else:
        middle_splits, middle_steps = split(j_blocks, row_blocks * l_blocks)

    def partial(parts: int, columns: int, need: bool, final: bool = True) -> Tensor | None:
        dtype = last.dtype if parts == 1 and final else torch.float32
        if by_columns:
            return last.new_empty(parts, columns, n, dtype=dtype).mT if need else None
        return last.new_empty(parts, n, columns, dtype=dtype) if need else None

    of_left = partial(j_blocks * l_blocks, p, any(needed[:-2]), final=len(left) == 1)
    of_middle = partial(left_splits * l_blocks, sizes[-2], needed[-2])
    of_last = partial(left_splits * middle_splits, sizes[-1], needed[-1])
    with torch.cuda.device_of(gradient):
        _backward_kernel[(row_blocks * left_splits * middle_splits * l_blocks,)](
            gradient, gradient.stride(), tuple(left), strides_of(left), middle, middle.stride(), last, last.stride(),
            of_left, of_middle, of_last, n, left_splits, left_steps, middle_splits, middle_steps,
            sizes[:-2], p, *sizes[-2:], by_columns, block_n, block_j, block_l,
        )  # fmt: skip
    of_product = _sum(of_left, torch.float32 if len(left) > 1 else last.dtype)
    of_factors: list[Tensor | None] = [of_product] * len(left)
    if of_product is not None and len(left) > 1:
        of_factors = backward(of_product, left, needed[:-2])
    return [*of_factors, _sum(of_middle, last.dtype), _sum(of_last, last.dtype)]


def _sum(slabs: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if slabs is None:
        return None
    if slabs.shape[0] == 1:
        return slabs[0]
    return slabs.mT.sum(0).to(dtype).mT if _by_columns(slabs) else slabs.sum(0).to(dtype)


def _by_columns(tensor: Tensor) -> bool:
    """Whether neighbours in memory are rows: a transposed view, as column-wise products have it."""
    return tensor.stride(-2) == 1 and tensor.stride(-1) != 1


def _backward_blocks(n: int, middle: int, last: int, *, by_columns: bool) -> tuple[int, int, int]:
    """Shape of the tile: whole factors if they fit, rows to fill it; by columns, at least a sector of rows."""
    room = TILE // block(n, 32) if by_columns else TILE
    block_j = block(middle, min(16, room))
    block_l = block(last, room // block_j)
    block_j = block(middle, room // block_l)
    return block(n, TILE // (block_j * block_l)), block_j, block_l
