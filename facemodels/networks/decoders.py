"""Convolutional decoders, symmetric to the encoder (the paper's appendix A)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from facemodels.networks.encoder import KERNEL, Context


class _Decoder(nn.Module):
    """A linear layer to the encoder's last level, then one convolution a level."""

    def __init__(self, features: int, channels: tuple[int, ...], outputs: int, size: int):
        super().__init__()
        inwards = channels[::-1]
        side = size >> len(channels)
        self.shape = (inwards[0], side, side)
        self.head = nn.Linear(features, inwards[0] * side**2)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inside, outside, KERNEL, padding=KERNEL // 2)
            for inside, outside in zip(inwards, (*inwards[1:], outputs), strict=True)
        )

    def _start(self, code: Tensor) -> Tensor:
        return F.relu(self.head(code)).unflatten(1, self.shape)

    @property
    def bias(self) -> Tensor:
        """Bias of the last convolution: what the decoder says where its code says nothing."""
        bias = self.convolutions[-1].bias
        assert isinstance(bias, Tensor)
        return bias


class UpsamplingDecoder(_Decoder):
    """Decoder that doubles the resolution by repetition: albedo and normals.

    Args:
        features: Size of the code.
        channels: Filters of the encoder, outermost first.
        outputs: Channels of the result.
        size: Height and width of the result.
    """

    def forward(self, code: Float[Tensor, "n features"]) -> Float[Tensor, "n outputs h w"]:
        """Decode; the last convolution has no activation."""
        activation = self._start(code)
        for level, convolution in enumerate(self.convolutions):
            activation = convolution(F.interpolate(activation, scale_factor=2, mode="nearest"))
            if level < len(self.convolutions) - 1:
                activation = F.relu(activation)
        return activation


def unpool(activation: Float[Tensor, "n c h w"], index: Int[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
    """Put activations back where the maxima of 2 x 2 windows were, into twice the height and width.

    While `torch.export` traces it is a scatter: torch's own unpooling fixes the size of the batch and has no
    counterpart in ONNX. In training the scatter is the slower one.
    """
    if not torch.compiler.is_exporting():
        return F.max_unpool2d(activation, index, [2, 2])
    height, width = activation.shape[2:]
    plane = activation.new_zeros(*activation.shape[:2], 4 * height * width)
    return plane.scatter(2, index.flatten(2), activation.flatten(2)).unflatten(2, (2 * height, 2 * width))


class UnpoolingDecoder(_Decoder):
    """Decoder that puts activations back where the encoder's maxima were: mask and background.

    At each level the encoder's activations are added before unpooling (the paper's skip connections), if wished.

    Args:
        features: Size of the code.
        channels: Filters of the encoder, outermost first.
        outputs: Channels of the result.
        size: Height and width of the result.
        skips: Whether the encoder's activations are added or only their places used.
    """

    def __init__(
        self,
        features: int,
        channels: tuple[int, ...],
        outputs: int,
        size: int,
        skips: Literal["add", "none"] = "add",
    ):
        super().__init__(features, channels, outputs, size)
        self.adds = skips == "add"

    def forward(self, code: Float[Tensor, "n features"], context: Context) -> Float[Tensor, "n outputs h w"]:
        """Decode; the last convolution has no activation."""
        activation = self._start(code)
        for level, convolution in enumerate(self.convolutions):
            if self.adds:
                activation = activation + context.skips[-1 - level]
            activation = convolution(unpool(activation, context.indices[-1 - level]))
            if level < len(self.convolutions) - 1:
                activation = F.relu(activation)
        return activation
