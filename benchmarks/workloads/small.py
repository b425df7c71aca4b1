"""S: sizes at which calling costs more than computing."""

from collections.abc import Sequence
from functools import partial
from math import prod

from benchmarks.case import Case
from benchmarks.sizes import Size, full
from benchmarks.workloads import khatri_rao, maps, mode_products

LOSSES = [(100, (5, 8), 4), (1000, (10, 20), 16)]


def loss(outputs: int, sizes: Sequence[int], count: int, size: Size) -> Case:
    return Case(
        name=f"s-loss-{outputs}x{'x'.join(map(str, sizes))}-n{count}",
        workload="S",
        shape=f"loss, {outputs} x {tuple(sizes)}, n={count}",
        operands=partial(maps.operands, size(count), size(outputs), [size(k) for k in sizes]),
        providers=maps.providers(
            maps.CHAIN, "torch.compile", "TensorLy", "einsum", "einsum, no path", "opt_einsum", "bilinear"
        ),
        reference=maps.CHAIN,
        floor=maps.floor(size(count), size(outputs), prod(size(k) for k in sizes)),
    )


def cases(size: Size = full) -> list[Case]:
    return [
        *(loss(*shape, size) for shape in LOSSES),
        khatri_rao.case((5, 8), 4, size, workload="S"),
        mode_products.case((8, 9, 10), 1, 4, size, workload="S"),
    ]
