"""Do swaps change what they should? A judge that sees only pixels says which label an edited face shows."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.codes import Codes

_BATCH = 100


@dataclass(frozen=True)
class SwapRates:
    """How often a swapped face shows the donor's label, over pairs whose labels differ.

    Attributes:
        pairs: Number of pairs.
        expression: Share of expression swaps that show the donor's label (high is good for labels of expression).
        identity: Share of identity swaps that do (low is good for labels of expression).
        reconstruction: Share of plain reconstructions in which the judge sees the own label: the ceiling.
        photos: Share of real held-out photos in which it does.
    """

    pairs: int
    expression: float
    identity: float
    reconstruction: float
    photos: float


class PixelJudge:
    """Logistic regression on the principal components of the pixels at half resolution.

    Args:
        images: Photos to learn from, in [0, 1].
        labels: What they show.
        components: Principal components kept.
    """

    def __init__(self, images: Float[Tensor, "n 3 64 64"], labels: Bool[np.ndarray, " n"], components: int = 128):
        components = min(components, len(images))
        self.pipeline: Pipeline = make_pipeline(
            PCA(components, random_state=0, svd_solver="randomized"),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=500),
        )
        self.pipeline.fit(_pixels(images), labels)

    def __call__(self, images: Float[Tensor, "n 3 64 64"]) -> Bool[np.ndarray, " n"]:
        """What the images show."""
        return self.pipeline.predict(_pixels(images))


def _pixels(images: Tensor) -> np.ndarray:
    return F.avg_pool2d(images, 2).flatten(1).numpy().astype(np.float64)


@torch.no_grad()
def swap_rates(
    model: NeuroTensorialAutoencoder,
    images: Float[Tensor, "n 3 64 64"],
    labels: Bool[np.ndarray, " n"],
    judge: PixelJudge,
    seed: int = 0,
) -> SwapRates:
    """Pair every held-out face with a random other; swap expression, or identity, where their labels differ.

    Args:
        model: A trained network.
        images: Held-out photos in [0, 1].
        labels: A label of expression, such as CelebA's Smiling.
        judge: Learnt from other photos.
        seed: Fixes the pairs.

    Raises:
        ValueError: No pair has different labels.
    """
    donors = np.random.default_rng(seed).permutation(len(images))
    differ = labels != labels[donors]
    if not differ.any():
        raise ValueError("swap_rates: all labels are equal; give faces of both kinds")
    codes = Codes.cat([model.encode(batch) for batch in images.split(_BATCH)])
    source, donor = (codes[torch.from_numpy(rows)] for rows in (np.flatnonzero(differ), donors[differ]))

    def shown(edited: Codes) -> np.ndarray:
        rows = torch.arange(len(edited)).split(_BATCH)
        return np.concatenate([judge(model.decode(edited[part]).image) for part in rows])

    wanted = labels[donors][differ]
    return SwapRates(
        pairs=int(differ.sum()),
        expression=float((shown(source.replace(expression=donor.expression)) == wanted).mean()),
        identity=float((shown(source.replace(identity=donor.identity)) == wanted).mean()),
        reconstruction=float((shown(source) == labels[differ]).mean()),
        photos=float((judge(images) == labels).mean()),
    )
