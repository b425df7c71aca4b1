"""W8: the core is frozen and only the latents are fitted, as for a new face; plainly, and with a compressed core."""

from functools import partial
from math import prod
from typing import Any, cast

import torch
from torch import Tensor

import multilinear as ml
from benchmarks.case import Case, Floor, Prepared, Unavailable
from benchmarks.sizes import Size, full
from benchmarks.workloads import maps
from benchmarks.workloads.projection import SHAPE, TEXTURE

COMPRESSED = "multilinear, compressed"
RIVALS = {
    "W1": maps.providers(maps.CHAIN, "TensorLy", "einsum", left_out={"einsum, no path": "9 times slower and more"}),
    "W2": maps.providers(maps.CHAIN, "torch.compile", "TensorLy", "einsum", "opt_einsum", "einsum, no path"),
}
STREAMS = {"W1": ("texture", TEXTURE), "W2": ("shape", SHAPE)}


def compress(target: Tensor, core: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fewer rows with the same loss up to a constant; made once for a core."""
    function = cast(Any, getattr(ml, "compress", None))
    if function is None:
        raise Unavailable("multilinear.compress does not exist")
    return function(target, core)


def qr(target: Tensor, core: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same by hand: an orthogonal basis of the core's columns."""
    basis, small = torch.linalg.qr(core.flatten(1))
    inside = target @ basis
    return inside, small.unflatten(1, core.shape[1:]), target.square().sum() - inside.square().sum()


def compressed_first() -> Prepared:
    def prepare(target: Tensor, core: Tensor, inputs: list[Tensor]) -> tuple[Any, ...]:
        return *compress(target, core), inputs

    def call(target: Tensor, core: Tensor, constant: Tensor, inputs: list[Tensor]) -> Tensor:
        return ml.multilinear_loss(target, core, inputs) + constant

    return Prepared(prepare, call)


def fit(workload: str, count: int, size: Size) -> Case:
    what, stream = STREAMS[workload]
    outputs, sizes = size(stream[0]), [size(k) for k in stream[1]]
    rivals = dict(RIVALS[workload])
    if workload == "W2":
        rivals[COMPRESSED] = compressed_first()
        if count > 1:
            rivals["einsum, no path"] = "36 times slower"
            rivals["opt_einsum"] = "never faster than einsum"
    return Case(
        name=f"w8-{what}-n{count}",
        workload="W8",
        shape=f"{stream[0]} x {stream[1]}, n={count}, core frozen",
        operands=partial(maps.operands, size(count), outputs, sizes, constant=("core",)),
        providers=rivals,
        reference=maps.CHAIN,
        floor=maps.floor(size(count), outputs, prod(sizes), core=False),
        devices=("cuda",) if workload == "W2" and count == 16 else ("cpu", "cuda"),
    )


def one_off(count: int, size: Size) -> Case:
    outputs, sizes = size(SHAPE[0]), [size(k) for k in SHAPE[1]]

    def operands() -> tuple[Any, ...]:
        return torch.randn(size(count), outputs), torch.randn(outputs, *sizes) / 30

    return Case(
        name=f"w8-one-off-n{count}",
        workload="W8",
        shape=f"{SHAPE[0]} x {SHAPE[1]}, n={count}, compressing the core once",
        operands=operands,
        # the small core is unique up to a rotation: what is compared is its Gram matrix, and the constant
        providers={"multilinear": _gram_of(compress), "QR by hand": _gram_of(qr)},
        reference="QR by hand",
        floor=Floor(forward=[(prod(sizes), outputs, prod(sizes))]),
    )


def _gram_of(function: Any) -> Any:
    def run(target: Tensor, core: Tensor) -> list[Tensor]:
        small_target, small_core, constant = function(target, core)
        small_core = small_core.flatten(1)
        return [small_core.T @ small_core, small_target @ small_core, constant]

    return run


def cases(size: Size = full) -> list[Case]:
    return [
        *(fit("W2", n, size) for n in (1, 16, 64)),
        *(fit("W1", n, size) for n in (1, 16)),
        one_off(64, size),
    ]
