"""The training loop: the same on one CPU and on many machines, all settings in one frozen dataclass."""

import copy
import dataclasses
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.codes import Codes
from facemodels.config import TERMS_RAMPED, LossWeights, NetworkConfig, TrainingConfig
from facemodels.data.dataset import Faces, PreparedSet
from facemodels.errors import InputError, RunError
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.measures import batches, without_context
from facemodels.files import make_folder
from facemodels.gauge import separate_identity, whiten_identity
from facemodels.morphable import MorphableModel
from facemodels.networks import channels_last
from facemodels.networks.verification import load_verifier
from facemodels.parallel import average_gradients
from facemodels.progress import progress_bar
from facemodels.training.adversary import Adversary
from facemodels.training.checkpoint import (
    FINISHED,
    Trained,
    checkpoints,
    load_network,
    load_progress,
    load_state,
    plain_network,
    save_checkpoint,
    start_from,
)
from facemodels.training.logs import Logs
from facemodels.training.monitor import BEST, Monitor
from facemodels.training.processes import (
    agree,
    gradients_synchronised,
    is_lost_process,
    sharding_wanted,
    share,
    start,
    whole,
)
from facemodels.training.step import TrainingStep
from facemodels.training.stopping import StopRequest
from multilinear.optim import factor_gradients, gather_gradients

SKIPPED_IN_A_ROW = 10
"""Steps without a finite objective after which a run ends."""

GAUGE_FACES = 2048
"""Faces from which the gauge of a finished network is read."""

_BEGAN_BETAS = (0.5, 0.999)


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
    shard: bool | None = None,
    progress: bool = True,
) -> NeuroTensorialAutoencoder:
    """Train a network on the split "train" of a prepared set; go on where the run directory stopped.

    A run of `training.steps` steps that is interrupted and resumed gives, on a CPU, the same numbers as one that was
    not: the order of faces and every draw depend on the seed and on how far the run is, alone. Ctrl-C and SIGTERM
    leave a checkpoint behind. Processes that `accelerate launch` or `torchrun` started share the work: `batch` faces
    each, and the same result as one process with all of them, where `surround_share` and `turned_share` of a batch are
    whole numbers of faces. A step whose objective or gradient is not finite is skipped and counted.

    A finished run has a folder `model`: the network in the gauge of `facemodels.gauge`: with white identity codes and,
    if `separate_identity` asks for it, without what follows from the expression.

    The run directory gets `checkpoint-*`, `metrics.jsonl`, `tensorboard/` and `sheets/`.

    Args:
        prepared: The prepared set.
        run: Directory of the run; all processes must see it.
        network: Sizes; those of the morphable model are taken from the prepared set.
        training: Everything else. One of `steps` and `minutes` must be set.
        shard: Split weights, gradients and the optimizer's state among the processes (FSDP2); by default where
            `accelerate launch --use_fsdp` asks for it.
        progress: Show a progress bar on the main process.

    Returns:
        The trained network, in evaluation mode.

    Raises:
        InputError: The set is empty or of another size, the settings differ from those of the run, a checkpoint is
            broken, or the directory cannot be written to.
        RunError: The run diverged, lost a process, or had no room for a checkpoint; the last one is intact.
        KeyboardInterrupt: It was asked to stop, and has left a checkpoint.
    """
    if (training.steps is None) == (training.minutes is None):
        raise InputError("training needs either a number of steps or a number of minutes; give one of them")
    if training.weights.face_mask and not network.face_mask:
        raise InputError(
            "the term face_mask needs a network with a mask of its own: set face_mask of the network, or give the term"
            " the weight 0"
        )
    prepared.require_size(network.size)
    accelerator = start(training.precision, all_used=_all_used(training))
    run = Path(run)
    trainer = _Trainer(prepared, run, network, training, accelerator, sharding_wanted() if shard is None else shard)
    with StopRequest() as stop:
        try:
            return trainer.to_the_end(progress, stop)
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"{accelerator.device} has too little memory for {training.batch} faces at once: halve the batch and"
                f" double the accumulation; {_left(run)}"
            ) from error
        except RunError:
            raise
        except RuntimeError as error:
            if accelerator.num_processes > 1 and is_lost_process(error):
                stop.ending = True  # the launcher, too, notices that one is gone, and sends SIGTERM to the others
                raise RunError(f"another process of this run ended or does not answer; {_left(run)}") from error
            raise
        except OSError as error:
            raise RunError(f"{run} could not be written to ({error}); {_left(run)}") from error
        finally:
            trainer.close()


@dataclasses.dataclass
class _Progress:
    """How far a run is.

    Attributes:
        step: Steps done.
        faces: Faces drawn by all processes: the place in the stream of faces.
        seconds: Of training.
        skipped, skipped_in_a_row: Steps without a finite objective.
        best, best_step: The best held-out measure and its step.
        sums: Sum and number of the values of every metric since they were written last.
        logged_faces, logged_seconds: `faces` and `seconds` then.
    """

    step: int = 0
    faces: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    best_step: int | None = None
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    logged_faces: int = 0
    logged_seconds: float = 0.0


class _Trainer:
    """A run: everything set up, then one step after the other."""

    def __init__(
        self,
        prepared: PreparedSet,
        run: Path,
        network: NetworkConfig,
        training: TrainingConfig,
        accelerator: Accelerator,
        shard: bool,
    ):
        self.run, self.training, self.accelerator = run, training, accelerator
        self.main = accelerator.is_main_process
        self.at_once = training.batch * accelerator.num_processes
        self.faces = _usable(prepared, self._say)
        if len(self.faces) < self.at_once:
            raise InputError(
                f"{prepared.path} holds {len(self.faces)} faces to train on, fewer than one batch of {self.at_once};"
                " prepare more photos or set a smaller batch"
            )
        compared = [name for name in TERMS_RAMPED if getattr(training.weights, name)]
        if self.at_once == 1 and compared:
            raise InputError(f"{', '.join(compared)} compare faces of a batch: set a batch of two or more")
        self.lends = training.weights.swapped_face != 0 and bool(self.faces.swapped_weight.any())
        if training.weights.swapped_face and not self.lends:
            self._say(f"{prepared.path} has no renders with another's expression: the term swapped_face is left out")
        verifier = load_verifier(training.verifier) if training.verifier and training.weights.verification else None
        torch.manual_seed(training.seed)
        network = fit_to_morphable(network, prepared.morphable)
        model = NeuroTensorialAutoencoder(network, prepared.morphable)
        channels_last(model)
        source = f"{len(self.faces)} faces of the prepared set `{prepared.path.name}`."
        model.card = str(model.generate_model_card(training_data=source))
        adversary = Adversary(network, training) if training.weights.adversarial else None
        self.progress = _Progress()
        found = checkpoints(run)[-1:]
        if found:
            load_network(found[0], model, training)
            self._go_on(load_progress(found[0]))
        else:
            if training.start is not None:
                start_from(training.start, model)
            if self.main:
                make_folder(run)
        if agree({"step": self.progress.step}, accelerator)["step"] != self.progress.step:
            raise InputError(f"the processes see different checkpoints in {run}; put it on a disk that all of them see")

        device = accelerator.device
        for module in (model, adversary, verifier):
            if module is not None:
                module.to(device)
        step = TrainingStep(model, training, prepared.morphable, adversary, verifier)
        if not shard and accelerator.scaler is None:  # sharded weights and scaled gradients have to be dense
            factor_gradients(step)
        self.step = share(step, accelerator, shard)
        optimizer = _optimizer(model, training, training.learning_rate, training.betas, training.weight_decay)
        other = _optimizer(adversary, training, training.discriminator_rate, _BEGAN_BETAS, 0.0) if adversary else None
        self.trained = Trained(model, optimizer, adversary, other)
        if found:
            load_state(found[0], self.trained)
        self.faces = self.faces.to(device)
        self.monitor = Monitor(prepared, run) if self.main and training.sheet_every else None
        self.logs = Logs(run, self.progress.step) if self.main else None

        self.since = self.saved = time.monotonic()
        self.saved_step = self.progress.step

    def to_the_end(self, show: bool, stop: StopRequest) -> NeuroTensorialAutoencoder:
        """Train until the run is finished, or until somebody asks it to stop."""
        progress, training = self.progress, self.training
        started = progress.step
        bar = progress_bar(
            total=1000,
            description="train",
            disable=not (show and self.main),
            bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix}",
        )
        self.step.train()
        self.since = self.saved = time.monotonic()
        with bar:
            while _fraction(progress, training) < 1:
                common = self._advance(float(stop.wanted))
                bar.n = round(1000 * _fraction(progress, training))
                if progress.step % training.log_every == 0:
                    bar.set_postfix_str(self._log())
                if training.sheet_every and progress.step % training.sheet_every == 0:
                    self._look()
                if _fraction(progress, training) >= 1:
                    break  # to the last look and checkpoint, also if it was asked to stop
                if common["stop"]:
                    self._save()
                    raise KeyboardInterrupt
                if common["unsaved"] > 60 * training.checkpoint_minutes:
                    self._save()
        if training.sheet_every and progress.step > started and progress.step % training.sheet_every:
            self._look()
        self._save()
        network = plain_network(self.trained.network, wanted=True)
        assert network is not None
        return self._finish(network.eval())

    @torch.no_grad()
    def _finish(self, network: NeuroTensorialAutoencoder) -> NeuroTensorialAutoencoder:
        """A copy of the trained network in its gauge, saved beside the checkpoints."""
        finished = copy.deepcopy(network)
        device = next(finished.parameters()).device
        faces = self.faces[spread(len(self.faces), GAUGE_FACES).to(self.accelerator.device)].to(device)
        codes = Codes.cat(without_context(finished.perceive(faces[rows].pictures())) for rows in batches(len(faces)))
        identity = codes.identity
        if self.training.separate_identity:
            identity = separate_identity(finished, codes)
        whiten_identity(finished, identity)
        if self.main:
            finished.save_pretrained(self.run / FINISHED)
        self.accelerator.wait_for_everyone()  # a process that ends while others still talk to it may be aborted
        return finished

    def close(self) -> None:
        """Let go of open files."""
        if self.logs:
            self.logs.close()

    def _advance(self, stop: float) -> dict[str, float]:
        """One step; returns the numbers that all processes agreed on."""
        progress, training, trained = self.progress, self.training, self.trained
        parameters = list(trained.network.parameters())
        done = _fraction(progress, training)
        adversary = trained.adversary if done >= training.adversary_enters else None
        sums: dict[str, Tensor] = {}
        for number in range(training.accumulation):
            values = self._backward(number, done, adversary)
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value.detach() / training.accumulation
        scaler = self.accelerator.scaler
        if scaler is not None:
            scaler.unscale_(trained.optimizer)
        gather_gradients(trained.network)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients))
        if adversary is not None:
            average_gradients(adversary)

        now = time.monotonic()
        clock = {"seconds": now - self.since, "unsaved": now - self.saved, "stop": stop}
        self.since = now
        common = agree({**sums, "gradient": norm, **clock}, self.accelerator)
        progress.seconds += common.pop("seconds")
        finite = all(math.isfinite(value) for value in common.values())
        if finite or scaler is not None:  # which looks for itself, and lowers its scale
            torch.nn.utils.clip_grads_with_norm_(parameters, training.gradient_clip, norm)
            _set_rate(trained.optimizer, training.learning_rate * _warmth(progress, training) * _fall(done, training))
            _step(trained.optimizer, scaler)
        if finite and adversary is not None and trained.adversary_optimizer is not None:
            _set_rate(trained.adversary_optimizer, training.discriminator_rate * _fall(done, training))
            trained.adversary_optimizer.step()
            adversary.update(common["real_error"], common["fake_error"])
            common["convergence"] = adversary.convergence
        for module in (trained.network, trained.adversary):
            if module is not None:
                module.zero_grad(set_to_none=True)
        progress.step += 1
        self._count(common, finite)
        return common

    def _backward(self, number: int, done: float, adversary: Adversary | None) -> dict[str, Tensor]:
        """Add the gradients of one batch of the step's `accumulation`; returns the objective and its terms."""
        training, accelerator, progress = self.training, self.accelerator, self.progress
        first = accelerator.process_index * training.batch
        rows = stream(len(self.faces), training.seed, progress.faces + first, training.batch)
        progress.faces += self.at_once
        seed = _seed(training.seed, progress.step * training.accumulation + number)
        torch.manual_seed(seed)  # for whatever draws without a generator
        with gradients_synchronised(self.step, last=number == training.accumulation - 1):
            with accelerator.autocast():
                faces = self.faces[rows.to(accelerator.device)]
                lenders = self.faces.image[faces.swapped_row] if self.lends else None
                result = self.step(faces, seed, done, first, lenders)
            loss = result.total / training.accumulation
            (loss if accelerator.scaler is None else accelerator.scaler.scale(loss)).backward()
        values = {"objective": result.total, **result.terms}
        if adversary is not None:
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=accelerator.mixed_precision == "bf16"):
                loss, errors = adversary.loss(result.real, result.fake)
            (loss / training.accumulation).backward()
            values |= {"discriminator": loss, **errors}
        return values

    def _count(self, common: dict[str, float], finite: bool) -> None:
        """Add a step's numbers to the metrics, or count it among the skipped."""
        progress = self.progress
        if finite:
            progress.skipped_in_a_row = 0
            for name, value in common.items():
                if name not in ("stop", "unsaved"):
                    sums = progress.sums.setdefault(name, [0.0, 0])
                    sums[0] += value
                    sums[1] += 1
            return
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        wrong = ", ".join(name for name, value in common.items() if not math.isfinite(value))
        self._say(f"step {progress.step} was skipped: not finite: {wrong}")
        if progress.skipped_in_a_row == SKIPPED_IN_A_ROW:
            raise RunError(
                f"{SKIPPED_IN_A_ROW} steps in a row had no finite objective or gradient ({wrong});"
                f" lower the learning rate, or look at the faces of the set; {_left(self.run)}"
            )

    def _log(self) -> str:
        """Write the metrics since the last time; returns a line for the progress bar."""
        progress, training, adversary = self.progress, self.training, self.trained.adversary
        means = {name: total / count for name, (total, count) in progress.sums.items()}
        progress.sums = {}
        speed = (progress.faces - progress.logged_faces) / max(1e-9, progress.seconds - progress.logged_seconds)
        progress.logged_faces, progress.logged_seconds = progress.faces, progress.seconds
        rate = training.learning_rate * _warmth(progress, training) * _fall(_fraction(progress, training), training)
        values = {
            "seconds": progress.seconds,
            "faces_per_second": speed,
            "learning_rate": rate,
            "skipped": progress.skipped,
            **means,
        }
        if adversary is not None:
            values["k_t"] = float(adversary.k)
        if self.logs:
            self.logs.write(progress.step, values)
        face = f", face {means['face_l1']:.3f}" if "face_l1" in means else ""
        return f"step {progress.step}, {speed:.0f} faces/s, objective {means.get('objective', math.nan):.3f}{face}"

    def _look(self) -> None:
        """Draw a sheet and measure held-out faces; the best network so far is saved."""
        progress = self.progress
        network = plain_network(self.trained.network, wanted=self.main)
        better = False
        if self.monitor and self.logs and network is not None:
            values = self.monitor(network, progress.step)
            self.logs.write(progress.step, values, "held_out")
            self.logs.picture(progress.step, self.run / "sheets" / f"step-{progress.step:08d}.png")
            better = values[BEST] > (-math.inf if progress.best is None else progress.best)
            if better:
                progress.best, progress.best_step = values[BEST], progress.step
        if agree({"better": float(better)}, self.accelerator)["better"]:
            self._save()

    def _save(self) -> None:
        if self.saved_step == self.progress.step:
            return
        self.saved_step = self.progress.step
        scaler, training = self.accelerator.scaler, self.training
        values = {
            **dataclasses.asdict(self.progress),
            "training": training.to_dict(),
            "global_batch": self._global_batch(),
            "set": len(self.faces),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        best = self.progress.best_step
        save_checkpoint(self.run, self.trained, values, write=self.main, keep=training.keep, best=best)
        if self.main and _fraction(self.progress, training) < 1:
            shutil.rmtree(self.run / FINISHED, ignore_errors=True)  # of a shorter run
        self.saved = time.monotonic()

    def _go_on(self, values: dict[str, Any]) -> None:
        """Take up the progress of a checkpoint."""
        names = {field.name for field in dataclasses.fields(_Progress)}
        self.progress = _Progress(**{name: value for name, value in values.items() if name in names})
        if values.get("scaler") and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(values["scaler"])
        before, now = (values["set"], values["global_batch"]), (len(self.faces), self._global_batch())
        if before != now:
            self._say(
                f"{self.run} was trained on {before[0]} faces, {before[1]} a step;"
                f" it goes on with {now[0]} faces, {now[1]} a step"
            )

    def _global_batch(self) -> int:
        return self.at_once * self.training.accumulation

    def _say(self, line: str) -> None:
        if self.main:
            print(f"facemodels: {line}", file=sys.stderr, flush=True)


def stream(count: int, seed: int, first: int, length: int) -> Tensor:
    """Faces `first`, `first + 1`, ... of the endless stream of all faces, each epoch in an order fixed by the seed."""
    rows = []
    while length > 0:
        epoch, place = divmod(first, count)
        taken = _order(count, seed, epoch)[place : place + length]
        rows.append(taken)
        first, length = first + len(taken), length - len(taken)
    return torch.cat(rows)


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, epoch)))


def _seed(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def _fraction(progress: _Progress, training: TrainingConfig) -> float:
    """How much of the run is done, from 0 to 1."""
    if training.steps:
        return min(1.0, progress.step / training.steps)
    return min(1.0, progress.seconds / (60 * (training.minutes or 1)))


def _warmth(progress: _Progress, training: TrainingConfig) -> float:
    """The linear warm-up's factor of the learning rate."""
    return min(1.0, (progress.step + 1) / training.warmup) if training.warmup else 1.0


def _fall(done: float, training: TrainingConfig) -> float:
    """The cosine's factor of the learning rate: from 1 to `final_rate` at the end of the run."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * done)
    return training.final_rate + (1 - training.final_rate) * cosine


def _optimizer(
    module: nn.Module, training: TrainingConfig, rate: float, betas: tuple[float, float], decay: float
) -> torch.optim.Optimizer:
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(module.parameters(), lr=rate, alpha=0.9, eps=1e-8)
    return torch.optim.AdamW(module.parameters(), lr=rate, betas=betas, weight_decay=decay, fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _step(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None) -> None:
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _all_used(training: TrainingConfig) -> bool:
    """Whether no term is ever switched off that alone reaches some of the network's weights."""
    paper = (
        name for name, weight in vars(LossWeights()).items() if weight and name not in ("adversarial", "verification")
    )
    return not training.codes_first and all(getattr(training.weights, name) for name in paper)


def _usable(prepared: PreparedSet, say: Callable[[str], None]) -> Faces:
    """The faces to train on, without black pictures and without numbers that are none."""
    faces = prepared.faces("train")
    usable = faces.image.flatten(1).any(1).bool()  # of bytes, any() makes bytes
    for value in vars(faces).values():
        if value.is_floating_point():
            usable &= value.isfinite().all(1)
    left_out = len(faces) - int(usable.sum())
    if not left_out:
        return faces
    say(f"{left_out} of {len(faces)} faces are left out: their picture is black or their numbers are not finite")
    return faces.usable(usable)


def _left(run: Path) -> str:
    """Which checkpoint there is to go on from, for messages."""
    found = checkpoints(run)
    if not found:
        return "it had not come to a checkpoint; start it again"
    return f"the last checkpoint, {found[-1]}, is intact: the same command goes on from there"
