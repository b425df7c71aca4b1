"""Codes of samples under a multilinear core: `sample ≈ core ×₁ z1 ×₂ z2 ...`, all samples at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from multilinear.decomposition._solve import solve_gram
from multilinear.maps import multilinear_map

CHUNK = 1 << 25
"""Numbers of the largest temporary: 128 megabytes in float32."""


def rank_one(tensors: Tensor, start: Sequence[Tensor] | None = None, *, rounds: int = 5) -> list[Tensor]:
    """Best rank-one approximation of every tensor of a batch `(n, k1, ..., kM)`: M codes `(n, km)`.

    By higher-order power iteration from the better of the given codes and the leading singular vectors of the
    unfoldings, so that it is never worse than either; two modes are exact at once. A sample's codes share its norm.
    """
    if tensors.ndim == 2:
        return [tensors]
    if tensors.ndim == 3:
        codes = _leading_pair(tensors)
        return _balanced(codes, _along(tensors, codes))
    codes = _singular(tensors)
    if start is not None:
        start = _units(start)
        better = _along(tensors, start).abs() > _along(tensors, codes).abs()
        codes = [torch.where(better, old, new) for old, new in zip(start, codes, strict=True)]
    for _ in range(rounds):
        for mode in range(len(codes)):
            codes[mode] = _unit(_contract(tensors, codes, mode))
    return _balanced(codes, _along(tensors, codes))


class Projector:
    """Finds the codes of samples under a core `(d, k1, ..., kM)`, which it prepares once.

    They bring `multilinear_map(core, codes)` closest to the data, by alternating least squares from the best rank-one
    approximation of the least-squares coordinates: multilinear projection, then refined.
    """

    def __init__(self, core: Tensor):
        self.basis = None
        if core.shape[0] > core.shape[1:].numel():  # no more outputs than columns are needed
            self.basis, triangle = torch.linalg.qr(core.flatten(1))
            core = triangle.reshape(-1, *core.shape[1:])
        self.core = core
        self.inverse = torch.linalg.pinv(core.flatten(1), rtol=1e-3).mT

    def project(self, data: Tensor, *, rounds: int = 50, tolerance: float = 1e-6) -> list[Tensor]:
        """Codes `(n, km)` of data `(n, d)`; a sample's end when its relative error changes by no more than this."""
        if len(data) == 0:
            return [data.new_zeros(0, size) for size in self.core.shape[1:]]
        small = data if self.basis is None else data @ self.basis
        chunk = max(CHUNK // max(self.core.numel() // max(self.core.shape[1:]), 1), 1)
        parts = [self._chunk(rows, rounds, tolerance) for rows in small.split(chunk)]
        return [torch.cat(codes) for codes in zip(*parts, strict=True)]

    def _chunk(self, data: Tensor, rounds: int, tolerance: float) -> list[Tensor]:
        codes = rank_one((data @ self.inverse).reshape(-1, *self.core.shape[1:]), rounds=20)
        norms = torch.linalg.vector_norm(data, dim=1)
        before = torch.full_like(norms, torch.inf)
        moving = torch.arange(len(data), device=data.device)
        for _ in range(rounds):
            some = improve(data[moving], self.core, [code[moving] for code in codes])
            for code, better in zip(codes, some, strict=True):
                code[moving] = better
            errors = torch.linalg.vector_norm(data[moving] - multilinear_map(self.core, some), dim=1)
            still = (before - errors).abs() > tolerance * norms[moving]
            moving, before = moving[still], errors[still]
            if not len(moving):
                break
        return codes


def improve(data: Tensor, core: Tensor, codes: Sequence[Tensor]) -> list[Tensor]:
    """Codes of every mode solved for once, the others held: never worse."""
    codes = list(codes)
    for mode in range(len(codes)):
        design = _design(core, codes, mode)  # (n, outputs, km)
        inner = torch.einsum("no,nok->nk", data, design)
        codes[mode] = solve_gram(design.mT @ design, inner.unsqueeze(1)).squeeze(1)
    return codes


def balance(codes: Sequence[Tensor]) -> list[Tensor]:
    """The same products with all codes of a sample equally long."""
    lengths = torch.stack([torch.linalg.vector_norm(code, dim=-1, keepdim=True) for code in codes])
    share = lengths.double().prod(0).pow(1 / len(codes)).to(lengths.dtype)
    return [unit * share for unit in _units(codes)]


def align(codes: Sequence[Tensor], references: Sequence[Tensor]) -> list[Tensor]:
    """The same products with signs such that all codes but the first point along their mode's reference."""
    codes, flips = list(codes), torch.ones_like(codes[0][:, :1])
    for mode in range(1, len(codes)):
        signs = (codes[mode] @ references[mode]).sign().unsqueeze(1)
        signs = torch.where(signs == 0, 1, signs)
        codes[mode], flips = codes[mode] * signs, flips * signs
    codes[0] = codes[0] * flips
    return codes


def anchor(codes: Sequence[Tensor], references: Sequence[Tensor]) -> list[Tensor]:
    """The same products with all codes but the first as long along their mode's reference as that is itself.

    The first code takes the scale. A code nearly orthogonal to its reference gets the reference's length instead.
    """
    codes = list(codes)
    for mode in range(1, len(codes)):
        reference = references[mode]
        along = codes[mode] @ reference
        length = torch.linalg.vector_norm(codes[mode], dim=1) * torch.linalg.vector_norm(reference)
        sign = torch.where(along < 0, -1, 1).to(along.dtype)
        scale = torch.where(along.abs() > 0.05 * length, along, sign * length) / reference.square().sum()
        scale = torch.where(length > 0, scale, 1).unsqueeze(1)
        codes[mode], codes[0] = codes[mode] / scale, codes[0] * scale
    return codes


def _design(core: Tensor, codes: Sequence[Tensor], mode: int) -> Tensor:
    """The core with every code but the mode's multiplied in, `(n, outputs, km)`; long codes first leave least."""
    result = core.expand(1, *core.shape)
    left = list(range(len(codes)))  # modes that still have an axis
    for other in sorted(left, key=lambda one: -codes[one].shape[1]):
        if other != mode:
            result = _times(result, codes[other], left.index(other) + 2)
            left.remove(other)
    return result


def _times(tensors: Tensor, vectors: Tensor, axis: int) -> Tensor:
    """Every tensor of a batch (or the one there is) times its vector along an axis."""
    moved = tensors.movedim(axis, -1)
    if len(tensors) == 1:
        return (vectors @ moved[0].flatten(0, -2).mT).reshape(len(vectors), *moved.shape[1:-1])
    return (moved.flatten(1, -2) @ vectors.unsqueeze(-1)).squeeze(-1).reshape(len(vectors), *moved.shape[1:-1])


def _contract(tensors: Tensor, codes: Sequence[Tensor], mode: int | None) -> Tensor:
    for other in range(len(codes) - 1, -1, -1):
        if other != mode:
            moved = tensors.movedim(other + 1, -1)
            product = moved.flatten(1, -2) if moved.ndim > 2 else moved.unsqueeze(1)
            tensors = (product @ codes[other].unsqueeze(-1)).squeeze(-1).reshape(moved.shape[:-1])
    return tensors


def _along(tensors: Tensor, codes: Sequence[Tensor]) -> Tensor:
    """Inner product with the outer product of the codes, `(n, 1)`."""
    return _contract(tensors, codes, None).reshape(-1, 1)


def _singular(tensors: Tensor) -> list[Tensor]:
    """Leading singular vector of every unfolding."""
    return [_leading(tensors.movedim(mode + 1, 1).flatten(2)) for mode in range(tensors.ndim - 1)]


def _leading_pair(matrices: Tensor) -> list[Tensor]:
    """Leading left and right singular vectors, from the Gram matrix of the smaller side."""
    if matrices.shape[1] > matrices.shape[2]:
        return _leading_pair(matrices.mT)[::-1]
    left = _leading(matrices)
    return [left, _unit((left.unsqueeze(1) @ matrices).squeeze(1))]


def _leading(matrices: Tensor) -> Tensor:
    wide = matrices.double()
    return torch.linalg.eigh(wide @ wide.mT).eigenvectors[..., -1].to(matrices.dtype)


def _units(codes: Sequence[Tensor]) -> list[Tensor]:
    return [_unit(code) for code in codes]


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1, those of zeros left as they are."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(lengths > 0, lengths, 1)


def _balanced(codes: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
    """Unit codes times an equal share of the scale, which power iteration leaves positive."""
    share = scale.abs().pow(1 / len(codes))
    return [code * share for code in codes]
