"""The interface of all verification networks: aligned crops in, unit vectors out, differentiable to the image."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate, normalize

from facemodels.config import FIVE_POINTS, SIZE
from facemodels.errors import InputError

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Facts:
    """What a verification network wants and what may be done with it.

    Attributes:
        name: What to call it.
        side: Side of its input in pixels.
        five: Where eyes, nose tip and mouth corners lie in its input, in pixels, as `facemodels.config.FIVE_POINTS`.
        inside: Values of its input, in words: range, order of colours, what is subtracted.
        features: Size of its vectors.
        threshold: Cosine from which on two faces count as the same person.
        threshold_source: Where the threshold comes from.
        licence: Of the weights.
        source: Who made them.
    """

    name: str
    side: int
    five: Points
    inside: str
    features: int
    threshold: float
    threshold_source: str
    licence: str
    source: str


class Verifier(nn.Module):
    """A frozen network that turns faces into unit vectors: the nearer two vectors, the likelier the same person.

    Its weights need no gradient and it stays in evaluation mode; gradients go through it to the image.

    Args:
        body: The network, from its own input, as `facts.inside` has it but in [0, 1], to vectors of any length.
        facts: About it.
    """

    crop: Tensor

    def __init__(self, body: nn.Module, facts: Facts):
        super().__init__()
        self.body, self.facts = body, facts
        self.register_buffer("crop", _crop(facts.five, facts.side), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Leave the network as it is: its statistics are part of its weights."""
        return super().train(False)

    def embed(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n features"]:
        """Unit vectors of faces; the scalar product of two is the cosine that `facts.threshold` is about.

        Args:
            images: Crops in [0, 1], RGB, framed as `facemodels.data.alignment` frames them, of 64x64 or any other
                number of pixels.

        Raises:
            ValueError: The images have another shape or are not square.
        """
        return normalize(self.describe(images), dim=1)

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n features"]:
        """The same as `embed`."""
        return self.embed(images)

    def describe(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n features"]:
        """The vectors before they are brought to unit length, as the makers of the weights publish them."""
        return self.body(self.aligned(images))

    def aligned(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 side side"]:
        """The crops framed as the network wants them, in [0, 1]; what lies outside repeats the border."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(
                f"Verifier.embed: images must be square crops of shape (n, 3, size, size), got {tuple(images.shape)}"
            )
        # Pixels of the whole crop at the network's resolution; larger images are reduced to it before sampling.
        enough = round(self.facts.side / float(self.crop[0, :2].norm()))
        if images.shape[2] > 1.5 * enough:
            images = interpolate(images, (enough, enough), mode="bilinear", antialias=True)
        theta = self.crop.to(images).expand(len(images), -1, -1)
        grid = affine_grid(theta, [len(images), 3, self.facts.side, self.facts.side], align_corners=False)
        return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _crop(five: Points, side: int) -> Float[Tensor, "2 3"]:
    """Similarity from the network's input to our crop, both in [-1, 1], that brings the five points together best."""
    here = 2 * torch.tensor(five, dtype=torch.float64) / side - 1
    there = 2 * torch.tensor(FIVE_POINTS, dtype=torch.float64) / SIZE - 1
    x, y = here.T
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    design = torch.cat([torch.stack([x, -y, one, zero], 1), torch.stack([y, x, zero, one], 1)])
    a, b, right, down = torch.linalg.lstsq(design, there.T.flatten()).solution.tolist()
    return torch.tensor([[a, -b, right], [b, a, down]], dtype=torch.float32)


def find_weights(what: str, path: str | os.PathLike[str] | None, packages: Mapping[str, str], advice: str) -> Path:
    """The file of a network's weights: the path given, or the one an installed package carries.

    Args:
        what: Name of the network, for messages.
        path: File that the user named, or None.
        packages: Where in which package the file lies.
        advice: How to get the file.

    Raises:
        InputError: There is no such file.
    """
    if path is not None:
        if not Path(path).is_file():
            raise InputError(f"there are no weights of {what} at {path}; {advice}")
        return Path(path)
    for package, inside in packages.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / inside).is_file():
                return Path(folder) / inside
    raise InputError(f"no installed package carries the weights of {what}; {advice}")
