"""Hair: a shell around the head that is drawn with it but is no part of the morphable model.

Its columns run from the crown down to the tips: over the scalp, and from where the head narrows straight down. One
shell makes crops, fringes, partings, bobs, long and curly hair; baldness and very short hair are colour alone.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from facemodels.morphable.procedural.albedo import Complexion, hair_colour, hair_tips
from facemodels.morphable.procedural.fields import Array, bump, rise
from facemodels.morphable.procedural.head import SHEET_VERTICES, Head
from facemodels.morphable.procedural.sheet import COLUMNS, ROWS

_ROWS, _COLUMNS = 26, 72
_COVERED_ROWS = 5  # whose inner side always lies on the head
_CROWN = 156.0  # level of the first row, in mm
_LOWEST, _STEP = -70.0, 2.0  # levels at which the scalp is tabulated
_HANGS_FROM = 30.0  # level below which hair no longer follows the scalp


@dataclass(frozen=True)
class Hair:
    """Hair of one person on the mean head.

    Attributes:
        position: In mm, shape `(H, 3)`.
        albedo: In [0, 1], shape `(H, 3)`.
        attached: The vertex of the head whose identity each vertex of the hair follows, shape `(H,)`.
        shown: Whether there is a shell; else all of it lies in one point inside the head.
    """

    position: Array
    albedo: Array
    attached: NDArray[np.int64]
    shown: bool


@cache
def hair_triangles() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles of the shell seen from outside, and those below the crown seen from inside; the same for all hair."""
    i, j = np.meshgrid(np.arange(_ROWS - 1), np.arange(_COLUMNS), indexing="ij")
    after = (j + 1) % _COLUMNS
    here, right, below, diagonal = (
        (row * _COLUMNS + column).ravel() for row, column in ((i, j), (i, after), (i + 1, j), (i + 1, after))
    )
    ring = np.arange(_COLUMNS)
    cap = np.stack([0 * ring[2:], ring[1:-1], ring[2:]], axis=1)
    outside = np.concatenate([np.stack([here, below, right], 1), np.stack([right, below, diagonal], 1), cap])
    return outside, outside[(outside >= _COVERED_ROWS * _COLUMNS).all(axis=1), ::-1]


def hair_shell(head: Head, person: Complexion) -> Hair:
    """The hair of a person."""
    angle = (np.arange(_COLUMNS) * 360.0 / _COLUMNS - 180.0)[None, :]
    down = (np.linspace(0, 1, _ROWS) ** 0.9)[:, None]
    jagged = 2.5 + 0.12 * max(person.fringe, 0) + 7.0 * rise(person.hair_length, 0, 60) * rise(np.abs(angle), 40, 60)
    ragged = _noise(0)[:, :1].T * jagged
    tips = hair_tips(person, angle) + ragged
    level = _CROWN + down * (tips - _CROWN)
    scalp, outward = _on_scalp(head, level, angle, float(rise(person.hair_length, 12, 45)))
    attached = _attachment(head, angle + 0 * level, level)
    if person.bald or max(person.hair_top, person.hair_volume) < 0.5:
        return Hair(np.zeros((_ROWS * _COLUMNS, 3)), np.ones((_ROWS * _COLUMNS, 3)), attached, False)

    thickness = _thickness(person, level, angle, down)
    position = scalp + thickness[..., None] * outward
    wave = person.hair_wave * np.sin(0.11 * level + 2.2 * np.sin(np.deg2rad(3 * angle)) + 0.4 * _noise(1))
    position[..., [0, 2]] += (wave * rise(level, 40, -20))[..., None] * outward[..., [0, 2]]
    inwards = 0.10 * rise(level, -40, -180)
    position[..., 0] *= 1 - inwards
    return Hair(position.reshape(-1, 3), _strand_colours(person, level, angle, down), attached, True)


def _thickness(person: Complexion, level: Array, angle: Array, down: Array) -> Array:
    """How far the hair stands off the scalp, in mm."""
    degrees = np.abs(angle)
    facing = rise(degrees, 70, 35)
    top = facing * rise(level, 25, 95) + (1 - facing) * rise(level, 60, 125)
    amount = person.hair_volume + (person.hair_top - person.hair_volume) * top
    amount = amount + 0.35 * person.hair_top * bump(angle, 25 * person.parting, 38) * bump(level, 92, 20)
    combed_back = rise(person.fringe, 8, 0) * rise(degrees, 60, 40)
    short_sides = rise(person.hair_length, 20, 0) * rise(degrees, 40, 60)
    fading = np.maximum(combed_back, short_sides) * rise(down, 0.72, 1.0) * (1 - 0.75 * person.hair_curl)
    hanging = rise(degrees, 60, 40) * rise(level, 75, 55)  # a fringe lies on the forehead
    amount = amount * (1 - 0.9 * fading) * (1 - 0.55 * hanging * (1 - 0.5 * person.hair_curl))
    line = 35 * person.parting
    furrow = 0.55 * bump(angle, line, 7) * rise(level, 55, 75) * rise(level, 150, 130) * (1 - person.hair_curl)
    amount = amount * (1 - furrow) + 0.07 * amount * _noise(2)
    return np.maximum(amount * (1 + 0.22 * person.hair_curl * _noise(3)), 0.4)


def _strand_colours(person: Complexion, level: Array, angle: Array, down: Array) -> Array:
    """Strands from root to tip with the gloss of hair, shape `(H, 3)`."""
    straight = 1 - person.hair_curl
    strand = straight * (0.14 * _noise(0)[:, :1].T + 0.07 * np.sin(0.9 * angle + 2 * down)) + 0.05 * _noise(4)
    strand = strand + 0.22 * person.hair_curl * _noise(3)
    gloss = straight * (bump(level, 98, 15) + 0.4 * bump(level, 0, 28)) * (1 + 0.8 * strand)
    dark = 0.10 * bump(level, 150, 12) + 0.20 * rise(down, 0.9, 0.35) * rise(level, 60, 20)
    dark = dark + 0.25 * bump(angle, 35 * person.parting, 4) * rise(level, 60, 80) * straight
    brightness = np.clip((1 + strand) * (1 + 0.22 * gloss) * (1 - dark), 0.3, 1.8)
    own = hair_colour(person)
    colour = own * brightness[..., None] + 0.05 * (1 - own.max()) * gloss[..., None]
    return np.clip(colour, 0.01, 1).reshape(-1, 3)


@cache
def _noise(which: int) -> Array:
    """Fixed standard normal numbers, one for each vertex; the first of each column serves the whole strand."""
    noise = np.random.default_rng([9, which]).standard_normal((_COLUMNS, _ROWS))
    if which == 0:
        return noise.clip(-2, 2)
    for axis in (0, 1):
        noise = 0.5 * noise + 0.25 * (np.roll(noise, 1, axis=axis) + np.roll(noise, -1, axis=axis))
    return (noise / noise.std()).clip(-2, 2).T


def _on_scalp(head: Head, level: Array, angle: Array, loose: float) -> tuple[Array, Array]:
    """Where hair without thickness lies, and which way it stands off: `(rows, columns, 3)` each.

    With `loose` at 1 it hangs straight down from where the head narrows, at 0 it follows the scalp to the nape.
    """
    scalp, widest, outward = _scalp_table(head)
    place = scalp + loose * (widest - scalp)
    at = np.clip((_CROWN - np.maximum(level, _LOWEST)) / _STEP, 0, len(place) - 1.001)
    row, share = at.astype(int), (at % 1)[..., None]
    column = np.broadcast_to(np.arange(_COLUMNS), level.shape)

    def between(table: Array) -> Array:
        return (1 - share) * table[row, column] + share * table[row + 1, column]

    position = between(place)
    # From the temples on, hair hangs from where it leaves the scalp.
    leaves = place[_row_of(_HANGS_FROM), :, 1]
    hanging = (level < _HANGS_FROM) & (np.abs(angle) > 40)
    straight = np.where(hanging, leaves - (_HANGS_FROM - level), position[..., 1])
    position[..., 1] += loose * (straight - position[..., 1])
    return position, between(outward)


def _row_of(level: float) -> int:
    return round((_CROWN - level) / _STEP)


@cache
def _scalp_table(head: Head) -> tuple[Array, Array, Array]:
    """At regular levels and angles: the scalp, the widest point of it so far down, and its outward directions."""
    grid = (slice(SHEET_VERTICES),)
    position, normal = (array[grid].reshape(ROWS, COLUMNS, 3) for array in (head.position, head.normals))
    levels, angles = head.level[grid].reshape(ROWS, COLUMNS), head.angle[:COLUMNS]
    wanted = np.arange(_CROWN, _LOWEST - _STEP, -_STEP)
    tables = []
    for field in (position, normal):
        rows = np.stack(
            [
                np.stack([np.interp(-wanted, -levels[:, c], field[:, c, k]) for k in range(3)], axis=1)
                for c in range(COLUMNS)
            ],
            axis=1,
        )  # (levels, COLUMNS, 3)
        around = np.concatenate([angles[-1:] - 360, angles, angles[:1] + 360])
        closed = np.concatenate([rows[:, -1:], rows, rows[:, :1]], axis=1)
        target = np.arange(_COLUMNS) * 360.0 / _COLUMNS - 180.0
        column = np.clip(np.searchsorted(around, target, side="right") - 1, 0, len(around) - 2)
        share = ((target - around[column]) / (around[column + 1] - around[column]))[:, None]
        tables.append((1 - share) * closed[:, column] + share * closed[:, column + 1])
    scalp, outward = tables
    place = scalp.copy()
    side = np.abs(np.arange(_COLUMNS) * 360.0 / _COLUMNS - 180.0) > 40
    first = _row_of(60.0)
    for axis, centre in ((0, 0.0), (2, 2.0)):
        away = place[first:, side, axis] - centre
        widest = np.maximum.accumulate(np.abs(away), axis=0)
        place[first:, side, axis] = centre + np.sign(away) * widest
    turn = np.deg2rad(np.arange(_COLUMNS) * 360.0 / _COLUMNS - 180.0)
    flat = np.stack([np.sin(turn), 0 * turn, np.cos(turn)], axis=1)
    upright = rise(wanted, 60, 100)[:, None, None]
    outward = upright * outward + (1 - upright) * flat
    return scalp, place, outward / np.linalg.norm(outward, axis=-1, keepdims=True)


def _attachment(head: Head, angle: Array, level: Array) -> NDArray[np.int64]:
    """Vertices of the head's sheet beside the hair."""
    angles, levels = (values[:SHEET_VERTICES].reshape(ROWS, COLUMNS) for values in (head.angle, head.level))
    column = np.abs(angles[0] - angle.reshape(-1, 1)).argmin(axis=1)
    row = np.abs(levels.T[column] - level.reshape(-1, 1).clip(10, 150)).argmin(axis=1)
    return row * COLUMNS + column
