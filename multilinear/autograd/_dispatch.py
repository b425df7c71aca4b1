"""Which code runs, by device, dtype and size.

    formula     the forward formula in ATen operations, differentiated by torch's tape
    operator    the same formula with its analytic backward pass, in ATen operations
    kernel      forward and analytic backward pass written for the device, behind the operator

The analytic backward pass costs some microseconds of Python and saves a pass over memory or two. Where the whole
problem takes as long as the Python, the formula is faster: below `SMALL` elements of the largest tensor involved on a
CPU, and below `SMALL_ON_CUDA` on a GPU, which computes a hundred times as much meanwhile.
`python -m benchmarks thresholds` measures the lines; what it found is in benchmarks/results/thresholds*.csv.

Graphs of torch.compile and torch.export hold the formula whatever the size, unless `use` asks for the operators:
Inductor fuses it with what surrounds it. With operators in the graph, forward and backward on a CPU took some 1.5
times as long for MTTKRPs, 1.4 for Khatri-Rao products, as long for the multilinear loss, and 0.9 for mode products (by
hand, on a busy machine: no more than a hint).

A kernel runs at the sizes at which it was measured to be the fastest, and where nothing was measured, not at all
(`KERNELS`). `use("triton")` asks for it whatever the size.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import Parameter

from multilinear.autograd._transforms import forward_mode_active, functorch_active

Backend = Literal["auto", "torch", "triton", "autodiff"]

SMALL = {  # autodiff's time over analytic's at sizes around the line (benchmarks/results/thresholds.csv)
    "face_splitting": 1_000_000,  # (9, 15, 80): 0.66 at 173,000, 0.72 at 691,000, 1.33 at 2.8 million
    "multilinear_map": 1_000_000,  # core x (10, 20), n = 16: 0.79 at 200,000, 0.97 from 1 million on, for the memory
    "multilinear_loss": 1_000_000,  # the same: 0.86 at 200,000, 0.93 at 1 million, 1.05 at 2 million, 1.12 at 4 million
    "mode_dot": 60_000,  # middle mode of a cube: 0.73 at 8,000, 1.06 at 64,000, 1.41 at 216,000
    "outer_mode_dot": 9_000_000,  # first or last mode: 0.85 at 512,000, 0.87 at 8 million, 1.49 at 18 million
    "cp_to_tensor": 60_000,  # cube, rank 8: 0.74 at 8,000, 1.03 at 64,000, 1.45 at 216,000
}
"""Elements of the largest tensor from which the analytic backward pass is the faster one on a CPU."""

SMALL_ON_CUDA = {  # the same on an H100 (thresholds-nvidia-h100-80gb-hbm3.csv), whose host was busy with other work
    "face_splitting": 100_000_000,  # (9, 15, 80): 0.76 at 44 million, 0.97 at 177 million
    "multilinear_map": math.inf,  # 0.63 at 20 million, 0.79 at 80 million
    "multilinear_loss": math.inf,  # 0.83 at 80 million; the paper's cores 0.73 to 0.94, once 1.07
    "mode_dot": 50_000_000,  # 0.98 at 18 million, 1.84 at 125 million
    "outer_mode_dot": math.inf,  # 0.67 at 18 million, 0.96 at 125 million
    "cp_to_tensor": math.inf,  # 0.78 at 18 million, 0.77 at 125 million
}

KERNELS: dict[str, int] = {  # the faster of the others over the kernel, ibid.
    "face_splitting": 100_000_000,  # (9, 15, 80): 0.86 at 44 million, 1.78 at 177 million
}
"""Elements of the largest tensor from which the kernel of an operator is the fastest on a CUDA device.

That of `multilinear_loss` was not: 0.96 to 1.06 for up to 16 samples and small cores, 0.34 for 64 on the paper's.
"""

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_backend: Backend = "auto"


@contextmanager
def use(backend: Backend) -> Iterator[None]:
    """Chooses the code behind the operators inside a `with` block, for tests and comparisons.

    The results do not depend on it, save for rounding. It holds for the whole process, not for one thread, because
    autograd runs backward passes in threads of its own.

    Args:
        backend: "auto", the default, takes the fastest that was measured for the device and size. "torch" takes the
            analytic gradients in torch's own operations whatever the size. "triton" takes the GPU kernels whatever the
            size; what they do not know, such as float64 or the batches of vmap, and operators without a kernel take
            torch's operations. "autodiff" takes the forward formulas alone and lets torch differentiate them, which
            is what "auto" does in graphs of torch.compile and torch.export.

    Raises:
        ValueError: The backend is unknown. Under "triton", also by an operator that gets CPU tensors.
        RuntimeError: The backend is "triton", and that package is not installed.

    Example:
        >>> import torch, multilinear as ml
        >>> a, b = torch.rand(2, 3), torch.rand(4, 3)
        >>> with ml.use("autodiff"):
        ...     slow = ml.khatri_rao([a, b])
        >>> torch.equal(slow, ml.khatri_rao([a, b]))
        True
    """
    global _backend
    if backend not in get_args(Backend):
        raise ValueError(f"use: the backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend == "triton" and find_spec("triton") is None:
        raise RuntimeError(
            'use: the backend "triton" needs the package triton, which is not installed; install torch for CUDA, which '
            'brings it, or take "auto"'
        )
    previous, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = previous


def backend() -> Backend:
    """The backend in use."""
    return _backend


def takes_formula(operator: str, elements: int, tensors: Sequence[Tensor]) -> bool:
    """Whether torch's tape should differentiate the forward formula of a problem of this size, on its device.

    Not for tensors that are split over processes: the operator sums small gradients over them, the tape large products.
    """
    if _backend == "auto":
        if torch.compiler.is_compiling():
            return True
        small = SMALL_ON_CUDA if tensors[0].is_cuda else SMALL
        return elements < small[operator] and not is_distributed(tensors)
    return _backend == "autodiff"


def are_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether none of the tensors is of a subclass, such as a DTensor."""
    return all(type(tensor) in (Tensor, Parameter) for tensor in tensors)


def is_distributed(tensors: Sequence[Tensor]) -> bool:
    """Whether one of the tensors is a DTensor. Does not import what defines them: without it there are none."""
    if are_plain(tensors) or torch.compiler.is_compiling():
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(tensor, module.DTensor) for tensor in tensors)


def takes_kernel(operator: str, elements: int, tensors: Sequence[Tensor]) -> bool:
    """Whether the operator's GPU kernel should run on these tensors, which have to be real and of one dtype for it."""
    first = tensors[0]
    measured = operator in KERNELS and elements >= KERNELS[operator]
    return (
        (_backend == "triton" or (_backend == "auto" and measured))
        and first.is_cuda
        and first.dtype in KERNEL_DTYPES
        and all(x.dtype == first.dtype for x in tensors)
        and torch.cuda.get_device_capability(first.device) >= (8, 0)
        and find_spec("triton") is not None
    )


def check_backend(operator: str, tensor: Tensor) -> None:
    """A CPU tensor where the GPU kernels were asked for."""
    if _backend == "triton" and tensor.device.type == "cpu":
        raise ValueError(
            f'{operator}: the backend "triton" needs CUDA tensors, got one on the CPU; move it to a GPU, or take '
            f'multilinear.use("auto")'
        )


def is_eager(*tensors: Tensor) -> bool:
    """Whether Python may look at the values: plain tensors, no transform of torch.func, no dual numbers, no tracing."""
    if forward_mode_active() or functorch_active() or torch.compiler.is_compiling():
        return False
    return are_plain(tensors) and all(tensor.device.type in ("cpu", "cuda") for tensor in tensors)
