"""Do swaps change what they should? A judge that sees only pixels says which label an edited face shows."""

from collections.abc import Callable
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
from facemodels.editing import EDITABLE, exchanged
from facemodels.evaluation.exchange import composite, paint
from facemodels.evaluation.measures import Codings
from facemodels.evaluation.readers import describe

_SIDE = 32  # pixels of the pictures that the judge sees


@dataclass(frozen=True)
class SwapRates:
    """How often a swapped face shows the donor's label, over pairs whose labels differ.

    Attributes:
        pairs: Number of pairs.
        expression: Share of expression swaps that show the donor's label (high is good for labels of expression).
        identity: Share of identity swaps that do (low is good for labels of expression).
        face: Share of swaps of all codes of the face at once that do; mask and background still show something of the
            own label, and a swap of a single code can hardly do more.
        reconstruction: Share of plain reconstructions in which the judge sees the own label: the ceiling.
        photos: Share of their photos in which it does.
    """

    pairs: int
    expression: float
    identity: float
    face: float
    reconstruction: float
    photos: float


class PixelJudge:
    """Logistic regression on the principal components of the pixels, at 32 of them a side.

    Args:
        images: Photos to learn from, in [0, 1].
        labels: What they show.
        components: Principal components kept.
    """

    def __init__(self, images: Float[Tensor, "n 3 h w"], labels: Bool[np.ndarray, " n"], components: int = 128):
        components = min(components, len(images))
        self.pipeline: Pipeline = make_pipeline(
            PCA(components, random_state=0, svd_solver="randomized"),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=500),
        )
        self.pipeline.fit(_pixels(images), labels)

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Bool[np.ndarray, " n"]:
        """What the images show."""
        return self.pipeline.predict(_pixels(images))


class EdgeJudge:
    """Logistic regression on edges and colours, both labels weighing the same: for faces in all poses.

    Of FaceFactors, where heads turn and one face in six is happy, `PixelJudge` tells two thirds when both labels count
    the same, this one nine tenths (benchmarks/results/training/residual.md).

    Args:
        images: Pictures to learn from, in [0, 1]; those of 4000 faces take half a minute.
        labels: What they show.
    """

    def __init__(self, images: Float[Tensor, "n 3 h w"], labels: Bool[np.ndarray, " n"]):
        regression = LogisticRegression(C=0.01, max_iter=300, class_weight="balanced")
        self.pipeline: Pipeline = make_pipeline(StandardScaler(), regression)
        self.pipeline.fit(describe(images), labels)

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Bool[np.ndarray, " n"]:
        """What the images show."""
        return self.pipeline.predict(describe(images))


Judge = Callable[[Tensor], np.ndarray]
"""Whether each of some pictures shows the label: `PixelJudge`, `EdgeJudge`."""


def _pixels(images: Tensor) -> np.ndarray:
    return F.avg_pool2d(images, images.shape[-1] // _SIDE).flatten(1).cpu().numpy().astype(np.float64)


def swap_rates(
    model: NeuroTensorialAutoencoder,
    images: Float[Tensor, "n 3 h w"],
    codings: Codings,
    labels: Bool[np.ndarray, " n"],
    judge: Judge,
    seed: int = 0,
    donors: Codings | None = None,
) -> SwapRates:
    """Pair every held-out face with a random other; swap expression, identity or the face where their labels differ.

    Args:
        model: A trained network.
        images: Held-out photos in [0, 1].
        codings: `encode_all` of them.
        labels: A label of expression, such as CelebA's Smiling.
        judge: Learnt from other photos.
        seed: Fixes the pairs.
        donors: The codings whose codes are lent; by default the same.

    Raises:
        ValueError: No pair has different labels.
    """
    lenders = np.random.default_rng(seed).permutation(len(images))
    differ = labels != labels[lenders]
    if not differ.any():
        raise ValueError("swap_rates: all labels are equal; give faces of both kinds")
    source = codings[torch.from_numpy(np.flatnonzero(differ))]
    donor = (donors or codings)[torch.from_numpy(lenders[differ])]
    wanted = labels[lenders][differ]

    def obeys(*factors: str) -> float:
        face = paint(model, exchanged(source.codes, donor.codes, factors))
        return float((judge(composite(face.image, source)) == wanted).mean())

    return SwapRates(
        pairs=int(differ.sum()),
        expression=obeys("expression"),
        identity=obeys("identity"),
        face=obeys(*EDITABLE),
        reconstruction=float((judge(source.image) == labels[differ]).mean()),
        photos=float((judge(images[torch.from_numpy(differ)]) == labels[differ]).mean()),
    )
