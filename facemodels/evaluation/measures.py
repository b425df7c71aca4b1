"""Reconstruction, pose, normals and masks on held-out faces, against what the morphable model says of them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.batch import Rows
from facemodels.codes import FACTORS, Codes
from facemodels.data.dataset import Faces
from facemodels.editing import refine
from facemodels.networks import Context

BATCH = 100
"""Faces that are encoded or decoded at once."""


@dataclass(frozen=True)
class Codings(Rows):
    """Faces encoded and decoded again.

    Attributes:
        codes: The codes, without their context: at full width that takes more than a megabyte a face.
        image, face, normals, mask, background: As in `facemodels.autoencoder.Rendering`.
    """

    codes: Codes
    image: Float[Tensor, "n 3 h w"]
    face: Float[Tensor, "n 3 h w"]
    normals: Float[Tensor, "n 3 h w"]
    mask: Float[Tensor, "n 1 h w"]
    background: Float[Tensor, "n 3 h w"]


@torch.no_grad()
def encode_all(model: NeuroTensorialAutoencoder, faces: Faces, refined: int = 0) -> Codings:
    """Encode and decode faces in batches.

    Args:
        model: A network.
        faces: Any number of faces.
        refined: Steps of `facemodels.editing.refine` that follow the encoder.
    """
    codes, parts = [], []
    for rows in batches(len(faces)):
        some = refine(model, faces[rows].pictures(), refined)
        mask_logits, background = model.surround(some)
        face = model.paint(some.pose, some.expression, some.identity, some.light)
        codes.append(without_context(some))
        parts.append((face.image, face.normals, mask_logits.sigmoid(), background))
    face, normals, mask, background = (torch.cat(part) for part in zip(*parts, strict=True))
    return Codings(
        Codes.cat(codes),
        image=(mask * face + (1 - mask) * background).clamp(0, 1),
        face=face.clamp(0, 1),
        normals=normals,
        mask=mask,
        background=background,
    )


def batches(count: int) -> Iterator[slice]:
    """Slices of at most `BATCH` that cover 0 to `count`."""
    for start in range(0, count, BATCH):
        yield slice(start, min(start + BATCH, count))


def without_context(codes: Codes) -> Codes:
    """Codes that still paint faces, but no surroundings."""
    nothing = Context((), ())
    return Codes(**{name: getattr(codes, name) for name in FACTORS}, context=nothing, background_context=nothing)


def reconstruction(faces: Faces, codings: Codings) -> dict[str, float]:
    """How near decoded faces come to the photos and to the fits.

    Args:
        faces: The faces.
        codings: `encode_all(model, faces)`.

    Returns:
        Means over the faces, of the normals over the pixels of all faces:

        - "psnr": of the composite, in dB.
        - "psnr_face": of the face stream alone inside the mask, in dB.
        - "pose_degrees": between the pose code, projected to a rotation, and the fitted rotation.
        - "normals_degrees": between decoded and fitted normals inside the mask.
        - "mask_iou": intersection over union of the mask decoder's mask and the fitted one.
    """
    truth, mask = faces.pictures(), faces.masks()
    rotation = nearest_rotation(codings.codes.pose.unflatten(1, (3, 3)))
    return {
        "psnr": float(psnr(codings.image, truth).mean()),
        "psnr_face": float(psnr(codings.face, truth, mask).mean()),
        "pose_degrees": float(angle_between(rotation, faces.rotation.unflatten(1, (3, 3))).mean()),
        "normals_degrees": normals_error(codings.normals, faces.normals.float() / 127, mask),
        "mask_iou": float(overlap(codings.mask, mask).mean()),
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


def ssim(
    first: Float[Tensor, "n c h w"], second: Float[Tensor, "n c h w"], mask: Float[Tensor, "n 1 h w"] | None = None
) -> Float[Tensor, " n"]:
    """Structural similarity of images in [0, 1], 1 at best; inside a mask, the mean of its map there.

    Windows are Gaussian with a deviation of 1.5 pixels, as in the reference; colours are compared one by one, and
    pixels whose window reaches over the picture's rim count only with a mask.

    Reference:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE Trans. Image
        Processing 13(4), 2004.
    """
    settings: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    values = []
    for number, pair in enumerate(zip(first.cpu().double().numpy(), second.cpu().double().numpy(), strict=True)):
        compared: Any = structural_similarity(*pair, channel_axis=0, data_range=1.0, full=True, **settings)
        mean, map_ = compared
        if mask is not None:
            weight = mask[number].cpu().double().numpy()
            mean = (map_ * weight).sum() / max(float(weight.sum()) * len(map_), 1.0)
        values.append(float(mean))
    return torch.tensor(values)


@dataclass(frozen=True)
class Quality:
    """How near pictures come to the photos they should show, means over the pictures.

    Attributes:
        psnr: Peak signal-to-noise ratio in dB.
        ssim: Structural similarity, 1 at best.
        psnr_face: The same inside the face.
        ssim_face: Likewise.
    """

    psnr: float
    ssim: float
    psnr_face: float
    ssim_face: float

    def to_dict(self) -> dict[str, float]:
        """As plain JSON values."""
        return asdict(self)


def quality(
    pictures: Float[Tensor, "n 3 h w"], photos: Float[Tensor, "n 3 h w"], mask: Float[Tensor, "n 1 h w"]
) -> Quality:
    """PSNR and SSIM of reconstructions, whoever made them.

    Args:
        pictures: Reconstructions in [0, 1].
        photos: What they should show.
        mask: Where the faces are in the photos.
    """
    values = psnr(pictures, photos), ssim(pictures, photos), psnr(pictures, photos, mask), ssim(pictures, photos, mask)
    return Quality(*(float(value.mean()) for value in values))


def overlap(first: Float[Tensor, "n 1 h w"], second: Float[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
    """Intersection over union of masks, which count from one half on; 1 where both are empty."""
    one, two = (first > 0.5).flatten(1), (second > 0.5).flatten(1)
    union = (one | two).sum(1)
    return torch.where(union > 0, (one & two).sum(1) / union.clamp(min=1), 1.0)


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
