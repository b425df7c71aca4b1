"""Commands that train: the network, a verification network, and the baseline Z0."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from facemodels.cli.ending import stop
from facemodels.cli.networks import RUNS
from facemodels.config import SIZE, NetworkConfig, TrainingConfig
from facemodels.errors import InputError


def train(
    prepared: Annotated[Path, typer.Argument(help="Prepared set.")],
    preset: Annotated[
        str, typer.Option(help="Sizes and objective: paper, default, small, large or rendered.")
    ] = "small",
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Length of the run in minutes; 25 if there is no --steps.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the run in steps.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/NAME OF THE SET.")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Faces at once, on each process.")] = None,
    accumulation: Annotated[
        int | None, typer.Option(min=1, help="Batches a step: large steps in little memory.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="Peak of the learning rate.")] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start-from", help="Model or run whose weights to start from, of the same preset or with narrower layers."
        ),
    ] = None,
    adversarial: Annotated[
        bool, typer.Option("--adversarial/--no-adversarial", help="Train with the preset's discriminator.")
    ] = True,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            help="Weight of a term instead of the preset's, such as decorrelation=8; 0 drops the term. As often as"
            " wanted."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="Setting of the network or the training instead of the preset's, such as light_channels=3 or"
            " channels=48,24,24; they are listed in facemodels/config.py. As often as wanted."
        ),
    ] = None,
    verifier: Annotated[
        str | None,
        typer.Option(
            help="Network that tells persons apart: sface, dlib or a file of train-verifier; none drops the term."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes weights, order and draws.")] = 0,
    precision: Annotated[
        str | None, typer.Option(help="auto, bf16, fp16 or no; auto is bf16 where it is fast.")
    ] = None,
    sheet_every: Annotated[
        int | None, typer.Option(min=0, help="Steps between sheets and held-out measures; 0 for none.")
    ] = None,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Split the weights among the processes.")] = False,
) -> None:
    """Train a network, or go on with one: the same command goes on where a run stopped.

    Ctrl-C leaves a checkpoint. RUN gets checkpoints, metrics.jsonl, sheets of pictures, and tensorboard/ for
    `tensorboard --logdir RUN`.

    Many processes, on one machine or many: `torchrun --nproc-per-node 4 -m facemodels train ...`, or
    `accelerate launch -m facemodels train ...`.
    """
    import dataclasses

    from facemodels.config import preset as find_preset
    from facemodels.data.dataset import PreparedSet
    from facemodels.parallel import process
    from facemodels.training import end_processes
    from facemodels.training import train as train_network
    from facemodels.training.checkpoint import checkpoints

    network, training = find_preset(preset)
    if precision not in (None, "auto", "bf16", "fp16", "no"):
        raise InputError(f"there is no precision {precision!r}; choose auto, bf16, fp16 or no")
    if minutes is None and steps is None:
        minutes = 25.0
    weights = training.weights if adversarial else dataclasses.replace(training.weights, adversarial=0.0)
    weights = dataclasses.replace(weights, **_weights(weight or [], dataclasses.asdict(weights)))
    changes = {
        "weights": weights,
        "batch": batch,
        "accumulation": accumulation,
        "learning_rate": learning_rate,
        "start": str(start) if start else None,
        "verifier": verifier,
        "precision": precision,
        "sheet_every": sheet_every,
        "steps": steps,
        "minutes": minutes,
        "seed": seed,
    }
    training = dataclasses.replace(training, **{name: value for name, value in changes.items() if value is not None})
    network, training = _settings(setting or [], network, training, others=changes)
    run = out or RUNS / prepared.resolve().name
    try:
        train_network(PreparedSet(prepared), run, network=network, training=training, shard=fsdp or None)
    except KeyboardInterrupt:
        kept = "holds a checkpoint, and the same command goes on from there"
        stop(f"interrupted; {run} {kept if checkpoints(run) else 'had no checkpoint yet; start it again'}")
    if process() == 0:
        print(f"trained: {run}")
    end_processes()


_FOUND = ("morphable_identity", "morphable_expression", "vertices", "residual_identity", "cores")
"""Settings that the prepared set or the end of a training gives."""


def _settings(
    given: list[str], network: NetworkConfig, training: TrainingConfig, others: Iterable[str]
) -> tuple[NetworkConfig, TrainingConfig]:
    """Settings of network and training, some of them changed by texts such as "light_channels=3".

    Raises:
        InputError: A text has another form, names no setting or one of `others`, which have options of their own, or
            its value is none of the setting.
    """
    changed: dict[str, Any] = {"network": network, "training": training}
    where = {name: part for part, one in changed.items() for name in vars(one) if name not in (*others, *_FOUND)}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"a setting is given as NAME=VALUE, such as light_channels=3; got {text!r}")
        if name in others:
            raise InputError(f"{name} is no --setting but has an option of its own; see facemodels train --help")
        if name not in where:
            raise InputError(f"there is no setting {name!r}; choose one of {', '.join(where)}")
        changed[where[name]] = changed[where[name]].with_text(name, value)
    return changed["network"], changed["training"]


def _weights(given: list[str], known: Mapping[str, float]) -> dict[str, float]:
    """Weights of terms from texts such as "decorrelation=8".

    Raises:
        InputError: A text has another form, names no term, or its number is none, negative or not finite.
    """
    weights = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            raise InputError(f"a weight is given as TERM=NUMBER, such as decorrelation=8; got {text!r}") from None
        if name not in known:
            raise InputError(f"there is no term {name!r}; choose one of {', '.join(known)}")
        if not 0 <= weights[name] < math.inf:
            raise InputError(f"the weight of {name} must be 0 or more, got {number}")
    return weights


def train_verifier(
    prepared: Annotated[Path, typer.Argument(help="Set made by `facemodels synthesise`, with many persons.")],
    out: Annotated[Path, typer.Option(help="File of weights to write.")] = Path("verifier.safetensors"),
    epochs: Annotated[int, typer.Option(min=1, help="Times that every face is seen.")] = 12,
    seed: Annotated[int, typer.Option(help="Fixes weights and order.")] = 0,
) -> None:
    """Train a small network to tell rendered persons apart, for those who have no other verification network."""
    import torch

    from facemodels.data.dataset import PreparedSet
    from facemodels.data.synthetic import check_synthetic
    from facemodels.files import check_place
    from facemodels.networks.verification import save_small, train_small

    check_place(out)
    faces = PreparedSet(prepared)
    check_synthetic(faces)  # who is on a photo is for evaluation alone
    faces.require_size(SIZE)
    persons = torch.tensor(faces.split("train")["person"][:])
    if len(persons.unique()) < 2:
        raise InputError(f"{prepared} shows fewer than two persons to train on; synthesise more faces")
    try:
        verifier = train_small(faces.faces("train").image, persons, epochs=epochs, seed=seed)
    except KeyboardInterrupt:
        stop("interrupted; nothing was written")
    save_small(verifier, out)
    print(f"wrote {out}")


def train_baseline(
    prepared: Annotated[Path, typer.Argument(help="Prepared set; its split train is learnt from.")],
    out: Annotated[Path, typer.Option(help="File of weights to write.")] = Path("z0.safetensors"),
    steps: Annotated[int, typer.Option(min=1, help="Length of the training.")] = 3000,
    batch: Annotated[int, typer.Option(min=2, help="Faces at once.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Fixes weights, order and draws.")] = 0,
) -> None:
    """Train the adversarial autoencoder Z0 that the paper compares its codes with.

    The same command goes on where a run was ended.
    """
    from facemodels.baselines import AdversarialConfig, train_adversarial
    from facemodels.data.dataset import PreparedSet

    faces = PreparedSet(prepared)
    config = AdversarialConfig(size=faces.size, steps=steps, batch=batch, seed=seed)
    try:
        train_adversarial(faces, out, config)
    except KeyboardInterrupt:
        stop(f"interrupted; {out} keeps what is done, and the same command goes on from there")
    print(f"wrote {out}")
