"""W10: whole fits from the same starts, a fixed number of sweeps without acceleration, so that all end alike."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from tempfile import NamedTemporaryFile
from typing import Any

import tensorly
import tensorly.decomposition
import torch
from torch import Tensor

import multilinear as ml
from benchmarks.case import OURS, Case, Floor, Prepared, Provider, Unavailable
from benchmarks.sizes import Size
from multilinear.decomposition import cp_als, hosvd, tucker

Factors = Sequence[Tensor]
SWEEPS = 5
SIZES = [((200,) * 3, 16), ((200,) * 3, 64), ((60,) * 4, 16)]
MAPPED = ((512, 1024, 1024), 16)
"""2 GB in float32, read from a file by memory map."""
CORNER = 8
"""Rows of every factor whose model is compared: forming all of it would be timed, too."""


def noisy(factors: Factors) -> Tensor:
    """A CP tensor and as much noise, so that a fit has something to find and its error does not cancel."""
    signal = ml.cp_to_tensor(factors)
    return signal + factors[0].shape[1] ** 0.5 * torch.randn_like(signal)


def cp_operands(sizes: Sequence[int], rank: int) -> tuple[Any, ...]:
    factors = [torch.randn(size, rank) for size in sizes]
    return noisy(factors), [factor + 0.3 * torch.randn_like(factor) for factor in factors]


def tucker_operands(sizes: Sequence[int], rank: int) -> tuple[Any, ...]:
    tensor, factors = cp_operands(sizes, rank)
    return tensor, [torch.linalg.qr(factor).Q for factor in factors]


def hosvd_operands(sizes: Sequence[int], rank: int) -> tuple[Any, ...]:
    return cp_operands(sizes, rank)[0], rank


def mapped_operands(sizes: Sequence[int], rank: int) -> tuple[Any, ...]:
    """The tensor in a file that has no name any more, written in blocks of rows."""
    factors = [torch.randn(size, rank) for size in sizes]
    with NamedTemporaryFile() as file:
        for rows in factors[0].split(8):
            noisy([rows, *factors[1:]]).numpy().tofile(file)
        file.flush()
        tensor = torch.from_file(file.name, shared=False, size=prod(sizes)).reshape(tuple(sizes))
    return tensor, [factor + 0.3 * torch.randn_like(factor) for factor in factors]


def our_cp(tensor: Tensor, factors: Factors, sweeps: int = SWEEPS) -> Tensor:
    rank = factors[0].shape[1]
    model = cp_als(tensor, rank, init=list(factors), max_iterations=sweeps, tolerance=0, acceleration="none")
    return _corner_of_cp(model.weights, model.factors)


def tensorly_cp(tensor: Tensor, factors: Factors, sweeps: int = SWEEPS) -> Tensor:
    start = (None, [factor.clone() for factor in factors])
    model = tensorly.decomposition.parafac(tensor, factors[0].shape[1], init=start, n_iter_max=sweeps, tol=0)
    return _corner_of_cp(model.weights, model.factors)


def pyttb_cp(tensor: Any, factors: Any) -> Tensor:
    import pyttb

    start = pyttb.ktensor(factors)
    model, _, _ = pyttb.cp_als(tensor, len(start.weights), init=start, maxiters=SWEEPS, stoptol=0, printitn=-1)
    return _corner_of_cp(torch.from_numpy(model.weights), [torch.from_numpy(f) for f in model.factor_matrices])


def our_tucker(tensor: Tensor, factors: Factors) -> Tensor:
    model = tucker(tensor, factors[0].shape[1], init=list(factors), max_iterations=SWEEPS, tolerance=0)
    return _corner_of_tucker(model.core, [factor for factor in model.factors if factor is not None])


def tensorly_tucker(tensor: Tensor, factors: Factors) -> Tensor:
    rank = [factor.shape[1] for factor in factors]
    core = torch.zeros(rank, dtype=tensor.dtype, device=tensor.device)  # it is found anew
    model = tensorly.decomposition.tucker(tensor, rank, init=(core, list(factors)), n_iter_max=SWEEPS, tol=0)
    return _corner_of_tucker(*model)


def pyttb_tucker(tensor: Any, factors: Any) -> Tensor:
    import pyttb

    model, _, _ = pyttb.tucker_als(
        tensor, factors[0].shape[1], init=list(factors), maxiters=SWEEPS, stoptol=0, printitn=-1
    )
    return _corner_of_tucker(torch.from_numpy(model.core.data), [torch.from_numpy(f) for f in model.factor_matrices])


def our_hosvd(tensor: Tensor, rank: int) -> Tensor:
    model = hosvd(tensor, rank)
    return _corner_of_tucker(model.core, [factor for factor in model.factors if factor is not None])


def hosvd_by_hand(tensor: Tensor, rank: int) -> Tensor:
    """Sequentially truncated, each mode by the SVD of its unfolding."""
    factors = []
    for mode in range(tensor.ndim):
        left = torch.linalg.svd(tensor.movedim(mode, 0).flatten(1), full_matrices=False).U[:, :rank]
        tensor = torch.tensordot(tensor, left, dims=([mode], [0])).movedim(-1, mode)
        factors.append(left)
    return _corner_of_tucker(tensor, factors)


def with_our_backend(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*operands: Any) -> Tensor:
        import multilinear.interop.tensorly  # noqa: F401  (it registers itself)

        with tensorly.tenalg.backend_context("multilinear"):
            return call(*operands)

    return run


def pyttb_arrays(tensor: Tensor, factors: Factors) -> tuple[Any, ...]:
    """In pyttb tensors are numpy arrays in Fortran order."""
    try:
        import pyttb
    except ImportError as error:
        raise Unavailable("pyttb is not installed") from error
    if tensor.device.type != "cpu":
        raise Unavailable("pyttb runs on the CPU")
    return pyttb.tensor(tensor.numpy()), [factor.numpy() for factor in factors]


def pyttb_doubles(tensor: Tensor, factors: Factors) -> tuple[Any, ...]:
    """Its `cp_als` takes float64 alone."""
    return pyttb_arrays(tensor.double(), [factor.double() for factor in factors])


def _corner_of_cp(weights: Tensor | None, factors: Factors) -> Tensor:
    return ml.cp_to_tensor([factor[:CORNER] for factor in factors], weights=weights)


def _corner_of_tucker(core: Tensor, factors: Factors) -> Tensor:
    return ml.tucker_to_tensor(core, [factor[:CORNER] for factor in factors])


CP: dict[str, Provider] = {
    OURS: our_cp,
    "TensorLy": tensorly_cp,
    "TensorLy on ours": with_our_backend(tensorly_cp),
    "pyttb, float64": Prepared(pyttb_doubles, pyttb_cp),
}
TUCKER: dict[str, Provider] = {
    OURS: our_tucker,
    "TensorLy": tensorly_tucker,
    "TensorLy on ours": with_our_backend(tensorly_tucker),
    "pyttb": Prepared(pyttb_arrays, pyttb_tucker),
}
MAPPED_CP: dict[str, Provider] = {
    OURS: partial(our_cp, sweeps=1),
    "TensorLy": partial(tensorly_cp, sweeps=1),
    "pyttb": "its tensors are copies in Fortran order",
}
HOSVD: dict[str, Provider] = {OURS: our_hosvd, "by hand": hosvd_by_hand}


def cases(size: Size) -> list[Case]:
    every = []
    for sizes, rank in SIZES:
        shape, components, name = [size(k) for k in sizes], size(rank), f"{len(sizes)}way-r{rank}"
        rows = prod(shape[: len(shape) // 2])
        columns = prod(shape) // rows
        cp_floor = Floor(forward=[(rows, columns, components), (columns, rows, components)] * SWEEPS)
        # a half of the modes is contracted for the other half, the first mode of it first
        half = Floor(forward=[(components, shape[0], prod(shape) // shape[0])] * 2 * SWEEPS)
        every += [
            Case(
                name=f"w10-cp-als-{name}",
                workload="W10",
                shape=f"CP-ALS, {tuple(sizes)}, R={rank}, {SWEEPS} sweeps",
                operands=partial(cp_operands, shape, components),
                providers=CP,
                reference="TensorLy",
                floor=cp_floor,
            ),
            Case(
                name=f"w10-hooi-{name}",
                workload="W10",
                shape=f"HOOI, {tuple(sizes)}, R={rank}, {SWEEPS} sweeps",
                operands=partial(tucker_operands, shape, components),
                providers=TUCKER,
                reference="TensorLy",
                floor=half,
            ),
        ]
    sizes, rank = SIZES[0]
    shape, components = [size(k) for k in sizes], size(rank)
    every.append(
        Case(
            name=f"w10-hosvd-{len(sizes)}way-r{rank}",
            workload="W10",
            shape=f"HOSVD, sequentially truncated, {tuple(sizes)}, R={rank}",
            operands=partial(hosvd_operands, shape, components),
            providers=HOSVD,
            reference="by hand",
            floor=Floor(forward=[(shape[0], prod(shape[1:]), shape[0])]),
        )
    )
    sizes, rank = MAPPED
    shape = [size(k) for k in sizes]
    rows, columns = shape[0], prod(shape[1:])
    every.append(
        Case(
            name=f"w10-cp-als-mapped-r{rank}",
            workload="W10",
            shape=f"CP-ALS, {sizes} from a file of 2 GB, R={rank}, 1 sweep",
            operands=partial(mapped_operands, shape, size(rank)),
            providers=MAPPED_CP,
            reference="TensorLy",
            floor=Floor(forward=[(rows, columns, size(rank)), (columns, rows, size(rank))]),
            devices=("cpu",),
        )
    )
    return every
