"""Training large cores: gradients that stay factored, for the optimisers and the clipping that torch has."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter

from multilinear.autograd.factored_gradient import MARK, FactoredGradient
from multilinear.nn import Multilinear

SMALLEST = 1 << 20
"""Numbers of a core from which its factored gradient is measured to be worth it (`python -m benchmarks w9`)."""

_DENSE, _NONE = -2, -1  # in the place of a number of samples


def factor_gradients(module: Module, *, enabled: bool = True, smallest: int = SMALLEST) -> list[str]:
    """Lets the full cores of all `Multilinear` layers in a module get their gradients in factors.

    A batch of n samples gives a core of k outputs and c columns a gradient Rᵀ K of rank n, with R the gradient of the
    output, (n, k), and K the products of the inputs, (n, c). From now on `weight.grad` is a
    `multilinear.optim.FactoredGradient`, which holds R and the inputs and never the k c numbers, wherever
    `multilinear_map`, `multilinear_loss` or the layer itself used the weight. The training loop stays as it is, and so
    do its numbers, save for rounding:

    - `torch.optim.AdamW(..., fused=True)`, and Adam and SGD likewise, read and write the weight and its moments once,
      a block of rows at a time. Without `fused`, these and RMSprop do so once for each of their operations (on a CUDA
      device with `foreach=False`). Their state is the usual one, so a run may go on with or without factors.
    - `torch.nn.utils.clip_grad_norm_` gets the exact norm from Gram matrices.
    - Batches that are accumulated, and several uses of a weight in one step, add up.
    - Other optimisers, other norms, `torch.amp.GradScaler` or weight decay of RMSprop find a dense gradient: theirs is
      what they would have had, at its usual price.

    `torch.compile` and `torch.func` keep dense gradients; so does FSDP, which replaces the weights. Under
    `DistributedDataParallel`, call this on the module that will be wrapped, on its device, before it is wrapped: its
    reducer then leaves these weights out, and `gather_gradients` has to follow the backward pass.

    Args:
        module: A layer, or a module with layers somewhere inside.
        enabled: False takes it back, from all cores.
        smallest: Numbers of a core from which on it is done; a small gradient is faster dense.

    Returns:
        The names of the weights in the module.

    Raises:
        RuntimeError: Later, by a backward pass with `create_graph=True` or a batch of gradients, which need dense ones.

    Example:
        >>> import torch, multilinear as ml
        >>> layer = ml.nn.Multilinear((9, 15, 80), 12288, device="meta")
        >>> ml.optim.factor_gradients(layer)
        ['weight']
        >>> layer = ml.nn.Multilinear((3, 4), 50)
        >>> _ = ml.optim.factor_gradients(layer, smallest=0)
        >>> layer(torch.randn(2, 3), torch.randn(2, 4)).square().sum().backward()
        >>> layer.weight.grad
        FactoredGradient((50, 3, 4), rank <= 2, torch.float32)
        >>> norm = torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        >>> torch.optim.AdamW(layer.parameters(), fused=True).step()

    Reference:
        The Gram matrix of a Khatri-Rao product: Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review
        51(3), 2009, sec. 2.6. AdamW: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
    cores = _cores(module, smallest if enabled else 0)
    for layer in cores.values():
        setattr(layer, MARK, enabled)
        setattr(layer.weight, MARK, enabled)
        if enabled and _is_parallel():
            dist.broadcast(layer.weight.data, src=0)  # what DistributedDataParallel does for all others
    ignored = set(getattr(module, "_ddp_params_and_buffers_to_ignore", ())) - set(cores)
    module._ddp_params_and_buffers_to_ignore = sorted(ignored | (set(cores) if enabled else set()))  # type: ignore
    return list(cores)


@torch.no_grad()
def gather_gradients(module: Module, group: "dist.ProcessGroup | None" = None) -> None:
    """Averages the factored gradients of a module over processes, as `DistributedDataParallel` does all others.

    Gathers R and the inputs of all processes, n (k + k_1 + ... + k_M) numbers of each, instead of summing
    k k_1 ... k_M. The processes may have different numbers of samples, or none. Call it after the last backward pass of
    a step and before clipping; with one process it does nothing. Copies of the module and weights that were put in
    the place of others (`load_state_dict(..., assign=True)`) have dense gradients, which are averaged, too.

    Args:
        module: What `factor_gradients` was called with, or a part of it.
        group: Of processes; all by default.

    Example:
        >>> import multilinear as ml
        >>> ml.optim.gather_gradients(ml.nn.Multilinear((3, 4), 50))
    """
    if not _is_parallel():
        return
    for layer in _cores(module, 0).values():
        if getattr(layer, MARK, False):  # the mark of its weight does not outlive the weight
            _average(layer.weight, group)


def _average(weight: Parameter, group: "dist.ProcessGroup | None") -> None:
    gradient = weight.grad
    processes = dist.get_world_size(group)
    rows = weight.new_zeros(0, sum(weight.shape))
    mine = _DENSE
    if gradient is None:
        mine = _NONE
    elif isinstance(gradient, FactoredGradient) and gradient.is_factored:
        rows = _rows(gradient)
        mine = len(rows)
    counts = _gather(torch.tensor([mine], device=weight.device), processes, group).flatten().tolist()
    if _DENSE in counts:
        total = torch.zeros_like(weight) if gradient is None else gradient + 0
        dist.all_reduce(total, group=group)
        weight.grad = total.div_(processes)
    elif max(counts) > _NONE:
        longest = max(counts)
        padded = weight.new_zeros(longest, sum(weight.shape))
        padded[: len(rows)] = rows
        parts = _gather(padded, processes, group)
        everything = torch.cat([part[: max(count, 0)] for part, count in zip(parts, counts, strict=True)])
        residual, *inputs = everything.split(list(weight.shape), dim=1)
        weight.grad = FactoredGradient(weight, [(residual / processes, tuple(z.contiguous() for z in inputs))])


def _rows(gradient: FactoredGradient) -> Tensor:
    """R and the inputs of all terms side by side, a row for each sample."""
    width = sum(gradient.shape)
    rows = [
        torch.cat([residual, *(z.expand(len(residual), -1) for z in inputs)], 1) for residual, inputs in gradient.terms
    ]
    return torch.cat(rows) if rows else torch.empty(0, width, dtype=gradient.dtype, device=gradient.device)


def _gather(value: Tensor, processes: int, group: "dist.ProcessGroup | None") -> Tensor:
    result = value.new_empty(processes, *value.shape)
    dist.all_gather(list(result.unbind()), value, group=group)
    return result


def _cores(module: Module, smallest: int) -> dict[str, Multilinear]:
    """The module's layers with a full core, by the name of their weight."""
    return {
        f"{name}.weight" if name else "weight": layer
        for name, layer in module.named_modules()
        if isinstance(layer, Multilinear) and layer.core == "full" and layer.weight.numel() >= smallest
    }


def _is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
