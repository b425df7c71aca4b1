"""One process or many: how they start, share a module, agree on numbers and notice that one of them is gone."""

import datetime
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from facemodels.errors import InputError
from facemodels.precision import fast_bfloat16
from multilinear.distributed import is_lost_process as is_lost_process

TIMEOUT = datetime.timedelta(minutes=10)
"""How long a process waits for the others: while one reads its faces, writes a checkpoint or draws a sheet."""


def start(precision: str, all_used: bool) -> Accelerator:
    """Join the processes that `accelerate launch` or `torchrun` started; alone without one of them.

    Args:
        precision: As in `TrainingConfig`.
        all_used: Whether every step gives every weight a gradient.

    Raises:
        InputError: The device cannot compute in this precision.
    """
    # Accelerate shards on GPUs only; `share` does so everywhere, and reads the same variable.
    os.environ["ACCELERATE_USE_FSDP"], wanted = "false", os.environ.get("ACCELERATE_USE_FSDP", "false")
    try:
        AcceleratorState._reset_state()  # a process may train twice, and with another precision
        cpu = not torch.accelerator.is_available()
        if precision == "auto":
            device = torch.device("cpu") if cpu else torch.accelerator.current_accelerator()
            precision = "bf16" if device and fast_bfloat16(device) else "no"
        if cpu and precision == "fp16":
            raise InputError("fp16 needs a GPU; on a CPU train with the precision bf16 or no")
        return Accelerator(
            cpu=cpu,
            mixed_precision=precision,
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=TIMEOUT),
                DistributedDataParallelKwargs(find_unused_parameters=not all_used, gradient_as_bucket_view=True),
            ],
        )
    finally:
        os.environ["ACCELERATE_USE_FSDP"] = wanted


def sharding_wanted() -> bool:
    """Whether `accelerate launch --use_fsdp` started this process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true", "yes")


def share(module: nn.Module, accelerator: Accelerator, shard: bool) -> nn.Module:
    """The module as all processes train it: sharded in place (FSDP2), wrapped in DDP, or itself in one process.

    Weights, gradients and the optimizer's state are sharded; for the time of a step every process holds the weights.
    """
    if accelerator.num_processes == 1:
        return module
    if shard:
        mesh = torch.distributed.init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 takes no other
        fully_shard(module, mesh=mesh)
        return module
    return accelerator.prepare_model(module)


def gradients_synchronised(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Where gradients of all but the last of some batches are added up in each process alone."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def agree(values: Mapping[str, Tensor | float], accelerator: Accelerator) -> dict[str, float]:
    """Means of numbers over all processes, the same in each; the one wait for the device in a step."""
    device = accelerator.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    numbers = torch.stack([torch.as_tensor(value, device=device).detach().to(dtype) for value in values.values()])
    if accelerator.num_processes > 1:
        torch.distributed.all_reduce(numbers)
        numbers /= accelerator.num_processes
    return dict(zip(values, numbers.tolist(), strict=True))


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which every process may hold a part; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a whole tensor that is shared as `like` is, on its device and in its memory format."""
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return torch.empty_like(like).copy_(tensor)


def end_processes() -> None:
    """Leave the group of processes; those that are still in it are not waited for."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
