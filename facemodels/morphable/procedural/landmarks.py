"""The 68 landmarks of iBUG's annotation on the procedural head."""

import numpy as np
from numpy.typing import NDArray

from facemodels.morphable.procedural.anatomy import INNER_CORNER, MOUTH_HALF_WIDTH, OUTER_CORNER
from facemodels.morphable.procedural.head import SHEET_VERTICES, Head


def landmark_vertices(head: Head) -> NDArray[np.int64]:
    """Vertex numbers of the landmarks, shape `(68,)`; the first is on the jaw at the subject's right.

    Order: 17 along the jaw, 5 + 5 brows, 4 down the nose, 5 along its base, 6 + 6 around the eyes, 12 around the lips,
    8 inside of them.

    Reference:
        Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV Workshops 2013.
    """
    angle, level, row, x = (values[:SHEET_VERTICES] for values in (head.angle, head.level, head.row, head.x))
    behind = np.abs(angle) > 88
    hidden = behind | (head.pocket[:SHEET_VERTICES] > 0)

    def around(degrees: float, height: float) -> int:
        return int(((angle - degrees) ** 2 + (level - height) ** 2).argmin())

    def at(across: float, height: float) -> int:
        return int(((x - across) ** 2 + (level - height) ** 2 + 1e4 * hidden).argmin())

    def on_row(key: int, across: float) -> int:
        return int((np.abs(x - across) + 1e3 * np.abs(row - key) + 1e5 * behind).argmin())

    right_jaw = [(-82, -4), (-82, -35), (-80, -66), (-76, -94), (-63, -107), (-48, -111), (-32, -113), (-16, -115)]
    jaw = [*right_jaw, (0, -116), *((-degrees, height) for degrees, height in right_jaw[::-1])]
    right_brow = [(-50, 19.4), (-41, 23), (-31, 23.0), (-21, 21.4), (-11, 19.6)]
    brows = [*right_brow, *((-across, height) for across, height in right_brow[::-1])]
    nose = [*((0, height) for height in (1, -11, -22, -33)), *((across, -48.5) for across in (-13, -6.5, 0, 6.5, 13))]
    inner, outer = INNER_CORNER - 0.5, OUTER_CORNER + 0.5
    right_eye = [(4, -outer), (4, -36.5), (4, -26.5), (4, -inner), (5, -26.5), (5, -36.5)]
    left_eye = [(4, inner), (4, 26.5), (4, 36.5), (4, outer), (5, 36.5), (5, 26.5)]
    corner = MOUTH_HALF_WIDTH
    outer_lips = [
        (10, -corner), *((9, across) for across in (-15, -5.5, 0, 5.5, 15)),
        (10, corner), *((12, across) for across in (15, 7, 0, -7, -15)),
    ]  # fmt: skip
    inner_lips = [
        (10, -corner + 4), *((10, across) for across in (-9, 0, 9)),
        (10, corner - 4), *((11, across) for across in (9, 0, -9)),
    ]  # fmt: skip
    vertices = [around(*place) for place in jaw] + [at(*place) for place in brows + nose]
    return np.array(vertices + [on_row(*place) for place in right_eye + left_eye + outer_lips + inner_lips])
