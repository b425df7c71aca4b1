"""`python -m benchmarks`: one command, or names of cases.

    python -m benchmarks list                      the names of all cases
    python -m benchmarks all                       every case (`make bench`)
    python -m benchmarks w1-texture-n16 w4 'w5*r32'  some of them: a name, its beginning, or a pattern as in the shell
    python -m benchmarks table                     writes the tables of benchmarks/README.md from benchmarks/results
    python -m benchmarks plot                      draws the pictures
    python -m benchmarks targets                   what is reached of what we set out to reach
    python -m benchmarks thresholds                from which size on the analytic backward pass is worth its Python
    python -m benchmarks step                      another kind: a training step of the whole network
    python -m benchmarks faces --help              another kind: speed and accuracy of the face pipeline
    python -m benchmarks app                       another kind: a change on the page of `facemodels app`
    python -m benchmarks split                     counts what split cores need on many GPUs, writes docs/distributed.md
    python -m benchmarks ablation --help           what each term of the objective brings to the swaps
    python -m benchmarks separation --help         what identity codes freed of the expression bring
    python -m benchmarks ceiling --help            what the encoder alone can tell, from how many faces
    python -m benchmarks refinement --help         what it brings to fit a face's codes to its photo

torch and the cases are imported only after the number of threads is known.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.options import command_parser

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def show_list(options: argparse.Namespace) -> None:
    from benchmarks import registry

    for case in registry.cases(device=options.device):
        print(f"{case.name:36} {case.shape}")


def show_targets(options: argparse.Namespace) -> None:
    from benchmarks import targets

    print(targets.report(_rows(options)))


def write_tables(options: argparse.Namespace) -> None:
    from benchmarks import tables

    tables.write(_rows(options), device=options.device)
    print("wrote benchmarks/README.md")


def draw_plots(options: argparse.Namespace) -> None:
    from benchmarks import plots

    for path in plots.draw(_rows(options)):
        print(f"wrote {path}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "list": show_list,
    "table": write_tables,
    "plot": draw_plots,
    "targets": show_targets,
}
OTHERS = {name: name for name in ("ablation", "app", "ceiling", "refinement", "separation", "step", "thresholds")}
OTHERS["split"] = "split_cores"
"""Commands of another kind, with options of their own, and their modules."""


def run_other(module: str, arguments: list[str]) -> int:
    """A command of another kind; what its user can mend is one line and not a traceback."""
    from facemodels.errors import InputError

    try:
        return importlib.import_module(f"benchmarks.{module}").main(arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def measure_cases(options: argparse.Namespace) -> None:
    import torch

    from benchmarks import measure, registry, results

    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    cases = registry.matching(["*"] if options.names == ["all"] else options.names, device=options.device)
    path, started = _path(options), time.monotonic()

    def keep(rows: Any) -> None:
        conditions = results.Conditions.now(device=options.device, threads=options.threads, dtype=options.dtype)
        results.replace(path, conditions, rows)

    keep(measure.machine(device=options.device, dtype=dtype))
    for number, case in enumerate(cases, 1):
        print(f"[{number}/{len(cases)}, {time.monotonic() - started:.0f} s] {case.name}: {case.shape}", flush=True)
        rows = measure.measure(
            case,
            device=options.device,
            dtype=dtype,
            threads=options.threads,
            budget=options.seconds,
            with_memory=not options.no_memory,
        )
        keep(rows)
        for row in rows:
            if row.mode in ("both", "forward") and row.wall is not None:
                memory = "" if row.memory is None else f"{row.memory / 2**20:9.1f} MB"
                print(f"  {row.mode:8} {row.provider:24} {1e3 * row.wall:10.3f} ms {row.ratio:7.2f} x ours {memory}")
    print(f"wrote {path} after {time.monotonic() - started:.0f} s")


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["faces"]:
        return run_other("faces", arguments[1:])
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments and arguments[0] in OTHERS:
        return run_other(OTHERS[arguments[0]], arguments[1:])
    options = _parser().parse_args(arguments)
    for name in THREAD_SETTINGS:
        os.environ[name] = str(options.threads)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of workers in processes that end at once
    try:
        COMMANDS.get(options.names[0], measure_cases)(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("", __doc__)
    parser.add_argument("names", nargs="+", help="a command, `all`, or patterns of case names")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "float64", "bfloat16", "float16"), default="float32")
    parser.add_argument("--seconds", type=float, default=1.5, help="time for each case besides its fewest rounds")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak of memory")
    parser.add_argument("--results", type=Path, help="CSV to read or write (default: this machine's)")
    return parser


def _path(options: argparse.Namespace) -> Path:
    import torch

    from benchmarks import results

    if options.results:
        return options.results
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "benchmarks: no CUDA device; leave out --device cuda (`make bench`) to measure the CPU, or name a GPU's CSV"
            " with --results to draw its tables"
        )
    return results.path_for(results.device_name(options.device))


def _rows(options: argparse.Namespace) -> list[dict[str, str]]:
    from benchmarks import results

    path = _path(options)
    rows = results.read(path)
    if not rows:
        raise ValueError(f"benchmarks: nothing is measured in {path}; run `python -m benchmarks all` first")
    return rows


if __name__ == "__main__":
    sys.exit(main())
