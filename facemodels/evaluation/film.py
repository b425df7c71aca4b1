"""A film whose every frame is known: one rendered face makes faces, and another should make them, too (appendix E)."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.baselines.landmark_warp import LandmarkWarp
from facemodels.config import SIZE
from facemodels.data.factors import FaceFactors
from facemodels.data.synthetic import draw
from facemodels.errors import InputError
from facemodels.fitting.landmarks import LandmarkDetector, MediaPipeDetector

FRAMES = 25
_SWAY = 8.0  # degrees by which the driver's head turns meanwhile


@dataclass(frozen=True)
class Film:
    """A face that drives, and another that follows; pictures in [0, 1], one a frame.

    Attributes:
        driver: The face that makes faces, and turns a little.
        ours: The other with the driver's expression codes, in its own pose.
        truth: What that should show, rendered from the exact factors.
        warped: The other warped to the driver's landmarks; None where landmarks were not found, or no detector is
            installed.
    """

    driver: Float[Tensor, "frames 3 h w"]
    ours: Float[Tensor, "frames 3 h w"]
    truth: Float[Tensor, "frames 3 h w"]
    warped: Float[Tensor, "frames 3 h w"] | None


@torch.no_grad()
def make_film(model: NeuroTensorialAutoencoder, driver: FaceFactors, other: FaceFactors, peak: FaceFactors) -> Film:
    """Let `driver` go from its own expression to that of `peak` and back, and `other` follow.

    Args:
        model: A trained network.
        driver: The face that drives.
        other: The face that follows.
        peak: Whose expression the driver has in the middle of the film.
    """
    amounts = [math.sin(math.pi * frame / (FRAMES - 1)) for frame in range(FRAMES)]
    moving = [_frame(driver, peak, amount, frame) for frame, amount in enumerate(amounts)]
    following = [dataclasses.replace(other, expression=one.expression) for one in moving]
    frames, truth, still = draw(moving)[0], draw(following)[0], draw([other])[0]
    codes = model.encode(still).expand(FRAMES).replace(expression=model.encode(frames).expression)
    return Film(frames, model.decode(codes).image, truth, _warped(still[0], frames))


def _frame(driver: FaceFactors, peak: FaceFactors, amount: float, frame: int) -> FaceFactors:
    angles = driver.angles.copy()
    angles[0] += math.radians(_SWAY) * math.sin(2 * math.pi * frame / (FRAMES - 1))
    expression = (1 - amount) * driver.expression + amount * peak.expression
    return dataclasses.replace(driver, expression=expression, angles=angles)


def _warped(still: Float[Tensor, "3 h w"], frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"] | None:
    detector = landmark_detector()
    if detector is None:
        return None
    points = [_points(detector, picture) for picture in (still, *frames)]
    if any(one is None for one in points):
        return None
    return LandmarkWarp(still, points[0])(np.stack(points[1:]))  # type: ignore[arg-type]


def landmark_detector() -> LandmarkDetector | None:
    """MediaPipe, or None where it is not installed."""
    try:
        return MediaPipeDetector()
    except InputError:
        return None


def _points(detector: LandmarkDetector, picture: Float[Tensor, "3 h w"]) -> Float[np.ndarray, "478 3"] | None:
    photo = (255 * picture.clamp(0, 1)).round().byte().permute(1, 2, 0).contiguous().numpy()
    seen = detector.detect(photo)
    return None if seen is None else seen.points * np.float32(SIZE / picture.shape[-1])
