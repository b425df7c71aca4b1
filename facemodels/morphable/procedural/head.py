"""The mean head: skin, eyeballs, ears and teeth, and the coordinates on which all fields are written.

75 x 125 = 9375 vertices: 105 rows of 75 for the skin, two eyeballs of 15 x 20, two ears of 15 x 25, two rows of teeth
of 5 x 15. Identity, expression and colour are functions of canonical coordinates that a vertex keeps whatever shape
the head takes, so that nothing slides.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from facemodels.morphable.procedural import anatomy
from facemodels.morphable.procedural.anatomy import EYE_ACROSS, EYE_DEPTH, EYE_LEVEL, EYE_RADIUS, MOUTH_LEVEL
from facemodels.morphable.procedural.fields import Array, bump, rise
from facemodels.morphable.procedural.sheet import COLUMNS, MOUTH_POCKET, ROWS, build_sheet

SKIN, EYEBALL, UPPER_TEETH, LOWER_TEETH, EAR = range(5)
SHEET_VERTICES = ROWS * COLUMNS
N_VERTICES = 9375
SHORTENING = 0.05
"""By how much the face below the eyes is shorter than its levels say."""


@dataclass(frozen=True, eq=False)
class Head:
    """The mean head with its canonical coordinates, one entry for each vertex.

    Attributes:
        position: In mm, shape `(V, 3)`.
        triangles: Vertex numbers, anticlockwise from outside, shape `(F, 3)`.
        x: Canonical position across in mm (an eyeball: its centre's).
        level: Canonical height in mm (an eyeball: its centre's).
        angle: Degrees around the head, 0 at the front.
        row: Key row of the sheet with fractions; -1 for other parts.
        part: `SKIN`, `EYEBALL`, `UPPER_TEETH`, `LOWER_TEETH` or `EAR`.
        side: -1 at the subject's right, 1 at the left, 0 in the middle.
        ring: Eyeball: degrees from the pupil's centre; ear: 0 inside to 1 outside; teeth: 0 above to 1 below.
        pocket: `sheet.EYE_POCKET`, `sheet.MOUTH_POCKET` or 0.
        hair: Coverage by scalp hair, 0 to 1.
    """

    position: Array
    triangles: NDArray[np.int64]
    x: Array
    level: Array
    angle: Array
    row: Array
    part: NDArray[np.int64]
    side: Array
    ring: Array
    pocket: Array
    hair: Array

    @cached_property
    def across(self) -> Array:
        """Canonical distance from the middle of the face, in mm."""
        return np.abs(self.x)

    @cached_property
    def degrees(self) -> Array:
        """Angle from the front, in degrees, the same on both sides."""
        return np.abs(self.angle)

    @cached_property
    def skin(self) -> Array:
        """1 on the sheet, 0 on eyeballs, teeth and ears."""
        return (self.part == SKIN).astype(float)

    @cached_property
    def eyeball(self) -> NDArray[np.bool_]:
        """The vertices of both eyeballs."""
        return self.part == EYEBALL

    @cached_property
    def ear(self) -> Array:
        """1 on the ears, 0 elsewhere."""
        return (self.part == EAR).astype(float)

    @cached_property
    def teeth(self) -> NDArray[np.bool_]:
        """The vertices of both rows of teeth."""
        return (self.part == UPPER_TEETH) | (self.part == LOWER_TEETH)

    @cached_property
    def front(self) -> Array:
        """1 on the face with eyes and teeth, fading to 0 at the ears and on the back of the head."""
        fading = np.where((self.part == SKIN) | self.eyeball, rise(self.degrees, 95, 70), 0.0)
        return np.where(self.teeth, 1.0, fading)

    @cached_property
    def face_skin(self) -> Array:
        """Where relief and motion of the skin belong: skin at the front."""
        return self.skin * self.front

    @cached_property
    def outward(self) -> Array:
        """Unit vectors away from the head's vertical axis, shape `(V, 3)`."""
        around = np.deg2rad(self.angle)
        return np.stack([np.sin(around), np.zeros_like(around), np.cos(around)], axis=1)

    @cached_property
    def eye_offset(self) -> Array:
        """Position relative to the centre of the eye on the same side, in mm, shape `(V, 3)`."""
        level, depth = np.full(N_VERTICES, EYE_LEVEL), np.full(N_VERTICES, EYE_DEPTH)
        return self.position - np.stack([self.side * EYE_ACROSS, level, depth], axis=1)

    @cached_property
    def jaw_share(self) -> Array:
        """How far a vertex follows the jaw, 0 to 1.

        It rises smoothly down the cheeks; between the mouth's corners it jumps from the upper to the lower lip.
        """
        along = self.across / anatomy.MOUTH_HALF_WIDTH
        opening = np.clip(1 - along**2.4, 0, 1) ** 0.55 * self.skin
        smooth = rise(self.level, -50, -94)
        upper = np.minimum(smooth, 0.5) * (1 - opening)
        lower = 1 - (1 - np.maximum(smooth, 0.5)) * (1 - opening)
        below = rise(self.row, 10.39, 10.61)
        in_mouth = (self.row >= anatomy.KEY_MOUTH_TOP) & (self.row <= anatomy.KEY_MOUTH_BOTTOM)
        split = np.where(in_mouth, (1 - below) * upper + below * lower, np.where(self.row < 10.5, upper, lower))
        share = np.where(self.skin > 0, np.where(opening > 0, split, smooth), 0.0)
        return np.where(self.part == LOWER_TEETH, 1.0, share)

    @cached_property
    def normals(self) -> Array:
        """Unit normals of the mean head, shape `(V, 3)`."""
        corner = self.position[self.triangles]  # (F, 3 corners, 3)
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        total = np.stack(
            [np.bincount(self.triangles.ravel(), np.repeat(normal[:, k], 3), N_VERTICES) for k in range(3)], axis=1
        )
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)

    @cached_property
    def face_vertices(self) -> NDArray[np.bool_]:
        """The vertices of the face proper: from the hairline to the chin and to before the ears, eyes and teeth."""
        skin = (self.part == SKIN) & (self.degrees < 82) & (self.row <= anatomy.KEY_CHIN + 0.2) & (self.hair < 0.5)
        return skin | self.eyeball | self.teeth | (self.pocket == MOUTH_POCKET)


def build_head() -> Head:
    """Put the parts of the mean head together."""
    sheet = build_sheet()
    parts = [
        _Part(sheet.position, SKIN, sheet.x, sheet.level, sheet.angle, sheet.row, np.sign(sheet.x), 0.0, sheet.pocket,
              sheet.hair)
    ]  # fmt: skip
    triangles = [_grid_triangles(ROWS, COLUMNS, closed=True), _fan_triangles(COLUMNS)]
    start = SHEET_VERTICES
    for side in (-1, 1):
        position, polar = _eyeball(side)
        parts.append(_Part(position, EYEBALL, side * EYE_ACROSS, EYE_LEVEL, side * 25.0, -1, side, polar))
        triangles += [_grid_triangles(15, 20, closed=True) + start, _fan_triangles(20) + start]
        start += 300
    for side in (-1, 1):
        position, ring = _ear(side)
        parts.append(_Part(position, EAR, side * 73.0, -10.0, side * 95.0, -1, side, ring))
        turn = slice(None, None, side)  # the right ear is a mirror image: turn its triangles round
        triangles += [_grid_triangles(15, 25, closed=True)[:, turn] + start, _fan_triangles(25)[:, turn] + start]
        start += 375
    for part in (UPPER_TEETH, LOWER_TEETH):
        position, down = _teeth(part)
        x = position[..., 0]
        parts.append(_Part(position, part, x, MOUTH_LEVEL, 0.0, -1, np.sign(x), down))
        triangles.append(_grid_triangles(5, 15, closed=False) + start)
        start += 75
    columns = {
        name: np.concatenate([part.column(name) for part in parts])
        for name in ("x", "level", "angle", "row", "side", "ring", "pocket", "hair")
    }
    position = np.concatenate([part.position.reshape(-1, 3) for part in parts])
    position[:, 1] += SHORTENING * np.maximum(-15 - position[:, 1], 0)
    return Head(
        position=position,
        triangles=np.concatenate(triangles).astype(np.int64),
        part=np.concatenate([part.column("part") for part in parts]).astype(np.int64),
        **columns,
    )


@dataclass(frozen=True)
class _Part:
    """One grid of vertices; its coordinates are grids or single numbers."""

    position: Array
    part: int
    x: Array | float
    level: Array | float
    angle: Array | float
    row: Array | float
    side: Array | float
    ring: Array | float
    pocket: Array | float = 0.0
    hair: Array | float = 0.0

    def column(self, name: str) -> Array:
        return np.broadcast_to(np.asarray(getattr(self, name), dtype=float), self.position.shape[:-1]).ravel()


def _eyeball(side: int) -> tuple[Array, Array]:
    """15 rings of 20 vertices around the gaze, with a slight bulge at the cornea: positions, degrees from the gaze."""
    degrees = np.array([4, 8, 10.5, 12.5, 17, 22, 25.5, 28, 31, 37, 45, 55, 68, 82, 98])
    polar, around = np.meshgrid(degrees, np.arange(20) / 20 * 2 * np.pi, indexing="ij")
    radius = EYE_RADIUS + 0.3 * bump(polar, 0, 18) - 0.9 * rise(polar, 33, 55)  # smaller where lids always cover it
    tilt = np.deg2rad(polar)
    position = np.stack([np.sin(tilt) * np.cos(around), np.sin(tilt) * np.sin(around), np.cos(tilt)], axis=-1)
    return radius[..., None] * position + [side * EYE_ACROSS, EYE_LEVEL, EYE_DEPTH], polar


def _ear(side: int) -> tuple[Array, Array]:
    """15 rings of 25 vertices from the ear canal over the rim into the head: positions, ring from 0 to 1."""
    ring, around = np.meshgrid(np.linspace(0, 1, 15), np.arange(25) / 25 * 2 * np.pi, indexing="ij")
    reach_back = np.where(np.cos(around) > 0, 17.5, 12.0) * (1 + 0.18 * np.sin(around))
    reach_up = np.where(np.sin(around) > 0, 28.5, 31.0)
    size = np.interp(ring, [0, 0.10, 0.30, 0.42, 0.56, 0.66, 0.74, 1], [0.06, 0.25, 0.52, 0.68, 0.86, 1, 0.98, 0.74])
    back, up = size * reach_back * np.cos(around), size * reach_up * np.sin(around)
    height = np.interp(
        ring, [0, 0.10, 0.30, 0.42, 0.52, 0.60, 0.66, 0.74, 1.0], [-6, -6, -3.0, 1.2, -0.8, 1.6, 1.6, -1.8, -18]
    )
    lobe = rise(up, -14, -26) * (ring < 0.6)
    height = height * (1 - lobe) - lobe
    height = height - np.where(ring > 0.3, 3.0, 0.0) * rise(back, -3, -12)  # the front edge melts into the cheek
    back, up = back + 0.16 * up, up - 0.05 * back
    flare = np.deg2rad(17)
    backwards = np.array([np.sin(flare), 0, -np.cos(flare)])
    outwards = np.array([np.cos(flare), 0, np.sin(flare)])
    position = back[..., None] * backwards + up[..., None] * [0, 1.0, 0] + height[..., None] * outwards
    return (position + np.array([76.5, -11.0, -10.0])) * [side, 1, 1], ring


def _teeth(part: int) -> tuple[Array, Array]:
    """5 rows of 15 vertices on the dental arch: positions, 0 at the upper edge to 1 at the lower."""
    down, along = np.meshgrid(np.linspace(0, 1, 5), np.linspace(-1, 1, 15), indexing="ij")
    x = 22.5 * np.sin(1.25 * along)
    z = 84.0 - 27 * (1 - np.cos(1.25 * along)) - 2.0 * (down - 0.6) ** 2
    if part == UPPER_TEETH:
        return np.stack([x, MOUTH_LEVEL + 10.0 - 12.3 * down, z], axis=-1), down
    return np.stack([x, MOUTH_LEVEL - 1.5 - 9.0 * down, z - 2.5], axis=-1), down


def _grid_triangles(rows: int, columns: int, *, closed: bool) -> NDArray[np.int64]:
    """Two triangles for each cell of a grid whose rows run down and whose columns run to the right."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    i, j = i.ravel(), j.ravel()
    after = (j + 1) % columns
    here, right, below, diagonal = (
        i * columns + j,
        i * columns + after,
        (i + 1) * columns + j,
        (i + 1) * columns + after,
    )
    return np.concatenate([np.stack([here, below, right], axis=1), np.stack([right, below, diagonal], axis=1)])


def _fan_triangles(count: int) -> NDArray[np.int64]:
    """Triangles that close a ring of the first `count` vertices."""
    ring = np.arange(count)
    return np.stack([np.zeros(count - 2, dtype=np.int64), ring[1:-1], ring[2:]], axis=1)
