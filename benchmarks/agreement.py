"""Nobody is timed who computes something else: values and all gradients, against float64 where that is affordable."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.case import Problem, Run

AFFORDABLE = 64_000_000
"""Elements of the operands up to which the reference is computed in float64."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 3e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference over the largest entry. Rounding leaves 1e-8 to 1e-4 in float32; a wrong formula leaves 1e-2."""
CHUNK = 1 << 22


def expected(problem: Problem) -> list[Tensor]:
    """Values and gradients of the reference; also fixes the problem's incoming gradients."""
    judge = problem.in_double() if problem.elements() <= AFFORDABLE else problem
    run = Run(cast(Any, problem.case.providers[problem.case.reference]), judge)
    judge.expect(run.forward())
    problem.cotangents = judge.cotangents
    return results(run)


def results(run: Run) -> list[Tensor]:
    """What a run returns in inference and in training, then its gradients."""
    if not run.trains:
        return run.forward()
    inferred = run.forward() if run.problem.case.forward_alone else []
    outputs = run.record()
    return [*inferred, *(y.detach() for y in outputs), *run.backward(outputs)]


def error(actual: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference over the largest wanted entry, the worst of all tensors; infinite if the shapes differ."""
    if [x.shape for x in actual] != [x.shape for x in wanted]:
        return float("inf")
    return max(_error(x, y) for x, y in zip(actual, wanted, strict=True))


def _error(actual: Tensor, wanted: Tensor) -> float:
    """In chunks: a temporary of a core's size takes longer than comparing it."""
    actual, wanted = actual.detach().reshape(-1), wanted.detach().reshape(-1)
    pairs = zip(actual.split(CHUNK), wanted.split(CHUNK), strict=True)
    found = [torch.stack([(x.to(y.dtype) - y).abs().max(), y.abs().max()]) for x, y in pairs]
    difference, scale = torch.stack(found).amax(0).tolist()  # amax keeps NaN
    return difference / (scale or 1.0)
