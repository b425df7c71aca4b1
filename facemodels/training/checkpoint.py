"""Checkpoints: written whole or not at all, read without pickle."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.errors import InputError

_PREFIX = "checkpoint-"
KEPT = 2
"""Checkpoints kept of a run; older ones are removed."""


def checkpoints(run: str | os.PathLike[str]) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [path for path in Path(run).glob(f"{_PREFIX}*") if path.suffix != ".partial" and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def resolve(path: str | os.PathLike[str]) -> Path:
    """The directory of a model: `path` itself, or the newest checkpoint of the run `path`."""
    if (Path(path) / "config.json").is_file():
        return Path(path)
    found = checkpoints(path)
    return found[-1] if found else Path(path)


def newest_run(runs: str | os.PathLike[str]) -> Path | None:
    """The run with the newest checkpoint under the directory `runs`, or None."""
    found = [path for run in Path(runs).glob("*") for path in checkpoints(run)[-1:]]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def save_checkpoint(
    run: str | os.PathLike[str],
    network: NeuroTensorialAutoencoder,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> Path:
    """Write a checkpoint under a name of its own, then remove all but the newest `KEPT`.

    Args:
        run: Directory of the run.
        network: The network, in its training precision.
        optimizer: Its state is tensors only.
        progress: `step` and whatever else a resumed run needs; JSON.

    Returns:
        The new directory.
    """
    run = Path(run)
    final = run / f"{_PREFIX}{progress['step']:08d}"
    partial = final.with_name(final.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        network.save_pretrained(partial)
        state = optimizer.state_dict()["state"]
        tensors = {
            f"{number}.{name}": torch.as_tensor(value).contiguous()
            for number, entries in state.items()
            for name, value in entries.items()
        }
        save_file(tensors, partial / "optimizer.safetensors")
        (partial / "training.json").write_text(json.dumps(progress, indent=1) + "\n")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in checkpoints(run)[:-KEPT]:
        shutil.rmtree(old)
    return final


def load_progress(path: Path) -> dict[str, Any]:
    """The progress a checkpoint was saved with.

    Raises:
        InputError: The file is missing or broken.
    """
    try:
        return json.loads((path / "training.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be resumed from ({error}); remove it to go on from the one before") from error


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's state into a fresh optimizer of the same network.

    Raises:
        InputError: The file is missing, broken, or of another network.
    """
    try:
        tensors = load_file(path / "optimizer.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be resumed from ({error}); remove it to go on from the one before") from error
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    fits = len(state) == len(parameters) and all(
        state[number]["exp_avg"].shape == parameter.shape for number, parameter in enumerate(parameters)
    )
    if not fits:
        raise InputError(f"the optimizer state in {path} is of another network; remove it or choose another directory")
    # in the parameters' own memory format, which files do not keep and fused optimizers rely on
    state = {
        number: {
            name: torch.empty_like(parameters[number]).copy_(value) if value.ndim else value
            for name, value in entries.items()
        }
        for number, entries in state.items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
