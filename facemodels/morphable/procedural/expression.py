"""What a face does: 28 named components, about one muscle action each.

One standard deviation is about 60 % of the full action. Left and right are the subject's.
"""

import numpy as np

from facemodels.morphable.procedural import anatomy
from facemodels.morphable.procedural.anatomy import (
    EYE_ACROSS,
    EYE_DEPTH,
    EYE_LEVEL,
    EYE_RADIUS,
    LID_THICKNESS,
    MOUTH_HALF_WIDTH,
)
from facemodels.morphable.procedural.fields import Array, bump, plateau, rise
from facemodels.morphable.procedural.head import LOWER_TEETH, SKIN, Head
from facemodels.morphable.procedural.identity import Components, displacement

EXPRESSIONS = (
    "jaw_open", "jaw_forward", "jaw_sideways", "smile_left", "smile_right", "frown_left", "frown_right",
    "stretch_left", "stretch_right", "lip_pucker", "lip_funnel", "lip_press", "mouth_sideways", "upper_lip_raise",
    "lower_lip_depress", "chin_raise", "cheek_puff", "cheek_raise_left", "cheek_raise_right", "nose_wrinkle",
    "brow_inner_raise", "brow_outer_raise_left", "brow_outer_raise_right", "brow_lower_left", "brow_lower_right",
    "eye_close_left", "eye_close_right", "eye_wide",
)  # fmt: skip
JAW_DEGREES = 15.0
"""How far `jaw_open` turns the jaw at full action."""
FULL_ACTION = 0.62
"""Share of the full action in one standard deviation, for jaw and lids."""

SIDES = (("left", 1), ("right", -1))


def expression_components(head: Head) -> Array:
    """All expression components: displacements in mm per standard deviation, shape `(28, V, 3)`."""
    components = _jaw(head) | _lips(head) | _cheeks_and_nose(head) | _brows(head) | _lids(head)
    for name, side in SIDES:
        components |= _mouth_corner(head, name, side)
    return np.stack([components[name] for name in EXPRESSIONS])


def _jaw(head: Head) -> Components:
    _, y, z = head.position.T
    share = head.jaw_share * rise(head.degrees, 100, 62) * rise(head.level, -165, -114)
    share = np.where(head.part == LOWER_TEETH, 1.0, share)[:, None]
    turn = np.deg2rad(JAW_DEGREES)
    above, before = y + 18.0, z - 4.0  # relative to the joint
    rotation = displacement(
        up=(np.cos(turn) - 1) * above - np.sin(turn) * before,
        forward=np.sin(turn) * above + (np.cos(turn) - 1) * before,
    )
    narrowing = 0.06 * head.position[:, 0] * bump(head.across, 30, 14) * bump(head.level, -72, 22) * head.face_skin
    return {
        "jaw_open": FULL_ACTION * share * rotation - displacement(right=narrowing),
        "jaw_forward": share * [0, 0, 3.5],
        "jaw_sideways": share * [4.0, 0, 0],
    }


def _mouth_corner(head: Head, name: str, side: int) -> Components:
    """Smile, frown and stretch of one side."""
    level, skin, outward = head.level, head.face_skin, side * head.x
    corner = bump(outward, 27, 12) * bump(level, -73, 11) * skin
    wide = rise(outward, -4, 24) * bump(outward, 26, 15) * bump(level, -73, 13) * skin
    cheek = bump(outward, 37, 12) * bump(level, -40, 13) * skin
    droop = bump(outward, 27, 11) * bump(level, -75, 11) * skin
    return {
        f"smile_{name}": displacement(
            side * (5.2 * wide + 1.2 * cheek), 5.8 * corner + 2.2 * cheek, 2.8 * cheek - 2.2 * wide
        ),
        f"frown_{name}": displacement(side * 0.8 * wide, -4.6 * droop, -0.8 * corner),
        f"stretch_{name}": displacement(side * 5.2 * wide, -1.2 * corner, -2.8 * wide),
    }


def _lips(head: Head) -> Components:
    x, level, across, row, skin = head.x, head.level, head.across, head.row, head.face_skin
    mouth = bump(level, -73, 13) * skin
    pull = np.tanh(x / 16.0) * bump(across, 16, 16)
    middle = np.exp(-((across / 20) ** 2)) * bump(level, -72, 10) * skin
    along = np.clip(1.05 - (across / MOUTH_HALF_WIDTH) ** 2, 0, 1) * skin
    upper = along * np.interp(row, [7.9, 9, 10, 10.4, 10.5], [0, 0.55, 1, 0.6, 0])
    lower = along * np.interp(row, [10.5, 10.6, 11, 12, 13.2], [0, 0.6, 1, 0.75, 0])
    inside = rise(across / MOUTH_HALF_WIDTH, 1.06, 0.86) * skin
    upper_border = inside * np.interp(row, [8, 9, 9.6, 10], [0, 1, 0.5, 0])
    lower_border = inside * np.interp(row, [11, 11.4, 12, 13], [0, 0.5, 1, 0])
    above_mouth = bump(across, 20, 8) * bump(level, -48, 9) * skin * (1 - head.jaw_share)
    chin = bump(across, 0, 18) * skin
    return {
        "lip_pucker": displacement(
            -5.4 * pull * mouth, (level + 72) * 0.05 * middle, 5.4 * middle - 0.8 * bump(across, 26, 8) * mouth
        ),
        "lip_funnel": displacement(-2.0 * pull * mouth, 3.6 * upper - 4.2 * lower, 2.8 * middle),
        "lip_press": displacement(
            1.6 * pull * mouth,
            2.3 * lower_border - 1.9 * upper_border + 1.2 * chin * bump(level, -96, 8),
            -1.6 * middle - 1.4 * bump(across, 29, 6) * mouth + 0.8 * chin * bump(level, -92, 7),
        ),
        "mouth_sideways": displacement(right=4.2 * bump(x, 0, 27) * bump(level, -74, 15) * skin),
        "upper_lip_raise": displacement(up=3.8 * upper + 1.6 * above_mouth, forward=0.8 * upper + 0.8 * above_mouth),
        "lower_lip_depress": displacement(1.2 * pull * mouth * head.jaw_share, -3.8 * lower, 0.4 * lower),
        "chin_raise": displacement(
            up=2.8 * chin * bump(level, -98, 10) * head.jaw_share + 1.6 * lower,
            forward=1.4 * chin * bump(level, -95, 8) + 1.2 * lower,
        ),
    }


def _cheeks_and_nose(head: Head) -> Components:
    x, level, across, row, skin = head.x, head.level, head.across, head.row, head.face_skin
    puffed = 6.0 * bump(across, 43, 12) * bump(level, -64, 15) * skin
    around_mouth = bump(x, 0, 22) * (bump(level, -60, 6) + bump(level, -86, 6)) * skin
    lips = np.clip(1.05 - (across / MOUTH_HALF_WIDTH) ** 2, 0, 1) * skin
    upper_lip = lips * np.interp(row, [7.9, 9, 10, 10.4, 10.5], [0, 0.55, 1, 0.6, 0])
    beside_nose = bump(across, 20, 8) * bump(level, -48, 9) * skin * (1 - head.jaw_share)
    wings, root = bump(across, 15, 6) * bump(level, -40, 9) * skin, bump(across, 8, 10) * bump(level, 21, 7) * skin
    bridge = bump(across, 9, 4) * bump(level, -12, 9) * skin
    components = {
        "cheek_puff": head.outward * puffed[:, None] + displacement(forward=2.0 * around_mouth),
        "nose_wrinkle": displacement(
            up=2.6 * wings - 2.4 * root + 1.6 * upper_lip, forward=1.4 * bridge + 1.4 * beside_nose
        ),
    }
    for name, side in SIDES:
        outward = side * x
        cheek = bump(level, -24, 10) * skin
        below_eye = np.interp(row, [4.74, 4.75, 5, 5.6, 6.2], [0, 0, 2.2, 2.0, 0])
        lid = below_eye * np.clip(1 - ((outward - 31.5) / 17) ** 2, 0, 1) * skin
        components[f"cheek_raise_{name}"] = displacement(
            up=3.4 * bump(outward, 38, 13) * cheek + 0.55 * lid, forward=2.4 * bump(outward, 40, 13) * cheek
        )
    return components


def _brows(head: Head) -> Components:
    level, across, skin = head.level, head.across, head.face_skin
    inner = bump(level, 27, 10) * skin
    components = {
        "brow_inner_raise": displacement(
            up=4.4 * plateau(across, 0, 19) * inner, forward=0.5 * bump(head.x, 0, 16) * inner
        )
    }
    for name, side in SIDES:
        outward, brow = side * head.x, bump(level, 25, 8.0) * skin
        outer = bump(outward, 41, 11) * brow
        half = rise(outward, -6, 10) * brow
        down = plateau(outward, 23, 16) * half
        components[f"brow_outer_raise_{name}"] = displacement(up=4.6 * outer, forward=0.6 * outer)
        components[f"brow_lower_{name}"] = displacement(
            right=-side * 2.0 * bump(outward, 16, 9) * half,
            up=-(2.8 + 1.8 * bump(outward, 12, 9)) * down,
            forward=1.2 * down,
        )
    return components


def _lids(head: Head) -> Components:
    brow = 0.7 * plateau(head.across, 30, 22) * bump(head.level, 25, 8) * head.face_skin
    widened = _lid_motion(head, 1, -0.34) + _lid_motion(head, -1, -0.34)
    closed = {f"eye_close_{name}": FULL_ACTION * _lid_motion(head, side, 1.0) for name, side in SIDES}
    return closed | {"eye_wide": widened + displacement(up=brow)}


def _lid_motion(head: Head, side: int, amount: float) -> Array:
    """Lids of one eye moving over the eyeball: 1 shuts the eye, below 0 opens it wider."""
    across, row = head.across, head.row
    upper_margin, lower_margin, opening = anatomy.lid_curves(across)
    radius = EYE_RADIUS + LID_THICKNESS + 0.6
    upper = np.interp(row, [2.15, 3.0, 3.5, 4.0, 4.25, 4.26], [0, 0.42, 0.76, 1.0, 0.0, 0.0])
    lower = np.interp(row, [4.74, 4.75, 5.0, 5.5, 6.0], [0, 0, 1.0, 0.5, 0])
    lids = (head.part == SKIN) & (head.side == side) & (head.degrees < 70) & (opening > 0) & (upper + lower > 0)
    travel = upper_margin - lower_margin
    up = np.where(lids, (0.10 * lower - 0.90 * upper) * travel * amount, 0.0)
    before = head.position[:, 1]

    def on_ball(y: Array) -> Array:
        square = radius**2 - (across - EYE_ACROSS) ** 2 - (y - EYE_LEVEL) ** 2
        return EYE_DEPTH + np.sqrt(np.maximum(square, 0.0))

    if amount > 0:  # lift whatever would sink into the eyeball
        forward = np.clip(on_ball(before + up) - head.position[:, 2], 0.0, 6.0)
    else:  # follow the eyeball back
        forward = np.clip(on_ball(before + up) - on_ball(before), -2.0, 0.0)
    return displacement(up=up, forward=np.where(lids, forward, 0.0))
