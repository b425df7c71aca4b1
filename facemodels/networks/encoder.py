"""The convolutional encoder (the paper's appendix A)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KERNEL = 5

_GROUPS = 8  # of channels that are normalised together, or fewer where their number is no multiple

_BOTTLENECKS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}


@dataclass(frozen=True)
class Context:
    """What the unpooling decoders need of a picture besides its codes, outermost level first.

    Attributes:
        indices: Where in its window each maximum was found, shapes (n, c_i, h_i, w_i).
        skips: Activations behind each pooling, same shapes.
    """

    indices: tuple[Tensor, ...]
    skips: tuple[Tensor, ...]

    def __getitem__(self, index: Any) -> "Context":
        """The context of some of the pictures."""
        return Context(tuple(level[index] for level in self.indices), tuple(level[index] for level in self.skips))

    @staticmethod
    def cat(parts: "Sequence[Context]") -> "Context":
        """The contexts of several batches one behind the other."""
        indices = zip(*(part.indices for part in parts), strict=True)
        skips = zip(*(part.skips for part in parts), strict=True)
        return Context(tuple(map(torch.cat, indices)), tuple(map(torch.cat, skips)))


class Residual(nn.Module):
    """A convolution of 3 x 3 that halves the picture, then two more whose result is added to that of the first.

    Groups of channels are normalised within each picture, so that none depends on the others of its batch.

    Args:
        inside: Channels of the picture.
        outside: Channels of the result.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
        Wu and He, "Group Normalization", ECCV 2018.
    """

    def __init__(self, inside: int, outside: int):
        super().__init__()
        groups = math.gcd(outside, _GROUPS)
        self.halve = nn.Sequential(nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.GroupNorm(groups, outside))
        self.first = nn.Sequential(nn.Conv2d(outside, outside, 3, padding=1), nn.GroupNorm(groups, outside))
        self.second = nn.Conv2d(outside, outside, 3, padding=1)
        _silence(self.second)

    def forward(self, picture: Float[Tensor, "n inside h w"]) -> Float[Tensor, "n outside h/2 w/2"]:
        """One stage."""
        halved = self.halve(picture)
        return F.relu(halved + self.second(F.relu(self.first(F.relu(halved)))))


class Encoder(nn.Module):
    """Convolutions of 5 x 5, each followed by max-pooling and a threshold, then a linear layer.

    A residual network may stand beside the convolutions behind the first: it reads the same and adds to the vector. It
    adds 0 at first, and the decoders are told nothing by it but through the codes.

    Args:
        channels: Filters of the convolutions, outermost first.
        features: Size of the resulting vector.
        size: Height and width of the pictures.
        bottleneck: Activation of the vector.
        residual: Channels of the stages of the residual network; none without one.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        features: int,
        size: int,
        bottleneck: Literal["sigmoid", "tanh"] = "tanh",
        residual: tuple[int, ...] = (),
    ):
        super().__init__()
        self.bottleneck = _BOTTLENECKS[bottleneck]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inside, outside, KERNEL, padding=KERNEL // 2)
            for inside, outside in zip((3, *channels), channels, strict=False)
        )
        self.head = nn.Linear(channels[-1] * (size >> len(channels)) ** 2, features)
        if residual:
            stages = (Residual(*widths) for widths in zip((channels[0], *residual), residual, strict=False))
            last = nn.Linear(residual[-1] * (size // 2 >> len(residual)) ** 2, features)
            _silence(last)
            self.residual: nn.Sequential | None = nn.Sequential(*stages, nn.Flatten(), last)
        else:
            self.residual = None

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n features"], Context]:
        """Encode images in [0, 1].

        Returns:
            The intermediate vector and the context of the unpooling decoders.
        """
        indices, skips = [], []
        activation = images * 2 - 1
        for convolution in self.convolutions:
            pooled, index = F.max_pool2d(convolution(activation), 2, return_indices=True)
            activation = F.relu(pooled)
            indices.append(index)
            skips.append(activation)
        features = self.head(activation.flatten(1))
        if self.residual is not None:
            features = features + self.residual(skips[0])
        return self.bottleneck(features), Context(tuple(indices), tuple(skips))


def _silence(layer: nn.Conv2d | nn.Linear) -> None:
    """Make a layer say 0."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
