"""Which code runs, by device, dtype and size.

    formula     the forward formula in ATen operations, differentiated by torch's tape
    operator    the same formula with its analytic backward pass, in ATen operations
    kernel      forward and analytic backward pass written for the device, behind the operator

The analytic backward pass costs some microseconds of Python and saves a pass over memory or two. Where the whole
problem takes as long as the Python, the formula is faster: below `SMALL` elements of the largest tensor involved.
`python -m benchmarks small` measures the line.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from multilinear.autograd._transforms import forward_mode_active, functorch_active

Backend = Literal["auto", "torch", "triton", "autodiff"]

SMALL = {
    "face_splitting": 500_000,
    "multilinear_map": 100_000,
    "mode_dot": 100_000,
    "cp_to_tensor": 100_000,
    "multilinear_loss": 100_000,
}
"""Elements of the largest tensor from which the analytic backward pass is the faster one on a CPU."""

_backend: Backend = "auto"


@contextmanager
def use(backend: Backend) -> Iterator[None]:
    """Chooses the code behind the operators inside a `with` block, for tests and comparisons.

    The results do not depend on it, save for rounding. It holds for the whole process, not for one thread, because
    autograd runs backward passes in threads of its own.

    Args:
        backend: "auto", the default, takes the fastest that was measured for the device and size. "torch" takes the
            analytic gradients in torch's own operations whatever the size. "triton" takes the GPU kernels whatever the
            size. "autodiff" takes the forward formulas alone and lets torch differentiate them.

    Raises:
        ValueError: The backend is unknown.

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
    previous, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = previous


def backend() -> Backend:
    """The backend in use."""
    return _backend


def takes_formula(operator: str, elements: int) -> bool:
    """Whether torch's tape should differentiate the forward formula of a problem of this size."""
    if _backend == "auto":
        return not torch.compiler.is_compiling() and elements < SMALL[operator]
    return _backend == "autodiff"


def is_eager() -> bool:
    """Whether plain tensors come in: no transform of torch.func, no dual numbers, no graph being compiled."""
    return not (forward_mode_active() or functorch_active() or torch.compiler.is_compiling())
