"""Is the pose in the pose code, and in no other? Faces decoded in other poses than their own."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.dataset import Faces
from facemodels.editing import exchanged, turn_in_place
from facemodels.evaluation.exchange import donors, paint, spread
from facemodels.evaluation.measures import (
    Codings,
    angle_between,
    batches,
    nearest_rotation,
    normals_error,
    overlap,
    psnr,
)
from facemodels.rendering import matrix_to_euler

APART = math.radians(15)
"""Yaw by which the faces of a pair must differ."""

_CYCLED = 200  # faces that are encoded again: filling in what the old face hid takes time


def in_other_pose(
    model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings, pose: Float[Tensor, "n 9"] | None = None
) -> dict[str, float]:
    """Faces in the pose of `Faces.turned_rotation` against what the set shows of them there.

    Args:
        model: The network.
        faces: The faces.
        codings: `encode_all(model, faces)`.
        pose: Codes of that pose, read from photos in it; by default the rotation itself.

    Returns:
        "turned_normals_degrees", against the morphable model rendered in that pose, inside its mask;
        "turned_psnr_face", against the photo carried to that pose, where that is known from what the photo shows; and,
        of networks with a mask in the face stream, "turned_mask_iou".
    """
    face = paint(model, codings.codes, faces.turned_rotation if pose is None else pose)
    mask = (faces.turned_mask > 127).float()
    measures = {"turned_normals_degrees": normals_error(face.normals, faces.turned_normals.float() / 127, mask)}
    if face.mask_logits is not None:
        measures["turned_mask_iou"] = float(overlap(face.mask_logits.sigmoid(), mask).mean())
    seen = (faces.turned_weight == 255).float()
    known = seen.flatten(1).any(1)
    if known.any():
        carried = faces.turned_image.float() / 255
        measures["turned_psnr_face"] = float(psnr(face.image.clamp(0, 1), carried, seen)[known].mean())
    return measures


def pose_shares(model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings) -> dict[str, float]:
    """Which code carries the change of the normals from one face to another of clearly different yaw.

    One code at a time comes from the other face. Its share is the projection of the normals' change on their change
    when pose, identity and expression all come from it, where both faces are: 1 if that code alone makes the
    difference, 0 if it makes none of it.

    Args:
        model: The network.
        faces: The faces.
        codings: `encode_all(model, faces)`.

    Returns:
        "share_of_pose", "share_of_identity" and "share_of_expression"; nothing if no pair differs by 15 degrees.
    """
    yaw = matrix_to_euler(faces.rotation.unflatten(1, (3, 3)))[0]
    other = donors(len(faces)).to(yaw.device)
    mask = faces.masks()
    rows = ((yaw - yaw[other]).abs() > APART).nonzero().flatten()
    if len(rows) == 0:
        return {}
    other = other[rows]
    both = mask[rows] * mask[other]
    own, donor = codings[rows], codings[other]
    whole = (donor.normals - own.normals) * both
    shares = {}
    for factor in ("pose", "identity", "expression"):
        change = paint(model, exchanged(own.codes, donor.codes, [factor])).normals - own.normals
        shares[f"share_of_{factor}"] = float((change * whole).sum() / whole.square().sum().clamp(min=1e-6))
    return shares


@torch.no_grad()
def cycle(model: NeuroTensorialAutoencoder, codings: Codings) -> dict[str, float]:
    """Faces in the pose of another, as an edit shows them, encoded again.

    Args:
        model: The network.
        codings: `encode_all(model, faces)`; 200 of the faces, evenly spread, are used.

    Returns:
        "cycle_pose_degrees", the angle between the pose code of the picture and the donor's, and
        "unedited_pose_degrees", the angle between the two faces' own.
    """
    own = codings[spread(len(codings), _CYCLED)]
    donor = own[donors(len(own))]
    again = []
    for rows in batches(len(own)):
        some = own[rows]
        face = model.paint(donor.codes.pose[rows], some.codes.expression, some.codes.identity, some.codes.light)
        mask = some.mask if face.mask_logits is None else face.mask_logits.sigmoid()
        image = turn_in_place(face.image, mask, some.background, some.mask)
        again.append(model.encode(image).pose)
    ours, theirs, wanted = (
        nearest_rotation(pose.unflatten(1, (3, 3))) for pose in (torch.cat(again), own.codes.pose, donor.codes.pose)
    )
    return {
        "cycle_pose_degrees": float(angle_between(ours, wanted).mean()),
        "unedited_pose_degrees": float(angle_between(theirs, wanted).mean()),
    }
