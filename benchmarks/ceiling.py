"""What the encoder alone can tell of a face: `python -m benchmarks ceiling SET [--model RUN]`.

The paper's encoder with a linear layer behind it, or one with `--residual` stages, is trained on one target of the
morphable model and nothing else, from all training faces and from fewer. A network that reads its codes through this
encoder, and has other things to learn, can hardly tell much more of held-out faces, however its objective is weighted.
What fewer faces cost says what more would bring.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from benchmarks.options import command_parser
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.cli.networks import load_network
from facemodels.config import NetworkConfig, preset
from facemodels.data.dataset import PreparedSet, faces_from_rows
from facemodels.evaluation.coders import as_floats
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.measures import angle_between, batches, nearest_rotation
from facemodels.losses import cut_coefficients, displacement
from facemodels.networks.encoder import Encoder
from facemodels.progress import progress_bar

BATCH = 32
RATE = 2e-3  # of AdamW at its peak; falls along a cosine
MEASURED = 1000
"""Training faces that are measured, too."""

Measure = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Known:
    """Pictures and what is known of them."""

    image: UInt8[Tensor, "n 3 h w"]
    pose: Float[Tensor, "n 9"]
    expression: Float[Tensor, "n n_expression"]

    @staticmethod
    def of(prepared: PreparedSet, split: str) -> "Known":
        prepared.faces(split, limit=1)  # refuses an empty split
        rows = prepared.split(split)
        faces = [faces_from_rows(rows.select(range(part.start, part.stop))) for part in batches(len(rows))]
        return Known(
            torch.cat([some.image for some in faces]),
            torch.cat([some.rotation for some in faces]),
            cut_coefficients(torch.cat([some.expression for some in faces])),
        )

    def some(self, count: int) -> "Known":
        rows = spread(len(self.image), count)
        return Known(self.image[rows], self.pose[rows], self.expression[rows])


@dataclass(frozen=True)
class Target:
    """What an encoder is trained to tell.

    Attributes:
        title: What is measured, with its unit.
        weights: How much each number counts.
        measure: Of what was told and what is true.
    """

    title: str
    weights: Float[Tensor, " k"]
    measure: Measure


def targets(expression_weights: Float[Tensor, " n_expression"]) -> dict[str, Target]:
    """Pose and expression, the latter weighted by how far each coefficient moves the face, as in training."""
    weights = expression_weights / expression_weights.sum()
    return {
        "pose": Target("pose error, degrees", torch.full((9,), 1 / 9), pose_degrees),
        "expression": Target(
            "share of the expression explained", weights, lambda told, true: explained(told, true, weights)
        ),
    }


def pose_degrees(told: Float[Tensor, "n 9"], true: Float[Tensor, "n 9"]) -> float:
    """Mean angle between rotations."""
    return float(angle_between(nearest_rotation(told.unflatten(1, (3, 3))), true.unflatten(1, (3, 3))).mean())


def explained(told: Float[Tensor, "n k"], true: Float[Tensor, "n k"], weights: Float[Tensor, " k"]) -> float:
    """Share of the weighted variance that is told: 1 at best, 0 for the mean."""
    return float(1 - (weights * (told - true).square().mean(0)).sum() / (weights * true.var(0, correction=0)).sum())


def teach(config: NetworkConfig, known: Known, name: str, target: Target, *, steps: int, seed: int = 0) -> nn.Module:
    """The encoder of a network and a linear layer, trained to tell one target."""
    torch.manual_seed(seed)
    encoder = Encoder(config.channels, config.intermediate, config.size, config.bottleneck, config.residual)
    head = nn.Linear(config.intermediate, len(target.weights))
    reader = _Reader(encoder, head)
    true = getattr(known, name)
    optimizer = torch.optim.AdamW(reader.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in progress_bar(range(steps), f"{name}, {len(true)} faces"):
        rows = torch.randint(len(true), (BATCH,), generator=generator)
        loss = ((reader(known.image[rows]) - true[rows]).square() * target.weights).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return reader.eval()


class _Reader(nn.Module):
    def __init__(self, encoder: Encoder, head: nn.Linear):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, image: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        features, _ = self.encoder(as_floats(image).contiguous(memory_format=torch.channels_last))
        return self.head(features)


@torch.no_grad()
def read(reader: Callable[[Tensor], Tensor], image: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
    """What a reader tells of pictures, in batches."""
    return torch.cat([reader(image[rows]) for rows in batches(len(image))])


def readers(model: NeuroTensorialAutoencoder) -> dict[str, Callable[[Tensor], Tensor]]:
    """What a whole network tells of the same: its pose code, and fc of its expression code."""
    return {
        "pose": lambda image: model.encode(as_floats(image)).pose,
        "expression": lambda image: model.coefficients(model.encode(as_floats(image)))[1],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and print a table."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    prepared = PreparedSet(options.prepared)
    model = load_network(options.model) if options.model else None
    config = dataclasses.replace(model.config if model else preset("small")[0], residual=tuple(options.residual))
    prepared.require_size(config.size)
    training, held_out = Known.of(prepared, "train"), Known.of(prepared, "test")
    counts = sorted({min(count, len(training.image)) for count in options.faces or [len(training.image)]})
    lines = []
    for name, target in targets(displacement(prepared.morphable.expression)).items():
        lines += ["", f"| {target.title} | training faces | held-out faces |", "|---|---|---|"]
        for count in counts:
            some = training.some(count)
            reader = teach(config, some, name, target, steps=options.steps)
            lines.append(_line(f"encoder alone, {count} faces", name, target, reader, some, held_out))
            print(lines[-1], flush=True)
        if model:
            lines.append(_line("whole network", name, target, readers(model)[name], training, held_out))
    text = "\n".join(lines[1:])
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 0


def _line(
    title: str, name: str, target: Target, reader: Callable[[Tensor], Tensor], training: Known, held_out: Known
) -> str:
    seen, new = (
        target.measure(read(reader, known.image), getattr(known, name)) for known in (training.some(MEASURED), held_out)
    )
    return f"| {title} | {seen:.2f} | {new:.2f} |"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("ceiling", __doc__)
    parser.add_argument("prepared", type=Path, help="prepared set with held-out faces")
    parser.add_argument("--model", type=Path, help="run or checkpoint to compare with, whose encoder is trained anew")
    parser.add_argument("--faces", nargs="+", type=int, help="numbers of training faces; by default all")
    parser.add_argument(
        "--residual", nargs="+", type=int, default=(), help="stages of a residual network beside the convolutions"
    )
    parser.add_argument("--steps", type=int, default=3000, help=f"steps of {BATCH} faces")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table there, too")
    return parser
