"""A plain autoencoder: the same convolutions, one code of 128 numbers, the reconstruction alone as objective."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.config import SIZE
from facemodels.data.dataset import Faces
from facemodels.networks import Encoder, UpsamplingDecoder
from facemodels.progress import progress_bar


class PlainAutoencoder(nn.Module):
    """Encoder and upsampling decoder around one code.

    Args:
        channels: Filters of the encoder, outermost first.
        features: Size of the code.
    """

    def __init__(self, channels: tuple[int, ...] = (48, 24, 24), features: int = 128):
        super().__init__()
        self.encoder = Encoder(channels, features, SIZE)
        self.decoder = UpsamplingDecoder(features, channels, 3, SIZE)

    def encode(self, images: Float[Tensor, "n 3 64 64"]) -> Float[Tensor, "n features"]:
        """The code of images in [0, 1]."""
        return self.encoder(images)[0]

    def forward(self, images: Float[Tensor, "n 3 64 64"]) -> Float[Tensor, "n 3 64 64"]:
        """The reconstruction."""
        return self.decoder(self.encode(images)).float().sigmoid()


def train_plain(
    faces: Faces,
    *,
    steps: int,
    channels: tuple[int, ...] = (48, 24, 24),
    batch: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> PlainAutoencoder:
    """Train a `PlainAutoencoder` on the images of `faces` for some steps.

    Returns:
        The network, in evaluation mode.
    """
    torch.manual_seed(seed)
    model = PlainAutoencoder(channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, fused=True)
    for step in progress_bar(range(steps), "train the plain autoencoder", disable=not progress):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 50) * (0.505 + 0.495 * math.cos(math.pi * step / steps))
        images = faces[torch.randint(len(faces), (batch,))].pictures().contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            reconstruction = model(images)
        loss = F.mse_loss(reconstruction, images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model.eval()
