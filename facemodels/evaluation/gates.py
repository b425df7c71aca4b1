"""Does each code do its own work, and nothing else's? Measures cheap enough to be taken during training.

Mask and background decoders see the whole picture through their skips and pooling indices. They can carry the face past
the codes, and then a swap changes nothing while every figure of the reconstruction looks well. Linear probes of codes
do not see this; exchanges of codes do.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.dataset import Faces
from facemodels.editing import EDITABLE, exchanged
from facemodels.evaluation.exchange import composite, donors, paint, spread
from facemodels.evaluation.measures import Codings

_STEPS = (1, 2, 3, 4)  # other photos with which each background is compared


def gates(
    model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings, limit: int | None = None
) -> dict[str, float]:
    """All measures of this module.

    Args:
        model: The network.
        faces: The faces.
        codings: `encode_all(model, faces)`.
        limit: Exchange the codes of so many faces only, evenly spread.

    Returns:
        "leak" and "background_knows_face" (0 is best), and "moved_by_expression", "moved_by_pose", "moved_by_light"
        and "moved_by_identity" (0 means that the code does nothing).
    """
    mask = faces.masks()
    other = donors(len(faces))
    measures = {
        "leak": leak(codings, mask, other),
        "background_knows_face": background_knows_face(codings.background, faces.pictures(), mask),
    }
    rows = spread(len(faces), limit).to(mask.device)
    return measures | moved_by(model, codings[rows], mask[rows], donors(len(rows)))


def leak(codings: Codings, mask: Float[Tensor, "n 1 h w"], other: Int[Tensor, " n"]) -> float:
    """How much of a face changes when everything around it comes from another picture.

    Mask and background code, pooling indices and skips are the other picture's. The change is given as a share of the
    difference of the two faces and taken where both faces are: 0 says that the face stream alone paints the face, 1
    that the surroundings do.

    Args:
        codings: Of the faces.
        mask: Where the faces are.
        other: The face whose surroundings each face gets.
    """
    both = mask * mask[other]
    own = composite(codings.face, codings)
    moved = composite(codings.face, codings[other])
    return _share((moved - own).abs() * both, (own[other] - own).abs() * both)


def background_knows_face(
    background: Float[Tensor, "n 3 h w"], photos: Float[Tensor, "n 3 h w"], mask: Float[Tensor, "n 1 h w"]
) -> float:
    """How much nearer backgrounds are, under the face, to the own photo than to other photos.

    1 - (squared distance to the own photo) / (squared distance to another), summed over pairs of faces in both orders
    and over the pixels that lie in both masks; of each picture its mean colour there is taken out first, since tone
    may be known from neck and ears.

    1 means that the background paints the face. 0 means that it does not tell whose face was there: backgrounds that
    are all alike, whatever they show (grey, or the mean face), get 0 exactly. Hair and neck tell from which side the
    light comes, so that even a background filled in smoothly from around the face is above 0. Below 0 it shows other
    faces.

    Args:
        background: What the background decoder paints.
        photos: The photos that were encoded.
        mask: Where their faces are.
    """
    own = another = torch.zeros((), dtype=torch.float64)
    for step in _STEPS[: max(1, len(mask) - 1)]:
        other = donors(len(mask), step=step)
        both = mask * mask[other]
        first, second = (_without_tone(pictures, both) for pictures in (background, background[other]))
        photo, others = (_without_tone(pictures, both) for pictures in (photos, photos[other]))
        own = own + _squares(first - photo) + _squares(second - others)
        another = another + _squares(first - others) + _squares(second - photo)
    return float(1 - own / another) if another > 0 else 0.0


def moved_by(
    model: NeuroTensorialAutoencoder, codings: Codings, mask: Float[Tensor, "n 1 h w"], other: Int[Tensor, " n"]
) -> dict[str, float]:
    """How much of a face changes when one code comes from another face, as a share of the faces' difference.

    Args:
        model: The network.
        codings: Of the faces.
        mask: Where the faces are.
        other: The face whose code each face gets.

    Returns:
        "moved_by_expression" and so on for every factor of `facemodels.editing.EDITABLE`.
    """
    both = mask * mask[other]
    own = composite(codings.face, codings)
    difference = (own[other] - own).abs() * both
    moved = {}
    for factor in EDITABLE:
        face = paint(model, exchanged(codings.codes, codings.codes[other], [factor]))
        moved[f"moved_by_{factor}"] = _share((composite(face.image, codings) - own).abs() * both, difference)
    return moved


def _share(part: Tensor, whole: Tensor) -> float:
    return float(part.sum() / whole.sum().clamp(min=1e-6))


def _without_tone(pictures: Tensor, mask: Tensor) -> Tensor:
    """Pictures inside masks, less their mean colours there."""
    area = mask.sum((2, 3), keepdim=True).clamp(min=1)
    return (pictures - (pictures * mask).sum((2, 3), keepdim=True) / area) * mask


def _squares(values: Tensor) -> Tensor:
    return values.square().sum(dtype=torch.float64).cpu()
