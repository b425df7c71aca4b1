"""Interleaved rounds in one process: every round calls the providers in a new order, so that nobody keeps the cache."""

import gc
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.case import FloorRun, Run
from multilinear.autograd import _memory

SHORTEST_TURN = 2e-3
"""Seconds that a turn should last at least: short calls are repeated within it."""
LONG_TURN = 0.3
"""Seconds from which three rounds are enough."""
SETTLED = 0.1
"""Seconds of a call from which the first estimate of its duration is already a measurement."""
MOST_ROUNDS = 60
FLUSHED = 256 << 20
"""Bytes overwritten before a turn on a GPU, more than any L2 cache holds."""

Sample = tuple[float, float]
"""Wall and CPU seconds of one call."""


class Clock(Protocol):
    def prepare(self) -> None:
        """Called before every turn."""

    def mark(self) -> Any: ...

    def between(self, start: Any, end: Any) -> Sample: ...


class CpuClock:
    """Wall time, and the CPU time of all threads, with memory for the results at hand.

    A virtual machine may give free memory back to its host within seconds and then waits for it. What runs next should
    not pay for how long the one before it took, so before each turn as much memory as the operands take is touched.
    """

    def __init__(self, touched: float = 0) -> None:
        self._touched = int(touched)

    def prepare(self) -> None:
        if self._touched >= _memory.LARGE:
            _memory.empty((self._touched,), torch.empty(0, dtype=torch.int8)).fill_(1)

    def mark(self) -> Sample:
        return time.perf_counter(), time.process_time()

    def between(self, start: Sample, end: Sample) -> Sample:
        return end[0] - start[0], end[1] - start[1]


class CudaClock:
    """Time between events in the stream, with an empty L2 cache at the start of a turn."""

    def __init__(self, device: str = "cuda") -> None:
        self._cold = torch.empty(FLUSHED, dtype=torch.int8, device=device)

    def prepare(self) -> None:
        self._cold.zero_()
        torch.cuda.synchronize()  # the first launch is not hidden behind the flush

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event, time.process_time()

    def between(self, start: Any, end: Any) -> Sample:
        end[0].synchronize()
        return start[0].elapsed_time(end[0]) / 1e3, end[1] - start[1]


@dataclass
class Samples:
    """By mode ("forward", "backward", "both"), then by round: a provider may sit out some rounds."""

    by_mode: dict[str, dict[int, Sample]] = field(default_factory=dict)
    calls: int = 1

    def add(self, number: int, turn: Mapping[str, Sample]) -> None:
        for mode, sample in turn.items():
            self.by_mode.setdefault(mode, {})[number] = sample


@dataclass(frozen=True)
class Spread:
    """Median, 20th and 80th percentile."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        low, middle, high = np.percentile(values, [20, 50, 80])
        return cls(float(middle), float(low), float(high))


def turn(run: Run | FloorRun, clock: Clock, calls: int = 1, *, forward_alone: bool = True) -> dict[str, Sample]:
    """Seconds of one call in every mode, averaged over the calls.

    "forward" is inference, "both" a forward and backward pass until the graph and the gradients are freed again, as in
    a training loop, and "backward" the second part of it.
    """
    marks: dict[str, list[tuple[Any, Any]]] = {"forward": [], "backward": [], "both": []}
    clock.prepare()
    if run.trains:
        for _ in range(calls):
            start = clock.mark()
            outputs = run.record()
            middle = clock.mark()
            gradients = run.backward(outputs)
            del outputs, gradients
            end = clock.mark()
            marks["backward"].append((middle, end))
            marks["both"].append((start, end))
    if forward_alone or not run.trains:
        if run.trains:
            clock.prepare()
        for _ in range(calls):
            start = clock.mark()
            outputs = run.forward()
            del outputs
            marks["forward"].append((start, clock.mark()))
    return {mode: _mean([clock.between(*pair) for pair in pairs]) for mode, pairs in marks.items() if pairs}


def _mean(samples: Sequence[Sample]) -> Sample:
    return sum(wall for wall, _ in samples) / len(samples), sum(cpu for _, cpu in samples) / len(samples)


def seconds(turn: Mapping[str, Sample]) -> float:
    """Wall seconds that a turn took for each of its calls."""
    return sum(wall for mode, (wall, _) in turn.items() if mode != "backward")


def calls_for(duration: float) -> int:
    return max(1, math.ceil(SHORTEST_TURN / max(duration, 1e-7)))


def rounds_for(duration: float, share: float) -> int:
    """How many rounds a provider takes part in: what its share of the time allows, but 5, or 3 if it is slow."""
    fewest = 3 if duration > LONG_TURN else 5
    return min(max(int(share / duration), fewest), MOST_ROUNDS)


def schedule(rounds: Mapping[str, int], leader: str, order: random.Random) -> list[list[str]]:
    """Who runs in which round, in which order: the slow ones sit out rounds evenly, the leader none."""
    total = max(rounds.values())
    plan = []
    for number in range(total):
        present = [
            name
            for name, count in rounds.items()
            if name == leader or (number + 1) * count // total > number * count // total
        ]
        order.shuffle(present)
        plan.append(present)
    return plan


def interleave(
    runs: Mapping[str, Run | FloorRun],
    clock: Clock,
    *,
    leader: str,
    budget: float,
    forward_alone: bool = True,
    order: random.Random | None = None,
) -> dict[str, Samples]:
    """Times all runs in shuffled rounds; the budget in seconds is shared evenly, a minimum of rounds comes first."""
    order = order or random.Random(0)
    durations: dict[str, float] = {}
    first: dict[str, dict[str, Sample]] = {}
    for name in order.sample(list(runs), len(runs)):  # all have run once before, to be compared
        estimate = turn(runs[name], clock, forward_alone=forward_alone)
        if seconds(estimate) < SETTLED:
            again = turn(runs[name], clock, calls_for(seconds(estimate)), forward_alone=forward_alone)
            durations[name] = seconds(again)
        else:
            first[name] = estimate
            durations[name] = seconds(estimate)
    samples = {name: Samples(calls=calls_for(duration)) for name, duration in durations.items()}
    rounds = {name: rounds_for(durations[name] * samples[name].calls, budget / len(runs)) for name in runs}
    if leader in first:  # then the estimates of the slow ones are a round already
        for name, estimate in first.items():
            samples[name].add(-1, estimate)
            rounds[name] -= 1
    gc.collect()
    gc.disable()
    try:
        for number, names in enumerate(schedule(rounds, leader, order)):
            for name in names:
                result = turn(runs[name], clock, samples[name].calls, forward_alone=forward_alone)
                samples[name].add(number, result)
    finally:
        gc.enable()
    return samples


def ratio(sample: Samples, ours: Samples, mode: str, clock: int) -> float:
    """Median of a provider's time over ours in the same round; `clock` 0 is wall time, 1 CPU time."""
    theirs, mine = sample.by_mode[mode], ours.by_mode[mode]
    return float(np.median([theirs[n][clock] / mine[n][clock] for n in theirs.keys() & mine.keys()]))
