"""Things before a face, as simple shapes: glasses, hands, microphones, locks of hair and whatever gets in the way.

A shape is a signed distance in pixels of a crop of 64, negative inside, on a grid of `FINE` samples each way for every
pixel of the image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from facemodels.config import SIZE

Array = NDArray[np.float64]

FINE = 2
"""Samples a pixel, each way, at which shapes are drawn."""

_CHIN, _BROWS, _BRIDGE, _NOSE, _MOUTH = 8, slice(17, 27), 27, 30, slice(48, 60)
_EYES = (slice(36, 42), slice(42, 48))
_EARS = (0, 16)


@dataclass(frozen=True)
class Sight:
    """What an occluder needs to know of the face it hides.

    Attributes:
        points: The 68 landmarks in pixels of a crop of 64, y down, shape `(68, 2)`.
        skin: Colour of the lit face in [0, 1], shape `(3,)`.
        hair: Colour of the hair, shape `(3,)`.
        light: How bright a white surface is that looks at the camera.
        bald: Whether no hair can fall over the face.
        size: Side of the image in pixels.
    """

    points: Array
    skin: Array
    hair: Array
    light: float
    bald: bool = False
    size: int = SIZE

    @cached_property
    def grid(self) -> tuple[Array, Array]:
        """Where the samples are, x and y in pixels of a crop of 64."""
        y, x = (np.mgrid[0 : self.size * FINE, 0 : self.size * FINE] + 0.5) / FINE * (SIZE / self.size)
        return x, y


@dataclass(frozen=True)
class Layer:
    """A picture before the face.

    Attributes:
        colour: Shape `(fine, fine, 3)`.
        cover: From 0, clear, to 1, opaque, shape `(fine, fine)`.
    """

    colour: Array
    cover: Array


Occluder = Callable[[Sight, np.random.Generator], list[Layer]]


def glasses(sight: Sight, generator: np.random.Generator, *, dark: bool = False) -> list[Layer]:
    """A frame that follows the eyes, with lenses that are nearly clear, or dark."""
    x, y = sight.grid
    bridge, chin = sight.points[_BRIDGE], sight.points[_CHIN]
    up = (bridge - chin) / np.linalg.norm(bridge - chin)
    across = np.array([-up[1], up[0]])  # to the right of the image
    height = np.linalg.norm(bridge - chin) * generator.uniform(0.14, 0.2) * (1.15 if dark else 1.0)
    power = generator.choice([2.0, 3.0, 5.0])  # round to nearly square
    thin = generator.uniform(0.35, 0.9)
    frame_colour = _object_colour(generator, sight) * generator.choice([0.25, 1.0], p=[0.7, 0.3])
    lens = np.full_like(x, np.inf)
    frame = np.full_like(x, np.inf)
    inner = []
    for eye, ear in zip(_EYES, _EARS, strict=True):
        centre = sight.points[eye].mean(axis=0) - 0.08 * height * up
        out = np.sign((centre - bridge) @ across) or 1.0
        width = max(0.83 * abs((centre - bridge) @ across), 1.0) * (1.1 if dark else 1.0)
        along = ((x - centre[0]) * across[0] + (y - centre[1]) * across[1]) / width
        upward = ((x - centre[0]) * up[0] + (y - centre[1]) * up[1]) / height
        rim = (np.abs(along) ** power + np.abs(upward) ** power) ** (1 / power) - 1
        rim = rim * min(width, height)
        lens = np.minimum(lens, rim)
        frame = np.minimum(frame, np.abs(rim) - thin)
        hinge = centre + out * width * across + 0.3 * height * up
        frame = np.minimum(frame, _segment(sight, hinge, sight.points[ear] + 0.3 * height * up) - thin)
        inner.append(centre - out * width * across + 0.25 * height * up)
    frame = np.minimum(frame, _segment(sight, *inner) - thin)
    shine = _cover(np.abs((x - y) - generator.uniform(-20, 20)) - generator.uniform(1, 4), 3.0)
    if dark:
        glass = np.broadcast_to(_object_colour(generator, sight) * 0.18, (*x.shape, 3))
        thickness = generator.uniform(0.85, 1.0)
    else:
        glass, thickness = np.full((*x.shape, 3), 0.85 * sight.light), generator.uniform(0.0, 0.12)
    glass = glass + generator.uniform(0.0, 0.25) * shine[..., None]
    return [
        Layer(glass, _cover(lens) * np.clip(thickness + 0.25 * shine * generator.random(), 0, 1)),
        Layer(np.broadcast_to(frame_colour, glass.shape), _cover(frame)),
    ]


def sunglasses(sight: Sight, generator: np.random.Generator) -> list[Layer]:
    """Glasses through which hardly anything is seen."""
    return glasses(sight, generator, dark=True)


def hand(sight: Sight, generator: np.random.Generator) -> list[Layer]:
    """Four fingers, a thumb and the back of a hand that comes from below or from the side."""
    mouth, chin = sight.points[_MOUTH].mean(axis=0), sight.points[_CHIN]
    side = generator.choice([-1.0, 1.0])
    target = chin + generator.uniform(0.3, 1.8) * (mouth - chin) + np.array([side * generator.uniform(2, 16), 2.0])
    turn = side * generator.uniform(0.15, 1.2)  # of the fingers, from straight up towards the middle
    along = np.array([-np.sin(turn), -np.cos(turn)])
    across = np.array([-along[1], along[0]])
    width = generator.uniform(1.7, 2.6)  # half of a finger
    spread = generator.uniform(-0.05, 0.12)
    skin = sight.skin * generator.uniform(0.75, 1.1)
    palm = target - along * generator.uniform(9, 13)
    layers = [_rounded(_segment(sight, palm, palm - 60 * along) - 4.1 * width, skin, 4 * width)]
    layers.append(_rounded(_ellipse(sight, palm, across, 4.2 * width, along, 5.2 * width), skin, 4 * width))
    thumb = palm - side * 4.0 * width * across
    tip = thumb + 4.2 * width * along - side * generator.uniform(0, 3) * across
    layers.append(_rounded(_segment(sight, thumb, tip) - width, skin, width))
    for finger, length in enumerate((0.86, 1.0, 0.95, 0.75)):
        place = (finger - 1.5) * 2.05 * width
        fan = along + (finger - 1.5) * spread * across
        root = palm + place * across + 3.0 * along
        reach = root + length * generator.uniform(10, 13) * fan
        layers.append(_rounded(_segment(sight, root, reach) - width, skin, width))
    return layers


def microphone(sight: Sight, generator: np.random.Generator) -> list[Layer]:
    """A dark ball with a grille before the mouth or the chin, on a handle that leads out of the picture."""
    mouth, chin = sight.points[_MOUTH].mean(axis=0), sight.points[_CHIN]
    side = generator.choice([-1.0, 1.0])
    radius = generator.uniform(3.5, 7.5)
    ball = chin + generator.uniform(0.0, 1.1) * (mouth - chin) + np.array([side * generator.uniform(0, 9), 1.0])
    handle = ball + 70 * np.array([side * generator.uniform(-0.2, 0.8), 1.0])
    grey = generator.uniform(0.05, 0.3) * sight.light * np.ones(3)
    x, y = sight.grid
    grille = 1 + 0.25 * np.sin(2.6 * (x + y)) * np.sin(2.6 * (x - y))
    head = _rounded(np.hypot(x - ball[0], y - ball[1]) - radius, grey * generator.uniform(1, 3), radius)
    return [
        _rounded(_segment(sight, ball, handle) - 0.55 * radius, grey, 0.55 * radius),
        Layer(head.colour * grille[..., None], head.cover),
    ]


def strands(sight: Sight, generator: np.random.Generator) -> list[Layer]:
    """Locks of hair that fall from the forehead over brows, an eye or a cheek."""
    brows = sight.points[_BROWS]
    start = brows.mean(axis=0) + np.array([generator.uniform(-10, 10), -generator.uniform(14, 20)])
    side = generator.choice([-1.0, 1.0])
    layers = []
    for _ in range(generator.integers(3, 9)):
        root = start + generator.normal(0, 3, 2)
        middle = root + np.array([side * generator.uniform(2, 14), generator.uniform(8, 16)])
        end = middle + np.array([side * generator.uniform(-2, 8), generator.uniform(3, 22)])
        curve = [(1 - t) ** 2 * root + 2 * t * (1 - t) * middle + t**2 * end for t in np.linspace(0, 1, 9)]
        thick = generator.uniform(0.5, 2.2)
        distance = np.min(
            [_segment(sight, a, b) - thick * (1 - 0.11 * step) for step, (a, b) in enumerate(pairwise(curve))],
            axis=0,
        )
        layers.append(_rounded(distance, sight.hair * sight.light * generator.uniform(0.6, 1.2), thick))
    return layers


def thing(sight: Sight, generator: np.random.Generator) -> list[Layer]:
    """A box or a disc, a cup or a page perhaps, that reaches into the picture from its rim."""
    angle = generator.uniform(0, 2 * np.pi)
    out = np.array([np.cos(angle), np.sin(angle)])
    width, length = generator.uniform(6, 16), generator.uniform(8, 20)
    centre = SIZE / 2 + out * (SIZE / 2 + generator.uniform(-6, 4))
    turn = generator.uniform(0, np.pi)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    colour = _object_colour(generator, sight)
    if generator.random() < 0.4:
        return [_rounded(_ellipse(sight, centre, along, length, across, width), colour, width)]
    x, y = sight.grid
    offset = np.stack([x - centre[0], y - centre[1]], axis=-1)
    distance = np.maximum(np.abs(offset @ along) - length, np.abs(offset @ across) - width)
    gradient = 1 + generator.uniform(-0.4, 0.4) * (offset @ along) / length
    return [Layer(np.clip(colour * gradient[..., None], 0, 1), _cover(distance))]


OCCLUDERS: dict[str, Occluder] = {
    "glasses": glasses,
    "sunglasses": sunglasses,
    "hand": hand,
    "microphone": microphone,
    "hair": strands,
    "thing": thing,
}
"""Occluders by name."""


def cover_image(image: Array, layers: list[Layer]) -> tuple[Array, Array]:
    """The image behind layers, and how much of each pixel is still seen.

    Args:
        image: Shape `(size, size, 3)`.
        layers: From occluders that know this size, farthest first.

    Returns:
        The image and the share of it that shows through, shape `(size, size)`.
    """
    side = FINE * len(image)
    colour, seen = np.zeros((side, side, 3)), np.ones((side, side))
    for layer in layers:
        colour = colour * (1 - layer.cover[..., None]) + layer.colour * layer.cover[..., None]
        seen = seen * (1 - layer.cover)
    colour, seen = _reduced(colour), _reduced(seen)
    return np.clip(image * seen[..., None] + colour, 0, 1), seen


def _reduced(fine: Array) -> Array:
    size = len(fine) // FINE
    return fine.reshape(size, FINE, size, FINE, *fine.shape[2:]).mean(axis=(1, 3))


def _cover(distance: Array, softness: float = 0.5) -> Array:
    """One inside, zero outside, a slope of twice the softness between them."""
    return np.clip(0.5 - 0.5 * distance / softness, 0, 1)


def _segment(sight: Sight, start: Array, end: Array) -> Array:
    """Distance to a line from start to end."""
    x, y = sight.grid
    step = end - start
    length = max(float(step @ step), 1e-9)
    share = np.clip(((x - start[0]) * step[0] + (y - start[1]) * step[1]) / length, 0, 1)
    return np.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1])


def _ellipse(sight: Sight, centre: Array, along: Array, length: float, across: Array, width: float) -> Array:
    x, y = sight.grid
    offset = np.stack([x - centre[0], y - centre[1]], axis=-1)
    return (np.hypot(offset @ along / length, offset @ across / width) - 1) * min(length, width)


def _rounded(distance: Array, colour: Array, depth: float) -> Layer:
    """A shape that darkens towards its rim as if it were round."""
    inward = np.clip(-distance / depth, 0, 1)
    shading = 0.5 + 0.5 * np.sqrt(1 - (1 - inward) ** 2)
    return Layer(np.clip(colour * shading[..., None], 0, 1), _cover(distance))


def _object_colour(generator: np.random.Generator, sight: Sight) -> Array:
    """Any colour, often a weak one, under the light of the face."""
    grey = generator.random()
    return np.clip((grey + generator.uniform(-0.3, 0.3, 3)) * sight.light, 0, 1)
