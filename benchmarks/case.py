"""What is measured: a case is operands and a table of providers that all compute the same from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class Unavailable(Exception):
    """A provider cannot run here: a package, a name or a device is missing."""


@dataclass(frozen=True)
class Prepared:
    """A provider that brings the operands into a form of its own once, outside the measurement."""

    prepare: Callable[..., tuple[Any, ...]]
    call: Callable[..., Any]


Provider = Callable[..., Any] | Prepared | str
"""A string says why a provider was left out of a case."""


@dataclass(frozen=True)
class Floor:
    """Work that nobody can avoid: matrix products `(rows, inner, columns)`, and elements written once."""

    forward: Sequence[tuple[int, int, int]] = ()
    backward: Sequence[tuple[int, int, int]] = ()
    forward_stream: int = 0
    backward_stream: int = 0
    operations: int = 0
    """Floating-point operations besides those of the matrix products."""

    def flops(self, mode: str) -> int:
        products = {"forward": self.forward, "backward": self.backward, "both": [*self.forward, *self.backward]}[mode]
        return self.operations + sum(2 * rows * inner * columns for rows, inner, columns in products)


@dataclass(frozen=True)
class Case:
    """Operands, and the providers that compute the same from them.

    Attributes:
        name: What the command line calls it, `workload-what-size`.
        workload: The family, W1 to W8, or small.
        shape: For the tables.
        operands: Makes the arguments of every provider; those that require gradients are differentiated. Where none
            does, only the forward pass is measured.
        providers: By name. `OURS` is what all are compared with; `AUTODIFF` is the same forward pass with torch's tape.
        reference: The provider that is right by inspection; in float64 it decides who is wrong.
        floor: What the machine needs at least.
        memory_unit: Elements that the extra memory is compared with: the core's gradient, a Khatri-Rao product.
        forward_alone: Whether inference is measured besides training; large cases leave it out.
        memory_too: Whether the peak of memory is measured; large cases that differ only in n leave it to one of them.
        learning_step: Whether a step of gradient descent follows every backward pass.
        devices: Where the case is worth running.
    """

    name: str
    workload: str
    shape: str
    operands: Callable[[], tuple[Any, ...]]
    providers: dict[str, Provider]
    reference: str
    floor: Floor = field(default_factory=Floor)
    memory_unit: int = 0
    forward_alone: bool = True
    memory_too: bool = True
    learning_step: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")


OURS = "multilinear"
AUTODIFF = "autodiff"
FLOOR = "floor"


class Problem:
    """The operands of a case on a device, and the gradient that comes in from above, the same for all providers."""

    def __init__(self, case: Case, args: tuple[Any, ...]):
        self.case = case
        self.args = args
        self.variables = leaves(args)
        self.cotangents: list[Tensor] | None = None

    @classmethod
    def draw(cls, case: Case, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "Problem":
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            return cls(case, convert(case.operands(), dtype))

    def in_double(self) -> "Problem":
        return Problem(self.case, convert(self.args, torch.float64))

    def elements(self) -> int:
        return sum(tensor.numel() for tensor in tensors(self.args))

    def expect(self, outputs: Sequence[Tensor]) -> None:
        """Fixes the incoming gradients: 1 for a scalar, noise for everything else."""
        if self.variables:
            generator = torch.Generator().manual_seed(1)
            self.cotangents = [
                torch.ones_like(y) if y.ndim == 0 else torch.randn(y.shape, generator=generator).to(y) for y in outputs
            ]


class Run:
    """One provider on one problem, to be called again and again."""

    def __init__(self, provider: Callable[..., Any] | Prepared, problem: Problem):
        self.problem = problem
        if isinstance(provider, Prepared):
            self.call, self.args = provider.call, provider.prepare(*problem.args)
        else:
            self.call, self.args = provider, problem.args
        # the step is so small that the next round sees the same numbers
        self.optimizer = torch.optim.SGD(problem.variables, lr=1e-30) if problem.case.learning_step else None

    @property
    def trains(self) -> bool:
        return bool(self.problem.variables)

    def forward(self) -> list[Tensor]:
        with torch.no_grad():
            return as_list(self.call(*self.args))

    def record(self) -> list[Tensor]:
        return as_list(self.call(*self.args))

    def backward(self, outputs: list[Tensor]) -> tuple[Tensor, ...]:
        cotangents = [g.to(y.dtype) for g, y in zip(self.problem.cotangents or [], outputs, strict=True)]
        if self.optimizer is None:
            return torch.autograd.grad(outputs, self.problem.variables, cotangents)
        torch.autograd.backward(outputs, cotangents)
        self.optimizer.step()
        gradients = tuple(x.grad for x in self.problem.variables)
        self.optimizer.zero_grad()
        return gradients


class FloorRun:
    """The floor as a run: matrix products of the same sizes into ready buffers, and streams of the same length."""

    trains = True

    def __init__(self, floor: Floor, *, device: str, dtype: torch.dtype, trains: bool):
        def buffers(sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
            rows, inner, columns = sizes
            shapes = ((rows, inner), (inner, columns), (rows, columns))
            return tuple(torch.ones(shape, device=device, dtype=dtype) for shape in shapes)  # type: ignore[return-value]

        def stream(elements: int) -> tuple[Tensor, Tensor]:
            return torch.ones(elements, device=device, dtype=dtype), torch.ones(elements, device=device, dtype=dtype)

        self.products = [buffers(sizes) for sizes in floor.forward], [buffers(sizes) for sizes in floor.backward]
        self.streams = stream(floor.forward_stream), stream(floor.backward_stream)
        self.trains = trains

    def forward(self) -> list[Tensor]:
        return self._work(0)

    def record(self) -> list[Tensor]:
        return self._work(0)

    def backward(self, outputs: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(self._work(1))

    def _work(self, phase: int) -> list[Tensor]:
        for a, b, out in self.products[phase]:
            torch.mm(a, b, out=out)
        source, sink = self.streams[phase]
        if source.numel():
            sink.copy_(source)
        return []


def tensors(arguments: Any) -> list[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(arguments, Tensor):
        return [arguments]
    return [x for item in arguments for x in tensors(item)] if isinstance(arguments, list | tuple) else []


def leaves(arguments: Any) -> list[Tensor]:
    return [x for x in tensors(arguments) if x.requires_grad]


def convert(arguments: Any, dtype: torch.dtype) -> Any:
    if isinstance(arguments, Tensor):
        return arguments.detach().to(dtype).requires_grad_(arguments.requires_grad)
    return (
        type(arguments)(convert(item, dtype) for item in arguments)
        if isinstance(arguments, list | tuple)
        else arguments
    )


def on_meta(arguments: Any) -> Any:
    """The same arguments without numbers: for shapes."""
    if isinstance(arguments, Tensor):
        return arguments.detach().to("meta").requires_grad_(arguments.requires_grad)
    return type(arguments)(on_meta(item) for item in arguments) if isinstance(arguments, list | tuple) else arguments


def as_list(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
