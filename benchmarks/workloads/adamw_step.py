"""W9: a whole step of a trained core, from the loss to AdamW, with the core's gradient in factors or dense.

The texture core is used twice, as in the paper: with the light of every face, and with one light for the normals.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

import multilinear as ml
from benchmarks import rivals
from benchmarks.case import AUTODIFF, OURS, Case, Floor, Prepared, Provider
from benchmarks.sizes import Size, full
from benchmarks.workloads import maps
from benchmarks.workloads.projection import SHAPE, TEXTURE

DENSE = "multilinear, dense gradient"
Loss = Callable[[Tensor, Tensor, list[Tensor]], Tensor]


class Uses(Module):
    """A core, and all that a step does with it."""

    def __init__(self, loss: Loss, core: Tensor, *, factored: bool):
        super().__init__()
        self.loss = loss
        self.layer = ml.nn.Multilinear(core.shape[1:], len(core), device="meta")
        self.layer.weight = Parameter(core)  # shared by all providers: no step is long enough to change it
        if factored:
            ml.optim.factor_gradients(self, smallest=0)
        # the step is so small that the next round sees the same numbers, and the first moment is the gradient
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=1e-30, betas=(0.0, 0.99), weight_decay=0, fused=True)

    @torch.enable_grad()
    def step(self, targets: list[Tensor], uses: list[list[Tensor]]) -> list[Tensor]:
        core = self.layer.weight
        loss = torch.stack([self.loss(x, core, inputs) for x, inputs in zip(targets, uses, strict=True)]).sum()
        loss.backward()
        # float32 norms of dense gradients of this size are off by up to 2 %, so that clipped ones could not be compared
        torch.nn.utils.clip_grad_norm_([core], float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return [loss.detach(), self.optimizer.state[core]["exp_avg"]]


def stepping(loss: Loss, *, factored: bool = False) -> Prepared:
    def prepare(targets: list[Tensor], core: Tensor, uses: list[list[Tensor]]) -> tuple[Any, ...]:
        user = Uses(loss, core, factored=factored)
        user.step(targets, uses)  # makes the moments
        return user, targets, uses

    return Prepared(prepare, Uses.step)


def operands(count: int, outputs: int, sizes: list[int], *, uses: int) -> tuple[Any, ...]:
    inputs = [torch.randn(count, size) for size in sizes]
    constant = torch.full((sizes[0],), 1 / sizes[0])
    targets = [torch.randn(count, outputs) for _ in range(uses)]
    return targets, torch.randn(outputs, *sizes) / 30, [inputs, [constant, *inputs[1:]]][:uses]


def case(what: str, stream: tuple[int, tuple[int, ...]], count: int, uses: int, size: Size) -> Case:
    outputs, sizes = size(stream[0]), [size(k) for k in stream[1]]
    columns, samples = prod(sizes), size(count)
    providers: dict[str, Provider] = {
        OURS: stepping(maps.ours, factored=True),
        AUTODIFF: stepping(rivals.on_the_tape(maps.ours)),
        DENSE: stepping(maps.ours),
        maps.CHAIN: stepping(maps.khatri_rao_chain),
        maps.FOLDED: stepping(maps.folded_chain),
    }
    if uses == 1:
        providers.pop(maps.FOLDED)
    products = [(samples, columns, outputs), (samples, outputs, columns), (outputs, samples, columns)]
    return Case(
        name=f"w9-{what}-n{count}",
        workload="W9",
        shape=f"{stream[0]} x {stream[1]}, n={count}" + (", used twice" if uses > 1 else ""),
        operands=partial(operands, samples, outputs, sizes, uses=uses),
        providers=providers,
        reference=maps.CHAIN,
        # weights and two moments are read and written once
        floor=Floor(forward=products, forward_stream=3 * outputs * columns),
        memory_unit=outputs * columns,
        forward_alone=False,
    )


def cases(size: Size = full) -> list[Case]:
    return [case("texture", TEXTURE, 32, 2, size), case("shape", SHAPE, 32, 1, size)]
