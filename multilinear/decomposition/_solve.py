"""The small dense problems inside the fits: Gram systems, leading subspaces and the nearest orthonormal matrix."""

import torch
from torch import Tensor

from multilinear.matricization import unfold

BLOCK = 1 << 22
"""Elements of an unfolding that are copied at a time."""
LARGE = 2000
"""Size of the smaller side of an unfolding from which a few leading vectors are found by subspace iteration."""


def solve_gram(gram: Tensor, right: Tensor) -> Tensor:
    """`right @ pinv(gram)`, batched, for symmetric positive semidefinite Gram matrices.

    Directions with eigenvalues below rounding count as zero: the shortest least-squares solution, so that dependent
    components neither blow up nor make the fit worse. In float64, as Gram matrices square the condition.
    """
    values, vectors = torch.linalg.eigh(gram.double())
    epsilon = torch.finfo(gram.dtype).eps
    smallest = values[..., -1:].clamp_min(0) * (epsilon * gram.shape[-1])
    inverse = torch.where(values > smallest, 1 / values.where(values > smallest, 1), 0)
    return ((right.double() @ vectors) * inverse.unsqueeze(-2) @ vectors.mT).to(right.dtype)


def leading(tensor: Tensor, mode: int, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Left singular vectors `(I_mode, rank)` of an unfolding, and its singular values, the largest first.

    Their signs are fixed: the entry largest in size of every vector is positive. With a rank far below a large
    unfolding's, the vectors are found by subspace iteration with a fixed seed, and only their values returned.
    """
    rows = tensor.shape[mode]
    columns = tensor.numel() // rows
    rank = min(rows, columns) if rank is None else rank
    if min(rows, columns) > LARGE and 4 * rank < min(rows, columns):
        vectors, values = _by_iteration(unfold(tensor, mode), rank)
    elif columns <= 2 * rows:
        vectors, values, _ = torch.linalg.svd(unfold(tensor, mode), full_matrices=False)
    else:
        vectors, values = _by_blocks(tensor, mode)
    vectors = vectors[:, :rank]
    return vectors * signs_of(vectors), values


def signs_of(vectors: Tensor) -> Tensor:
    """For every column the sign of its entry largest in size, so that LAPACK's choice does not matter."""
    signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    return torch.where(signs == 0, 1, signs)


def polar(matrix: Tensor) -> Tensor:
    """The matrix with orthonormal columns nearest to one with no more columns than rows: orthogonal Procrustes."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def _by_blocks(tensor: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """Wide unfoldings, never formed: from their triangular factor, or in float32 from their Gram matrix in float64."""
    rows = tensor.shape[mode]
    total = tensor.new_zeros(rows, rows, dtype=torch.float64)
    if tensor.dtype == torch.float32:  # what squaring loses is below the tensor's own rounding
        for block in _blocks(tensor, mode):
            block = block.double()
            total.addmm_(block, block.mT)
        values, vectors = torch.linalg.eigh(total)
        return vectors.flip(1).float(), values.flip(0).clamp_min(0).sqrt().float()
    for block in _blocks(tensor, mode):
        total = torch.linalg.qr(torch.cat([total, block.mT]), mode="r").R
    vectors, values, _ = torch.linalg.svd(total.mT)
    return vectors, values


def _blocks(tensor: Tensor, mode: int) -> "list[Tensor] | map[Tensor]":
    """The unfolding in blocks of columns, `(I_mode, some)`."""
    rows = tensor.shape[mode]
    cube = tensor.reshape(tensor.shape[:mode].numel(), rows, -1)
    if len(cube) == 1:
        return list(cube[0].split(max(BLOCK // rows, 4 * rows), dim=1))
    slabs = cube.split(max(BLOCK // cube[0].numel(), 1))
    return map(lambda slab: slab.transpose(0, 1).reshape(rows, -1), slabs)


def _by_iteration(matrix: Tensor, rank: int, rounds: int = 4) -> tuple[Tensor, Tensor]:
    """Randomised subspace iteration (Halko, Martinsson and Tropp, SIAM Review 53(2), 2011, algorithm 4.4)."""
    numbers = torch.Generator().manual_seed(0)
    width = min(rank + 16, *matrix.shape)
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], width, generator=numbers).to(matrix)).Q
    for _ in range(rounds):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.mT @ basis).Q).Q
    vectors, values, _ = torch.linalg.svd(basis.mT @ matrix, full_matrices=False)
    return (basis @ vectors)[:, :rank], values[:rank]
