"""What makes one head differ from another: 59 named components and 98 smooth fields, together 157.

Each named component is what +1 standard deviation does, in mm. The smooth fields carry what no name covers.
"""

import numpy as np

from facemodels.morphable.procedural import anatomy
from facemodels.morphable.procedural.anatomy import EYE_RADIUS, LID_THICKNESS, MOUTH_HALF_WIDTH, MOUTH_LEVEL
from facemodels.morphable.procedural.fields import Array, bump, plateau, rise
from facemodels.morphable.procedural.head import N_VERTICES, Head
from facemodels.morphable.procedural.smooth import face_region, smooth_functions

N_IDENTITY = 157
NAMED_GAIN = 0.85
"""Standard deviations of the named components, as a share of the sizes written below."""
SMOOTH_RMS = 0.6
"""Root mean square over the face, in mm, of the broadest smooth field."""

Components = dict[str, Array]


def identity_components(head: Head) -> tuple[Array, tuple[str, ...]]:
    """All identity components: displacements in mm per standard deviation, `(157, V, 3)`, and their names."""
    named = named_components(head)
    rest = N_IDENTITY - len(named)
    components = np.concatenate([NAMED_GAIN * np.stack(list(named.values())), _smooth_components(head, rest)])
    return components, (*named, *(f"smooth_{k:03d}" for k in range(rest)))


def named_components(head: Head) -> Components:
    """The named components, each of shape `(V, 3)` in mm."""
    components: Components = {}
    for group in (
        _whole_head,
        _jaw_and_chin,
        _cheeks,
        _nose,
        _eyes,
        _brow_and_forehead,
        _mouth,
        _ears_and_hair,
        _asymmetry,
    ):
        components |= group(head)
    return components


def displacement(right: Array | float = 0.0, up: Array | float = 0.0, forward: Array | float = 0.0) -> Array:
    """A field of displacements in mm, shape `(V, 3)`, from its three coordinates."""
    columns = [np.broadcast_to(np.asarray(value, dtype=float), (N_VERTICES,)) for value in (right, up, forward)]
    return np.stack(columns, axis=1)


def _side(head: Head) -> Array:
    """Which way is outside: -1 to 1, smooth across the middle."""
    return np.tanh(head.position[:, 0] / 20.0)


def _whole_head(head: Head) -> Components:
    x, _, z = head.position.T
    level, degrees = head.level, head.degrees
    inner = head.eyeball | head.teeth
    outer = np.where(inner, 0.0, 1.0)
    above_neck = rise(level, -185, -122)
    socket = 1 - np.exp(-(np.hypot((head.across - anatomy.EYE_ACROSS) / 22, level / 15) ** 4))
    midface = rise(level, -8, -52) * rise(degrees, 120, 70) * (1 - 0.6 * rise(level, -80, -114))
    return {
        "head_width": displacement(right=x * 4 / 75),
        "head_depth": displacement(forward=z * 5 / 95),
        "cranium_height": displacement(up=5 * rise(level, 20, 110)),
        "face_length": displacement(up=-5 * rise(level, -5, -112) * rise(degrees, 150, 60) * above_neck),
        "midface_length": displacement(up=-2.5 * midface * above_neck),
        "cheekbone_width": _outward(head, 1.9 * bump(degrees, 55, 28) * bump(level, -28, 28) * outer * socket),
        "neck_width": _outward(head, 3 * rise(level, -112, -135) * outer),
        "forehead_slope": displacement(forward=-4 * rise(level, 22, 90) * head.front * outer),
    }


def _outward(head: Head, amount: Array) -> Array:
    return head.outward * amount[:, None]


def _jaw_and_chin(head: Head) -> Components:
    level, degrees, across, skin, side = head.level, head.degrees, head.across, head.face_skin, _side(head)
    chin_square = displacement(
        right=side * 3 * bump(across, 17, 12) * bump(level, -107, 11) * skin,
        forward=1.5 * bump(across, 18, 8) * bump(level, -106, 9) * skin,
    )
    double_chin = displacement(
        up=-3.5 * bump(level, -127, 8) * bump(degrees, 0, 50) * head.skin * head.front,
        forward=2 * bump(level, -130, 9) * bump(degrees, 0, 50) * skin,
    )
    maxilla = rise(level, -38, -58) * rise(level, -94, -72) * bump(across, 0, 24) * head.front
    return {
        "jaw_width": displacement(right=side * 3.5 * bump(degrees, 65, 30) * bump(level, -92, 24) * skin),
        "jaw_angle": displacement(up=-4 * bump(degrees, 85, 22) * bump(level, -100, 22) * head.skin),
        "chin_length": displacement(
            up=-3.5 * rise(level, -84, -112) * bump(across, 0, 32) * rise(level, -200, -125) * skin
        ),
        "chin_protrusion": displacement(
            up=-1.0 * bump(across, 0, 15) * bump(level, -110, 9) * skin,
            forward=3 * bump(across, 0, 16) * bump(level, -107, 10) * skin,
        ),
        "chin_width": chin_square,
        "chin_cleft": displacement(forward=-0.5 * bump(head.x, 0, 4) * bump(level, -105, 7) * skin),
        "muzzle_protrusion": displacement(forward=2.2 * maxilla),
        "double_chin": double_chin,
    }


def _cheeks(head: Head) -> Components:
    level, across, skin = head.level, head.across, head.face_skin
    outside = anatomy.nasolabial_distance(across, level)
    fold = bump(outside, 0, 3.2) - bump(outside, 8, 6)
    return {
        "cheekbone_protrusion": _outward(head, 2.2 * bump(across, 48, 13) * bump(level, -22, 11) * skin),
        "cheek_fullness": _outward(head, 3.2 * bump(across, 58, 14) * bump(level, -50, 24) * skin),
        "temple_fullness": _outward(head, 2 * bump(head.degrees, 62, 15) * bump(level, 22, 20) * head.skin),
        "nasolabial_depth": displacement(forward=-0.9 * fold * bump(level, -54, 10) * skin),
    }


def _nose(head: Head) -> Components:
    level, across, skin, side = head.level, head.across, head.face_skin, _side(head)
    tip = rise(level, 8, -32) * rise(level, -54, -45)
    return {
        "nose_length": displacement(up=-2.5 * bump(level, -41, 13) * bump(across, 0, 19) * skin),
        "nose_protrusion": displacement(forward=2.5 * tip * bump(across, 0, 10) * skin),
        "nose_width": displacement(right=side * 1.8 * plateau(across, 14, 12) * bump(level, -42, 8) * skin),
        "nose_bridge_height": displacement(forward=2.0 * bump(level, -5, 13) * bump(across, 0, 8) * skin),
        "nose_bridge_width": displacement(right=side * 1.3 * bump(across, 9, 6) * bump(level, -11, 15) * skin),
        "nose_hump": displacement(forward=1.6 * bump(level, -16, 8) * bump(across, 0, 6.5) * skin),
        "nose_tip_upturn": displacement(
            up=2.2 * bump(level, -37, 7) * bump(across, 0, 8) * skin,
            forward=0.6 * bump(level, -42, 5) * bump(across, 0, 8) * skin,
        ),
        "nose_tip_bulb": displacement(
            right=side * 1.4 * bump(level, -36, 6) * bump(across, 7, 4.5) * skin,
            forward=0.9 * bump(level, -35, 5.5) * bump(across, 6, 4) * skin,
        ),
        "nostril_flare": displacement(forward=1.3 * bump(level, -42, 5) * bump(across, 14, 5) * skin),
    }


def _eye_region(head: Head) -> Array:
    """1 on eyeball, lids and socket, which move together."""
    around = head.face_skin * plateau(head.across, 31.5, 24) * plateau(head.level, 0, 16.5)
    return np.where(head.eyeball, 1.0, around) * head.front


def _eyes(head: Head) -> Components:
    level, across, row, skin = head.level, head.across, head.row, head.face_skin
    region, offset = _eye_region(head), head.eye_offset
    side = np.where(head.eyeball, head.side, np.sign(head.x))
    along = np.clip(1 - ((across - 31.5) / 16) ** 2, 0, 1) * skin
    upper = along * np.interp(row, [2.3, 3, 3.6, 4, 4.25, 4.26], [0, 0.45, 0.85, 1, 0, 0])
    lower = along * np.interp(row, [4.74, 4.75, 5, 5.4, 6], [0, 0, 1, 0.6, 0])
    depth = np.where(head.eyeball, offset[:, 2], np.clip(offset[:, 2] + 1.0, 0, EYE_RADIUS + LID_THICKNESS + 1.0))
    lid_fold = bump(row, 2.75, 0.35) * plateau(across, 33, 17) * skin
    return {
        "eye_spacing": displacement(right=side * 1.7 * region),
        "eye_height": displacement(up=1.8 * region),
        "eye_depth": displacement(forward=-1.5 * region),
        "eye_size": 0.05 * displacement(offset[:, 0], offset[:, 1], depth) * region[:, None],
        "eye_opening": displacement(
            right=0.5 * side * np.tanh((across - 31.5) / 8) * np.maximum(upper, lower), up=0.6 * upper - 0.35 * lower
        ),
        "eye_tilt": displacement(up=1.4 * (across - 31.5) / 15 * np.where(head.eyeball, 0.0, region)),
        "eyelid_fold": displacement(up=-0.7 * lid_fold, forward=1.0 * lid_fold),
        "eye_bags": displacement(forward=0.9 * bump(level, -11, 3.5) * bump(across, 30, 10) * skin),
    }


def _brow_and_forehead(head: Head) -> Components:
    level, across, skin = head.level, head.across, head.face_skin
    arch = (1.9 * bump(across, 31, 8) - 0.8 * bump(across, 13, 6) - 1.1 * bump(across, 48, 6)) * bump(level, 24, 7)
    hairline = bump(level, 66, 16) * rise(head.degrees, 80, 40) * head.skin
    return {
        "brow_ridge": displacement(forward=1.8 * plateau(across, 26, 20) * bump(level, 22, 7) * skin),
        "brow_height": displacement(up=2.2 * plateau(across, 28, 26) * bump(level, 23, 9) * skin),
        "brow_arch": displacement(up=arch * skin),
        "forehead_roundness": displacement(forward=2.2 * bump(level, 52, 17) * bump(across, 0, 34) * skin),
        "hairline_height": displacement(up=5 * hairline),
    }


def _mouth(head: Head) -> Components:
    x, level, across, row, skin = head.x, head.level, head.across, head.row, head.face_skin
    whole = np.exp(-((np.abs(level - MOUTH_LEVEL) / 17) ** 3)) * head.front
    broad = np.exp(-((np.abs(level - MOUTH_LEVEL) / 22) ** 3)) * head.front
    lips = skin * np.clip(1.15 - (across / MOUTH_HALF_WIDTH) ** 2, 0, 1)
    upper = lips * np.interp(row, [8, 9, 9.5, 10, 10.01], [0, 1, 0.7, 0, 0])
    upper_roll = lips * np.interp(row, [8.6, 9.5, 10, 10.3], [0, 1, 0.8, 0])
    lower = lips * np.interp(row, [10.99, 11, 11.5, 12, 13], [0, 0, 0.6, 1, 0])
    lower_roll = lips * np.interp(row, [10.7, 11, 11.5, 12.4], [0, 0.8, 1, 0])
    philtrum = (bump(x, 0, 2.5) - bump(across, 5, 2)) * bump(level, -56, 5)
    return {
        "mouth_width": displacement(
            right=2.4 * np.tanh(x / 16.0) * broad * bump(across, 22, 20) * head.skin,
            forward=1.0 * bump(across, 26, 10) * broad * skin,
        ),
        "mouth_height": displacement(up=1.8 * whole * plateau(across, 0, 40)),
        "upper_lip_fullness": displacement(up=1.3 * upper, forward=1.1 * upper_roll),
        "lower_lip_fullness": displacement(up=-1.2 * lower, forward=1.8 * lower_roll),
        "overbite": displacement(
            forward=bump(across, 0, 20) * (1.0 * bump(level, -62, 9) - 0.7 * bump(level, -84, 9)) * skin
        ),
        "mouth_curvature": displacement(
            up=(0.8 * bump(across, 27, 8) - 0.7 * bump(across, 0, 12)) * bump(level, -73, 11) * skin
        ),
        "philtrum_depth": displacement(forward=-0.6 * philtrum * skin),
    }


def _ears_and_hair(head: Head) -> Components:
    ear = head.ear
    offset = head.position - displacement(head.side * 80.0, -11.0, -12.0)
    rim = np.clip(2 - offset[:, 2], 0, 40)
    volume = (
        head.hair[:, None] * head.normals * [1, 1, 0]
        + head.normals * [0, 0, 1] * (head.hair * rise(head.level, -20, 40))[:, None]
    )
    return {
        "ear_size": offset * [0.07, 0.09, 0.07] * ear[:, None],
        "ear_protrusion": displacement(right=head.side * 0.10 * rim * ear),
        "ear_height": displacement(up=2.5 * ear),
        "hair_volume": 3 * volume,
    }


def _asymmetry(head: Head) -> Components:
    x, level, across, skin = head.x, head.level, head.across, head.face_skin
    side = np.where(head.eyeball, head.side, np.sign(x))
    mouth = np.exp(-((np.abs(level - MOUTH_LEVEL) / 17) ** 3)) * head.front
    jaw = bump(head.degrees, 62, 24) * bump(level, -92, 20) * skin
    return {
        "asymmetric_nose": displacement(right=1.0 * bump(level, -38, 14) * bump(across, 0, 14) * skin),
        "asymmetric_jaw": displacement(right=1.6 * jaw, up=-1.2 * _side(head) * jaw),
        "asymmetric_eyes": displacement(up=0.5 * side * _eye_region(head)),
        "asymmetric_brows": displacement(up=0.7 * side * plateau(across, 28, 24) * bump(level, 24, 7) * skin),
        "asymmetric_mouth": displacement(up=0.6 * np.tanh(x / 20) * mouth),
        "asymmetric_cheeks": _outward(head, 1.2 * np.tanh(x / 20) * bump(across, 47, 16) * bump(level, -45, 26) * skin),
    }


def _smooth_components(head: Head, count: int) -> Array:
    """Smooth fields in x, y and z, orthonormal among themselves, with falling amplitude; shape `(count, V, 3)`.

    They are not made orthogonal to the named components: taking local bumps out of a smooth field carves notches.
    """
    functions = -(-count // 3)
    fields = smooth_functions(head, functions + 3)[:, 3:]  # the broadest three only move the head as a whole
    orthonormal, triangular = np.linalg.qr(fields)
    orthonormal *= np.sign(np.diag(triangular))
    target = SMOOTH_RMS * np.linspace(1, 0.12, functions) ** 1.3
    on_face = np.sqrt((orthonormal[face_region(head)] ** 2).mean(axis=0))
    everywhere = np.sqrt((orthonormal**2).mean(axis=0))
    orthonormal *= np.minimum(target / on_face, 4 * target / everywhere)
    components = np.einsum("vf,xy->fxvy", orthonormal, np.eye(3)).reshape(-1, N_VERTICES, 3)
    return components[:count]
