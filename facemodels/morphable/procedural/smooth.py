"""Smooth random fields over the head, as a basis of functions."""

import numpy as np
from numpy.typing import NDArray

from facemodels.morphable.procedural import anatomy
from facemodels.morphable.procedural.fields import Array
from facemodels.morphable.procedural.head import N_VERTICES, SKIN, Head
from facemodels.morphable.procedural.sheet import COLUMNS, MOUTH_POCKET, ROWS


def face_region(head: Head) -> NDArray[np.bool_]:
    """The skin over which amplitudes are measured."""
    return (head.part == SKIN) & (head.degrees < 80) & (head.level > -120) & (head.level < 70)


def smooth_functions(head: Head, count: int, width: float = 42.0) -> Array:
    """Leading eigenfunctions of a Gaussian kernel over the head, broadest first.

    The kernel sees eyeballs, teeth and ears as single points and the lips as touching, so that these parts move as one
    and the mouth does not tear.

    Args:
        head: The mean head.
        count: Number of functions.
        width: Standard deviation of the kernel, in mm.

    Returns:
        Shape `(V, count)`, each with a root mean square of 1 over the face.

    Reference:
        Lüthi et al., "Gaussian Process Morphable Models", IEEE TPAMI 40(8), 2018.
    """
    places = _kernel_places(head)
    rows = np.linspace(2, ROWS - 3, 21).round().astype(int)
    columns = np.linspace(4, COLUMNS - 5, 15).round().astype(int)
    nodes = places[(rows[:, None] * COLUMNS + columns).ravel()]
    value, vector = np.linalg.eigh(_kernel(nodes, nodes, width))
    value, vector = value[::-1][:count], vector[:, ::-1][:, :count]
    functions = _kernel(places, nodes, width) @ (vector / value)  # Nyström's extension from the nodes
    functions /= np.sqrt((functions[face_region(head)] ** 2).mean(axis=0))
    # The sign by the first of the largest: of two mirrored vertices, rounding would choose another on another machine.
    size = np.abs(functions)
    peak = (size > 0.999 * size.max(axis=0)).argmax(axis=0)
    return functions * np.sign(functions[peak, np.arange(count)])


def _kernel(first: Array, second: Array, width: float) -> Array:
    square = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    return np.exp(-np.maximum(square, 0) / (2 * width**2))


def _kernel_places(head: Head) -> Array:
    """Where the kernel sees each vertex, shape `(V, 3)`."""
    places = head.position.copy()
    eye = np.stack([
        np.sign(head.x) * anatomy.EYE_ACROSS,
        np.full(N_VERTICES, anatomy.EYE_LEVEL),
        np.full(N_VERTICES, anatomy.EYE_DEPTH + 10),
    ], axis=1)  # fmt: skip
    places[head.eyeball] = eye[head.eyeball]
    places[head.teeth] = [0, anatomy.MOUTH_LEVEL, 95]
    from_eye = np.hypot((head.across - anatomy.EYE_ACROSS) / 19.0, (head.level - anatomy.EYE_LEVEL) / 14.0)
    lids = (np.exp(-(from_eye**4)) * head.skin * (head.degrees < 80))[:, None]
    places = (1 - lids) * places + lids * eye
    ear = head.ear > 0
    places[ear] = np.stack([head.side * 74.0, np.full(N_VERTICES, -10.0), np.full(N_VERTICES, -8.0)], axis=1)[ear]
    mouth = head.pocket == MOUTH_POCKET
    places[mouth, 1], places[mouth, 2] = anatomy.MOUTH_LEVEL, 96.0
    return places
