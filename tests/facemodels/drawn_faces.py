"""A detector for tests that sees a face in every bright picture, and photos and videos for it."""

from pathlib import Path

import numpy as np
from PIL import Image

from facemodels.data.alignment import TEMPLATE
from facemodels.fitting.landmarks import Landmarks
from facemodels.movies import write_movie

SIDE = 96


def face_points() -> np.ndarray:
    """Landmarks in pixels of a crop of 64, the five points at the template."""
    points = np.random.default_rng(0).uniform(12, 52, (478, 3)).astype(np.float32)
    eye, other, nose, left, right = TEMPLATE
    for number, place in {
        33: eye - 3,
        133: eye + 3,
        362: other - 3,
        263: other + 3,
        4: nose,
        61: left,
        291: right,
    }.items():
        points[number, :2] = place
    return points


class BrightFaces:
    """Sees as many faces as the picture's blue says, beside each other, half the picture's height wide and one smaller.

    Dark pictures show none. The first face lies as in a crop of the picture's own size.
    """

    def detect_all(self, image):
        if image.mean() < 60:
            return []
        count = 1 + (image[..., 2].mean() > 200)
        whole = face_points() * image.shape[0] / 64
        halves = [whole, whole * [0.5, 0.5, 0.5]]
        return [Landmarks.from_points(points.astype(np.float32), int(count)) for points in halves[:count]]

    def detect(self, image):
        return next(iter(self.detect_all(image)), None)


def picture(seed: int, side: int = SIDE, blue: int = 90) -> np.ndarray:
    """A smooth bright picture."""
    small = np.random.default_rng(seed).integers(90, 220, (6, 6, 3)).astype(np.uint8)
    small[..., 2] = blue
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def write_photo(path: Path, seed: int, **options) -> Path:
    Image.fromarray(picture(seed, **options)).save(path)
    return path


def write_clip(path: Path, seeds) -> Path:
    """A video of pictures by their seeds; None is a dark frame."""
    dark = np.full((SIDE, SIDE, 3), 20, np.uint8)
    write_movie(path, [dark if seed is None else picture(seed) for seed in seeds], 10)
    return path
