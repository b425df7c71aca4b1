"""Is the person in the identity code, and does an edit keep the person? Labels and other networks are the judges."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.codes import Codes
from facemodels.data.dataset import Faces
from facemodels.editing import turn_in_place
from facemodels.evaluation.exchange import composite, donors, exchanged, paint, spread
from facemodels.evaluation.measures import Codings, batches
from facemodels.evaluation.targets import person_auc
from facemodels.networks.verification import Verifier

_JUDGED = 300  # faces that the verification network looks at; it is larger than ours


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


def identity_kept(
    model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings, verifier: Verifier, persons: Sequence[int] = ()
) -> dict[str, float]:
    """Whose face an edit shows, by a network that was trained to tell persons apart.

    Take a verifier that the network was not trained with: a score must not be the loss.

    Args:
        model: The network.
        faces: The faces; 300 of them, evenly spread, are used.
        codings: `encode_all(model, faces)`.
        verifier: See `facemodels.networks.verification`.
        persons: Who they are; pairs of one person are left out.

    Returns:
        "kept_by_expression", "kept_by_pose" and "kept_by_light": the share of swaps that look more like the photo of
        the face than like the donor's; "taken_by_identity": the share of identity swaps that look more like the
        donor's. One half is chance.
    """
    rows = spread(len(faces), _JUDGED)
    own, photos = codings[rows], faces[rows].pictures()
    other = donors(len(own)).to(photos.device)
    differ = torch.ones(len(own), dtype=torch.bool)
    if len(persons):
        who = torch.as_tensor(persons)[rows]
        differ = who != who[other.cpu()]
    if not differ.any():
        return {}
    embedded = _embed(verifier, photos)
    measures = {}
    for factor in ("expression", "pose", "light", "identity"):
        face = paint(model, exchanged(own.codes, own[other].codes, [factor]))
        image = composite(face.image, own)
        if factor == "pose" and face.mask_logits is not None:
            image = turn_in_place(face.image, face.mask_logits.sigmoid(), own.background, own.mask)
        shown = _embed(verifier, image)
        source, donor = (shown * embedded).sum(1), (shown * embedded[other]).sum(1)
        wins = (donor > source) if factor == "identity" else (source > donor)
        name = "taken_by_identity" if factor == "identity" else f"kept_by_{factor}"
        measures[name] = float(wins.cpu()[differ].float().mean())
    return measures


def _centred(codes: Float[Tensor, "n k"]) -> Float[np.ndarray, "n k"]:
    return (codes - codes.mean(0)).cpu().numpy()


@torch.no_grad()
def _embed(verifier: Verifier, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
    return torch.cat([verifier.embed(images[rows].clamp(0, 1)) for rows in batches(len(images))])
