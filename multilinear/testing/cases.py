"""The differentiable operators beside their definitions as einsum: what `verify` and the derivative tests run through.

Every case takes tensors whose sizes may depend on a number n, so that the same case serves n = 0 and dynamic shapes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, einsum

import multilinear as ml

Shapes = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """An operator, the same in einsum, and the shapes of its arguments.

    Args:
        name: Of the operator.
        operator: Takes tensors, returns a tensor or a tuple of tensors.
        definition: The same function in plain torch, which autograd differentiates.
        shapes: Of the arguments, for a number n.
    """

    name: str
    operator: Callable[..., Any]
    definition: Callable[..., Any]
    shapes: Callable[[int], Shapes]

    def inputs(
        self,
        n: int = 3,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        requires_grad: bool = False,
        seed: int = 0,
    ) -> list[Tensor]:
        """Normally distributed arguments from a fixed seed."""
        generator = torch.Generator().manual_seed(seed)
        values = [torch.randn(shape, dtype=dtype, generator=generator).to(device) for shape in self.shapes(n)]
        return [value.requires_grad_(requires_grad) for value in values]


def _squared(x: Tensor) -> Tensor:
    return (x * x.conj()).real.sum() if x.is_complex() else (x * x).sum()


def _map(core: Tensor, *z: Tensor) -> Tensor:
    return einsum("oijl,ni,nj,nl->no", core, *z)


def _cp(*factors: Tensor) -> Tensor:
    return einsum("ir,jr,lr->ijl", *factors)


def _tucker(core: Tensor, *factors: Tensor) -> Tensor:
    return einsum("abc,ia,jb,lc->ijl", core, *factors)


def _mttkrps(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return einsum("ijl,jr,lr->ir", x, b, c), einsum("ijl,ir,lr->jr", x, a, c), einsum("ijl,ir,jr->lr", x, a, b)


CASES = {
    case.name: case
    for case in (
        Case(
            "khatri_rao",
            lambda *m: ml.khatri_rao(m),
            lambda *m: einsum("ir,jr,lr->ijlr", *m).flatten(0, 2),
            lambda n: [(2, n), (3, n), (2, n)],
        ),
        Case(
            "face_splitting",
            lambda *m: ml.face_splitting(m),
            lambda *m: einsum("ni,nj,nl->nijl", *m).flatten(1),
            lambda n: [(n, 2), (n, 3), (n, 2)],
        ),
        Case(
            "mode_dot",
            lambda x, a: ml.mode_dot(x, a, 1),
            lambda x, a: einsum("ijl,mj->iml", x, a),
            lambda n: [(2, 3, n), (4, 3)],
        ),
        Case(
            "multi_mode_dot",
            lambda x, a, v: ml.multi_mode_dot(x, [a, v], [0, 2]),
            lambda x, a, v: einsum("ijl,mi,l->mj", x, a, v),
            lambda n: [(2, n, 3), (4, 2), (3,)],
        ),
        Case(
            "mttkrp",
            lambda x, *f: ml.mttkrp(x, f, 1),
            lambda x, a, b, c: einsum("ijl,ir,lr->jr", x, a, c),
            lambda n: [(2, n, 2), (2, 2), (n, 2), (2, 2)],
        ),
        Case(
            "mttkrps",
            lambda x, *f: tuple(ml.mttkrps(x, f)),
            _mttkrps,
            lambda n: [(2, n, 2), (2, 2), (n, 2), (2, 2)],
        ),
        Case(
            "multilinear_map",
            lambda core, *z: ml.multilinear_map(core, z),
            _map,
            lambda n: [(3, 2, 3, 2), (n, 2), (n, 3), (n, 2)],
        ),
        Case(
            "multilinear_loss",
            lambda x, core, *z: ml.multilinear_loss(x, core, z),
            lambda x, core, *z: _squared(x - _map(core, *z)),
            lambda n: [(n, 3), (3, 2, 3, 2), (n, 2), (n, 3), (n, 2)],
        ),
        Case(
            "cp_to_tensor",
            lambda *f: ml.cp_to_tensor(f),
            _cp,
            lambda n: [(2, 2), (n, 2), (3, 2)],
        ),
        Case(
            "cp_loss",
            lambda x, *f: ml.cp_loss(x, f),
            lambda x, *f: _squared(x - _cp(*f)),
            lambda n: [(2, n, 3), (2, 2), (n, 2), (3, 2)],
        ),
        Case(
            "tucker_to_tensor",
            lambda core, *f: ml.tucker_to_tensor(core, f),
            _tucker,
            lambda n: [(2, 2, 2), (3, 2), (n, 2), (2, 2)],
        ),
        Case(
            "tucker_loss",
            lambda x, core, *f: ml.tucker_loss(x, core, f),
            lambda x, core, *f: _squared(x - _tucker(core, *f)),
            lambda n: [(3, n, 2), (2, 2, 2), (3, 2), (n, 2), (2, 2)],
        ),
    )
}
