"""How far a fit can be trusted: figures for each face, and the reason where it should not be used.

The residual of the fit does not show wrong landmarks: a detector's points form a face even where none is to be seen,
and any face can be fitted. What shows them is a second look at the mirrored photo: points that follow the picture come
out mirrored, guessed ones elsewhere.

Reference:
    Yang and Patras, "Mirror, mirror on the wall, tell me, is the error small?", CVPR 2015.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from facemodels.fitting.shape import Fit
from facemodels.rendering import matrix_to_euler

OUTLINE = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""The MediaPipe points around the face, from the forehead clockwise in the image."""


@dataclass(frozen=True)
class QualityLimits:
    """Beyond which a face is turned away; tuned on 8000 photos of CelebA by looking at the worst.

    Attributes:
        error: Root mean square distance of the landmarks to the fitted vertices, in pixels of the 64.
        disagreement: Root mean square distance between the landmarks of a photo and of its mirror image, in pixels of
            the 64; the eyes are 19 pixels apart.
        yaw: In degrees; of a face turned further half of the landmarks are guessed.
        coefficients: Root mean square of the coefficients, in standard deviations.
    """

    error: float = 1.5
    disagreement: float = 2.0
    yaw: float = 60.0
    coefficients: float = 3.0


def coefficient_norm(fit: Fit) -> Float[Tensor, " n"]:
    """Root mean square of all coefficients of a fit: near 1 or below for a plausible face."""
    return torch.cat([fit.identity, fit.expression], dim=1).square().mean(1).sqrt()


def reasons_against(fit: Fit, disagreement: Float[Tensor, " n"], limits: QualityLimits) -> list[str]:
    """Why each face should not be used; an empty text where nothing speaks against it.

    Args:
        fit: Raw fits.
        disagreement: Between the two looks at each photo, in pixels of the crop; infinite where the second one found
            no face.
        limits: How much is too much.

    Example:
        >>> fit = Fit(torch.eye(3)[None], torch.ones(1), torch.ones(1, 2), torch.zeros(1, 4), torch.zeros(1, 2),
        ...           error=torch.tensor([0.7]))
        >>> reasons_against(fit, torch.tensor([3.14]), QualityLimits())
        ['the landmarks are not to be trusted: in the mirrored photo they lie 3.1 pixels of the 64 away']
    """
    yaw = matrix_to_euler(fit.rotation)[0].abs() * 180 / math.pi
    norms = coefficient_norm(fit)
    return [
        _reason(*figures, limits)
        for figures in zip(fit.error.tolist(), disagreement.tolist(), yaw.tolist(), norms.tolist(), strict=True)
    ]


def _reason(error: float, disagreement: float, yaw: float, norm: float, limits: QualityLimits) -> str:
    # Comparisons are written so that a value that is no number is turned away.
    if math.isinf(disagreement):
        return "the landmarks are not to be trusted: in the mirrored photo no face is found"
    if not disagreement <= limits.disagreement:
        return (
            "the landmarks are not to be trusted:"
            f" in the mirrored photo they lie {disagreement:.1f} pixels of the 64 away"
        )
    if not error <= limits.error:
        return f"the face could not be fitted: landmarks are off by {error:.1f} pixels of the 64"
    if not yaw <= limits.yaw:
        return f"a profile: the face is turned by {yaw:.0f} degrees"
    if not norm <= limits.coefficients:
        return f"the face could not be fitted: coefficients of {norm:.1f} standard deviations are no face"
    return ""


def mask_agreement(mask: Float[Tensor, "n 1 size size"], points: Float[np.ndarray, "n 478 3"]) -> Float[Tensor, " n"]:
    """Intersection over union of rendered masks and of what lies inside the outline of the landmarks.

    A model's face need not end where the detector's does, so compare faces with each other, not with 1.
    """
    size = mask.shape[-1]
    outlines = np.stack([_filled(outline, size) for outline in points[:, list(OUTLINE), :2]])
    inside, outlined = mask[:, 0] > 0.5, torch.from_numpy(outlines)
    return (inside & outlined).sum((1, 2)) / (inside | outlined).sum((1, 2)).clamp_min(1)


def _filled(outline: np.ndarray, size: int) -> np.ndarray:
    picture = Image.new("1", (size, size))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in (outline - 0.5).tolist()], fill=1)
    return np.asarray(picture)
