"""The discriminator: an autoencoder, as in BEGAN; faces it cannot reproduce are not real (section 3.6)."""

from jaxtyping import Float
from torch import Tensor, nn

from facemodels.networks.decoders import UpsamplingDecoder
from facemodels.networks.encoder import Encoder


class Discriminator(nn.Module):
    """Encoder and upsampling decoder of the same shape as the network's own around one code.

    Args:
        channels: Filters of the convolutions, outermost first.
        features: Size of the code.
        size: Height and width of the pictures.

    Reference:
        The architecture is that of Shu et al., CVPR 2017, but for tanh instead of their sigmoid on the code; the
        objective that of Berthelot, Schumm, Metz, "BEGAN: Boundary Equilibrium Generative Adversarial Networks", arXiv
        1703.10717.
    """

    def __init__(self, channels: tuple[int, ...], features: int, size: int):
        super().__init__()
        self.encoder = Encoder(channels, features, size)
        self.decoder = UpsamplingDecoder(features, channels, 3, size)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """D(x): the pictures as far as the discriminator can reproduce them, in [0, 1]."""
        return self.decoder(self.encoder(images)[0]).sigmoid()
