"""Peak memory of a provider in a fresh process: what two iterations need besides the operands.

On the CPU it is the highest resident size less the one before, so nothing may hide in memory that set-up has freed:
every larger block gets a mapping of its own, which goes back to the system at once, and the rest is trimmed.
"""

import ctypes
import gc
import multiprocessing
import os
from contextlib import suppress
from typing import Any

import torch

from benchmarks import registry
from benchmarks.case import Problem, Run, Unavailable, on_meta

LONGEST = 180
"""Seconds after which a process is given up."""
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of mallopt(3)


def peak(case: str, provider: str, *, device: str, dtype: torch.dtype, threads: int) -> float | None:
    """Bytes, or None where they cannot be measured."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.memory"])  # imports once; every process is a fork of that
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, case, provider, device, dtype, threads), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(LONGEST) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


def _measure(sender: Any, name: str, provider: str, device: str, dtype: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    with suppress(OSError, Unavailable, ValueError):
        if device == "cpu":
            libc = ctypes.CDLL(None)
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
            libc.mallopt(M_TRIM_THRESHOLD, 0)
        with registry.environment():
            # libraries, code and workspaces are loaded before; a compiled provider is compiled for these very shapes
            if "compile" in provider:
                run = _ready(name, provider, device, dtype, tiny=False)
                _iterate(run, 1)
            else:
                _iterate(_ready(name, provider, device, dtype, tiny=True), 1)
                run = _ready(name, provider, device, dtype, tiny=False)
            gc.collect()
            sender.send(_of_cuda(run) if device != "cpu" else _of_cpu(run))


def _ready(name: str, provider: str, device: str, dtype: torch.dtype, *, tiny: bool) -> Run:
    case = registry.find(name, device=device, tiny=tiny)
    problem = Problem.draw(case, device=device, dtype=dtype)
    if problem.variables:
        problem.expect([torch.empty(shape, device=device, dtype=dtype) for shape in _output_shapes(case, problem)])
    chosen: Any = case.providers[provider]
    return Run(chosen, problem)


def _output_shapes(case: Any, problem: Problem) -> list[torch.Size]:
    """Shapes of the results, found without computing them."""
    meta = Problem(case, on_meta(problem.args))
    reference: Any = case.providers[case.reference]
    return [y.shape for y in Run(reference, meta).forward()]


def _iterate(run: Run, times: int) -> None:
    for _ in range(times):
        if run.trains:
            outputs = run.record()
            gradients = run.backward(outputs)
            del outputs, gradients
        else:
            run.forward()


def _of_cpu(run: Run) -> float:
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    before = _status("VmRSS")
    _iterate(run, 2)
    return float(max(_status("VmHWM") - before, 0))


def _of_cuda(run: Run) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _iterate(run, 2)
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before)


def _status(entry: str) -> int:
    with open(f"/proc/{os.getpid()}/status") as file:
        line = next(line for line in file if line.startswith(entry))
    return int(line.split()[1]) * 1024
