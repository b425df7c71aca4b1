"""`python -m benchmarks thresholds`: from which size on the analytic backward pass is worth its Python.

The lines of `multilinear/autograd/_dispatch.py` are read from this table, which is kept in `results/thresholds.csv`:
for ladders of sizes, the time of forward and backward pass under `use("autodiff")` over that under `use("torch")`. The
last row is the price of fresh memory, ordinary over huge pages, which `multilinear/autograd/_memory.py` speaks of.
"""

import argparse
import csv
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import multilinear as ml
from multilinear.autograd import _memory

OUT = Path(__file__).parent / "results" / "thresholds.csv"
FRESH = (12288, 10800)
"""Shape of the paper's texture core."""

Problem = tuple[str, int, Callable[..., Tensor], list[Tensor]]
"""Operator as `_dispatch.py` names it, elements, function, and the tensors it is differentiated by."""


def problems() -> Iterator[Problem]:
    """Every ladder, the smallest size first."""
    draw = lambda *shape: torch.randn(*shape, requires_grad=True)  # noqa: E731
    for count in (4, 16, 64, 256):
        factors = [draw(count, size) for size in (9, 15, 80)]
        yield "face_splitting", count * 10800, lambda *z: ml.face_splitting(z), factors
    for outputs in (300, 1000, 5000, 10_000, 20_000):
        tensors = [draw(outputs, 10, 20), draw(16, 10), draw(16, 20)]
        target = torch.randn(16, outputs)
        yield "multilinear_map", outputs * 200, lambda core, *z: ml.multilinear_map(core, z), tensors
        yield (
            "multilinear_loss",
            outputs * 200,
            lambda core, *z, x=target: ml.multilinear_loss(x, core, z),
            tensors,
        )
    for side in (20, 40, 60, 80, 200, 260):
        cube, matrix = draw(side, side, side), draw(10, side)
        yield "mode_dot", side**3, lambda x, a: ml.mode_dot(x, a, 1), [cube, matrix]
        yield "outer_mode_dot", side**3, lambda x, a: ml.mode_dot(x, a, 0), [cube, matrix]
        yield "cp_to_tensor", side**3, lambda *f: ml.cp_to_tensor(f), [draw(side, 8) for _ in range(3)]


def milliseconds(problem: Problem, rounds: int) -> dict[str, float]:
    """Median processor time of one forward and backward pass by backend, in rounds of random order."""
    _, _, function, tensors = problem
    gradient = torch.ones_like(function(*tensors))
    times: dict[str, list[float]] = {"torch": [], "autodiff": []}
    for _ in range(rounds):
        for backend in random.sample(list(times), 2):
            with ml.use(backend):  # pyright: ignore[reportArgumentType]
                start = time.process_time()
                torch.autograd.grad(function(*tensors), tensors, gradient)
                times[backend].append(time.process_time() - start)
    return {backend: 1e3 * float(np.median(values)) for backend, values in times.items()}


def fresh_memory(rounds: int) -> dict[str, float]:
    """Median processor time to get and fill 531 MB, in milliseconds, by the size of the pages."""
    like, times = torch.empty(0), {"ordinary": [], "huge": []}
    for _ in range(rounds):
        for pages, empty in (("ordinary", like.new_empty), ("huge", lambda shape: _memory.empty(shape, like))):
            start = time.process_time()
            empty(FRESH).fill_(1)
            times[pages].append(time.process_time() - start)
    return {pages: 1e3 * float(np.median(values)) for pages, values in times.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks thresholds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for problem in sorted(problems(), key=lambda problem: problem[:2]):
        times = milliseconds(problem, options.rounds)
        rows.append([*problem[:2], times["torch"], times["autodiff"], times["autodiff"] / times["torch"]])
    times = fresh_memory(5)
    rows.append(
        ["fresh memory", FRESH[0] * FRESH[1], times["huge"], times["ordinary"], times["ordinary"] / times["huge"]]
    )
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["operator", "elements", "analytic_ms", "autodiff_ms", "ratio"])
        for operator, elements, ours, theirs, ratio in rows:
            writer.writerow([operator, elements, f"{ours:.3f}", f"{theirs:.3f}", f"{ratio:.2f}"])
            print(f"{operator:18}{elements:12,}{ours:10.3f}{theirs:10.3f}{ratio:8.2f}")
    return 0
