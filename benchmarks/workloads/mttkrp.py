"""W6: MTTKRP in one mode and in all, without gradients, as in alternating least squares."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import prod
from typing import Any

import tensorly.cp_tensor
import torch
from torch import Tensor

import multilinear as ml
from benchmarks import rivals
from benchmarks.case import OURS, Case, Floor, Prepared, Provider, Unavailable
from benchmarks.rivals import LETTERS
from benchmarks.sizes import Size, full

Factors = Sequence[Tensor]
ONE_MODE = [((200,) * 3, 16, 0), ((200,) * 3, 16, 1), ((200,) * 3, 64, 1), *(((60,) * 4, r, 1) for r in (16, 64))]
ONE_MODE.append(((60,) * 4, 16, 3))
ALL_MODES = [(sizes, rank) for sizes in ((200,) * 3, (60,) * 4) for rank in (16, 64)]


def by_hand(tensor: Tensor, factors: Factors, mode: int) -> Tensor:
    """Unfold, Khatri-Rao product of the others, one matrix product."""
    others = [factor for m, factor in enumerate(factors) if m != mode]
    product = reduce(lambda left, right: (left[:, None, :] * right[None, :, :]).flatten(0, 1), others)
    return tensor.movedim(mode, 0).flatten(1) @ product


def with_einsum(product: Callable[..., Tensor], tensor: Tensor, factors: Factors, mode: int) -> Tensor:
    modes = LETTERS[: tensor.ndim]
    others = [m for m in modes if m != modes[mode]]
    equation = f"{modes},{','.join(m + 'z' for m in others)}->{modes[mode]}z"
    return product(equation, tensor, *(factor for m, factor in enumerate(factors) if m != mode))


def with_tensorly(tensor: Tensor, factors: Factors, mode: int) -> Tensor:
    return tensorly.cp_tensor.unfolding_dot_khatri_rao(tensor, (None, list(factors)), mode)


def pyttb_arrays(tensor: Tensor, factors: Factors, *mode: int) -> tuple[Any, ...]:
    """In pyttb tensors are numpy arrays in Fortran order."""
    try:
        import pyttb
    except ImportError as error:
        raise Unavailable("pyttb is not installed") from error
    if tensor.device.type != "cpu":
        raise Unavailable("pyttb runs on the CPU")
    return pyttb.tensor(tensor.numpy()), [factor.numpy() for factor in factors], *mode


def with_pyttb(tensor: Any, factors: Any, mode: int) -> Tensor:
    return torch.from_numpy(tensor.mttkrp(factors, mode))


def every_mode(one: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
    def run(tensor: Any, factors: Any) -> list[Tensor]:
        return [one(tensor, factors, mode) for mode in range(len(factors))]

    return run


def pyttb_all(tensor: Any, factors: Any) -> list[Tensor]:
    return [torch.from_numpy(result) for result in tensor.mttkrps(factors)]


WAYS: dict[str, Callable[..., Tensor]] = {
    "by hand": by_hand,
    "einsum": partial(with_einsum, torch.einsum),
    "opt_einsum": partial(with_einsum, rivals.contract),
    "TensorLy": with_tensorly,
}
ONE: dict[str, Provider] = {OURS: ml.mttkrp, **WAYS, "pyttb": Prepared(pyttb_arrays, with_pyttb)}
ALL: dict[str, Provider] = {
    OURS: ml.mttkrps,
    **{name: every_mode(way) for name, way in WAYS.items()},
    "pyttb": Prepared(pyttb_arrays, pyttb_all),
}


def operands(sizes: Sequence[int], rank: int, *mode: int) -> tuple[Any, ...]:
    return torch.randn(*sizes), [torch.randn(k, rank) for k in sizes], *mode


def one_mode(sizes: Sequence[int], rank: int, mode: int, size: Size) -> Case:
    others = prod(size(k) for k in sizes) // size(sizes[mode])
    return Case(
        name=f"w6-mttkrp-{len(sizes)}way-r{rank}-mode{mode}",
        workload="W6",
        shape=f"MTTKRP, {tuple(sizes)}, R={rank}, mode {mode}",
        operands=partial(operands, [size(k) for k in sizes], size(rank), mode),
        providers=ONE,
        reference="by hand",
        floor=Floor(forward=[(size(sizes[mode]), others, size(rank))]),
    )


def all_modes(sizes: Sequence[int], rank: int, size: Size) -> Case:
    first, others = size(sizes[0]), prod(size(k) for k in sizes[1:])
    table = dict(ALL)
    if len(sizes) == 4 and rank == 64:
        table["pyttb"] = "one of its modes alone takes 40 times as long"
    return Case(
        name=f"w6-mttkrps-{len(sizes)}way-r{rank}",
        workload="W6",
        shape=f"MTTKRP in all modes, {tuple(sizes)}, R={rank}",
        operands=partial(operands, [size(k) for k in sizes], size(rank)),
        providers=table,
        reference="by hand",
        # two products serve all modes
        floor=Floor(forward=[(first, others, size(rank)), (others, first, size(rank))]),
    )


def cases(size: Size = full) -> list[Case]:
    return [*(one_mode(*shape, size) for shape in ONE_MODE), *(all_modes(*shape, size) for shape in ALL_MODES)]
