"""Is the person in the identity code, and does an edit keep the person? Labels and other networks are the judges."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.codes import Codes
from facemodels.data.dataset import Faces
from facemodels.editing import EDITABLE, exchanged, turn_in_place
from facemodels.evaluation.exchange import composite, donors, paint, spread
from facemodels.evaluation.measures import Codings, batches
from facemodels.evaluation.targets import person_auc
from facemodels.networks.verification import Verifier

_JUDGED = 300  # faces that the verification network looks at; it is larger than ours


def person_numbers(names: Sequence[str] | np.ndarray) -> Int[np.ndarray, " n"]:
    """A number for each person by name; faces without a name count as persons of their own.

    Example:
        >>> person_numbers(["ann", "", "bob", "", "ann"]).tolist()
        [1, 5, 2, 6, 1]
    """
    names = np.asarray(names).astype(str)
    numbers = np.unique(names, return_inverse=True)[1]
    unknown = names == ""
    numbers[unknown] = len(names) + np.arange(unknown.sum())
    return numbers


def person_in_codes(codes: Codes, persons: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Whether codes tell persons apart: the chance that two faces of one person are more alike than two others.

    The cosine of centred codes counts. One direction in which all faces differ much can hide everything else from it;
    `facemodels.gauge` keeps identity codes of finished networks free of such directions.

    Args:
        codes: Of the faces.
        persons: Who they are.

    Returns:
        "person_auc" of the identity code, which should be high, and "person_auc_of_expression", which should be near
        0.5; nothing if no person has two faces, or if there is one person alone.
    """
    together = np.unique(persons, return_counts=True)[1]
    if len(together) < 2 or together.max() < 2:
        return {}
    return {
        "person_auc": person_auc(_centred(codes.identity), persons),
        "person_auc_of_expression": person_auc(_centred(codes.expression), persons),
    }


@dataclass(frozen=True)
class Verified:
    """Whose face swaps show, by a network that was trained to tell persons apart.

    Attributes:
        won: By factor, the share of swaps that look more like the photo of the face than like the donor's; of identity
            swaps, those that look more like the donor's. One half is chance.
        cosine: By factor, the mean cosine of the swap and the face's own reconstruction.
        above_strangers: By factor, the chance that this cosine is above that of two persons' reconstructions; of
            identity swaps it should be near one half, of all others near 1.
        reconstruction: Mean cosine of reconstructions and their photos.
        strangers: Mean cosine of the reconstructions of two persons.
        pairs: Pairs of two persons.
    """

    won: dict[str, float]
    cosine: dict[str, float]
    above_strangers: dict[str, float]
    reconstruction: float
    strangers: float
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def verify_swaps(
    model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings, verifier: Verifier, persons: Sequence[int] = ()
) -> Verified | None:
    """Swap each factor and ask a verification network who is to be seen.

    Take a verifier that the network was not trained with: a score must not be the loss.

    Args:
        model: The network.
        faces: The faces; 300 of them, evenly spread, are used.
        codings: `encode_all(model, faces)`.
        verifier: See `facemodels.networks.verification`.
        persons: Who they are; pairs of one person are left out.

    Returns:
        None if there are no pairs of two persons.
    """
    rows = spread(len(faces), _JUDGED)
    own, photos = codings[rows], faces[rows].pictures()
    other = donors(len(own)).to(photos.device)
    differ = other.cpu() != torch.arange(len(own))
    if len(persons):
        who = torch.as_tensor(persons)[rows]
        differ = who != who[other.cpu()]
    if not differ.any():
        return None
    photo, plain = _embed(verifier, photos), _embed(verifier, own.image)

    def cosines(first: Tensor, second: Tensor) -> Tensor:
        return (first * second).sum(1).cpu()[differ]

    strangers = cosines(plain, plain[other])
    won, cosine, above = {}, {}, {}
    for factor in EDITABLE:
        face = paint(model, exchanged(own.codes, own[other].codes, [factor]))
        image = composite(face.image, own)
        if factor == "pose" and face.mask_logits is not None:
            image = turn_in_place(face.image, face.mask_logits.sigmoid(), own.background, own.mask)
        shown = _embed(verifier, image)
        source, donor = cosines(shown, photo), cosines(shown, photo[other])
        won[factor] = float(((donor > source) if factor == "identity" else (source > donor)).float().mean())
        kept = cosines(shown, plain)
        cosine[factor] = float(kept.mean())
        above[factor] = float((kept[:, None] > strangers).float().mean())
    return Verified(won, cosine, above, float(cosines(plain, photo).mean()), float(strangers.mean()), int(differ.sum()))


def identity_kept(
    model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings, verifier: Verifier, persons: Sequence[int] = ()
) -> dict[str, float]:
    """The shares of `verify_swaps` by the names that reports have for them.

    Returns:
        "kept_by_expression", "kept_by_pose", "kept_by_light" and "taken_by_identity"; nothing without pairs.
    """
    verified = verify_swaps(model, faces, codings, verifier, persons)
    names = {factor: "taken_by_identity" if factor == "identity" else f"kept_by_{factor}" for factor in EDITABLE}
    return {} if verified is None else {names[factor]: share for factor, share in verified.won.items()}


def _centred(codes: Float[Tensor, "n k"]) -> Float[np.ndarray, "n k"]:
    return (codes - codes.mean(0)).cpu().numpy()


@torch.no_grad()
def _embed(verifier: Verifier, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
    return torch.cat([verifier.embed(images[rows].clamp(0, 1)) for rows in batches(len(images))])
