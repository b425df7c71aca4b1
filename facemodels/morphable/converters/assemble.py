"""What all converters share: from arrays in anyone's frame to a `MorphableModel`, with its landmarks."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RBFInterpolator

from facemodels.errors import InputError
from facemodels.morphable.model import MorphableModel

Array = NDArray[np.float64]

LANDMARKS = 68
_ANCHORS = 9  # a warp needs at least these many known landmarks, spread over the face
_RIGHT_EYE, _LEFT_EYE, _NOSE, _RIGHT_MOUTH, _LEFT_MOUTH, _CHIN = 36, 45, 30, 48, 54, 8
_FOREHEAD = 0.66  # height of the hairline over the eyes, as a share of the distance from the eyes to the chin


def assemble(
    *,
    name: str,
    licence: str,
    source: str,
    mean: ArrayLike,
    identity: ArrayLike,
    expression: ArrayLike,
    triangles: ArrayLike,
    landmarks: Sequence[int] | Mapping[int, int] | None,
    expression_names: Sequence[str] | None = None,
    albedo: ArrayLike | None = None,
    uv: ArrayLike | None = None,
    whole: bool = False,
) -> MorphableModel:
    """A model whose arrays are in mm and standard deviations, in our frame.

    Triangles are turned to run anticlockwise from outside. The face proper is what the landmarks outline in the frontal
    view, up to the hairline.

    Args:
        name: What the model is called.
        licence: Under which terms it may be used.
        source: Where it comes from.
        mean: Shape `(V, 3)`.
        identity: Shape `(K, V, 3)`.
        expression: Shape `(B, V, 3)`.
        triangles: Vertex numbers from 0, shape `(F, 3)`.
        landmarks: All 68 vertices, or a mapping from some numbers of iBUG landmarks (from 0) to vertices.
        expression_names: By default `component_00` and so on.
        albedo: In [0, 1], shape `(V, 3)`.
        uv: Texture coordinates, shape `(V, 2)`.
        whole: The mesh has nothing but the face.

    Raises:
        InputError: Shapes do not fit, landmarks are missing, or the mesh looks another way than it should.
    """
    mean, identity, expression = (np.asarray(array, dtype=np.float64) for array in (mean, identity, expression))
    triangles = np.asarray(triangles, dtype=np.int64)
    count = len(mean)
    for what, array, shape in (
        ("the mean", mean, (count, 3)),
        ("the identity basis", identity, (len(identity), count, 3)),
        ("the expression basis", expression, (len(expression), count, 3)),
        ("the list of triangles", triangles, (len(triangles), 3)),
    ):
        if array.shape != shape:
            raise InputError(f"MorphableModel.load: {what} of {name} has shape {array.shape}, expected {shape}")
    if triangles.size and not 0 <= triangles.min() <= triangles.max() < count:
        raise InputError(
            f"MorphableModel.load: {name} has triangles of the vertices {triangles.min()} to {triangles.max()},"
            f" but only {count} vertices"
        )
    points = all_landmarks(name, mean, landmarks)
    triangles = _outwards(mean, triangles, points)
    face = np.ones(len(triangles), dtype=bool) if whole else face_proper(mean, triangles, points)
    return MorphableModel(
        mean=_float(mean),
        identity=_float(identity),
        expression=_float(expression),
        triangles=torch.from_numpy(np.ascontiguousarray(triangles)),
        face=torch.from_numpy(face),
        landmarks=torch.from_numpy(points),
        expression_names=tuple(expression_names or (f"component_{k:02d}" for k in range(len(expression)))),
        name=name,
        licence=licence,
        source=source,
        albedo=None if albedo is None else _float(np.clip(albedo, 0, 1)),
        uv=None if uv is None else _float(uv),
    )


def all_landmarks(name: str, mean: Array, known: Sequence[int] | Mapping[int, int] | None) -> NDArray[np.int64]:
    """The vertices of the 68 landmarks; those that are not known are carried over from the built-in head.

    A thin-plate spline takes the built-in head's landmarks to the known ones; the vertex nearest to where a missing one
    lands stands for it.

    Raises:
        InputError: Fewer than nine are known, one is no vertex, or they show that the face does not look along +z with
            y up and the subject's left at +x.
    """
    if known is None:
        raise InputError(
            f"MorphableModel.load: no landmarks are known for the mesh of {name} with {len(mean)} vertices;"
            " pass `landmarks`, the vertices of the 68 iBUG landmarks"
        )
    known = dict(known) if isinstance(known, Mapping) else dict(enumerate(known))
    numbers, vertices = (np.array(values, dtype=np.int64) for values in (list(known), list(known.values())))
    if len(known) < _ANCHORS or not set(known) <= set(range(LANDMARKS)):
        raise InputError(
            f"MorphableModel.load: {name} needs 68 landmarks, or at least {_ANCHORS} of them, got {len(known)}"
        )
    if not 0 <= vertices.min() <= vertices.max() < len(mean):
        raise InputError(
            f"MorphableModel.load: landmarks of {name} must be vertices from 0 to {len(mean) - 1},"
            f" got {vertices.min()} to {vertices.max()}"
        )
    result = np.full(LANDMARKS, -1)
    result[numbers] = vertices
    missing = np.flatnonzero(result < 0)
    if missing.size:
        ours = _our_landmarks()
        warp = RBFInterpolator(ours[numbers], mean[vertices], kernel="thin_plate_spline", smoothing=1e-6)
        for number, place in zip(missing, warp(ours[missing]), strict=True):
            result[number] = ((mean - place) ** 2).sum(axis=1).argmin()
    _check_frame(name, mean[result])
    return result


def face_proper(mean: Array, triangles: NDArray[np.int64], landmarks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Triangles within the jaw line and below the hairline, seen from the front, and not behind the jaw's ends."""
    points = mean[landmarks]
    eyes, chin = points[[_RIGHT_EYE, _LEFT_EYE]].mean(axis=0), points[_CHIN]
    left, right = points[16], points[0]
    height = _FOREHEAD * (eyes[1] - chin[1]) + eyes[1] - 0.5 * (left[1] + right[1])
    arc = np.linspace(0, np.pi, 17)[1:-1]
    middle, reach = 0.5 * (left + right)[:2], 0.5 * (left - right)[0]
    forehead = middle + np.stack([reach * np.cos(arc), height * np.sin(arc)], axis=1)
    outline = np.concatenate([points[:17, :2], forehead])
    centre = mean[triangles].mean(axis=1)
    behind = min(left[2], right[2]) - 0.05 * abs(eyes[1] - chin[1])
    return _inside(centre[:, :2], outline) & (centre[:, 2] > behind)


def principal(vectors: ArrayLike, deviations: ArrayLike) -> Array:
    """Components from columns of `(3 V, K)`, brought to unit length, times their standard deviations: `(K, V, 3)`."""
    axes, lengths = np.asarray(vectors, dtype=np.float64), np.asarray(deviations, dtype=np.float64).ravel()
    if axes.ndim != 2 or axes.shape[1] != len(lengths) or len(axes) % 3:
        raise InputError(f"MorphableModel.load: a basis of shape {axes.shape} does not fit {len(lengths)} deviations")
    scaled = axes * (lengths / np.linalg.norm(axes, axis=0).clip(1e-12))
    return np.ascontiguousarray(scaled.T).reshape(len(lengths), -1, 3)


@cache
def _our_landmarks() -> Array:
    model = MorphableModel.procedural()
    return model.mean[model.landmarks].double().numpy()


def _check_frame(name: str, points: Array) -> None:
    eyes, mouth = points[[_RIGHT_EYE, _LEFT_EYE]], points[[_RIGHT_MOUTH, _LEFT_MOUTH]].mean(axis=0)
    if not (
        eyes[0, 0] < eyes[1, 0]
        and eyes[:, 1].mean() > mouth[1] > points[_CHIN, 1]
        and points[_NOSE, 2] > eyes[:, 2].max()
    ):
        raise InputError(
            f"MorphableModel.load: by its landmarks, {name} does not look along +z with y up and the subject's left at"
            " +x; are these the landmarks of this mesh?"
        )


def _outwards(mean: Array, triangles: NDArray[np.int64], landmarks: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same triangles, turned so that those around the nose look to the viewer."""
    near = np.linalg.norm(mean[triangles].mean(axis=1) - mean[landmarks[_NOSE]], axis=1)
    around = triangles[near.argsort()[:40]]
    a, b, c = (mean[around[:, k]] for k in range(3))
    return triangles if np.cross(b - a, c - a)[:, 2].sum() >= 0 else triangles[:, ::-1]


def _inside(points: Array, outline: Array) -> NDArray[np.bool_]:
    """Whether points of the plane lie in a polygon, by the number of its edges to their right."""
    inside = np.zeros(len(points), dtype=bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def _float(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
