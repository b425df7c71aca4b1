"""W10: whole fits from the same starts, a fixed number of sweeps without any acceleration, so that all end alike."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from tempfile import gettempdir
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
NOISE = 0.3
CP = [((200,) * 3, 16), ((200,) * 3, 64), ((60,) * 4, 16)]
TUCKER = [((200,) * 3, 16), ((200,) * 3, 64), ((60,) * 4, 16)]
MAPPED = (512, 1024, 1024)
"""2 GB in float32, read from a file by memory map."""


def noisy(sizes: Sequence[int], rank: int) -> Tensor:
    """A CP tensor of the rank and noise, so that the fit has something to find and no error that cancels."""
    signal = ml.cp_to_tensor([torch.randn(size, rank) for size in sizes])
    return signal + NOISE * signal.std() * torch.randn(*sizes)


def cp_operands(sizes: Sequence[int], rank: int) -> tuple[Any, ...]:
    return noisy(sizes, rank), [torch.randn(size, rank) for size in sizes]


def tucker_operands(sizes: Sequence[int], rank: int) -> tuple[Any, ...]:
    return noisy(sizes, rank), [torch.linalg.qr(torch.randn(size, rank)).Q for size in sizes]


def our_cp(tensor: Tensor, factors: Factors) -> Tensor:
    return _entries(
        cp_als(
            tensor, factors[0].shape[1], init=list(factors), max_iterations=SWEEPS, tolerance=0, acceleration="none"
        ).to_tensor()
    )


def tensorly_cp(tensor: Tensor, factors: Factors) -> Tensor:
    start = (None, [factor.clone() for factor in factors])
    found = tensorly.decomposition.parafac(tensor, factors[0].shape[1], init=start, n_iter_max=SWEEPS, tol=0)
    return _entries(tensorly.cp_to_tensor(found))


def with_our_backend(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*operands: Any) -> Tensor:
        import multilinear.interop.tensorly  # noqa: F401  (registers the backend)

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


def pyttb_cp(tensor: Any, factors: Any) -> Tensor:
    import pyttb

    rank = factors[0].shape[1]
    model, _, _ = pyttb.cp_als(tensor, rank, init=pyttb.ktensor(factors), maxiters=SWEEPS, stoptol=0, printitn=-1)
    return _entries(torch.from_numpy(model.full().data.copy()))


def our_tucker(tensor: Tensor, factors: Factors) -> Tensor:
    rank = factors[0].shape[1]
    return _entries(tucker(tensor, rank, init=list(factors), max_iterations=SWEEPS, tolerance=0).to_tensor())


def tensorly_tucker(tensor: Tensor, factors: Factors) -> Tensor:
    core = tensorly.tenalg.multi_mode_dot(tensor, list(factors), transpose=True)
    rank = [factor.shape[1] for factor in factors]
    found = tensorly.decomposition.tucker(tensor, rank, init=(core, list(factors)), n_iter_max=SWEEPS, tol=0)
    return _entries(tensorly.tucker_to_tensor(found))


def pyttb_tucker(tensor: Any, factors: Any) -> Tensor:
    import pyttb

    rank = factors[0].shape[1]
    model, _, _ = pyttb.tucker_als(tensor, rank, init=list(factors), maxiters=SWEEPS, stoptol=0, printitn=-1)
    return _entries(torch.from_numpy(model.full().data.copy()))


def our_hosvd(tensor: Tensor) -> Tensor:
    return _entries(hosvd(tensor, min(16, *tensor.shape)).to_tensor())


def hosvd_by_hand(tensor: Tensor) -> Tensor:
    """Sequentially truncated, each mode by the SVD of its unfolding."""
    rank, core, factors = min(16, *tensor.shape), tensor, []
    for mode in range(tensor.ndim):
        left = torch.linalg.svd(core.movedim(mode, 0).flatten(1), full_matrices=False).U[:, :rank]
        core = torch.tensordot(core, left, dims=([mode], [0])).movedim(-1, mode)
        factors.append(left)
    for mode, left in enumerate(factors):
        core = torch.tensordot(core, left, dims=([mode], [1])).movedim(-1, mode)
    return _entries(core)


CP_FITS: dict[str, Provider] = {
    OURS: our_cp,
    "TensorLy": tensorly_cp,
    "TensorLy on ours": with_our_backend(tensorly_cp),
    "pyttb": Prepared(pyttb_arrays, pyttb_cp),
}
TUCKER_FITS: dict[str, Provider] = {
    OURS: our_tucker,
    "TensorLy": tensorly_tucker,
    "TensorLy on ours": with_our_backend(tensorly_tucker),
    "pyttb": Prepared(pyttb_arrays, pyttb_tucker),
}


def mapped(sizes: Sequence[int], rank: int) -> tuple[Any, ...]:
    """A tensor in a file, written in blocks of rows the first time, and factors to start from."""
    path = Path(gettempdir()) / f"multilinear-benchmark-{'x'.join(map(str, sizes))}-r{rank}.bin"
    factors = [torch.randn(size, rank) for size in sizes]
    if not path.exists():
        partial_path = path.with_suffix(".part")
        with open(partial_path, "wb") as file:
            for first in factors[0].split(8):
                block = ml.cp_to_tensor([first, *factors[1:]])
                (block + NOISE * torch.randn_like(block)).numpy().tofile(file)
        partial_path.rename(path)
    tensor = torch.from_file(str(path), shared=False, size=prod(sizes)).reshape(tuple(sizes))
    return tensor, [torch.randn(size, rank) for size in sizes]


def _entries(tensor: Tensor) -> Tensor:
    """Some entries of a model, enough to compare."""
    return tensor.reshape(-1)[:: max(tensor.numel() // 10_000, 1)].clone()


def our_mapped(tensor: Tensor, factors: Factors) -> Tensor:
    model = cp_als(tensor, factors[0].shape[1], init=list(factors), max_iterations=1, acceleration="none")
    return (model.factors[0] * model.weights) @ model.factors[1][:4].mT


def _floor(sizes: Sequence[int], rank: int) -> Floor:
    rows = prod(sizes[: (len(sizes) + 1) // 2])
    columns = prod(sizes) // rows
    return Floor(forward=[(rows, columns, rank), (columns, rows, rank)] * SWEEPS)


def fit(kind: str, sizes: Sequence[int], rank: int, size: Size) -> Case:
    shape, rank_ = [size(k) for k in sizes], size(rank)
    return Case(
        name=f"w10-{kind}-{len(sizes)}way-r{rank}",
        workload="W10",
        shape=f"{'CP-ALS' if kind == 'cp' else 'HOOI'}, {tuple(sizes)}, R={rank}, {SWEEPS} sweeps",
        operands=partial(cp_operands if kind == "cp" else tucker_operands, shape, rank_),
        providers=CP_FITS if kind == "cp" else TUCKER_FITS,
        reference="TensorLy",
        floor=_floor(shape, rank_),
    )
