"""Sizes of the mean head, in mm, and the curves that eyelids and lips follow.

Heights are levels above the line through the eyes; across is measured from the middle of the face.
"""

import numpy as np

from facemodels.morphable.procedural.fields import Array, bump, rise

EYE_ACROSS, EYE_LEVEL, EYE_DEPTH, EYE_RADIUS = 31.5, 0.0, 69.5, 13.2
LID_THICKNESS = 1.4
INNER_CORNER, OUTER_CORNER = 16.5, 46.5
MOUTH_LEVEL, MOUTH_HALF_WIDTH = -72.0, 25.5

KEY_CREASE, KEY_UPPER_LID, KEY_LOWER_LID = 3, 4, 5
KEY_UPPER_LIP, KEY_MOUTH_TOP, KEY_MOUTH_BOTTOM, KEY_LOWER_LIP = 9, 10, 11, 12
KEY_CHIN = 14
"""Key rows: rows of the head's sheet that follow a feature; in between, positions are fractions."""


def lid_curves(x: Array) -> tuple[Array, Array, Array]:
    """Levels of the upper and lower lid margin, and the opening from 0 at the corners to 1, at `x`."""
    along = (np.abs(x) - INNER_CORNER) / (OUTER_CORNER - INNER_CORNER)
    inside = np.clip(along, 0, 1)
    axis = -1.6 + 3.0 * inside  # the outer corner is a little higher
    opening = np.clip(4 * inside * (1 - inside), 0, 1)
    fan = 0.7 + 1.2 * rise(np.abs(along - 0.5), 0.5, 0.9)  # rows spread beyond the corners
    upper = axis + fan + 4.7 * opening**0.75 * (1 + 0.25 * (0.5 - inside))
    lower = axis - fan - 3.9 * opening**0.8 * (1 - 0.25 * (0.5 - inside))
    return upper, lower, opening


def lip_curves(x: Array) -> tuple[Array, Array, Array, Array]:
    """Levels of the upper lip's border, both sides of the mouth line, and the lower lip's border, at `x`."""
    across = np.abs(x)
    along = np.clip(across / MOUTH_HALF_WIDTH, 0, 1.6)
    beyond = rise(along, 0.9, 1.5)
    line = MOUTH_LEVEL - 0.5 * bump(across, 9, 6) + 1.3 * rise(along, 0.5, 1.05)
    gap = 0.04 + 1.7 * rise(along, 1.0, 1.5)
    fullness = np.sqrt(np.clip(1 - along**2.2, 0, 1))
    bow = 1.5 * bump(across, 5.0, 3.6) - 1.2 * bump(x, 0, 2.6)
    top = line + gap + 1.2 + 6.9 * fullness**0.9 + bow + 1.5 * beyond
    bottom = line - gap - 1.2 - 7.6 * fullness**0.8 - 1.5 * beyond
    return top, line + gap, line - gap, bottom


def key_curves(x_eye: Array, x_mouth: Array) -> Array:
    """Levels of the 17 key rows at each column, from the crown to the neck, shape `(17, columns)`."""
    upper_lid, lower_lid, opening = lid_curves(x_eye)
    crease = np.maximum(upper_lid + 2.6 + 1.0 * opening, 5.0)
    top, mouth_top, mouth_bottom, bottom = lip_curves(x_mouth)
    forehead, nose, neck = [160, 68, 29], [-17, -34, -49.0], [-104, -116, -130, -200]
    curves = [*forehead, crease, upper_lid, lower_lid, *nose, top, mouth_top, mouth_bottom, bottom, *neck]
    return np.stack([np.broadcast_to(curve, x_eye.shape) for curve in curves])


def nasolabial_distance(across: Array, level: Array) -> Array:
    """How far outside of the fold from the nose wing to the mouth corner a point lies, in mm."""
    return across - (18 + 0.55 * (-43 - level))
