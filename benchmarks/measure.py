"""A case from its operands to its rows: agreement first, then time, then memory."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import agreement, memory, registry, timing
from benchmarks.case import FLOOR, OURS, Case, Floor, FloorRun, Problem, Run, Unavailable, tensors
from benchmarks.results import Measurement
from benchmarks.timing import Samples, Spread

Say = Callable[[str], None]
MACHINE = "machine"
"""The case under which the machine's own limits stand."""


COUNTED = 1 << 20
"""Bytes of operands and results from which the peak of memory says something: it is counted in pages of the process."""


def measure(
    case: Case,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    threads: int = 1,
    budget: float = 4.0,
    with_memory: bool = True,
    say: Say = print,
) -> list[Measurement]:
    """Rows of one case; a provider that is wrong, fails or is not there gets one row that says so."""
    if any("compile" in name for name in case.providers):
        torch.compiler.reset()
    with registry.environment():
        problem = Problem.draw(case, device=device, dtype=dtype)
        runs, errors, refused = admitted(case, problem, dtype)
        for name, reason in refused.items():
            say(f"  {name}: {reason}")
        if OURS not in runs:
            return [_refusal(case, name, reason) for name, reason in refused.items()]
        sizes = _bytes(problem, runs[OURS])
        floor = FloorRun(case.floor, device=device, dtype=dtype, trains=bool(problem.variables))
        samples = timing.interleave(
            {**runs, FLOOR: floor},
            timing.CpuClock(sizes["both"]) if device == "cpu" else timing.CudaClock(),
            leader=OURS,
            budget=budget,
            forward_alone=case.forward_alone,
        )
        del problem, floor
        names = list(runs)
        runs.clear()
        gc.collect()
        if device != "cpu":
            torch.cuda.empty_cache()  # the processes that measure memory need the room
    peaks = {
        name: memory.peak(case.name, name, device=device, dtype=dtype, threads=threads)
        for name in names
        if with_memory and case.memory_too and sizes["both"] >= COUNTED
    }
    clock = 1 if device == "cpu" and threads == 1 else 0
    return [
        *_rows(case, samples, errors, peaks, sizes, clock, dtype),
        *(_refusal(case, name, reason) for name, reason in refused.items()),
    ]


def admitted(
    case: Case, problem: Problem, dtype: torch.dtype, *, skip: tuple[str, ...] = ()
) -> tuple[dict[str, Run], dict[str, float], dict[str, str]]:
    """Runs that agree with the reference, their errors, and why the others may not take part."""
    wanted = agreement.expected(problem)
    runs, errors, refused = {}, {}, {}
    for name, provider in case.providers.items():
        if name in skip:
            continue
        if isinstance(provider, str):
            refused[name] = f"left out: {provider}"
            continue
        try:
            run = Run(provider, problem)
            actual = agreement.results(run)
        except Unavailable as reason:
            refused[name] = f"skipped: {reason}"
            continue
        except Exception as failure:  # whatever a rival raises is its result
            refused[name] = f"failed: {type(failure).__name__}: {str(failure).partition(chr(10))[0]}"
            continue
        errors[name] = agreement.error(actual, wanted)
        del actual
        if errors[name] <= agreement.TOLERANCE[dtype]:
            runs[name] = run
        else:
            refused[name] = f"wrong: differs from {case.reference} by {errors[name]:.1e}"
    return runs, errors, refused


def _bytes(problem: Problem, run: Run) -> dict[str, float]:
    """What has to be read and written once: operands and results, in training also their gradients."""
    outputs = run.forward()
    forward = _size(tensors(problem.args)) + _size(outputs)
    backward = _size(tensors(problem.args)) + _size(problem.variables) + _size(outputs)
    return {"forward": forward, "backward": backward, "both": forward + _size(problem.variables)}


def _size(items: list[torch.Tensor]) -> float:
    return float(sum(x.numel() * x.element_size() for x in items))


def _rows(
    case: Case,
    samples: dict[str, Samples],
    errors: dict[str, float],
    peaks: dict[str, float | None],
    sizes: dict[str, float],
    clock: int,
    dtype: torch.dtype,
) -> list[Measurement]:
    rows = []
    for name, sample in samples.items():
        for mode, by_round in sample.by_mode.items():
            rows.append(
                Measurement(
                    **_labels(case, name, mode),
                    **_times(list(by_round.values())),
                    rounds=len(by_round),
                    calls=sample.calls,
                    ratio=timing.ratio(sample, samples[OURS], mode, clock),
                    floor=timing.ratio(samples[FLOOR], samples[OURS], mode, clock),
                    memory=peaks.get(name),
                    memory_unit=float(case.memory_unit * dtype.itemsize) or None,
                    flops=float(case.floor.flops(mode)),
                    bytes=sizes[mode],
                    error=errors.get(name),
                )
            )
    return rows


def _times(turns: list[timing.Sample]) -> dict[str, float]:
    """The columns of a row that tell how long the turns took."""
    wall, cpu = (Spread.of(seconds) for seconds in zip(*turns, strict=True))
    return {
        "wall": wall.median,
        "wall_p20": wall.p20,
        "wall_p80": wall.p80,
        "cpu": cpu.median,
        "cpu_p20": cpu.p20,
        "cpu_p80": cpu.p80,
    }


def _refusal(case: Case, provider: str, reason: str) -> Measurement:
    return Measurement(**_labels(case, provider, ""), status=reason)


def _labels(case: Case, provider: str, mode: str) -> dict[str, Any]:
    return {"workload": case.workload, "case": case.name, "shape": case.shape, "provider": provider, "mode": mode}


def machine(*, device: str, dtype: torch.dtype, repeats: int = 7) -> list[Measurement]:
    """The best rates that we know to ask for: a square matrix product, and a copy larger than the caches."""
    side, elements = (1536, 1 << 26) if device == "cpu" else (8192, 1 << 28)
    limits = {
        "matrix product": Floor(forward=[(side, side, side)]),
        "copy": Floor(forward_stream=elements),
    }
    rows = []
    for name, floor in limits.items():
        run = FloorRun(floor, device=device, dtype=dtype, trains=False)
        clock = timing.CpuClock() if device == "cpu" else timing.CudaClock()
        turns = [timing.turn(run, clock)["forward"] for _ in range(repeats + 1)][1:]
        rows.append(
            Measurement(
                workload="",
                case=MACHINE,
                shape=f"{side} x {side}" if floor.forward else f"{elements} elements",
                provider=name,
                mode="forward",
                **_times(turns),
                rounds=repeats,
                calls=1,
                flops=float(floor.flops("forward")),
                bytes=float(2 * floor.forward_stream * dtype.itemsize) or None,
            )
        )
    return rows
