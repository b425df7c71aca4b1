"""Rivals for the squared error of a multilinear map: every way to write `||target - core x_1 z_1 x_2 z_2 ...||²`.

Target `(n, d)`, core `(d, k_1, ..., k_M)`, inputs `(n, k_m)`, or `(k_m,)` for one that all samples share.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import tensorly.tenalg
import torch
from torch import Tensor

import multilinear as ml
from benchmarks import rivals
from benchmarks.case import AUTODIFF, OURS, Floor, Provider
from benchmarks.rivals import LETTERS

Inputs = Sequence[Tensor]


def khatri_rao_chain(target: Tensor, core: Tensor, inputs: Inputs) -> Tensor:
    """By hand: rows of products, then one matrix product."""
    rows = [z.expand(len(target), -1) for z in inputs]
    product = reduce(lambda left, right: (left[:, :, None] * right[:, None, :]).flatten(1), rows)
    return (product @ core.flatten(1).T - target).square().sum()


def folded_chain(target: Tensor, core: Tensor, inputs: Inputs) -> Tensor:
    """By hand: shared inputs are multiplied into the core first, from the last mode to the first."""
    for mode in range(len(inputs), 0, -1):
        if inputs[mode - 1].ndim == 1:
            core = fold(core, inputs[mode - 1], mode)
    return khatri_rao_chain(target, core, [z for z in inputs if z.ndim == 2])


def fold(core: Tensor, z: Tensor, mode: int) -> Tensor:
    """The core times a vector. For an inner mode `bmm` is the fastest of five ways by far, forward and backward."""
    if mode == core.ndim - 1:
        return core @ z
    stack = core.flatten(0, mode - 1).flatten(2)
    return torch.bmm(z.expand(len(stack), 1, -1), stack).reshape(core.shape[:mode] + core.shape[mode + 1 :])


def tensorly_khatri_rao(target: Tensor, core: Tensor, inputs: Inputs) -> Tensor:
    columns = [z.expand(len(target), -1).T for z in inputs]
    product = tensorly.tenalg.khatri_rao(columns) if len(columns) > 1 else columns[0]
    return (core.flatten(1) @ product - target.T).square().sum()


def tensorly_folded(target: Tensor, core: Tensor, inputs: Inputs) -> Tensor:
    shared = [m for m, z in enumerate(inputs) if z.ndim == 1]
    core = tensorly.tenalg.multi_mode_dot(core, [inputs[m] for m in shared], modes=[m + 1 for m in shared])
    return tensorly_khatri_rao(target, core, [z for z in inputs if z.ndim == 2])


def with_einsum(product: Callable[..., Tensor], target: Tensor, core: Tensor, inputs: Inputs) -> Tensor:
    modes = LETTERS[: len(inputs)]
    terms = [("n" if z.ndim == 2 else "") + mode for z, mode in zip(inputs, modes, strict=True)]
    return (product(f"o{modes},{','.join(terms)}->no", core, *inputs) - target).square().sum()


def bilinear(target: Tensor, core: Tensor, inputs: Inputs) -> Tensor:
    return (torch.nn.functional.bilinear(inputs[0], inputs[1], core) - target).square().sum()


def ours(target: Tensor, core: Tensor, inputs: Inputs) -> Tensor:
    return ml.multilinear_loss(target, core, inputs)


CHAIN = "Khatri-Rao by hand"
FOLDED = "folded by hand"

PROVIDERS: dict[str, Provider] = {
    OURS: ours,
    AUTODIFF: rivals.on_the_tape(ours),
    CHAIN: khatri_rao_chain,
    "torch.compile": rivals.compiled(khatri_rao_chain),
    "TensorLy": tensorly_khatri_rao,
    "einsum": partial(with_einsum, torch.einsum),
    "einsum, no path": partial(with_einsum, rivals.einsum_left_to_right),
    "opt_einsum": partial(with_einsum, rivals.contract),
    "bilinear": bilinear,
}
FOLDING: dict[str, Provider] = {
    FOLDED: folded_chain,
    "folded, torch.compile": rivals.compiled(folded_chain),
    "TensorLy, folded": tensorly_folded,
}


def providers(*names: str, left_out: dict[str, str] | None = None) -> dict[str, Provider]:
    """Ours, ours on the tape and those named; `left_out` says why others are not there."""
    table = {**PROVIDERS, **FOLDING}
    return {name: table[name] for name in (OURS, AUTODIFF, *names)} | (left_out or {})


def operands(
    count: int, outputs: int, sizes: Sequence[int], *, shared: Sequence[int] = (), constant: Sequence[str] = ()
) -> tuple[Any, ...]:
    """Target, core and inputs; inputs in `shared` are vectors, and what `constant` names wants no gradient.

    Args:
        count: Samples n.
        outputs: Size d of the output.
        sizes: Sizes of the inputs.
        shared: Positions of inputs that are one vector for the batch.
        constant: "core", or "shared" for the shared inputs.
    """
    core = torch.randn(outputs, *sizes).div_(30).requires_grad_("core" not in constant)
    inputs = [
        torch.randn(size).requires_grad_("shared" not in constant)
        if m in shared
        else torch.randn(count, size).requires_grad_()
        for m, size in enumerate(sizes)
    ]
    return torch.randn(count, outputs), core, inputs


def floor(count: int, outputs: int, columns: int, *, core: bool = True) -> Floor:
    """The matrix products of the map, of the product's gradient and of the core's."""
    backward = [(count, outputs, columns), (outputs, count, columns)]
    return Floor(forward=[(count, columns, outputs)], backward=backward if core else backward[:1])
