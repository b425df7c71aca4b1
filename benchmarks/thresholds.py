"""`python -m benchmarks thresholds`: from which size on the analytic backward pass is worth its Python.

The lines of `multilinear/autograd/_dispatch.py` are read from this table, which is kept in `results/thresholds.csv`:
for ladders of sizes, the time of forward and backward pass under `use("autodiff")` over that under `use("torch")`. The
last row is the price of fresh memory, ordinary over huge pages, which `multilinear/autograd/_memory.py` speaks of.

With `--device cuda` the kernels, `use("triton")`, run too, on ladders that go on to larger sizes; the times are those
that a host sees which waits for the device, and the table is `results/thresholds-NAME.csv`.
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
from benchmarks import results
from multilinear.autograd import _memory

FRESH = (12288, 10800)
"""Shape of the paper's texture core."""

Problem = tuple[str, int, Callable[..., Tensor], list[Tensor]]
"""Operator as `_dispatch.py` names it, elements, function, and the tensors it is differentiated by."""


def problems(device: str = "cpu") -> Iterator[Problem]:
    """Every ladder, the smallest size first."""
    cuda = device != "cpu"

    def draw(*shape: int, learned: bool = True) -> Tensor:
        return torch.randn(*shape, device=device, requires_grad=learned)

    for count in (4, 16, 64, 256, *((1024, 4096, 16384) if cuda else ())):
        factors = [draw(count, size) for size in (9, 15, 80)]
        yield "face_splitting", count * 10800, lambda *z: ml.face_splitting(z), factors
        if cuda:
            columns = [draw(size, count) for size in (9, 15, 80)]
            yield "khatri_rao, by columns", count * 10800, lambda *z: ml.khatri_rao(z), columns
    for outputs in (300, 1000, 5000, 10_000, 20_000, *((100_000, 400_000) if cuda else ())):
        tensors = [draw(outputs, 10, 20), draw(16, 10), draw(16, 20)]
        target = draw(16, outputs, learned=False)
        yield "multilinear_map", outputs * 200, lambda core, *z: ml.multilinear_map(core, z), tensors
        yield (
            "multilinear_loss",
            outputs * 200,
            lambda core, *z, x=target: ml.multilinear_loss(x, core, z),
            tensors,
        )
    if cuda:
        for (outputs, *sizes), counts in (((28125, 15, 80), (1, 16, 64, 256)), ((12288, 9, 15, 80), (1, 4, 16, 64))):
            for learned in (False, True):
                core, order = draw(outputs, *sizes, learned=learned), len(sizes)
                for count in counts:
                    inputs = [draw(count, size) for size in sizes]
                    target = draw(count, outputs, learned=False)
                    yield (
                        f"multilinear_loss, {'learned' if learned else 'frozen'} core {outputs} x {sizes}, n={count}",
                        core.numel(),
                        lambda *z, x=target, core=core, order=order: ml.multilinear_loss(x, core, z[-order:]),
                        [core, *inputs] if learned else inputs,
                    )
    for side in (20, 40, 60, 80, 200, 260, *((500,) if cuda else ())):
        cube, matrix = draw(side, side, side), draw(10, side)
        yield "mode_dot", side**3, lambda x, a: ml.mode_dot(x, a, 1), [cube, matrix]
        yield "outer_mode_dot", side**3, lambda x, a: ml.mode_dot(x, a, 0), [cube, matrix]
        yield "cp_to_tensor", side**3, lambda *f: ml.cp_to_tensor(f), [draw(side, 8) for _ in range(3)]


def milliseconds(problem: Problem, rounds: int, backends: tuple[str, ...]) -> dict[str, float]:
    """Median time of one forward and backward pass by backend, in rounds of random order.

    On a CPU it is the processor's time; else the time until the device is done, of as many calls as last 2 ms.
    """
    _, _, function, tensors = problem
    cuda = tensors[0].is_cuda
    gradient = torch.ones_like(function(*tensors))
    clock = time.perf_counter if cuda else time.process_time
    times: dict[str, list[float]] = {backend: [] for backend in backends}

    def run(backend: str, calls: int) -> float:
        with ml.use(backend):  # pyright: ignore[reportArgumentType]
            start = clock()
            for _ in range(calls):
                torch.autograd.grad(function(*tensors), tensors, gradient)
            if cuda:
                torch.cuda.synchronize()
            return (clock() - start) / calls

    calls = 1
    if cuda:
        for backend in backends:
            run(backend, 2)
        calls = max(1, int(2e-3 / max(run(backend, 2) for backend in backends)))
    for _ in range(rounds):
        for backend in random.sample(list(times), len(times)):
            times[backend].append(run(backend, calls))
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
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cuda = options.device != "cpu"
    backends = ("torch", "autodiff", "triton") if cuda else ("torch", "autodiff")
    name = f"-{results.slug(results.device_name(options.device))}" if cuda else ""
    rows = []
    # the ladders of a device hold gigabytes: one problem at a time
    ladders = problems(options.device) if cuda else sorted(problems(), key=lambda problem: problem[:2])
    for problem in ladders:
        times = milliseconds(problem, options.rounds, backends)
        rows.append([*problem[:2], *times.values(), times["autodiff"] / times["torch"]])
        if cuda:
            rows[-1].append(min(times["autodiff"], times["torch"]) / times["triton"])
        print(_line(rows[-1]), flush=True)
    if not cuda:
        times = fresh_memory(5)
        rows.append(["fresh memory", FRESH[0] * FRESH[1], times["huge"], times["ordinary"]])
        rows[-1].append(times["ordinary"] / times["huge"])
        print(_line(rows[-1]))
    columns = ["operator", "elements", "analytic_ms", "autodiff_ms", *(["kernel_ms"] if cuda else []), "ratio"]
    with (options.out or results.RESULTS / f"thresholds{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "kernel_ratio"] if cuda else columns)
        writer.writerows(
            [f"{x:.3f}" if isinstance(x, float) else x for x in row] for row in sorted(rows, key=lambda r: r[:2])
        )
    return 0


def _line(row: list) -> str:
    return f"{row[0]:58}{row[1]:14,}" + "".join(f"{value:10.3f}" for value in row[2:])
