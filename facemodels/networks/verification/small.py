"""A small verification network of our own, trained on rendered persons alone, for those who have no other."""

import math
import os
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from facemodels.config import FIVE_POINTS, SIZE
from facemodels.errors import InputError
from facemodels.networks.verification.verifier import Facts, Verifier, find_weights
from facemodels.progress import progress_bar

FACTS = Facts(
    name="the small network",
    side=SIZE,
    five=FIVE_POINTS,
    inside="RGB, 0 to 1",
    features=128,
    threshold=0.5,
    threshold_source="none published; set it on your own pairs",
    licence="Apache-2.0",
    source="this project, after Wu et al., A Light CNN for Deep Face Representation with Noisy Labels, IEEE TIFS 2018",
)

_WIDTHS = (24, 48, 96, 128)
_SCALE, _MARGIN = 16.0, 0.2  # of the softmax over persons
_PLAIN = 0.4  # share of the training without a margin: with it from the start nothing is learnt
_RATE, _DECAY = 2e-3, 5e-4
_ADVICE = "train it with `facemodels train-verifier` on a synthetic set and give the path of the file it writes"


class _MaxFeatureMap(nn.Module):
    """A convolution of twice the channels, of which the larger of each two goes on."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1):
        super().__init__()
        self.convolution = nn.Conv2d(inside, 2 * outside, kernel, stride, kernel // 2, bias=False)
        self.normalisation = nn.BatchNorm2d(2 * outside)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.normalisation(self.convolution(x)).chunk(2, dim=1)
        return torch.maximum(first, second)


class _Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_MaxFeatureMap(3, _WIDTHS[0], 5, stride=2)]
        for inside, outside in pairwise(_WIDTHS):
            layers += [nn.MaxPool2d(2), _MaxFeatureMap(inside, inside, 1), _MaxFeatureMap(inside, outside, 3)]
        self.features = nn.Sequential(*layers)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(_WIDTHS[-1] * (SIZE >> len(_WIDTHS)) ** 2, FACTS.features, bias=False)
        self.normalisation = nn.BatchNorm1d(FACTS.features)

    def forward(self, images: Float[Tensor, "n 3 64 64"]) -> Float[Tensor, "n 128"]:
        return self.normalisation(self.head(self.drop(self.features(2 * images - 1).flatten(1))))


def load_small(path: str | os.PathLike[str] | None = None) -> Verifier:
    """The small network: 128 numbers, input 64x64 RGB, Apache-2.0.

    Args:
        path: File that `save_small` wrote.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    file = find_weights(FACTS.name, path, {}, _ADVICE)
    body = _Body()
    try:
        body.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{file} does not hold {FACTS.name} ({error}); {_ADVICE}") from error
    return Verifier(body, FACTS)


def save_small(verifier: Verifier, path: str | os.PathLike[str]) -> None:
    """Write the weights in half precision, about a megabyte."""
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in verifier.body.state_dict().items()
    }
    partial = Path(f"{path}.partial")
    save_file(state, partial)
    partial.replace(path)


def train_small(
    images: UInt8[Tensor, "n 3 64 64"],
    persons: Int[Tensor, " n"],
    *,
    epochs: int = 6,
    batch: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> Verifier:
    """Train the small network to tell rendered persons apart, with a margin between them.

    Every picture may be mirrored, shifted by some pixels, and changed in brightness, contrast and colour.

    Args:
        images: Aligned crops.
        persons: A number for each person; rendered persons only: who is on a photo is for evaluation alone.
        epochs: Times that every picture is seen.
        batch: Pictures a step.
        seed: Fixes weights and order.
        progress: Show a progress bar.

    Raises:
        ValueError: There are fewer than two persons, or not one number for each picture.

    Reference:
        Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018, eq. 4.
    """
    if len(images) != len(persons):
        raise ValueError(f"train_small: each of {len(images)} images needs a person, got {len(persons)}")
    labels = persons.unique(return_inverse=True)[1]
    count = int(labels.max()) + 1 if len(labels) else 0
    if count < 2:
        raise ValueError(f"train_small: needs two persons or more, got {count}")
    batch = min(batch, len(images))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = _Body().train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        centres = nn.Parameter(torch.randn(count, FACTS.features) / math.sqrt(FACTS.features))
        optimizer = torch.optim.AdamW([*body.parameters(), centres], _RATE, weight_decay=_DECAY)
        steps = epochs * (len(images) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
        order = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(epochs)])
        bar = progress_bar(range(steps), "training", unit="step", disable=not progress)
        for step in bar:
            rows = order[step * batch : (step + 1) * batch]
            faces = _varied(images[rows].float() / 255, generator).contiguous(memory_format=torch.channels_last)
            cosine = normalize(body(faces), dim=1) @ normalize(centres, dim=1).T
            margin = _MARGIN * max(0.0, (step / steps - _PLAIN) / (1 - _PLAIN)) * F.one_hot(labels[rows], count)
            loss = F.cross_entropy(_SCALE * (cosine - margin), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.2f}")
    return Verifier(body, FACTS)


def _varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored, shifted and recoloured at random, each picture in its own way."""
    count = len(images)

    def draw(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    mirrored = torch.where(draw(1, 1, 1) < 0.5, images.flip(3), images)
    theta = torch.eye(2, 3).repeat(count, 1, 1)
    theta[:, :, 2] = (draw(2) - 0.5) * 0.12
    theta[:, :, :2] *= 0.95 + 0.1 * draw(1, 1)
    moved = F.grid_sample(
        mirrored,
        F.affine_grid(theta, list(images.shape), align_corners=False),
        padding_mode="border",
        align_corners=False,
    )
    contrast, colour, brightness = 0.7 + 0.6 * draw(1, 1, 1), 0.85 + 0.3 * draw(3, 1, 1), 0.3 * (draw(1, 1, 1) - 0.5)
    return ((moved - 0.5) * contrast * colour + 0.5 + brightness).clamp(0, 1)
