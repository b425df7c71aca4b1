"""The convolutional encoder (the paper's appendix A)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KERNEL = 5

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


class Encoder(nn.Module):
    """Convolutions of 5 x 5, each followed by max-pooling and a threshold, then a linear layer.

    Args:
        channels: Filters of the convolutions, outermost first.
        features: Size of the resulting vector.
        size: Height and width of the pictures.
        bottleneck: Activation of the vector.
    """

    def __init__(
        self, channels: tuple[int, ...], features: int, size: int, bottleneck: Literal["sigmoid", "tanh"] = "tanh"
    ):
        super().__init__()
        self.bottleneck = _BOTTLENECKS[bottleneck]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inside, outside, KERNEL, padding=KERNEL // 2)
            for inside, outside in zip((3, *channels), channels, strict=False)
        )
        self.head = nn.Linear(channels[-1] * (size >> len(channels)) ** 2, features)

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
        features = self.bottleneck(self.head(activation.flatten(1)))
        return features, Context(tuple(indices), tuple(skips))
