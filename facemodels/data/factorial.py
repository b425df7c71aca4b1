"""The design of FaceFactors: every person with every expression in every pose under every light.

54 persons x 6 expressions x 8 poses x 4 lights = 10,368 images, the number of the paper's Multi-PIE set (its Table 1).
Image `number` shows person `number // 192`, expression `number // 32 % 6`, pose `number // 4 % 8`, light `number % 4`.
What is no factor (background, framing) is drawn anew for every image, so that it tells none of them.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from facemodels.config import SIZE
from facemodels.data.factors import (
    Array,
    FaceFactors,
    expose,
    sample_background,
    sample_framing,
    sample_person,
)
from facemodels.morphable.procedural import emotion_coefficients, limit_expression
from facemodels.rendering import light_from_direction

PERSONS = 54
EXPRESSIONS = ("neutral", "happy", "surprised", "angry", "disgusted", "sad")
POSES = ((0, 0), (-15, 0), (15, 0), (-30, 0), (30, 0), (-45, 0), (45, 0), (0, 20))
"""Yaw and pitch in degrees: seven cameras around the head and one above it, as Multi-PIE has them."""

LIGHTS = {"front": (0.0, 0.2, 1.0), "left": (-0.9, 0.15, 0.45), "right": (0.9, 0.15, 0.45), "above": (0.0, 0.9, 0.45)}
"""Where the lamp stands, from the viewer: x to the right, y up, z to the viewer."""

SHAPE = (PERSONS, len(EXPRESSIONS), len(POSES), len(LIGHTS))

_PERSON, _MANNER, _FRAMING, _BACKGROUND = 11, 12, 13, 14  # streams of random numbers; other designs use others
_STYLE = 0.25  # standard deviations by which the actions of a person's expression differ from the book's
_STRENGTH, _AMBIENT, _EXPOSURE = 0.75, 0.3, 0.85


@dataclass(frozen=True)
class Cell:
    """Which person, expression, pose and light an image shows, as indices into the design."""

    person: int
    expression: int
    pose: int
    light: int

    @classmethod
    def of(cls, number: int) -> "Cell":
        """The cell of an image.

        Raises:
            ValueError: There is no image of that number.

        Example:
            >>> Cell.of(10367)
            Cell(person=53, expression=5, pose=7, light=3)
        """
        if not 0 <= number < np.prod(SHAPE):
            raise ValueError(f"Cell.of: number must be from 0 to {np.prod(SHAPE) - 1}, got {number}")
        return cls(*(int(index) for index in np.unravel_index(number, SHAPE)))

    @property
    def turned(self) -> int:
        """Another pose, in which the prepared set shows the face for a second time."""
        step = (2 * self.light + self.expression + self.person) % (len(POSES) - 1)
        return (self.pose + 1 + step) % len(POSES)


def cell_factors(seed: int, number: int, *, size: int = SIZE) -> FaceFactors:
    """Factors of one image of FaceFactors.

    A person makes an expression in the same, own manner in every pose and light.

    Args:
        seed: Seed of the whole set.
        number: Number of the image, from 0 to 10,367.
        size: Side of the image in pixels; it changes nothing else.

    Example:
        >>> one, other = cell_factors(0, 0), cell_factors(0, 3)
        >>> one.emotion, bool((one.expression == other.expression).all()), bool((one.light == other.light).all())
        ('neutral', True, False)
    """
    cell = Cell.of(number)
    identity, complexion = sample_person(np.random.default_rng([seed, _PERSON, cell.person]))
    manner = np.random.default_rng([seed, _MANNER, number // (SHAPE[2] * SHAPE[3])])
    emotion = EXPRESSIONS[cell.expression]
    coefficients = emotion_coefficients(emotion)
    coefficients = limit_expression(coefficients + _STYLE * manner.standard_normal(len(coefficients)))
    return FaceFactors(
        person=cell.person,
        identity=identity,
        emotion=emotion,
        expression=coefficients,
        angles=_angles(cell.pose),
        turned_angles=_angles(cell.turned),
        light=_lights()[cell.light],
        complexion=complexion,
        background=sample_background(np.random.default_rng([seed, _BACKGROUND, number]), size),
        framing=sample_framing(np.random.default_rng([seed, _FRAMING, number // SHAPE[3]])),
    )


def _angles(pose: int) -> Array:
    return np.deg2rad([*POSES[pose], 0.0])


@functools.cache
def _lights() -> list[Array]:
    lamps = light_from_direction(
        torch.tensor(list(LIGHTS.values()), dtype=torch.float64),
        strength=torch.full((len(LIGHTS),), _STRENGTH, dtype=torch.float64),
        ambient=torch.full((len(LIGHTS),), _AMBIENT, dtype=torch.float64),
    )
    return [expose(lamp, _EXPOSURE) for lamp in lamps]
