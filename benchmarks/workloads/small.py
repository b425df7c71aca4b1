"""Small: from sizes at which calling costs more than computing to those at which analytic gradients begin to pay."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import multilinear as ml
from benchmarks import rivals
from benchmarks.case import Case
from benchmarks.sizes import Size, full
from benchmarks.workloads import khatri_rao, maps, mode_products

ANALYTIC = "multilinear, analytic"
"""Ours without the rule that gives small problems to torch's tape."""
LOSSES = [(100, (5, 8), 4), (500, (10, 20), 16), (1000, (10, 20), 16)]
PRODUCTS = [((5, 8), 4), ((40, 40), 64)]
MODE_PRODUCTS = [((8, 9, 10), 1, 4), ((48, 48, 48), 1, 16)]


def loss(outputs: int, sizes: Sequence[int], count: int, size: Size) -> Case:
    return Case(
        name=f"small-loss-{outputs}x{'x'.join(map(str, sizes))}-n{count}",
        workload="small",
        shape=f"loss, {outputs} x {tuple(sizes)}, n={count}",
        operands=partial(maps.operands, size(count), size(outputs), [size(k) for k in sizes]),
        providers=maps.providers(
            maps.CHAIN, "torch.compile", "TensorLy", "einsum", "einsum, no path", "opt_einsum", "bilinear"
        ),
        reference=maps.CHAIN,
        floor=maps.floor(size(count), size(outputs), prod(size(k) for k in sizes)),
    )


def analytic_too(case: Case, call: Callable[..., Any]) -> Case:
    return replace(case, providers={**case.providers, ANALYTIC: rivals.always_analytic(call)})


def cases(size: Size = full) -> list[Case]:
    return [
        *(analytic_too(loss(*shape, size), maps.ours) for shape in LOSSES),
        *(analytic_too(khatri_rao.case(*shape, size, workload="small"), ml.khatri_rao) for shape in PRODUCTS),
        *(analytic_too(mode_products.case(*shape, size, workload="small"), ml.mode_dot) for shape in MODE_PRODUCTS),
    ]
