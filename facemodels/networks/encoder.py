"""The convolutional encoder (the paper's appendix A)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KERNEL = 5
POOLINGS = 3


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


class Encoder(nn.Module):
    """Three convolutions of 5 x 5, each followed by max-pooling and a threshold, then a linear layer.

    Args:
        channels: Filters of the convolutions, outermost first.
        features: Size of the resulting vector.
        size: Height and width of the pictures.
    """

    def __init__(self, channels: tuple[int, ...], features: int, size: int):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inside, outside, KERNEL, padding=KERNEL // 2)
            for inside, outside in zip((3, *channels), channels, strict=False)
        )
        self.head = nn.Linear(channels[-1] * (size >> POOLINGS) ** 2, features)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n features"], Context]:
        """Encode images in [0, 1].

        Returns:
            The intermediate vector in (-1, 1) and the context of the unpooling decoders.
        """
        indices, skips = [], []
        activation = images * 2 - 1
        for convolution in self.convolutions:
            pooled, index = F.max_pool2d(convolution(activation), 2, return_indices=True)
            activation = F.relu(pooled)
            indices.append(index)
            skips.append(activation)
        features = torch.tanh(self.head(activation.flatten(1)))
        return features, Context(tuple(indices), tuple(skips))
