"""The training loop: one function, all settings in one frozen dataclass."""

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig, TrainingConfig
from facemodels.data.dataset import PreparedSet
from facemodels.errors import InputError
from facemodels.morphable import MorphableModel
from facemodels.progress import progress_bar
from facemodels.training.checkpoint import checkpoints, load_optimizer, load_progress, save_checkpoint
from facemodels.training.step import TrainingStep

_SMOOTHING = 0.98  # of the metrics shown and logged


def fit_to_morphable(config: NetworkConfig, morphable: MorphableModel) -> NetworkConfig:
    """The same network for the sizes of another morphable model."""
    return dataclasses.replace(
        config,
        morphable_identity=morphable.n_identity,
        morphable_expression=morphable.n_expression,
        vertices=morphable.n_vertices,
    )


def train(
    prepared: PreparedSet,
    run: str | os.PathLike[str],
    *,
    network: NetworkConfig,
    training: TrainingConfig,
    progress: bool = True,
) -> NeuroTensorialAutoencoder:
    """Train a network on the split "train" of a prepared set; go on where the run directory stopped.

    A run of `training.steps` steps that is interrupted and resumed gives, on a CPU, the same numbers as one that was
    not: the order of faces and every draw depend on the seed and the number of the step alone. Ctrl-C (or any other
    error) leaves a checkpoint behind.

    Args:
        prepared: The prepared set.
        run: Directory for checkpoints and `metrics.jsonl`.
        network: Sizes; those of the morphable model are taken from the prepared set.
        training: Everything else. One of `steps` and `minutes` must be set.
        progress: Show a progress bar on the main process.

    Returns:
        The trained network, in evaluation mode.

    Raises:
        InputError: The set is empty, the settings differ from those of the run, or a checkpoint is broken.
    """
    if (training.steps is None) == (training.minutes is None):
        raise InputError("training needs either a number of steps or a number of minutes; give one of them")
    AcceleratorState._reset_state()  # a process may train twice, and with another precision
    accelerator = Accelerator(mixed_precision=training.precision)
    main = accelerator.is_main_process
    faces = prepared.faces("train")
    if len(faces) < training.batch:
        raise InputError(
            f"{prepared.path} holds {len(faces)} faces to train on, fewer than one batch of {training.batch};"
            " prepare more photos or set a smaller batch"
        )
    set_seed(training.seed)
    network = fit_to_morphable(network, prepared.morphable)
    model = NeuroTensorialAutoencoder(network, prepared.morphable)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = _Progress()
    found = checkpoints(run)
    if found:
        state = _resume(found[-1], model, training, network)
    elif main:
        Path(run).mkdir(parents=True, exist_ok=True)

    started = state.step
    step = TrainingStep(model, training, prepared.morphable)
    device = accelerator.device
    optimizer = torch.optim.AdamW(
        model.to(device).parameters(),
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )
    if found:
        load_optimizer(found[-1], optimizer)
    step, optimizer = accelerator.prepare(step, optimizer)
    faces = faces.to(device)
    batches = _batches(len(faces), training, state.step, accelerator.process_index, accelerator.num_processes)

    def save() -> None:
        if main:
            save_checkpoint(
                run, model, optimizer.optimizer, dataclasses.asdict(state) | {"training": training.to_dict()}
            )

    bar = progress_bar(
        total=1000,
        description="train",
        disable=not (progress and main),
        bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix}",
    )
    step.train()
    last_save = last = time.monotonic()
    metrics: dict[str, float] = {}
    try:
        while not _finished(state, training):
            rate = _learning_rate(state, training)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with accelerator.autocast():
                first = accelerator.process_index * training.batch
                result = step(faces[next(batches)], _seed(training.seed, state.step), _fraction(state, training), first)
                loss, terms = result.total, result.terms
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the objective became {loss.item()} at step {state.step};"
                    f" the last checkpoint of {run} is intact: lower the learning rate and go on from it"
                )
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), training.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            now = time.monotonic()
            state.step += 1
            state.seconds += now - last
            last = now
            _smooth(metrics, {"loss": loss.detach(), **terms})
            bar.n = round(1000 * _fraction(state, training))
            if state.step % training.log_every == 0 and main:
                _log(Path(run), {"step": state.step, "seconds": state.seconds, "learning_rate": rate, **metrics})
                bar.set_postfix_str(
                    f"step {state.step}, {training.batch * state.step / state.seconds:.0f} faces/s,"
                    f" loss {metrics['loss']:.3f}, face {metrics.get('face_l1', math.nan):.3f}"
                )
            if now - last_save > 60 * training.checkpoint_minutes:
                save()
                last_save = now
    except (KeyboardInterrupt, torch.cuda.OutOfMemoryError):
        save()
        raise
    finally:
        bar.close()
    accelerator.wait_for_everyone()
    if state.step > started:
        save()
    return accelerator.unwrap_model(step).network.eval()


@dataclasses.dataclass
class _Progress:
    step: int = 0
    seconds: float = 0.0


def _fraction(state: _Progress, training: TrainingConfig) -> float:
    done = state.step / training.steps if training.steps else state.seconds / (60 * (training.minutes or 1))
    return min(1.0, done)


def _finished(state: _Progress, training: TrainingConfig) -> bool:
    return _fraction(state, training) >= 1.0


def _learning_rate(state: _Progress, training: TrainingConfig) -> float:
    """Linear warm-up, then a cosine from the peak to `final_rate` of it at the end of the run."""
    warm = min(1.0, (state.step + 1) / training.warmup) if training.warmup else 1.0
    cosine = 0.5 + 0.5 * math.cos(math.pi * _fraction(state, training))
    return training.learning_rate * warm * (training.final_rate + (1 - training.final_rate) * cosine)


def _seed(seed: int, step: int) -> int:
    return seed * 1_000_003 + step


def _batches(count: int, training: TrainingConfig, start: int, process: int, processes: int) -> Iterator[Tensor]:
    """Indices of the batch of every step from `start` on; each epoch is a permutation fixed by the seed."""
    wide = training.batch * processes
    per_epoch = max(1, count // wide)
    step = start
    order, order_epoch = torch.empty(0), -1
    while True:
        epoch, position = divmod(step, per_epoch)
        if epoch != order_epoch:
            generator = torch.Generator().manual_seed(_seed(training.seed, epoch))
            order, order_epoch = torch.randperm(count, generator=generator), epoch
        first = position * wide + process * training.batch
        yield order[first : first + training.batch]
        step += 1


def _fixed(training: TrainingConfig) -> TrainingConfig:
    """The settings without those that a resumed run may change."""
    default = TrainingConfig()
    free = {name: getattr(default, name) for name in ("steps", "minutes", "checkpoint_minutes", "log_every")}
    return dataclasses.replace(training, **free)


def _resume(
    path: Path, model: NeuroTensorialAutoencoder, training: TrainingConfig, network: NetworkConfig
) -> _Progress:
    progress = load_progress(path)
    before = TrainingConfig.from_dict(progress["training"])
    loaded = NeuroTensorialAutoencoder.from_pretrained(path)
    if _fixed(before) != _fixed(training) or loaded.config != network:
        raise InputError(
            f"{path.parent} was trained with other settings;"
            " resume it with the same preset, or choose another directory"
        )
    model.load_state_dict(loaded.state_dict())
    return _Progress(progress["step"], progress["seconds"])


def _smooth(metrics: dict[str, float], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        number = float(value.detach())
        metrics[name] = _SMOOTHING * metrics.get(name, number) + (1 - _SMOOTHING) * number


def _log(run: Path, values: dict[str, float]) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({name: round(value, 6) for name, value in values.items()}) + "\n")
