"""Convolutional decoders, symmetric to the encoder (the paper's appendix A)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.networks.encoder import KERNEL, POOLINGS, Context


class _Decoder(nn.Module):
    """A linear layer to the encoder's last level, then one convolution a level."""

    def __init__(self, features: int, channels: tuple[int, ...], outputs: int, size: int):
        super().__init__()
        inwards = channels[::-1]
        self.shape = (inwards[0], size >> POOLINGS, size >> POOLINGS)
        self.head = nn.Linear(features, inwards[0] * (size >> POOLINGS) ** 2)
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
            if level < POOLINGS - 1:
                activation = F.relu(activation)
        return activation


class UnpoolingDecoder(_Decoder):
    """Decoder that puts activations back where the encoder's maxima were: mask and background.

    At each level the encoder's activations are added before unpooling (the paper's skip connections).

    Args:
        features: Size of the code.
        channels: Filters of the encoder, outermost first.
        outputs: Channels of the result.
        size: Height and width of the result.
    """

    def forward(self, code: Float[Tensor, "n features"], context: Context) -> Float[Tensor, "n outputs h w"]:
        """Decode; the last convolution has no activation."""
        activation = self._start(code)
        for level, convolution in enumerate(self.convolutions):
            skip, index = context.skips[-1 - level], context.indices[-1 - level]
            activation = convolution(F.max_unpool2d(activation + skip, index, [2, 2]))
            if level < POOLINGS - 1:
                activation = F.relu(activation)
        return activation
