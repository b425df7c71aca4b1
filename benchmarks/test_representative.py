"""A few of the cases through pytest-benchmark: a call is a forward and a backward pass of one provider."""

from collections.abc import Iterator
from functools import cache

import pytest
import torch

from benchmarks import measure, registry
from benchmarks.case import Problem, Run

CASES = (
    "w2-shape-n16",
    "w4-rows-9x15x80-n64",
    "w5-mode-dot-200x200x200-mode1-r32",
    "w6-mttkrps-3way-r16",
    "w6-cp-loss-3way-r16",
    "w8-shape-n1",
    "small-loss-1000x10x20-n16",
)
ROUNDS = 5


def is_timed(name: str, provider: object) -> bool:
    """Compiled providers are left to `python -m benchmarks`."""
    return not isinstance(provider, str) and "compile" not in name


PAIRS = [(c, n) for c in CASES for n, provider in registry.find(c).providers.items() if is_timed(n, provider)]


@pytest.fixture(scope="module", autouse=True)
def _settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with registry.environment():
        yield
    torch.set_num_threads(threads)
    runs.cache_clear()


@cache
def runs(name: str) -> tuple[dict[str, Run], dict[str, str]]:
    """Everybody who agrees with the reference, and why others may not take part."""
    case = registry.find(name)
    compiled = tuple(name for name in case.providers if "compile" in name)
    admitted, _, refused = measure.admitted(case, Problem.draw(case), torch.float32, skip=compiled)
    return admitted, refused


@pytest.mark.parametrize(("case", "provider"), PAIRS, ids=lambda value: value.replace(" ", "-"))
def test_case(benchmark, case: str, provider: str) -> None:
    admitted, refused = runs(case)
    if provider in refused:
        assert refused[provider].startswith(("skipped", "left out")), refused[provider]
        pytest.skip(refused[provider])
    run = admitted[provider]

    def iteration() -> None:
        if run.trains:
            run.backward(run.record())
        else:
            run.forward()

    benchmark.group = case
    benchmark.pedantic(iteration, rounds=ROUNDS, warmup_rounds=1)
