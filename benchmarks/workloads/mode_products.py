"""W5: a matrix times one mode of a tensor, forward and both gradients."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import tensorly.tenalg
import torch
from torch import Tensor

import multilinear as ml
from benchmarks import rivals
from benchmarks.case import AUTODIFF, OURS, Case, Floor, Provider
from benchmarks.rivals import LETTERS
from benchmarks.sizes import Size, full

SHAPES = [
    *(((200, 200, 200), mode, 32) for mode in (0, 1, 2)),
    *(((512, 64, 512), mode, 64) for mode in (0, 1, 2)),
    *(((60, 60, 60, 60), mode, 30) for mode in (1, 2)),
    *(((3000, 30, 30), mode, 30) for mode in (0, 1, 2)),
]
COMPILED = [((200, 200, 200), 1, 32), ((60, 60, 60, 60), 1, 30)]


def matmul_by_hand(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    if mode == tensor.ndim - 1:
        return tensor @ matrix.T
    return (matrix @ tensor.flatten(mode + 1)).unflatten(-1, tensor.shape[mode + 1 :])


def tensordot(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    return torch.tensordot(tensor, matrix, dims=([mode], [1])).movedim(-1, mode)


def with_einsum(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    modes = LETTERS[: tensor.ndim]
    return torch.einsum(f"{modes},z{modes[mode]}->{modes.replace(modes[mode], 'z')}", tensor, matrix)


def tensorly_mode_dot(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    return tensorly.tenalg.mode_dot(tensor, matrix, mode)


PROVIDERS: dict[str, Provider] = {
    OURS: ml.mode_dot,
    AUTODIFF: rivals.on_the_tape(ml.mode_dot),
    "matmul by hand": matmul_by_hand,
    "torch.compile": rivals.compiled(matmul_by_hand),
    "tensordot": tensordot,
    "einsum": with_einsum,
    "TensorLy": tensorly_mode_dot,
}


def operands(sizes: Sequence[int], mode: int, rows: int) -> tuple[Any, ...]:
    return torch.randn(*sizes).requires_grad_(), torch.randn(rows, sizes[mode]).requires_grad_(), mode


def case(sizes: Sequence[int], mode: int, rows: int, size: Size, *, workload: str = "W5") -> Case:
    table = dict(PROVIDERS)
    if (sizes, mode, rows) not in COMPILED:
        table["torch.compile"] = "tried at two shapes"
    fibres, inner = prod(size(k) for k in sizes) // size(sizes[mode]), size(sizes[mode])
    return Case(
        name=f"{workload.lower()}-mode-dot-{'x'.join(map(str, sizes))}-mode{mode}-r{rows}",
        workload=workload,
        shape=f"{tuple(sizes)}, mode {mode}, r={rows}",
        operands=partial(operands, [size(k) for k in sizes], mode, size(rows)),
        providers=table,
        reference="matmul by hand",
        floor=Floor(
            forward=[(size(rows), inner, fibres)],
            backward=[(inner, size(rows), fibres), (size(rows), fibres, inner)],
        ),
    )


def cases(size: Size = full) -> list[Case]:
    return [case(*shape, size) for shape in SHAPES]
