"""The faces that the page offers to begin with: rendered ones, and the astronaut of scikit-image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

from facemodels.data.factors import sample_factors
from facemodels.data.portrait import build_heads, draw_heads
from facemodels.data.synthetic import aligned_camera
from facemodels.figures import to_bytes
from facemodels.morphable.procedural import emotion_coefficients

ASTRONAUT = Path(skimage.data.__file__).parent / "astronaut.png"
"""Portrait of Eileen Collins, NASA, public domain; scikit-image carries it."""

FOLDER = Path(__file__).parent / "examples"
_SIDE, _CROP = 256, 160  # pixels of the picture, and of the part of it that is the face's crop
_FACES = {"happy": 12, "surprised": 13, "neutral": 3, "angry": 14, "sad": 16}  # number of the person


def examples() -> list[Path]:
    """Pictures to begin with, the rendered ones first: any network, also one trained on rendered faces, knows those."""
    return [*(FOLDER / f"{emotion}.jpg" for emotion in _FACES), ASTRONAUT]


def draw_examples(faces: dict[str, int]) -> dict[str, Image.Image]:
    """Portraits of rendered persons, each with one emotion.

    Args:
        faces: Number of the person to draw for each emotion.
    """
    return {emotion: _portrait(emotion, number) for emotion, number in faces.items()}


@torch.no_grad()
def _portrait(emotion: str, number: int) -> Image.Image:
    factors = sample_factors(0, number, images_per_person=1, size=_SIDE)
    factors = replace(factors, expression=emotion_coefficients(emotion), angles=factors.angles / 2)

    def batch(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values)[None].float()

    heads = build_heads(batch(factors.identity), batch(factors.expression), [factors.complexion])
    rotation, scale, shift = aligned_camera(heads.vertices, batch(factors.angles), torch.zeros(1, 3))
    zoom = _CROP / 64
    background = batch(factors.background).permute(0, 3, 1, 2)
    picture, _, _ = draw_heads(
        heads, rotation, zoom * scale, zoom * shift + (_SIDE - _CROP) / 2, batch(factors.light), background
    )
    return Image.fromarray(to_bytes(picture[0]))


if __name__ == "__main__":  # python -m facemodels.app.examples makes the pictures anew
    for name, portrait in draw_examples(_FACES).items():
        portrait.save(FOLDER / f"{name}.jpg", quality=88)
