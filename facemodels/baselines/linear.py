"""Linear and multilinear codes of pixels: principal components, TensorFaces, and the factorization of Wang et al."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import avg_pool2d

from multilinear.decomposition import KhatriRaoFactorization, TensorFaces, tensorfaces

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


SIDE = 32
"""Pixels of a side of the pictures that multilinear models see."""

_RANKS = {"identity": 20, "expression": 5, "pose": 6, "light": 3}
_EIGENIMAGES = 400
_SIZES = (20, 5, 4)  # codes without names; their product is the number of columns of the basis
_SWEEPS = 30
_ROUNDS = 20  # of the multilinear projection of a face; the error after 10 is 1.8 % above that after 50


class LabelledFactors:
    """TensorFaces of faces: told which person, expression, pose and light each face shows, all combinations.

    Args:
        images: Faces to learn from, in [0, 1].
        labels: "identity", "expression", "pose" and "light" of each, or some of these, as integers.

    Raises:
        ValueError: A combination is missing.

    Reference:
        Vasilescu and Terzopoulos, "Multilinear Analysis of Image Ensembles: TensorFaces", ECCV 2002.
    """

    def __init__(self, images: Float[Tensor, "n 3 h w"], labels: Mapping[str, np.ndarray]):
        ranks = {name: min(_RANKS[name], len(np.unique(values))) for name, values in labels.items()}
        small = small_rows(images)
        components = min(_EIGENIMAGES, *small.shape, math.prod(ranks.values()))
        self.model: TensorFaces = tensorfaces(small, dict(labels), ranks=ranks, components=components)

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Float[np.ndarray, "n _"]]:
        """A code of every label's kind."""
        codes = self.model.transform(small_rows(images), max_iterations=_ROUNDS)
        return {name: code.numpy() for name, code in codes.items()}


class UnlabelledFactors:
    """The factorization of Wang et al.: several codes whose product makes the picture; nobody says what they mean.

    Args:
        images: Faces to learn from, in [0, 1].
        sizes: Numbers of each code.

    Reference:
        Wang, Panagakis, Snape, Zafeiriou, "Learning the Multilinear Structure of Visual Data", CVPR 2017.
    """

    def __init__(self, images: Float[Tensor, "n 3 h w"], sizes: tuple[int, ...] = _SIZES):
        model = KhatriRaoFactorization(sizes, max_iterations=_SWEEPS, random_state=0)
        self.model = model.fit(small_rows(images))

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> list[Float[np.ndarray, "n _"]]:
        """The codes, without names."""
        return [codes.numpy() for codes in self.model.transform(small_rows(images))]


def small_rows(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n pixels"]:
    """Pictures at 32 pixels a side, one in each row."""
    return avg_pool2d(images, max(1, images.shape[-1] // SIDE)).flatten(1)
