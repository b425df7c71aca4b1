"""Which cases there are, and the settings under which they run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch

import tensorly

from benchmarks import sizes
from benchmarks.case import Case
from benchmarks.workloads import (
    adamw_step,
    cp_loss,
    decompositions,
    frozen_core,
    khatri_rao,
    mode_products,
    mttkrp,
    projection,
    shared_inputs,
    small,
)

FAMILIES = (
    projection,
    shared_inputs,
    khatri_rao,
    mode_products,
    mttkrp,
    cp_loss,
    frozen_core,
    adamw_step,
    decompositions,
    small,
)
WORKLOADS = {
    "W1": "Texture stream: loss and all gradients",
    "W2": "Shape stream: loss and all gradients",
    "W3": "Texture stream, one light for the batch",
    "W4": "Khatri-Rao and face-splitting product",
    "W5": "Mode-n product",
    "W6": "MTTKRP and the CP loss",
    "W7": "Video: one person, one light, many expressions",
    "W8": "Core frozen: gradients of the latents only",
    "W9": "A step of AdamW, with the core's gradient in factors or dense",
    "W10": "Decompositions: whole fits from the same starts",
    "small": "Small problems",
}


def cases(*, device: str = "cpu", tiny: bool = False) -> list[Case]:
    size = sizes.tiny if tiny else sizes.full
    every = [case for family in FAMILIES for case in family.cases(size)]
    order = list(WORKLOADS)
    return sorted((case for case in every if device in case.devices), key=lambda case: order.index(case.workload))


def find(name: str, *, device: str = "cpu", tiny: bool = False) -> Case:
    return next(case for case in cases(device=device, tiny=tiny) if case.name == name)


def matching(patterns: Sequence[str], *, device: str = "cpu") -> list[Case]:
    """Cases with such a name, the beginning of it (`w4`), or a pattern (`w4*n64`); every pattern has to fit some."""
    known = cases(device=device)
    for pattern in patterns:
        if not any(_fits(case.name, pattern) for case in known):
            raise ValueError(f"benchmarks: no case is called {pattern!r}; `python -m benchmarks list` shows the names")
    return [case for case in known if any(_fits(case.name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or name.startswith(f"{pattern}-")


@contextmanager
def environment() -> Iterator[None]:
    """TensorLy on torch tensors."""
    before = tensorly.get_backend()
    tensorly.set_backend("pytorch")
    try:
        yield
    finally:
        tensorly.set_backend(before)
