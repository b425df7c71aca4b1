"""Faces in the wild: the factors of synthetic faces drawn as widely as photos have them, and what a camera adds.

Scenes behind the head, things before it (`occluders`), small and large faces, blur, low resolution, colour casts,
noise and JPEG. The exact factors stay known: they are those of the face before the camera spoilt its picture.
"""

import dataclasses
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve1d, gaussian_filter

from facemodels.config import SIZE
from facemodels.data.factors import FaceFactors, sample_background, sample_factors
from facemodels.data.occluders import OCCLUDERS, Layer, Sight, cover_image
from facemodels.morphable.procedural import EMOTIONS, emotion_coefficients, limit_expression

Array = NDArray[np.float64]

_FACTORS, _CAMERA = 21, 22  # streams of random numbers; other designs use others
_YAW, _PITCH, _ROLL = (20.0, 50.0), (11.0, 30.0), (2.0, 6.0)  # standard deviation and limit in degrees
_SHIFT, _SCALE = 0.6, 0.025  # standard deviations in pixels, and of the log
_PERSONS = 1_000_000_000  # persons of the wild are numbered from here on, so that no other set of the seed has them
_OCCLUDED = 0.5
_SHARES = {"glasses": 0.34, "sunglasses": 0.12, "hand": 0.18, "microphone": 0.1, "hair": 0.16, "thing": 0.1}


def wild_factors(seed: int, index: int, *, images_per_person: int = 2, size: int = SIZE) -> FaceFactors:
    """Draw the factors of one sample: any blend of expressions, wide poses, hard light, all scenes.

    Crops miss the template by as much as landmarks err in spoilt photos. No code says where in its crop a face lies, so
    looser ones would only blur what a network learns of eyes and brows.

    Args:
        seed: Seed of the whole set.
        index: Number of the sample.
        images_per_person: Neighbouring samples that show the same person.
        size: Side of the image in pixels; it changes nothing else but the grain of the background.
    """
    usual = sample_factors(seed, index + _PERSONS * images_per_person, images_per_person=images_per_person)
    generator = np.random.default_rng([seed, _FACTORS, index])
    framing = generator.standard_normal(3) * [_SHIFT, _SHIFT, _SCALE]
    light = usual.light
    if generator.random() < 0.35:  # too dark, too bright, or harder than usual
        light = light * generator.uniform(0.5, 1.5)
        light[1:] *= generator.uniform(1.0, 1.5)
    return dataclasses.replace(
        usual,
        person=usual.person - _PERSONS,
        expression=_blend(usual.expression, generator),
        angles=_angles(generator),
        turned_angles=_angles(generator),
        light=light,
        background=sample_scene(generator, size),
        framing=np.clip(framing, [-2, -2, -0.08], [2, 2, 0.08]),
    )


def _blend(expression: Array, generator: np.random.Generator) -> Array:
    """An emotion, half of another and some action that belongs to neither."""
    if generator.random() < 0.5:
        return expression
    other = emotion_coefficients(str(generator.choice(list(EMOTIONS))), generator.uniform(0, 0.7))
    single = np.zeros_like(expression)
    single[generator.integers(len(single), size=2)] = generator.uniform(0, 1.5, 2)
    return limit_expression(generator.uniform(0.3, 1) * expression + other + single)


def _angles(generator: np.random.Generator) -> Array:
    drawn = [np.clip(generator.normal(0, deviation), -limit, limit) for deviation, limit in (_YAW, _PITCH, _ROLL)]
    return np.deg2rad(drawn)


def sample_scene(generator: np.random.Generator, size: int = SIZE) -> Array:
    """A picture behind a head, shape (size, size, 3): a wall, lamps out of focus, a landscape, shelves, or blotches."""
    kind = generator.choice(["blotches", "wall", "lamps", "landscape", "shelves"], p=[0.35, 0.15, 0.2, 0.15, 0.15])
    if kind == "blotches":
        return sample_background(generator, size)
    y, x = np.mgrid[0:size, 0:size] / size
    base, other = _muted(generator), _muted(generator)
    slope = 0.5 + generator.uniform(-0.5, 0.5) * (x - 0.5) + generator.uniform(-0.5, 0.5) * (y - 0.5)
    scene = base * (0.6 + 0.8 * slope[..., None])
    if kind == "lamps":
        scene = scene * generator.uniform(0.2, 0.7)
        for _ in range(generator.integers(4, 16)):
            distance = np.hypot(x - generator.random(), y - generator.random()) - generator.uniform(0.02, 0.1)
            scene = scene + generator.uniform(0.1, 0.6) * _muted(generator, 0.5) * _soft(distance, 0.015)
    elif kind == "landscape":
        horizon = generator.uniform(0.2, 0.8) + 0.03 * np.sin(x * generator.uniform(4, 20) + generator.uniform(0, 6))
        scene = np.where((y > horizon)[..., None], scene, np.array([0.7, 0.8, 0.95]) * generator.uniform(0.5, 1.1))
        for _ in range(generator.integers(0, 6)):
            left, top = generator.random(), generator.uniform(0.0, 0.8)
            box = np.maximum(np.abs(x - left) - generator.uniform(0.03, 0.15), top - y)
            scene = scene * (1 - _soft(box, 0.01)) + _muted(generator) * _soft(box, 0.01)
    elif kind == "shelves":
        columns = np.sort(generator.random(generator.integers(4, 14)))
        rows = np.sort(generator.random(generator.integers(1, 4)))
        colours = [_muted(generator, 0.3) for _ in range((len(columns) + 1) * (len(rows) + 1))]
        cell = np.searchsorted(rows, y) * (len(columns) + 1) + np.searchsorted(columns, x)
        scene = 0.5 * scene + 0.5 * np.array(colours)[cell]
    else:
        scene = scene + 0.05 * other * np.sin(x * generator.uniform(0, 60) + y * generator.uniform(0, 60))[..., None]
    scene = gaussian_filter(scene, (generator.uniform(0, 2.5) * size / SIZE,) * 2 + (0,))
    return np.clip(scene + generator.uniform(0, 0.04) * generator.standard_normal((size, size, 1)), 0, 1)


def _muted(generator: np.random.Generator, strength: float = 0.18) -> Array:
    return np.clip(generator.uniform(0.1, 0.9) + strength * generator.uniform(-1, 1, 3), 0, 1)


def _soft(distance: Array, softness: float) -> Array:
    return (1 / (1 + np.exp(np.clip(distance / softness, -50, 50))))[..., None]


def occlude(seed: int, index: int, image: Array, sight: Sight) -> tuple[Array, Array, str]:
    """Put something before every second face.

    Args:
        seed: Seed of the whole set.
        index: Number of the sample.
        image: The rendered face in [0, 1], shape `(size, size, 3)`.
        sight: Where the face is.

    Returns:
        The image; how much of each pixel still shows, shape `(size, size)`; and the names of what was put before it,
        joined by "+", empty for nothing.
    """
    generator = np.random.default_rng([seed, _CAMERA, index, 0])
    if generator.random() >= _OCCLUDED:
        return image, np.ones(image.shape[:2]), ""
    number = 2 if generator.random() < 0.12 else 1
    shares = {name: share for name, share in _SHARES.items() if not (sight.bald and name == "hair")}
    names = generator.choice(
        list(shares), number, replace=False, p=np.array(list(shares.values())) / sum(shares.values())
    )
    names = sorted(map(str, names), key=list(_SHARES).index)
    layers: list[Layer] = []
    for name in names:
        layers += OCCLUDERS[name](sight, generator)
    return *cover_image(image, layers), "+".join(names)


def photograph(seed: int, index: int, image: Array) -> NDArray[np.uint8]:
    """What a camera makes of a picture: blur, resolution, exposure and colour cast, noise, JPEG, each now and then.

    Args:
        seed: Seed of the whole set.
        index: Number of the sample.
        image: In [0, 1], shape `(size, size, 3)`.
    """
    zoom = len(image) / SIZE
    generator = np.random.default_rng([seed, _CAMERA, index, 1])
    if generator.random() < 0.3:
        image = gaussian_filter(image, (zoom * generator.uniform(0.3, 1.3),) * 2 + (0,))
    if generator.random() < 0.12:
        length = round(zoom * int(generator.integers(2, 6)))
        image = convolve1d(image, np.full(length, 1 / length), axis=int(generator.integers(2)))
    if generator.random() < 0.35:  # a small face, enlarged
        image = _at_resolution(image, round(zoom * int(generator.integers(20, SIZE))))
    if generator.random() < 0.6:
        gains = np.exp(generator.normal(0, 0.08, 3))
        image = np.clip(image * gains, 0, 1) ** np.exp(generator.normal(0, 0.18))
        image = (image - 0.5) * generator.uniform(0.75, 1.2) + 0.5 + generator.normal(0, 0.03)
    if generator.random() < 0.06:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    if generator.random() < 0.5:
        grain = 0.04 * generator.random() ** 2
        image = image + grain * generator.standard_normal(image.shape) * (0.5 + np.sqrt(np.clip(image, 0, 1)))
    picture = (255 * np.clip(image, 0, 1)).round().astype(np.uint8)
    return _as_jpeg(picture, int(generator.integers(25, 96))) if generator.random() < 0.6 else picture


def _at_resolution(image: Array, side: int) -> Array:
    picture = Image.fromarray((255 * image).round().astype(np.uint8))
    small = picture.resize((side, side), Image.Resampling.BOX)
    return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC)) / 255


def _as_jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))
