"""W4: the Khatri-Rao product alone, column by column, and the face-splitting product, row by row."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
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

Matrices = Sequence[Tensor]
SHAPES = [
    ((30, 30, 30), 1),
    ((15, 80), 16),
    ((15, 80), 64),
    ((8, 8, 8, 8), 16),
    ((300, 300), 64),
    ((9, 15, 80), 64),
    ((9, 15, 80), 256),
    ((16, 16, 16, 16), 64),
    ((100, 100), 1000),
]
ROWS_SHAPES = [((15, 80), 16), ((9, 15, 80), 64), ((100, 100), 1000)]
GPU_SHAPES = [((15, 80), 512), ((9, 15, 80), 512), ((15, 80), 4096), ((9, 15, 80), 4096)]
COMPILED_FROM = 1_000_000
"""Elements from which torch.compile is tried as well; each compilation takes seconds."""


def columns_by_hand(matrices: Matrices) -> Tensor:
    return reduce(lambda left, right: (left[:, None, :] * right[None, :, :]).flatten(0, 1), matrices)


def rows_by_hand(matrices: Matrices) -> Tensor:
    return reduce(lambda left, right: (left[:, :, None] * right[:, None, :]).flatten(1), matrices)


def columns_by(product: Callable[..., Tensor], matrices: Matrices) -> Tensor:
    modes = LETTERS[: len(matrices)]
    return product(f"{','.join(m + 'z' for m in modes)}->{modes}z", *matrices).flatten(0, -2)


def rows_by(product: Callable[..., Tensor], matrices: Matrices) -> Tensor:
    modes = LETTERS[: len(matrices)]
    return product(f"{','.join('z' + m for m in modes)}->z{modes}", *matrices).flatten(1)


def tensorly_columns(matrices: Matrices) -> Tensor:
    return tensorly.tenalg.khatri_rao(list(matrices))


def tensorly_rows(matrices: Matrices) -> Tensor:
    return tensorly.tenalg.khatri_rao([z.T for z in matrices]).T


CHAIN = "by hand"
COLUMNS: dict[str, Provider] = {
    OURS: ml.khatri_rao,
    AUTODIFF: rivals.on_the_tape(ml.khatri_rao),
    CHAIN: columns_by_hand,
    "torch.compile": rivals.compiled(columns_by_hand),
    "TensorLy": tensorly_columns,
    "einsum": partial(columns_by, torch.einsum),
    "einsum, no path": partial(columns_by, rivals.einsum_left_to_right),
    "opt_einsum": partial(columns_by, rivals.contract),
}
ROWS: dict[str, Provider] = {
    OURS: ml.face_splitting,
    AUTODIFF: rivals.on_the_tape(ml.face_splitting),
    CHAIN: rows_by_hand,
    "torch.compile": rivals.compiled(rows_by_hand),
    "TensorLy": tensorly_rows,
    "einsum": partial(rows_by, torch.einsum),
}


def operands(sizes: Sequence[int], count: int, *, rows: bool) -> tuple[Any, ...]:
    return ([torch.randn((count, k) if rows else (k, count)).requires_grad_() for k in sizes],)


def case(
    sizes: Sequence[int],
    count: int,
    size: Size,
    *,
    rows: bool = False,
    workload: str = "W4",
    devices: tuple[str, ...] = ("cpu", "cuda"),
) -> Case:
    elements = prod(size(k) for k in sizes) * size(count)
    table = dict(ROWS if rows else COLUMNS)
    if prod(sizes) * count < COMPILED_FROM:
        table["torch.compile"] = f"tried from {COMPILED_FROM:.0e} elements on"
    kind = "rows" if rows else "columns"
    return Case(
        name=f"{workload.lower()}-{kind}-{'x'.join(map(str, sizes))}-n{count}",
        workload=workload,
        shape=f"{tuple(sizes)}, n={count}, by {kind}",
        operands=partial(operands, [size(k) for k in sizes], size(count), rows=rows),
        providers=table,
        reference=CHAIN,
        # written once in the forward pass, read once in the backward pass: one copy and a half
        floor=Floor(
            forward_stream=elements // 2, backward_stream=elements // 2, operations=(2 + len(sizes)) * elements
        ),
        memory_unit=elements,
        devices=devices,
    )


def cases(size: Size = full) -> list[Case]:
    return [
        *(case(*shape, size) for shape in SHAPES),
        *(case(*shape, size, rows=True) for shape in ROWS_SHAPES),
        *(case(*shape, size, rows=True, devices=("cuda",)) for shape in GPU_SHAPES),
    ]
