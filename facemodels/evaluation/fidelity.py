"""Edits of synthetic faces against the truth: the same edit rendered from the exact factors."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.dataset import PreparedSet
from facemodels.data.factors import exchange
from facemodels.data.synthetic import draw, factors_of
from facemodels.editing import transfer
from facemodels.evaluation.measures import psnr


@dataclass(frozen=True)
class Fidelity:
    """How near edits come to the truth, in dB of PSNR inside the true edit's face, and how often they help.

    Attributes:
        edited: Of the edits, mean over the pairs.
        unedited: Of the reconstructions without an edit.
        better: Share of pairs in which the edit is nearer to the truth than no edit.
    """

    edited: float
    unedited: float
    better: float


def true_edits(
    prepared: PreparedSet, split: str, sources: list[int], targets: list[int], factor: str
) -> tuple[Float[Tensor, "n 3 64 64"], Float[Tensor, "n 1 64 64"]]:
    """Images and masks of faces of a synthetic set with a factor of others, rendered from their exact factors.

    Raises:
        InputError: The set holds photos.
    """
    factors = factors_of(prepared, split)
    pairs = zip(sources, targets, strict=True)
    return draw([exchange(factors[source], factors[target], factor) for source, target in pairs])


def edit_fidelity(
    model: NeuroTensorialAutoencoder, prepared: PreparedSet, factor: str, pairs: int = 100, seed: int = 0
) -> Fidelity:
    """Edit random pairs of held-out synthetic faces and compare with the truth.

    Args:
        model: A trained network.
        prepared: A synthetic set.
        factor: "expression", "pose", "light" or "identity".
        pairs: Number of pairs.
        seed: Fixes the pairs.
    """
    images = prepared.faces("test").pictures()
    sources, targets = np.random.default_rng(seed).integers(len(images), size=(2, pairs)).tolist()
    truth, mask = true_edits(prepared, "test", sources, targets, factor)
    edited = transfer(model, images[sources], images[targets], factor).image
    unedited = transfer(model, images[sources], images[targets], []).image
    after, before = psnr(edited, truth, mask), psnr(unedited, truth, mask)
    return Fidelity(float(after.mean()), float(before.mean()), float((after > before).float().mean()))
