"""The factors of synthetic faces, drawn at random: identity, expression, pose, light, colours and background."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from facemodels.config import SIZE
from facemodels.morphable import MorphableModel
from facemodels.morphable.procedural import (
    EMOTIONS,
    Complexion,
    emotion_coefficients,
    limit_expression,
    masculinity,
    sample_complexion,
)
from facemodels.rendering import irradiance_basis, light_from_direction

Array = NDArray[np.float64]

_EMOTION_SHARES = {"neutral": 0.2, "happy": 0.3}  # the others share the rest
_IDENTITY_LIMIT = 2.6  # standard deviations
_YAW_SD, _YAW_LIMIT, _PITCH_SD, _PITCH_LIMIT, _ROLL_SD = 15.0, 40.0, 8.0, 25.0, 1.5  # degrees, as in photos


@dataclass(frozen=True)
class FaceFactors:
    """Everything that one synthetic image is made of.

    Attributes:
        person: Number of the person: same identity, same colours.
        identity: Coefficients in standard deviations, shape `(157,)`.
        emotion: Basic emotion that the expression was drawn from.
        expression: Coefficients in standard deviations, shape `(28,)`.
        angles: Yaw, pitch, and the little roll that the crop leaves, in radians, shape `(3,)`.
        turned_angles: The same of the second view.
        light: Spherical-harmonic coefficients, shape `(9,)`.
        complexion: Colours of the person.
        background: Picture behind the head in [0, 1]; its size is that of the image. Shape `(size, size, 3)`.
        framing: By how much the crop misses the template: right and down in pixels of a crop of 64, log of the scale.
            Shape `(3,)`.
    """

    person: int
    identity: Array
    emotion: str
    expression: Array
    angles: Array
    turned_angles: Array
    light: Array
    complexion: Complexion
    background: Array
    framing: Array


def sample_factors(seed: int, index: int, *, images_per_person: int = 4, size: int = SIZE) -> FaceFactors:
    """Draw the factors of one sample.

    Args:
        seed: Seed of the whole set.
        index: Number of the sample.
        images_per_person: Neighbouring samples that show the same person.
        size: Side of the image in pixels; it changes nothing else.

    Returns:
        Its factors, always the same for the same arguments.

    Example:
        >>> first, second = sample_factors(0, 6), sample_factors(0, 7)
        >>> first.person, second.person, bool((first.identity == second.identity).all())
        (1, 1, True)
    """
    person = index // images_per_person
    own = np.random.default_rng([seed, 1, person])
    identity, complexion = sample_person(own)
    generator = np.random.default_rng([seed, 2, index])
    emotion, expression = sample_expression(generator)
    return FaceFactors(
        person=person,
        identity=identity,
        emotion=emotion,
        expression=expression,
        angles=sample_angles(generator),
        turned_angles=sample_angles(generator),
        light=sample_light(generator),
        complexion=complexion,
        background=sample_background(generator, size),
        framing=sample_framing(generator),
    )


_EXCHANGED = {
    "expression": ("emotion", "expression"),
    "pose": ("angles",),
    "light": ("light",),
    "identity": ("person", "identity", "complexion"),
}


def exchange(source: FaceFactors, target: FaceFactors, factor: str) -> FaceFactors:
    """The source's factors with one of the target's: what an edit by `facemodels.editing.transfer` should show.

    Args:
        source: Factors to keep.
        target: Factors to take one from.
        factor: "expression", "pose", "light" or "identity"; the identity brings the person's colours and hair.

    Raises:
        ValueError: The factor is another.
    """
    if factor not in _EXCHANGED:
        raise ValueError(f"exchange: there is no factor {factor!r}; choose one of {', '.join(_EXCHANGED)}")
    return dataclasses.replace(source, **{name: getattr(target, name) for name in _EXCHANGED[factor]})


def sample_person(generator: np.random.Generator) -> tuple[Array, Complexion]:
    """Identity coefficients and colours of one person."""
    identity = sample_identity(generator)
    return identity, sample_complexion(generator, masculinity(identity))


def sample_identity(generator: np.random.Generator) -> Array:
    """Standard normal, cut off at `_IDENTITY_LIMIT`."""
    identity = generator.standard_normal(MorphableModel.procedural().n_identity)
    while (beyond := np.abs(identity) > _IDENTITY_LIMIT).any():
        identity[beyond] = generator.standard_normal(int(beyond.sum()))
    return identity


def sample_expression(generator: np.random.Generator) -> tuple[str, Array]:
    """An emotion of some intensity, with jitter on every action and now and then a blink."""
    names = list(EMOTIONS)
    rest = (1 - sum(_EMOTION_SHARES.values())) / (len(names) - len(_EMOTION_SHARES))
    emotion = str(generator.choice(names, p=[_EMOTION_SHARES.get(name, rest) for name in names]))
    coefficients = emotion_coefficients(emotion, generator.uniform(0.5, 1.15))
    coefficients += 0.25 * generator.standard_normal(len(coefficients))
    names = MorphableModel.procedural().expression_names
    if generator.random() < 0.3:  # an open mouth goes with any emotion
        coefficients[names.index("jaw_open")] += generator.uniform(0.2, 1.0)
    if generator.random() < 0.04:
        coefficients[[names.index("eye_close_left"), names.index("eye_close_right")]] += 1.2
    return emotion, limit_expression(coefficients)


def sample_angles(generator: np.random.Generator) -> Array:
    """Yaw, pitch and roll in radians."""
    yaw, pitch, roll = generator.standard_normal(3) * [_YAW_SD, _PITCH_SD, _ROLL_SD]
    return np.deg2rad([np.clip(yaw, -_YAW_LIMIT, _YAW_LIMIT), np.clip(pitch, -_PITCH_LIMIT, _PITCH_LIMIT), roll])


def sample_light(generator: np.random.Generator) -> Array:
    """A main lamp, a weak second one and an even part, with the exposure set for the front of the face."""
    azimuth = np.deg2rad(np.clip(42 * generator.standard_normal(), -90, 90))
    elevation = np.deg2rad(generator.uniform(-5, 58))
    lamp = [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    other = generator.standard_normal(3) + np.array([0, 0.3, 0.8])
    strength, second = generator.uniform(0.3, 0.8), generator.uniform(0.0, 0.3)
    light = light_from_direction(
        torch.tensor(np.stack([lamp, other])),
        strength=torch.tensor([strength, second], dtype=torch.float64),
        ambient=torch.tensor([generator.uniform(0.28, 0.6), 0.0], dtype=torch.float64),
    ).sum(dim=0)
    return expose(light, generator.uniform(0.75, 1.05))


def sample_framing(generator: np.random.Generator) -> Array:
    """By how much a crop misses the template, as the landmarks of a detector make it: see `FaceFactors.framing`."""
    return generator.standard_normal(3) * [0.4, 0.4, 0.012]


def expose(light: Float[Tensor, "9"], shading: float) -> Array:
    """The light, scaled to give the front of a face this mean shading."""
    looks = torch.tensor([[0, 0, 1.0], [0.5, 0, 0.866], [-0.5, 0, 0.866], [0, 0.5, 0.866], [0, -0.5, 0.866]])
    return (light * shading / (irradiance_basis(looks.to(light)) @ light).mean()).numpy()


def sample_background(generator: np.random.Generator, size: int = SIZE) -> Array:
    """A gradient with blotches and a few soft shapes, mostly of weak colours, shape (size, size, 3)."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    first, turn = generator.random(3), generator.random() * 2 * np.pi
    second = 0.5 * first + 0.5 * generator.random(3)
    along = np.clip(0.5 + 0.5 * (x * np.cos(turn) + y * np.sin(turn)), 0, 1)[..., None]
    picture = (0.8 * first + 0.1) * (1 - along) + second * along
    knots = int(generator.integers(3, 10))
    blotches = _enlarge(generator.random((knots, knots, 3)) - 0.5, size)
    picture = picture + blotches * generator.uniform(0.1, 0.6)
    for _ in range(generator.integers(0, 4)):
        centre_x, centre_y = generator.uniform(-1, 1, 2)
        radius, softness = generator.uniform(0.15, 0.75), generator.uniform(0.03, 0.23)
        if generator.random() < 0.5:
            distance = np.hypot(x - centre_x, y - centre_y) - radius
        else:
            distance = np.maximum(np.abs(x - centre_x) - radius, np.abs(y - centre_y) - 1.5 * radius)
        cover = 0.8 / (1 + np.exp(np.clip(3 * distance / softness, -50, 50)))[..., None]
        picture = picture * (1 - cover) + generator.random(3) * cover
    grey = picture.mean(axis=-1, keepdims=True)
    return np.clip(grey + (picture - grey) * generator.uniform(0.1, 0.5), 0, 1)


def _enlarge(small: Array, size: int) -> Array:
    """A small square picture, smoothly enlarged."""
    channels = torch.from_numpy(small).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(channels, size=(size, size), mode="bicubic", align_corners=True)
    return large[0].permute(1, 2, 0).numpy()
