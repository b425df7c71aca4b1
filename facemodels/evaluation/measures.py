"""Reconstruction, pose, normals and mask on held-out faces, against what the morphable model says of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.codes import Codes
from facemodels.data.dataset import Faces

_BATCH = 100


@dataclass(frozen=True)
class Codings:
    """Faces encoded and decoded again.

    Attributes:
        codes: The codes.
        image, face, normals, mask, background: As in `facemodels.autoencoder.Rendering`.
    """

    codes: Codes
    image: Float[Tensor, "n 3 64 64"]
    face: Float[Tensor, "n 3 64 64"]
    normals: Float[Tensor, "n 3 64 64"]
    mask: Float[Tensor, "n 1 64 64"]
    background: Float[Tensor, "n 3 64 64"]


@torch.no_grad()
def encode_all(model: NeuroTensorialAutoencoder, faces: Faces) -> Codings:
    """Encode and decode faces in batches."""
    codes, parts = [], []
    for start in range(0, len(faces), _BATCH):
        codes.append(model.encode(faces[start : start + _BATCH].pictures()))
        parts.append(model.decode(codes[-1]))
    names = ("image", "face", "normals", "mask", "background")
    return Codings(Codes.cat(codes), **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@torch.no_grad()
def measure(model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings | None = None) -> dict[str, float]:
    """Measures that need no label.

    Args:
        model: A trained network.
        faces: Held-out faces.
        codings: `encode_all(model, faces)`, if it is at hand.

    Returns:
        Means over the faces:

        - "psnr": of the composite, in dB.
        - "psnr_face": of the face stream alone inside the mask, in dB.
        - "pose_degrees": between the pose code, projected to a rotation, and the fitted rotation.
        - "normals_degrees": between decoded and fitted normals inside the mask.
        - "turned_normals_degrees": the same for the codes decoded in another pose, against the render of that pose.
        - "mask_iou": intersection over union of the mask decoder's mask and the fitted one.
        - "leak": how much of a face changes when mask and background codes come from another picture, as a share of
          the difference of the two faces.
    """
    codings = codings or encode_all(model, faces)
    truth, mask = faces.pictures(), faces.masks()
    rotation = nearest_rotation(codings.codes.pose.unflatten(1, (3, 3)))
    union = ((codings.mask > 0.5) | (mask > 0)).flatten(1).sum(1).clamp(min=1)
    both = ((codings.mask > 0.5) & (mask > 0)).flatten(1).sum(1)
    return {
        "psnr": float(psnr(codings.image, truth).mean()),
        "psnr_face": float(psnr(codings.face, truth, mask).mean()),
        "pose_degrees": float(angle_between(rotation, faces.rotation.unflatten(1, (3, 3))).mean()),
        "normals_degrees": normals_error(codings.normals, faces.normals.float() / 127, mask),
        "turned_normals_degrees": _turned_normals(model, faces, codings.codes),
        "mask_iou": float((both / union).mean()),
        "leak": _leak(model, faces, codings),
    }


def psnr(
    first: Float[Tensor, "n c h w"], second: Float[Tensor, "n c h w"], mask: Float[Tensor, "n 1 h w"] | None = None
) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio in dB of images in [0, 1], inside a mask if one is given."""
    error = (first - second).square()
    if mask is None:
        return -10 * error.flatten(1).mean(1).clamp(min=1e-10).log10()
    share = (error * mask).flatten(1).sum(1) / (mask.flatten(1).sum(1) * error.shape[1]).clamp(min=1)
    return -10 * share.clamp(min=1e-10).log10()


def nearest_rotation(matrices: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3 3"]:
    """The rotation nearest to each matrix (orthogonal Procrustes)."""
    left, _, right = torch.linalg.svd(matrices)
    signs = torch.ones_like(matrices[:, 0])
    signs[:, 2] = torch.det(left @ right).sign()
    return (left * signs[:, None]) @ right


def angle_between(first: Float[Tensor, "n 3 3"], second: Float[Tensor, "n 3 3"]) -> Float[Tensor, " n"]:
    """Angle of the rotation that takes one to the other, in degrees."""
    trace = (first * second).sum((1, 2))
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))


def normals_error(first: Tensor, second: Tensor, mask: Tensor) -> float:
    """Mean angle of two normal maps inside a mask, in degrees."""
    cosine = (first * second).sum(1, keepdim=True) / (first.norm(dim=1) * second.norm(dim=1)).clamp(min=1e-6)[:, None]
    angles = torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))
    return float((angles * mask).sum() / mask.sum().clamp(min=1))


def _turned_normals(model: NeuroTensorialAutoencoder, faces: Faces, codes: Codes) -> float:
    turned = [
        model.paint(
            faces.turned_rotation[rows], codes.expression[rows], codes.identity[rows], codes.light[rows]
        ).normals
        for rows in torch.arange(len(faces)).split(_BATCH)
    ]
    mask = (faces.turned_mask > 127).float()
    return normals_error(torch.cat(turned), faces.turned_normals.float() / 127, mask)


def _leak(model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings) -> float:
    """Decode each face with the mask and background code of the next; compare where both masks are."""
    both = faces.masks() * faces.masks().roll(-1, 0)
    mask, background = codings.mask.roll(-1, 0), codings.background.roll(-1, 0)
    moved = mask * codings.face + (1 - mask) * background
    change = ((moved - codings.image).abs() * both).sum()
    difference = ((codings.image - codings.image.roll(-1, 0)).abs() * both).sum()
    return float(change / difference.clamp(min=1e-6))
