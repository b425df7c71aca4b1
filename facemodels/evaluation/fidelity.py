"""Edits of synthetic faces against the truth: the same edit rendered from the exact factors."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.codes import Codes
from facemodels.data.dataset import PreparedSet
from facemodels.data.factors import FaceFactors, exchange
from facemodels.data.synthetic import draw, factors_of
from facemodels.editing import decode_edit, exchanged
from facemodels.errors import InputError
from facemodels.evaluation.coders import as_floats, pictures_of
from facemodels.evaluation.measures import psnr, ssim

_ROUNDS = 100  # draws of as many pairs as are wanted before it is said that there are none

_SHOWN: dict[str, Callable[[FaceFactors], Any]] = {
    "expression": lambda one: one.emotion,
    "pose": lambda one: tuple(one.angles),
    "light": lambda one: tuple(one.light),
    "identity": lambda one: one.person,
}


@dataclass(frozen=True)
class Fidelity:
    """How near edits come to the truth inside the true edit's face, and how often they help.

    PSNR in dB and SSIM are means over the pairs.

    Attributes:
        edited: PSNR of the edits.
        unedited: PSNR of the reconstructions without an edit.
        better: Share of pairs in which the edit is nearer to the truth than its reconstruction, by PSNR.
        photo: PSNR of the photos themselves without an edit, which are sharper than any reconstruction.
        better_than_photo: Share of pairs in which the edit is nearer than the photo.
        edited_ssim: SSIM of the edits.
        unedited_ssim: SSIM of the reconstructions.
        pairs: Number of pairs.
    """

    edited: float
    unedited: float
    better: float
    photo: float
    better_than_photo: float
    edited_ssim: float
    unedited_ssim: float
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


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


def differing_pairs(
    factors: Sequence[FaceFactors], factor: str, pairs: int, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Random pairs of faces that differ in a factor: in emotion, pose, light or person.

    Between others an edit has nothing to do: in FaceFactors, one pair in four has the same light.

    Args:
        factors: Of the faces, see `facemodels.data.synthetic.factors_of`.
        factor: "expression", "pose", "light" or "identity".
        pairs: Number of pairs.
        seed: Fixes the pairs.

    Returns:
        Numbers of the sources, and of the targets.

    Raises:
        InputError: All faces are alike in the factor, or there are none.
    """
    shown = [_SHOWN[factor](one) for one in factors]
    alike = f"no two of these {len(shown)} faces differ in {factor}; take a larger set"
    if len(set(shown)) < 2:
        raise InputError(alike)
    random = np.random.default_rng(seed)
    chosen: list[tuple[int, int]] = []
    for _ in range(_ROUNDS):
        drawn = random.integers(len(shown), size=(2, pairs)).T.tolist()
        chosen += [(source, target) for source, target in drawn if shown[source] != shown[target]]
        if len(chosen) >= pairs:
            break
    if not chosen:
        raise InputError(alike)
    sources, targets = zip(*chosen[:pairs], strict=True)
    return list(sources), list(targets)


@dataclass(frozen=True)
class Trials:
    """Faces to edit, and what the edits should show.

    Attributes:
        factor: What is edited.
        sources: Numbers of the faces in their split.
        targets: Numbers of those whose factor they take.
        images: The faces to edit.
        donors: Those whose factor they take.
        truth: What the edits should show.
        mask: Where the faces are there.
    """

    factor: str
    sources: list[int]
    targets: list[int]
    images: Float[Tensor, "n 3 h w"]
    donors: Float[Tensor, "n 3 h w"]
    truth: Float[Tensor, "n 3 h w"]
    mask: Float[Tensor, "n 1 h w"]

    def measure(self, model: NeuroTensorialAutoencoder, own: Codes | None = None) -> Fidelity:
        """How near the edits of a network come to the truth.

        Args:
            model: A trained network.
            own: Codes of the faces to edit, such as `facemodels.editing.refine(model, trials.images)`; by default those
                that the encoder reads.
        """
        with torch.no_grad():
            own, donor = model.encode(self.images) if own is None else own, model.encode(self.donors)
        edited = decode_edit(model, exchanged(own, donor, [self.factor]), self.factor == "pose")
        return self.score(edited.image, decode_edit(model, own).image)

    def score(self, edited: Float[Tensor, "n 3 h w"], unedited: Float[Tensor, "n 3 h w"]) -> Fidelity:
        """How near edits come to the truth, whoever made them; `unedited` is the editor's picture without an edit."""
        after, before, photo = (psnr(pictures, self.truth, self.mask) for pictures in (edited, unedited, self.images))
        return Fidelity(
            edited=float(after.mean()),
            unedited=float(before.mean()),
            better=float((after > before).float().mean()),
            photo=float(photo.mean()),
            better_than_photo=float((after > photo).float().mean()),
            edited_ssim=float(ssim(edited, self.truth, self.mask).mean()),
            unedited_ssim=float(ssim(unedited, self.truth, self.mask).mean()),
            pairs=len(self.sources),
        )


def edit_trials(prepared: PreparedSet, factor: str, pairs: int = 100, seed: int = 0, *, split: str = "test") -> Trials:
    """Random pairs of synthetic faces that differ in a factor, and the truth of their edits.

    Args:
        prepared: A synthetic set.
        factor: "expression", "pose", "light" or "identity".
        pairs: Number of pairs.
        seed: Fixes the pairs.
        split: Where the faces come from.

    Raises:
        InputError: The set holds photos, or all faces are alike in the factor.
    """
    sources, targets = differing_pairs(factors_of(prepared, split), factor, pairs, seed)
    rows = prepared.split(split)
    images, donors = (as_floats(pictures_of(rows.select(some))) for some in (sources, targets))
    return Trials(factor, sources, targets, images, donors, *true_edits(prepared, split, sources, targets, factor))


def edit_fidelity(
    model: NeuroTensorialAutoencoder,
    prepared: PreparedSet,
    factor: str,
    pairs: int = 100,
    seed: int = 0,
    *,
    split: str = "test",
) -> Fidelity:
    """Edit random pairs of held-out synthetic faces that differ in a factor, and compare with the truth.

    Args:
        model: A trained network.
        prepared: A synthetic set.
        factor: "expression", "pose", "light" or "identity".
        pairs: Number of pairs.
        seed: Fixes the pairs.
        split: Where the faces come from.

    Raises:
        InputError: The set holds photos, or all faces are alike in the factor.
    """
    return edit_trials(prepared, factor, pairs, seed, split=split).measure(model)
