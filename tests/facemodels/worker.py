"""Training processes of the tests: real ones, forked from a server that has imported everything already."""

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["facemodels.training"])
DEADLINE = 900.0  # seconds that a process may take on a busy machine


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(folder: Path, settings: dict[str, Any], processes: int = 1, **options: Any) -> list[Any]:
    """Start the processes of a run; each writes what it prints to a file of `folder`."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    started = []
    for rank in range(processes):
        place = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": processes,
            "MASTER_PORT": port,
        }
        environment = {name: str(value) for name, value in place.items()} | {
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        arguments = (settings, environment if processes > 1 else {}, folder / f"{rank}.txt", options)
        started.append(CONTEXT.Process(target=_work, args=arguments))
        started[-1].start()
    return started


def finish(folder: Path, processes: list[Any]) -> list[tuple[int, str]]:
    """Wait for the processes; the exit status and the output of each."""
    for process in processes:
        process.join(DEADLINE)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"a process of {folder} is still at work after {DEADLINE} seconds")
    return [(process.exitcode, (folder / f"{rank}.txt").read_text()) for rank, process in enumerate(processes)]


def _work(settings: dict[str, Any], environment: dict[str, str], output: Path, options: dict[str, Any]) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    sys.argv = ["facemodels", "train"]
    import torch

    from facemodels.cli import commands
    from facemodels.data.dataset import PreparedSet
    from facemodels.training import checkpoint, end_processes, loop, train

    torch.set_num_threads(1)
    if options.get("double"):
        _compute_in_double(torch, PreparedSet, loop)
    if environment.get("RANK", "0") == str(options.get("killed", 0)):
        _arrange_death(loop._Trainer, checkpoint, options)

    def command() -> None:
        train(PreparedSet(settings["prepared"]), settings["run"], **settings["train"])
        end_processes()

    commands.app = command  # type: ignore[assignment]
    commands.main()


def _arrange_death(trainer: Any, checkpoint: Any, options: dict[str, Any]) -> None:
    """kill -9, before a step's work is done or while its checkpoint is written."""
    advance, flush = trainer._advance, checkpoint._flush

    def advance_or_die(self: Any, stop: float) -> Any:
        if self.progress.step + 1 == options.get("killed_in_step"):
            os.kill(os.getpid(), signal.SIGKILL)
        return advance(self, stop)

    def flush_or_die(path: Path) -> None:
        if path.parent.name == options.get("killed_writing"):
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    trainer._advance, checkpoint._flush = advance_or_die, flush_or_die


def _compute_in_double(torch: Any, prepared_set: Any, loop: Any) -> None:
    """float64 wherever training says float32."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    faces, load_verifier = prepared_set.faces, loop.load_verifier

    def in_double(self: Any, *arguments: Any) -> Any:
        batch = faces(self, *arguments)
        return type(batch)(
            **{name: value.double() if value.is_floating_point() else value for name, value in vars(batch).items()}
        )

    prepared_set.faces = in_double
    loop.load_verifier = lambda name: load_verifier(name).double()
