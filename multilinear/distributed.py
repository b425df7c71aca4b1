"""Cores larger than one device: split by rows over processes, with `torch.distributed` and its DTensor.

    style = OutputParallel()                                    # one process holds k / processes rows of the core
    parallelize_module(layer, mesh, style)                      # torch.distributed.tensor.parallel

Row o of a core makes output o. The rows are independent of one another, so that the forward pass moves nothing, the
core's gradient and the optimiser's state stay where the rows are, and the backward pass sums the gradients of the
inputs over the processes: n (k_1 + ... + k_M) numbers, however large the core.

The functions of `multilinear` take DTensors as they come: `multilinear_map(core, inputs)` with a core that
`distribute_tensor` split by rows does the same without a layer. How every operator may be split says
`multilinear/autograd/_sharding.py`; docs/distributed.md counts what 8, 64 and 1024 GPUs would need.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle
from torch.nn import Module, Parameter

from multilinear.nn import CPCore, Multilinear, TuckerCore


class OutputParallel(ParallelStyle):
    """Splits a `Multilinear` layer by its outputs over a device mesh: what `ColwiseParallel` is to `torch.nn.Linear`.

    Of the core, every process holds the rows of its outputs, as DTensor does it: the first processes have
    ceil(k / processes), the last ones may have fewer. With a CP core these are rows of the output's factor, with a
    Tucker core rows of the output's factor, or of the small core where that mode has none; the other factors are whole
    everywhere. The numbers are those of one process, save for rounding.

    The gradient of an input is summed over the processes. As everywhere in `torch.distributed.tensor`, an output that
    is gathered must be used alike by all processes, which then compute one loss; where it is split, the loss is the sum
    of theirs.

    A core that fits no process is made without memory, split, and drawn in parts:
    `layer = Multilinear(sizes, k, device="meta")`, `parallelize_module(layer, mesh, OutputParallel())`,
    `layer.to_empty(device=...)`, `layer.reset_parameters()`; its values do not depend on the number of processes.

    Args:
        input_layouts: How the inputs come that are no DTensors, one placement for all or one for each: `Replicate()`,
            the default, the same in every process; `Shard(0)`, every process has samples of its own, as many as the
            others. A single vector is the same everywhere.
        output_layouts: How the output leaves: `Shard(-1)`, the default, every process has its outputs of all samples;
            `Replicate()`, everything everywhere; `Shard(0)`, every process has all outputs of its samples.
        use_local_output: Whether the output is an ordinary tensor, the local part, or a DTensor.

    Raises:
        TypeError: A layout is no placement; later, the module is no `Multilinear`.
        ValueError: Later: the mesh has several dimensions, the layer has fewer outputs than the mesh processes, or
            there are not as many layouts as inputs.

    Example:
        >>> import torch, multilinear as ml
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from torch.distributed.tensor.parallel import parallelize_module
        >>> from multilinear.distributed import OutputParallel
        >>> store = torch.distributed.HashStore()     # torchrun does this, for many processes
        >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        >>> layer = parallelize_module(ml.nn.Multilinear((9, 15), 500), mesh, OutputParallel())
        >>> layer.weight.placements, layer.weight.to_local().shape
        ((Shard(dim=0),), torch.Size([500, 9, 15]))
        >>> layer(torch.randn(32, 9), torch.randn(32, 15)).shape
        torch.Size([32, 500])
        >>> torch.distributed.destroy_process_group()

    Reference:
        Shoeybi et al., "Megatron-LM: Training multi-billion parameter language models using model parallelism", 2019,
        sec. 3: the column-parallel layer.
    """

    def __init__(
        self,
        *,
        input_layouts: Placement | Sequence[Placement] | None = None,
        output_layouts: Placement | None = None,
        use_local_output: bool = True,
    ):
        super().__init__()
        self.input_layouts = Replicate() if input_layouts is None else input_layouts
        self.output_layouts = Shard(-1) if output_layouts is None else output_layouts
        self.use_local_output = use_local_output
        layouts = [self.input_layouts] if isinstance(self.input_layouts, Placement) else list(self.input_layouts)
        for name, values in (("input_layouts", layouts), ("output_layouts", [self.output_layouts])):
            if not all(isinstance(value, Replicate | Shard) for value in values):
                raise TypeError(
                    f"OutputParallel: {name} must be Replicate() or Shard(...), got {values}; both are in "
                    f"torch.distributed.tensor"
                )

    def _apply(self, module: Module, device_mesh: DeviceMesh) -> Module:
        if not isinstance(module, Multilinear):
            raise TypeError(
                f"OutputParallel: the module must be a multilinear.nn.Multilinear, got {type(module).__name__}; name "
                f"the layer in the plan, as parallelize_module(model, mesh, {{'core': OutputParallel()}})"
            )
        if device_mesh.ndim != 1:
            raise ValueError(
                f"OutputParallel: the mesh must have one dimension, got {tuple(device_mesh.shape)}; take the one of "
                f'the core, as mesh["core"]'
            )
        if module.out_features < device_mesh.size():
            raise ValueError(
                f"OutputParallel: the layer has {module.out_features} outputs for {device_mesh.size()} processes; "
                f"every process needs one, take a smaller mesh"
            )
        for name, parameter in list(module.named_parameters()):
            placement = Shard(0) if name in _names_with_outputs(module) else Replicate()
            split = distribute_tensor(parameter, device_mesh, [placement], src_data_rank=self.src_data_rank)
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner).register_parameter(leaf, _reduced(Parameter(split, parameter.requires_grad)))
        return distribute_module(module, device_mesh, None, self._take, self._give)  # type: ignore[arg-type]

    def _take(self, module: Multilinear, inputs: tuple[Any, ...], mesh: DeviceMesh) -> tuple[Any, ...]:
        """The inputs, whole in every process."""
        layouts = self.input_layouts
        layouts = [layouts] * len(inputs) if isinstance(layouts, Placement) else list(layouts)
        if len(layouts) != len(inputs):
            raise ValueError(
                f"OutputParallel: {len(layouts)} input_layouts for {len(inputs)} inputs; give one for each, or one "
                f"for all"
            )
        return tuple(_whole(z, mesh, layout) for z, layout in zip(inputs, layouts, strict=True))

    def _give(self, module: Multilinear, output: Any, mesh: DeviceMesh) -> Tensor:
        """The output in the layout that is asked for."""
        output = output.redistribute(placements=[self.output_layouts])
        return output.to_local() if self.use_local_output else output

    def __repr__(self) -> str:
        return (
            f"OutputParallel(input_layouts={self.input_layouts}, output_layouts={self.output_layouts}, "
            f"use_local_output={self.use_local_output})"
        )


def _names_with_outputs(layer: Multilinear) -> set[str]:
    """The parameters whose first mode is the layer's output."""
    factored = isinstance(layer.core, CPCore) or (isinstance(layer.core, TuckerCore) and 0 in layer.factored_modes)
    return {"factors.0" if factored else "weight", "bias"}


def _reduced(parameter: Parameter) -> Parameter:
    """Lets the gradient of a parameter that is whole everywhere arrive summed."""
    if parameter.requires_grad and all(isinstance(p, Replicate) for p in parameter.placements):  # type: ignore
        parameter.register_hook(lambda gradient: gradient.redistribute(placements=parameter.placements))  # type: ignore
    return parameter


def _whole(z: Any, mesh: DeviceMesh, layout: Placement) -> DTensor:
    if not isinstance(z, DTensor):
        z = DTensor.from_local(z, mesh, [layout if z.ndim > 1 else Replicate()], run_check=False)
    return z.redistribute(placements=[Replicate()])


def draw_rows(parameter: Tensor, draw: Callable[..., Tensor]) -> None:
    """Fills a DTensor that is split along its first mode with random numbers that do not depend on how it is split.

    Every row has a generator of its own, seeded with the row's number and with a number that torch's generator in the
    first process draws. torch itself does so on CUDA devices only; on the CPU equal seeds give equal parts.

    Args:
        parameter: The DTensor.
        draw: `draw(row, generator=generator)` fills a row in place, as `torch.nn.init.normal_` does.

    Raises:
        ValueError: The tensor is split along another mode.
    """
    assert isinstance(parameter, DTensor)
    mesh, placements = parameter.device_mesh, parameter.placements
    if any((isinstance(p, Shard) and p.dim) or p.is_partial() for p in placements):
        raise ValueError(
            f"reset_parameters: only tensors that are split along mode 0 can be drawn in parts, got {placements}; draw "
            f"the whole one and use torch.distributed.tensor.distribute_tensor"
        )
    whole = [Replicate()] * mesh.ndim
    seed = torch.randint(1 << 40, (), device=mesh.device_type)
    seed = int(DTensor.from_local(seed, mesh, whole, run_check=True).to_local())  # run_check: the first process's
    numbers = torch.arange(parameter.shape[0], device=mesh.device_type)
    local = parameter.to_local()
    generator = torch.Generator(local.device)
    for row, number in enumerate(distribute_tensor(numbers, mesh, placements, src_data_rank=None).to_local().tolist()):
        draw(local[row], generator=generator.manual_seed(seed + number))


class LostProcess(RuntimeError):
    """Another process of the group does not answer."""


@contextmanager
def report_lost_process() -> Iterator[None]:
    """Turns the error of a collective operation that another process has left into one that says so.

    With gloo the others notice at once, by a closed connection; a process that hangs, or NCCL, by the timeout given to
    `torch.distributed.init_process_group`. Under `torchrun` the launcher ends all processes when one ends in an error.

    Raises:
        LostProcess: In the place of torch's error, which is its cause.

    Example:
        >>> from multilinear.distributed import report_lost_process
        >>> with report_lost_process():
        ...     raise RuntimeError("Connection closed by peer [127.0.0.1]:1234")
        Traceback (most recent call last):
        multilinear.distributed.LostProcess: another process of this group ended or hangs, ...
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        raise LostProcess(
            "another process of this group ended or hangs, and this one cannot go on without it; see what the other "
            f"one printed, and start again from the last checkpoint (torch: {str(error).splitlines()[0][:200]})"
        ) from error


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process does not answer."""
    text = str(error).lower()
    signs = ("connection closed by peer", "connection reset by peer", "gloo", "nccl", "broken pipe")
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in signs)
    )
