"""Checkpoints: written whole or not at all, read without pickle, the same files whatever trained them.

A checkpoint is a directory checkpoint-STEP of a run:

    config.json, model.safetensors, morphable.safetensors   the network, as `from_pretrained` reads it
    optimizer.safetensors                                   its optimizer's state, NAME OF THE WEIGHT/NAME OF THE STATE
    adversary.safetensors, adversary_optimizer.safetensors  discriminator, k_t and their optimizer's state, if any
    training.json                                           the settings, and how far the run is

Draws and the order of the faces depend on the seed and on how far the run is, so there is no state of a generator.
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig, TrainingConfig
from facemodels.errors import InputError, RunError
from facemodels.gauge import join_identity
from facemodels.morphable import MorphableModel
from facemodels.training.adversary import Adversary
from facemodels.training.processes import part, whole

FINISHED = "model"
"""Folder of a finished run's network."""

_PREFIX = "checkpoint-"
_NAME = re.compile(rf"{_PREFIX}\d+")
_PARTIAL = ".partial"
_FREE = (
    *("steps", "minutes", "checkpoint_minutes", "log_every", "keep", "sheet_every"),
    *("batch", "accumulation", "separate_identity", "precision"),
)
"""Settings that a resumed run may change."""


@dataclass(frozen=True)
class Trained:
    """Everything that training changes, but for how far it is.

    Attributes:
        network: The network, sharded or not, in its training precision.
        optimizer: Its state is tensors only.
        adversary: The discriminator and its balance, or None.
        adversary_optimizer: The discriminator's optimizer, or None.
    """

    network: NeuroTensorialAutoencoder
    optimizer: torch.optim.Optimizer
    adversary: Adversary | None = None
    adversary_optimizer: torch.optim.Optimizer | None = None


def checkpoints(run: str | os.PathLike[str]) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [path for path in Path(run).glob(f"{_PREFIX}*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_step)


def best_checkpoint(run: str | os.PathLike[str]) -> Path | None:
    """The checkpoint whose held-out measure was best, or None while none was measured."""
    found = checkpoints(run)
    best = load_progress(found[-1]).get("best_step") if found else None
    return next((path for path in found if _step(path) == best), None)


def resolve(path: str | os.PathLike[str]) -> Path:
    """The directory of a model: `path` itself, or of the run `path` the finished model, or the newest checkpoint."""
    for place in (Path(path), Path(path) / FINISHED):
        if (place / "config.json").is_file():
            return place
    found = checkpoints(path)
    return found[-1] if found else Path(path)


def newest_run(runs: str | os.PathLike[str]) -> Path | None:
    """The run with the newest checkpoint under the directory `runs`, or None."""
    found = [path for run in Path(runs).glob("*") for path in checkpoints(run)[-1:]]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def save_checkpoint(
    run: str | os.PathLike[str],
    trained: Trained,
    progress: dict[str, Any],
    *,
    write: bool = True,
    keep: int = 2,
    best: int | None = None,
) -> Path:
    """Write a checkpoint under a name of its own, then remove all but the newest `keep` and the best.

    All processes call this, because each may hold but a part of the weights; one of them writes.

    Args:
        run: Directory of the run.
        trained: What to save.
        progress: `step` and whatever else a resumed run needs; JSON.
        write: Whether this process writes.
        keep: How many checkpoints stay.
        best: Step of one that stays besides.

    Returns:
        The directory of the checkpoint.

    Raises:
        RunError: It could not be written; those before it are intact.
    """
    final = Path(run) / f"{_PREFIX}{progress['step']:08d}"
    network = plain_network(trained.network, wanted=write)
    files = {"optimizer": _optimizer_tensors(trained.network, trained.optimizer)}
    if trained.adversary is not None and trained.adversary_optimizer is not None:
        files["adversary"] = dict(trained.adversary.state_dict())
        files["adversary_optimizer"] = _optimizer_tensors(trained.adversary, trained.adversary_optimizer)
    if network is None:
        return final
    before = checkpoints(run)
    partial = final.with_name(final.name + _PARTIAL)
    try:
        for stale in [*Path(run).glob(f"{_PREFIX}*{_PARTIAL}")]:
            shutil.rmtree(stale)
        network.save_pretrained(partial)
        for name, tensors in files.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, partial / f"{name}.safetensors")
        (partial / "training.json").write_text(json.dumps(progress, indent=1) + "\n")
        for path in (*partial.iterdir(), partial):
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(Path(run))
    except (OSError, SafetensorError, InputError) as error:
        left = f"{before[-1]} is intact" if before else "there is none before it"
        raise RunError(
            f"the checkpoint of step {progress['step']} could not be written to {run} ({error}); {left}:"
            " make room there and give the same command again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in checkpoints(run)[:-keep]:
        if _step(old) != best:
            shutil.rmtree(old.rename(old.with_name(old.name + _PARTIAL)), ignore_errors=True)
    return final


def plain_network(network: NeuroTensorialAutoencoder, wanted: bool) -> NeuroTensorialAutoencoder | None:
    """The network itself, or a whole copy of one that is sharded; None where it is not `wanted`.

    All processes must ask.
    """
    if not any(isinstance(parameter, DTensor) for parameter in network.parameters()):
        return network if wanted else None
    weights = {name: whole(value) for name, value in network.state_dict().items()}
    if not wanted:
        return None
    copy = NeuroTensorialAutoencoder(network.config, network.morphable)
    copy.load_state_dict(weights)
    copy.card = network.card
    return copy.to(next(iter(weights.values())).device)


def load_progress(path: Path) -> dict[str, Any]:
    """The progress a checkpoint was saved with.

    Raises:
        InputError: The file is missing or broken.
    """
    try:
        return json.loads((path / "training.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise _broken(path, error) from error


def load_network(path: Path, network: NeuroTensorialAutoencoder, training: TrainingConfig) -> None:
    """Put a checkpoint's weights into a fresh network that has not been shared among processes yet.

    Raises:
        InputError: The checkpoint is broken, or of other settings or another morphable model.
    """
    progress = load_progress(path)
    try:
        before = TrainingConfig.from_dict(progress["training"])
        loaded = NeuroTensorialAutoencoder.from_pretrained(path)
    except (InputError, KeyError) as error:
        raise _broken(path, error) from error
    if _differ(loaded.morphable, network.morphable):
        raise InputError(
            f"{path.parent} was trained on a set prepared with another morphable model;"
            " name that set, or choose another directory"
        )
    old, new = (
        {**_flat(one.to_dict()), **_flat(two.to_dict())}
        for one, two in ((loaded.config, before), (network.config, training))
    )
    changed = _changes(old, new, "now")
    if changed:
        raise InputError(
            f"{path.parent} was trained with other settings ({'; '.join(changed[:5])});"
            " resume it with the same preset, or choose another directory"
        )
    network.load_state_dict(loaded.state_dict())


def start_from(path: str | os.PathLike[str], network: NeuroTensorialAutoencoder) -> None:
    """Put the weights of a trained network into a fresh one, which may be wider in `channels` and `intermediate`.

    It may also have `residual` stages where the trained one has none. New units stay as they were drawn,
    and nothing reads them yet: at first the network decodes what the trained one does.

    Raises:
        InputError: There is none at `path`, it is wider, or it has other sizes or another morphable model.

    Reference:
        Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016, widen by copies
        of units instead.
    """
    loaded = NeuroTensorialAutoencoder.from_pretrained(resolve(path))
    if loaded.morphable is None:  # exported without it: its fingerprint is compared
        loaded = NeuroTensorialAutoencoder.from_pretrained(resolve(path), morphable=network.morphable)
    join_identity(loaded)
    free = ["rotation"]  # the same weights serve both kinds
    if _fits_into(loaded.config, network.config):
        free += ["channels", "residual", "intermediate"]
    here = network.config.to_dict()
    changed = _changes(loaded.config.to_dict() | {name: here[name] for name in free}, here, "here")
    if changed or _differ(loaded.morphable, network.morphable):
        reason = "; ".join(changed) or "another morphable model"
        raise InputError(f"{path} is no network to start from ({reason}); choose its preset, and a set like its own")
    weights = loaded.state_dict()
    if "shape_factor" in weights:  # in float16 it would be another space of shapes
        weights["shape_factor"] = network.state_dict()["shape_factor"]
    network.load_state_dict(
        {name: _widened(weights.get(name, drawn), drawn) for name, drawn in network.state_dict().items()}
    )


def _fits_into(narrow: NetworkConfig, wide: NetworkConfig) -> bool:
    """Whether a network has as many layers as the other, none of them wider, and the same residual stages or none."""
    widths = [(narrow.intermediate, wide.intermediate), *zip(narrow.channels, wide.channels, strict=False)]
    alike = len(narrow.channels) == len(wide.channels) and narrow.residual in ((), wide.residual)
    return alike and all(less <= more for less, more in widths)


def _widened(weight: Tensor, drawn: Tensor) -> Tensor:
    """A weight of a wider layer: old units read old ones as before and no new ones, new units read as they were drawn.

    The units of a layer lie in the first dimension, those it reads in the second, where a pixel's place is counted
    faster than its channel.
    """
    wide = drawn.clone()
    if weight.ndim > 1:
        wide[: weight.shape[0], weight.shape[1] :] = 0
    wide[tuple(map(slice, weight.shape))] = weight.to(wide)
    return wide


def load_state(path: Path, trained: Trained) -> None:
    """Put a checkpoint's optimizers and adversary into fresh ones; the network may be shared among processes.

    Raises:
        InputError: A file is missing, broken, or of another network.
    """
    _load_optimizer(path / "optimizer.safetensors", trained.network, trained.optimizer)
    if trained.adversary is not None and trained.adversary_optimizer is not None:
        try:
            trained.adversary.load_state_dict(_read(path / "adversary.safetensors"))
        except RuntimeError as error:
            raise InputError(f"the adversary in {path} is of another network; choose another directory") from error
        _load_optimizer(path / "adversary_optimizer.safetensors", trained.adversary, trained.adversary_optimizer)


def _load_optimizer(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    parameters = _parameters(module, optimizer)
    numbers = {name: number for number, (name, _) in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _read(path).items():
        name, _, entry = key.rpartition("/")
        number = numbers.get(name)
        parameter = None if number is None else parameters[number][1]
        if parameter is None or number is None or (value.ndim and value.shape != parameter.shape):
            raise InputError(f"{path} is of another network ({key}); remove its directory or choose another one")
        # in the parameter's own memory format, which files do not keep and fused optimizers rely on
        state.setdefault(number, {})[entry] = part(value, parameter) if entry != "step" else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{entry}": whole(torch.as_tensor(value))
        for name, parameter in _parameters(module, optimizer)
        for entry, value in optimizer.state[parameter].items()
    }


def _parameters(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    """The optimizer's parameters in its order, with their names in the module."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [(names[id(parameter)], parameter) for group in optimizer.param_groups for parameter in group["params"]]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _broken(path.parent, error) from error


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be resumed from ({error}); remove it to go on from the one before")


def _step(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if path.is_dir() and os.name != "posix":  # Windows has no way to ask for it
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows syncs only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _differ(first: MorphableModel | None, second: MorphableModel | None) -> bool:
    if first is None or second is None:
        return first is not second
    return any(
        not torch.equal(getattr(first, name), getattr(second, name)) for name in ("mean", "identity", "expression")
    )


def _changes(old: dict[str, Any], new: dict[str, Any], word: str) -> list[str]:
    return [f"{name} {old.get(name)}, {word} {new[name]}" for name in new if old.get(name) != new[name]]


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings and their weights by name, without those a resumed run may change."""
    weights = {f"weights.{name}": value for name, value in settings.get("weights", {}).items()}
    return {name: value for name, value in (settings | weights).items() if name not in (*_FREE, "weights")}
