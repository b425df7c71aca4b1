"""Principal components of the pixels: the oldest code of a face, and the measure of what is easy."""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

COMPONENTS = 128
"""As many numbers as the code of the paper's own baseline Z0 has with us."""


class PrincipalComponents:
    """The first principal components of pictures ("eigenfaces").

    Args:
        images: Pictures to learn from, in [0, 1].
        components: Numbers of the code.

    Raises:
        ValueError: There are fewer pictures than components.

    Example:
        >>> pca = PrincipalComponents(torch.rand(20, 3, 8, 8), components=5)
        >>> pca.encode(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 5])

    Reference:
        Turk and Pentland, "Eigenfaces for Recognition", J. Cognitive Neuroscience 3(1), 1991.
    """

    def __init__(self, images: Float[Tensor, "n 3 h w"], components: int = COMPONENTS):
        if len(images) < components:
            raise ValueError(
                f"PrincipalComponents: {components} components need as many pictures, got {len(images)};"
                " give more of them, or ask for fewer components"
            )
        self.shape = images.shape[1:]
        self._pca = PCA(components, svd_solver="randomized", random_state=0).fit(_rows(images))

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n components"]:
        """The code of pictures in [0, 1]."""
        return torch.from_numpy(self._pca.transform(_rows(images)))

    def decode(self, codes: Float[Tensor, "n components"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures in [0, 1]."""
        return torch.from_numpy(self._pca.inverse_transform(codes.numpy())).unflatten(1, self.shape).clamp(0, 1)


def _rows(images: Tensor) -> Float[np.ndarray, "n pixels"]:
    return images.flatten(1).cpu().numpy()
