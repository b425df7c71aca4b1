"""The skin of the mean head: one closed sheet from the crown to the neck.

A loft of cross-sections gives the head; sums of bumps give its relief. Its rows follow the features, so that lids and
lips have edges. Eye sockets and mouth are pockets folded into the sheet: they open and close without a cut, so there
is nothing that could crack.
"""

from dataclasses import dataclass

import numpy as np

from facemodels.morphable.procedural import anatomy
from facemodels.morphable.procedural.anatomy import EYE_ACROSS, EYE_DEPTH, EYE_LEVEL, EYE_RADIUS, MOUTH_HALF_WIDTH
from facemodels.morphable.procedural.fields import Array, bump, monotone_cubic, plateau, rise, smooth_maximum

ROWS, COLUMNS = 105, 75
EYE_POCKET, MOUTH_POCKET = 2, 1
_HAIR_STARTS = (
    (0, 67),
    (12, 68),
    (26, 70),
    (38, 65),
    (47, 54),
    (56, 42),
    (63, 29),
    (70, 17),
    (77, 10),
    (85, 14),
    (94, 22),
    (106, 22),
    (116, -6),
    (126, -50),
    (150, -62),
)  # fmt: skip; degrees from the front, level in mm
_INTERVALS = (9, 9, 9, 4, 4, 5, 7, 11, 5, 6, 5, 6, 8, 6, 6, 4)  # rows between two key rows: together ROWS - 1

# level | y in the middle, half width, front z, centre z, back z, how much sides and back are lifted, squareness
_CROSS_SECTIONS = np.array([
    [160, 115.0, 3, -6, -10, -14, 0, 2.0], [148, 112.5, 23, 19, -10, -39, 0, 2.0],
    [136, 107, 39, 41, -9, -61, 0, 2.0], [120, 98, 54, 62, -8, -80, 0, 2.0], [95, 83, 67, 80, -6, -95, 0, 2.0],
    [68, 64.5, 73.5, 90.5, -4, -101, 0, 2.05], [45, 44, 76.0, 95.0, -2, -103, 0, 2.1],
    [24, 23.5, 75.5, 95.5, 0, -102, 0, 2.4], [0, 0, 74, 91.0, 2, -97, 0, 2.8], [-20, -20, 73, 89.0, 3, -92, 2, 2.8],
    [-40, -40, 70.5, 93.0, 4, -85, 8, 2.75], [-53, -53, 68, 95.0, 5, -80, 14, 2.6],
    [-72, -72, 65.5, 96.0, 6, -74, 24, 2.4],
    [-90, -90, 63.5, 94.0, 7, -70, 34, 2.3], [-104, -104, 60, 91, 7, -67, 41, 2.2],
    [-112, -112, 55.5, 87, 6, -66, 45, 2.15], [-118, -117.5, 50.5, 78, 2, -66, 46, 2.1],
    [-126, -120, 49, 63, -4, -66, 44, 2.0], [-140, -128, 48, 47, -12, -66, 36, 2.0],
    [-160, -147, 49.5, 39, -15, -67, 20, 2.0], [-200, -190, 56, 36, -18, -72, 0, 2.0],
], dtype=float)  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """The mean head's skin as a grid of `ROWS` x `COLUMNS` vertices, with its canonical coordinates.

    Attributes:
        position: In mm, shape `(ROWS, COLUMNS, 3)`.
        x: Position across, before relief, in mm.
        level: Height before the jaw's sides are lifted, in mm.
        angle: Degrees around the head, 0 at the front, positive at the subject's left.
        row: Number of the key row, with fractions between two.
        pocket: `EYE_POCKET`, `MOUTH_POCKET` or 0.
        hair: Coverage by scalp hair, 0 to 1.
    """

    position: Array
    x: Array
    level: Array
    angle: Array
    row: Array
    pocket: Array
    hair: Array


def build_sheet() -> Sheet:
    """Loft, relief, lids, lips, pockets and hair of the mean head."""
    levels, sections = _smoothed_sections()

    def section(level: Array | float, column: int) -> Array:
        return np.asarray(np.interp(level, levels, sections[:, column]))

    around = _column_angles()
    front_sine = np.sin(np.clip(around, -np.pi / 2, np.pi / 2))
    x_eye = section(0.0, 1) * front_sine
    x_mouth = section(anatomy.MOUTH_LEVEL, 1) * front_sine
    key_rows = np.concatenate([[0], np.cumsum(_INTERVALS)])
    level = monotone_cubic(key_rows, anatomy.key_curves(x_eye, x_mouth), np.arange(ROWS))
    row = np.interp(np.arange(ROWS), key_rows, np.arange(len(key_rows)))[:, None] * np.ones(COLUMNS)
    angle = np.rad2deg(around) * np.ones((ROWS, 1))
    sine, cosine = np.sin(around) * np.ones((ROWS, 1)), np.cos(around) * np.ones((ROWS, 1))

    middle, half_width, front, centre, back, lift, squareness = (section(level, column) for column in range(7))
    canonical_x = half_width * sine
    across = np.abs(canonical_x)
    x = canonical_x
    y = middle + lift * rise(np.abs(angle), 12, 100)
    squared = np.maximum(1 - np.abs(sine) ** squareness, 1e-9) ** (1 / squareness)  # a superellipse in front
    z = centre + np.where(cosine > 0, (front - centre) * squared, (centre - back) * cosine)
    facing = (cosine > 0.05).astype(float)

    outward = _radial_relief(across, level, angle, cosine)
    z = z + facing * (_frontal_relief(canonical_x, level) + nose_height(canonical_x, level)) + outward * cosine
    x = x + outward * sine
    wing = facing * plateau(across, 14.5, 5.5) * plateau(level, -42.0, 6.5)
    x = x + np.sign(x) * 1.6 * wing
    nostril = facing * bump(across, 6.6, 2.5)
    y = y + 2.0 * nostril * bump(level, -46.5, 1.8)
    z = z - 4.5 * nostril * bump(level, -45.5, 1.7)

    z = _drape_lids(z, across, level, row, facing, anatomy.lid_curves(x_eye)[2])
    z = z + facing * _lip_relief(x_mouth, row)
    y, z, pocket = _fold_pockets(y, z, x_eye, x_mouth, row, facing)

    above = level - hairline(angle)
    thickness = rise(above, -6, 26) * (1.5 + 1.5 * rise(level, 50, 110))
    away = np.stack([sine, 1.4 * rise(level, 45, 150), cosine], axis=-1)
    away = away / np.linalg.norm(away, axis=-1, keepdims=True)
    position = np.stack([x, y, z], axis=-1) + thickness[..., None] * away
    return Sheet(position, canonical_x, level, angle, row, pocket, hair=rise(above, -8, 7))


def hairline(angle: Array) -> Array:
    """Level at which short hair starts, in mm, at an angle in degrees."""
    degrees, levels = zip(*_HAIR_STARTS, strict=True)
    return np.asarray(np.interp(np.abs(angle), np.array(degrees), np.array(levels)))


def nose_height(x: Array, level: Array) -> Array:
    """How far the nose stands out of the face, in mm, at canonical positions."""
    across = np.abs(x)
    inside = np.clip(level - 0.015 * np.minimum(across, 14) ** 2 * rise(level, -28, -40), -60, 28).ravel()
    levels = [-60, -54, -50.5, -48.5, -46.5, -44, -41, -37.5, -34, -30, -24, -16, -6, 3, 12, 20, 28]
    heights = [0.0, 0.6, 2.4, 5.4, 10.0, 15.6, 20.6, 24.8, 26.6, 26.2, 23.4, 18.4, 12.0, 7.8, 5.0, 2.6, 0.0]
    widths = [9.0, 8.0, 7.2, 7.0, 7.6, 8.6, 10.0, 11.2, 11.6, 11.2, 10.2, 9.6, 9.8, 10.6, 12.0, 13.5, 15.0]
    height = monotone_cubic(levels, heights, inside).reshape(level.shape)
    width = monotone_cubic(levels, widths, inside).reshape(level.shape)
    round_back = 1.6 + 0.7 * bump(level, -37, 8)
    ridge = height * np.exp(-0.8 * (np.hypot(across, 2.6) / width) ** round_back)
    flank = 4.0 * np.exp(-((across / 15.0) ** 2.4)) * rise(level, 0, -30) * rise(level, -52.0, -46.0)
    wing = 7.5 * np.exp(-(np.hypot((across - 12.4) / 5.2, (level + 41.0) / 6.4) ** 2.3))
    groove = -1.6 * bump(across, 10.8, 2.4) * bump(level, -36.5, 3.5)
    return ridge + flank + wing + groove


def _smoothed_sections() -> tuple[Array, Array]:
    """The cross-sections every 0.5 mm, smoothed: levels, and their seven columns."""
    levels = np.arange(-200, 160.01, 0.5)
    table = monotone_cubic(_CROSS_SECTIONS[::-1, 0], _CROSS_SECTIONS[::-1, 1:], levels)
    reach = 24
    kernel = bump(np.arange(-reach, reach + 1.0), 0, 9.0)
    kernel /= kernel.sum()
    before, after = 2 * table[:1] - table[reach:0:-1], 2 * table[-1:] - table[-2 : -reach - 2 : -1]
    padded = np.concatenate([before, table, after])
    smooth = np.stack([np.convolve(column, kernel, "valid") for column in padded.T], axis=1)
    return levels, smooth


def _column_angles() -> Array:
    """Angles of the columns in radians: every 2 degrees over the face, wider towards the back."""
    steps = np.concatenate([np.full(22, 2.0), 2.0 * 1.147 ** np.arange(1, 16)])
    half = np.concatenate([[0], np.cumsum(steps)])
    half *= 150.0 / half[-1]
    return np.deg2rad(np.concatenate([-half[:0:-1], half]))


def _radial_relief(across: Array, level: Array, angle: Array, cosine: Array) -> Array:
    """Temples, cheekbones and jaw: mm away from the head's axis."""
    degrees = np.abs(angle)
    temple = -2.0 * bump(across, 68, 10) * bump(level, 16, 20) * (cosine > 0)
    cheekbone = 2.8 * bump(across, 50, 13) * bump(level, -22, 13)
    arch = 1.2 * bump(across, 66, 10) * bump(level, -14, 12) * (cosine > -0.2)
    hollow = -1.0 * bump(across, 50, 11) * bump(level, -58, 16)
    jaw_angle = 0.8 * bump(degrees, 76, 18) * bump(level, -98, 13)
    below_jaw = -1.2 * bump(degrees, 55, 26) * bump(level, -130, 9)
    return temple + cheekbone + arch + hollow + jaw_angle + below_jaw


def _frontal_relief(x: Array, level: Array) -> Array:
    """Brow, sockets, cheeks, folds, muzzle and chin: mm towards the viewer."""
    across = np.abs(x)
    forehead = 1.6 * bump(across, 26, 15) * bump(level, 56, 14)
    brow = 2.0 * plateau(across, 29, 22) * bump(level - 0.10 * (across - 27), 20.0, 6.5)
    glabella = 1.2 * bump(x, 0, 11) * bump(level, 22, 7)
    socket = -7.5 * plateau(across, 31, 18) * bump(level, -4.5, 7.5)
    inner_corner = -3.0 * bump(across, 17.5, 5.5) * bump(level, 1.0, 7.0)
    cheek = 3.2 * bump(across, 35, 13) * bump(level, -26, 9)
    tear_trough = -1.3 * bump(across - 0.8 * (-20 - level), 20, 5) * bump(level, -20, 6)
    muzzle = 7.0 * np.exp(-((across / 22) ** 2.2)) * bump(level, -66, 15)
    outside = anatomy.nasolabial_distance(across, level)
    fold = (1.2 * bump(outside, 7, 6) - 1.3 * bump(outside, 0, 3.0)) * bump(level, -54, 9)
    philtrum = (0.6 * bump(across, 4.6, 1.8) - 1.0 * bump(x, 0, 2.4)) * bump(level, -56.0, 4.0)
    chin = 8.0 * np.exp(-((across / 17.5) ** 2.6)) * bump(level, -104, 9.5)
    chin_crease = -2.2 * bump(x, 0, 17) * bump(level, -88.0, 4.2)
    mouth_corner = -1.6 * bump(across, 28, 4) * bump(level, -74, 5)
    upper = forehead + brow + glabella + socket + inner_corner + cheek + tear_trough
    return upper + muzzle + fold + philtrum + chin + chin_crease + mouth_corner


def _drape_lids(z: Array, across: Array, level: Array, row: Array, facing: Array, opening: Array) -> Array:
    """Lay the lids over the eyeball, with a crease in the upper one."""
    radius = EYE_RADIUS + anatomy.LID_THICKNESS
    square = np.minimum((across - EYE_ACROSS) ** 2 + (level - EYE_LEVEL) ** 2, (3 * radius) ** 2)
    # The sphere's own series, which goes on beyond its rim.
    ball = EYE_DEPTH + radius - (square / (2 * radius) + square**2 / (8 * radius**3) + square**3 / (16 * radius**5))
    near = (facing > 0) & (np.abs(level) < 24)
    z = np.where(near, smooth_maximum(z, ball, 1.6), z)
    return z - 1.5 * facing * opening * bump(row, anatomy.KEY_CREASE, 0.30)


def _lip_relief(x_mouth: Array, row: Array) -> Array:
    """How far the lips stand out, in mm."""
    inside = np.clip(1 - (np.abs(x_mouth) / MOUTH_HALF_WIDTH) ** 2.4, 0, 1) ** 0.6
    rows = [8.2, 8.8, 9.0, 9.3, 9.6, 9.85, 10, 11, 11.15, 11.4, 11.7, 12.0, 12.5]
    return inside * np.interp(row, rows, [0, 0.25, 0.8, 2.0, 2.6, 2.2, 1.1, 1.1, 2.5, 3.3, 2.8, 0.8, 0])


def _fold_pockets(
    y: Array, z: Array, x_eye: Array, x_mouth: Array, row: Array, facing: Array
) -> tuple[Array, Array, Array]:
    """Push the rows between the lids, and between the lips, into the head: new y and z, and which rows those are."""
    pocket = np.zeros_like(z)
    opening = anatomy.lid_curves(x_eye)[2]
    behind = np.clip(row - anatomy.KEY_UPPER_LID, 0, 1)
    eye = (facing > 0) & (behind > 0.01) & (behind < 0.99) & (opening > 1e-6)
    z = z - np.where(eye, 13.0 * opening**0.7, 0)
    pocket[eye] = EYE_POCKET
    inside = np.clip(1 - (np.abs(x_mouth) / MOUTH_HALF_WIDTH) ** 2.4, 0, 1) ** 0.6
    behind = np.clip(row - anatomy.KEY_MOUTH_TOP, 0, 1)
    mouth = (facing > 0) & (behind > 0.01) & (behind < 0.99) & (inside > 1e-6)
    steps = [0, 0.2, 0.4, 0.6, 0.8, 1]
    z = z - np.where(mouth, inside * np.interp(behind, steps, [0, 6.0, 30, 30, 6.0, 0]), 0)
    y = y + np.where(mouth, inside * np.interp(behind, steps, [0, -0.35, 9, -9, 0.35, 0]), 0)
    pocket[mouth] = MOUTH_POCKET
    return y, z, pocket
