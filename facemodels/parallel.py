"""What a step on many processes needs beyond averaged gradients, so that it equals a step of one process.

Every function is the identity where there is one process. A quantity of the whole batch is computed on every process
from `gather`ed parts; the gradient of `gather` is the sum over processes, so that averaging the parameters' gradients
over processes, as data-parallel training does, gives the gradient of one process with the whole batch.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process() -> int:
    """The number of this one."""
    return dist.get_rank() if processes() > 1 else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part: Tensor) -> Tensor:
        ctx.rows = len(part)
        parts = [torch.empty_like(part) for _ in range(processes())]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        first = process() * ctx.rows
        return total[first : first + ctx.rows]


def gather(part: Float[Tensor, "n *rest"]) -> Float[Tensor, "all *rest"]:
    """The rows of all processes one behind the other; every process must have equally many."""
    return _Gather.apply(part) if processes() > 1 else part  # type: ignore[return-value]


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a value over the processes, without a gradient."""
    value = value.detach()
    if processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= processes()
    return value


def average_gradients(module: nn.Module) -> None:
    """Average the gradients of a small module that every process holds whole."""
    if processes() == 1:
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= processes()
    for gradient, average in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(average.view_as(gradient))
