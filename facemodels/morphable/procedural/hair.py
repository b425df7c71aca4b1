"""Long hair: a curtain around the head that is drawn with it but is no part of the morphable model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facemodels.morphable.procedural.albedo import Complexion, hair_colour
from facemodels.morphable.procedural.fields import Array, rise
from facemodels.morphable.procedural.head import SHEET_VERTICES, Head
from facemodels.morphable.procedural.sheet import COLUMNS, ROWS

_ROWS, _COLUMNS = 14, 41
_TOP = 96.0  # level at which the curtain comes out of the short hair, in mm


@dataclass(frozen=True)
class LongHair:
    """Long hair of one person on the mean head.

    Attributes:
        position: In mm, shape `(H, 3)`.
        albedo: In [0, 1], shape `(H, 3)`.
        attached: The vertex of the head whose identity each vertex of the hair follows, shape `(H,)`.
    """

    position: Array
    albedo: Array
    attached: NDArray[np.int64]


def hair_triangles() -> NDArray[np.int64]:
    """Triangles of the curtain, both of its sides, shape `(F, 3)`; the same for all hair."""
    i, j = np.meshgrid(np.arange(_ROWS - 1), np.arange(_COLUMNS - 1), indexing="ij")
    here = (i * _COLUMNS + j).ravel()
    right, below, diagonal = here + 1, here + _COLUMNS, here + _COLUMNS + 1
    outside = np.concatenate([np.stack([here, below, right], axis=1), np.stack([right, below, diagonal], axis=1)])
    return np.concatenate([outside, outside[:, ::-1]])


def long_hair(head: Head, person: Complexion) -> LongHair:
    """The curtain of a person; for short hair it shrinks to a point inside the head."""
    down, around = np.meshgrid(np.linspace(0, 1, _ROWS), np.linspace(0, 1, _COLUMNS), indexing="ij")
    # From the subject's left over the back to the right, seen from outside: columns run to the right.
    angle = np.deg2rad(person.hair_front + around * (360 - 2 * person.hair_front))
    ragged = 6 * np.sin(40 * around + 3 * np.sin(17 * around))
    level = _TOP - down * (_TOP + person.hair_length + ragged)
    wave = 1.8 * np.sin(31 * around + 4 * down) * rise(down, 0.1, 0.6)
    standing = person.hair_volume * rise(level, 85, 40) - 8 * rise(level, 78, 96) + wave
    half_width = np.interp(level, [20, 45, 68, 96], [83, 83, 80, 68])
    depth = np.where(np.cos(angle) > 0, 62.0, 96.0)
    x = (half_width + standing) * np.sin(angle)
    z = 2 + (depth + standing) * half_width / 83 * np.cos(angle)
    position = np.stack([x, level, z], axis=-1).reshape(-1, 3)
    if person.hair_length <= 0 or person.bald:
        position = np.zeros_like(position)
    strands = 1 + 0.13 * np.sin(97 * around + 2 * down) + 0.08 * np.sin(231 * around) - 0.15 * down
    albedo = (hair_colour(person) * strands[..., None]).reshape(-1, 3)
    degrees = np.rad2deg(angle)
    return LongHair(
        position, np.clip(albedo, 0.01, 1), _attachment(head, np.where(degrees > 180, degrees - 360, degrees), level)
    )


def _attachment(head: Head, angle: Array, level: Array) -> NDArray[np.int64]:
    """Vertices of the head's sheet beside the hair, on the way from the temples to the top."""
    angles, levels = (values[:SHEET_VERTICES].reshape(ROWS, COLUMNS) for values in (head.angle, head.level))
    column = np.abs(angles[0] - angle.reshape(-1, 1)).argmin(axis=1)
    row = np.abs(levels.T[column] - level.reshape(-1, 1).clip(0, 60)).argmin(axis=1)
    return row * COLUMNS + column
