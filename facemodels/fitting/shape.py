"""Fit a morphable model to landmarks: camera, identity and expression of many faces at once.

A weak-perspective camera maps a point `v` of the face frame to pixel
`(shift_x + scale * (R v)_x, shift_y - scale * (R v)_y)`. Camera and shape are solved in turn: the camera by orthogonal
Procrustes, the shape by ridge least squares in the face frame, where the normal matrix is the same for every face, so
that one inverse serves all.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.interpolate import RBFInterpolator
from scipy.spatial import KDTree
from torch import Tensor

from facemodels.batch import Rows
from facemodels.fitting.landmarks import INNER_POINTS, POINTS
from facemodels.morphable import MorphableModel

_FACES_AT_ONCE = 512
_FIRST_INNER = 17  # iBUG landmarks 0 to 16 are the jaw line
_MAX_DISTANCE = 4.5  # mm from a point of the canonical face, warped onto the model, to the nearest vertex
_TPS_SMOOTHING = 50.0  # mm^2: the warp need not pass through the landmarks
_CAMERA_STEPS = 5  # of Gauss-Newton; three reach the last digit that counts


@dataclass(frozen=True)
class Correspondence:
    """Which landmark lies on which vertex.

    Attributes:
        points: Numbers of landmarks among MediaPipe's 478, shape `(points,)`.
        vertices: Numbers of vertices, shape `(points,)`.
        weights: How much a landmark counts, 1 for the inner iBUG points, shape `(points,)`.
        depth_weight: How much the landmarks' depths count, against their x and y, in the camera. They settle what a
            turn is and what another shape, but a detector that sees a model as flatter than it is tips its heads.
    """

    points: Int[Tensor, " points"]
    vertices: Int[Tensor, " points"]
    weights: Float[Tensor, " points"]
    depth_weight: float = 1.0


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit; the defaults were tuned on 4000 photos of CelebA.

    Attributes:
        identity_prior: Strength of the prior N(0, I) on identity coefficients, in mm^2 (the variance of a landmark of
            weight 1 that would give this prior).
        expression_prior: The same for expression coefficients.
        depth_weight: Weight of a landmark's depth, which MediaPipe only guesses, against its x and y, in the shape.
        dense_weight: Weight of a landmark beyond the 51 inner ones.
        rounds: Times that camera and shape are solved in turn.
    """

    identity_prior: float = 2.0
    expression_prior: float = 100.0
    depth_weight: float = 0.15
    dense_weight: float = 0.15
    rounds: int = 8


@dataclass(frozen=True)
class Fit(Rows):
    """Camera and shape of `n` faces; `fit[index]` takes rows from every field.

    Attributes:
        rotation: From the face frame to the camera frame, shape `(n, 3, 3)`.
        scale: Pixels per mm, shape `(n,)`.
        shift: Where the face frame's origin lands, in pixels, shape `(n, 2)`.
        identity: Coefficients in standard deviations, shape `(n, n_identity)`.
        expression: Likewise, shape `(n, n_expression)`.
        error: Weighted root mean square distance, in pixels, of the landmarks to their vertices, shape `(n,)`.
    """

    rotation: Float[Tensor, "n 3 3"]
    scale: Float[Tensor, " n"]
    shift: Float[Tensor, "n 2"]
    identity: Float[Tensor, "n n_identity"]
    expression: Float[Tensor, "n n_expression"]
    error: Float[Tensor, " n"]

    def enlarged(self, zoom: float) -> "Fit":
        """The same faces in pictures so many times as large."""
        camera = {name: zoom * getattr(self, name) for name in ("scale", "shift", "error")}
        return replace(self, **camera)

    @staticmethod
    def concatenate(parts: "list[Fit]") -> "Fit":
        """One fit of all the faces of several."""
        return Fit(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Fit)})


def fit(
    landmarks: Float[Tensor, "faces points 3"],
    morphable: MorphableModel,
    correspondence: Correspondence | None = None,
    config: FitConfig | None = None,
) -> Fit:
    """Camera, identity and expression for each set of landmarks.

    Args:
        landmarks: MediaPipe's 478 points per face as in `Landmarks.points`: pixel x, pixel y (down), depth in pixels
            (nearer is smaller). Shape `(faces, 478, 3)`.
        morphable: Any morphable model.
        correspondence: From `correspond`; by default the 51 inner landmarks alone.
        config: Priors, weights and rounds.

    Returns:
        The fit in the morphable model's dtype; the arithmetic is in float64.

    Raises:
        ValueError: `landmarks` has another shape.

    Example:
        >>> model = MorphableModel.procedural()
        >>> points = torch.zeros(1, 478, 3)
        >>> match = correspond(model)
        >>> points[:, match.points] = torch.tensor([0.5, -0.5, -0.5]) * model.mean[match.vertices] + 32
        >>> result = fit(points, model)
        >>> round(result.scale.item(), 3), result.rotation[0].diagonal().round(decimals=3)
        (0.5, tensor([1., 1., 1.]))

    Reference:
        Blanz and Vetter, "Face Recognition Based on Fitting a 3D Morphable Model", PAMI 25(9), 2003 (the priors);
        Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", PAMI 13(4), 1991.
    """
    if landmarks.ndim != 3 or landmarks.shape[2] != 3 or landmarks.shape[1] < POINTS:
        raise ValueError(f"fit: landmarks must have shape (faces, {POINTS}, 3), got {tuple(landmarks.shape)}")
    solver = _Solver(morphable, correspondence or correspond(morphable), config or FitConfig())
    parts = [solver(part) for part in landmarks.split(_FACES_AT_ONCE)]
    return Fit.concatenate(parts)


def correspond(
    morphable: MorphableModel,
    canonical: Float[np.ndarray, "points 3"] | None = None,
    config: FitConfig | None = None,
) -> Correspondence:
    """Landmarks of MediaPipe and the vertices of a morphable model that they mark.

    The 51 inner iBUG landmarks are known. With MediaPipe's canonical face the others are found by warping it onto the
    mean face with a thin-plate spline through the known ones and taking the nearest vertex.

    Args:
        morphable: Any morphable model.
        canonical: The canonical face from `canonical_face`, in any unit, shape `(468, 3)`.
        config: For the weight of the landmarks found by warping.
    """
    inner = torch.tensor(INNER_POINTS)
    marked = morphable.landmarks[_FIRST_INNER:].cpu()
    if canonical is None:
        return Correspondence(inner, marked, torch.ones(len(inner), dtype=torch.float64))
    target = morphable.mean.cpu().double().numpy()
    source = _rigidly_moved(np.asarray(canonical, np.float64), np.asarray(INNER_POINTS), target[marked])
    known, unique = np.unique(np.asarray(INNER_POINTS), return_index=True)
    offset = target[marked][unique] - source[known]
    warp = RBFInterpolator(source[known], offset, kernel="thin_plate_spline", smoothing=_TPS_SMOOTHING)
    on_face = morphable.triangles[morphable.face].unique().cpu().numpy()
    distance, nearest = KDTree(target[on_face]).query(source + warp(source))
    dense = np.setdiff1d(np.flatnonzero(np.asarray(distance) < _MAX_DISTANCE), known)
    weight = (config or FitConfig()).dense_weight
    return Correspondence(
        torch.cat([inner, torch.from_numpy(dense)]),
        torch.cat([marked, torch.from_numpy(on_face[np.asarray(nearest)[dense]])]),
        torch.tensor([1.0] * len(inner) + [weight] * len(dense), dtype=torch.float64),
    )


def _rigidly_moved(points: np.ndarray, known: np.ndarray, target: np.ndarray) -> np.ndarray:
    """All points after the similarity that brings the known ones nearest to the target."""
    ones = torch.ones(len(known), dtype=torch.float64)
    moved = torch.from_numpy(points)
    rotation, scale, shift = procrustes(moved[known][None], torch.from_numpy(target)[None], ones)
    return (scale * moved @ rotation[0].T + shift).numpy()


def procrustes(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations, scales and shifts (n, ...) that take each source (n, points, 3) nearest to its target."""
    weights = (weights / weights.sum())[:, None]
    source_mean = (source * weights).sum(1, keepdim=True)
    target_mean = (target * weights).sum(1, keepdim=True)
    centred = source - source_mean
    u, s, vh = torch.linalg.svd((target - target_mean).mT @ (centred * weights))
    sign = torch.ones_like(s)
    sign[:, 2] = torch.linalg.det(u @ vh).sign()  # a rotation, not a reflection
    rotation = (u * sign[:, None]) @ vh
    scale = (s * sign).sum(1) / (centred.square() * weights).sum((1, 2))
    shift = (target_mean - scale[:, None, None] * source_mean @ rotation.mT)[:, 0]
    return rotation, scale, shift


def _camera(source: Tensor, target: Tensor, weights: Tensor, depth_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `procrustes`, with depths that count less than x and y: Gauss-Newton steps from its solution."""
    rotation, scale, shift = procrustes(source, target, weights)
    if depth_weight == 1:
        return rotation, scale, shift
    weights = (weights / weights.sum())[:, None]
    source_mean, target_mean = ((points * weights).sum(1, keepdim=True) for points in (source, target))
    centred = source - source_mean
    spread = centred.mT @ (centred * weights)
    common = (target - target_mean).mT @ (centred * weights)
    axes = weights.new_tensor([1.0, 1.0, depth_weight])
    eye = torch.eye(3).to(weights)
    moves = torch.cat([torch.linalg.cross(eye[:, None], eye[None], dim=-1).mT, eye[None]])  # three turns, and growing
    moved = scale[:, None, None] * rotation
    for _ in range(_CAMERA_STEPS):
        residual = (common - moved @ spread) @ moved.mT
        gradient = torch.einsum("a,nab,kab->nk", axes, residual, moves)
        normal = torch.einsum("a,kab,nbc,lac->nkl", axes, moves, moved @ spread @ moved.mT, moves)
        step, _ = torch.linalg.solve_ex(normal, gradient)
        moved = torch.linalg.matrix_exp(torch.einsum("nk,kab->nab", step, moves)) @ moved
    scale = torch.linalg.vector_norm(moved, dim=(1, 2)) / 3**0.5
    return moved / scale[:, None, None], scale, (target_mean - source_mean @ moved.mT)[:, 0]


class _Solver:
    """The fit of one morphable model with one set of landmarks: everything that is the same for all faces."""

    def __init__(self, morphable: MorphableModel, correspondence: Correspondence, config: FitConfig):
        self.dtype, device = morphable.mean.dtype, morphable.mean.device
        vertices = correspondence.vertices.to(device)
        self.config = config
        self.points = correspondence.points.to(device)
        self.weights = correspondence.weights.to(device).double()
        self.depth_weight = correspondence.depth_weight
        self.mean = morphable.mean[vertices].double()
        self.n_identity = morphable.n_identity
        basis = torch.cat([morphable.identity[:, vertices], morphable.expression[:, vertices]])
        self.basis = basis.double().flatten(1)  # (coefficients, points * 3)
        axes = torch.tensor([1.0, 1.0, config.depth_weight], dtype=torch.float64, device=device)
        weighted = self.basis * (self.weights[:, None] * axes).flatten()
        prior = torch.full((len(basis),), config.expression_prior, dtype=torch.float64, device=device)
        prior[: self.n_identity] = config.identity_prior
        self.solution = torch.linalg.solve(weighted @ self.basis.T + prior.diag(), weighted).T  # (points * 3, coefs)

    def __call__(self, landmarks: Tensor) -> Fit:
        """Fit one batch of landmarks (n, 478, 3)."""
        flip = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64, device=self.mean.device)
        target = landmarks[:, self.points].to(self.mean) * flip  # y up, z to the viewer
        coefficients = target.new_zeros(len(target), len(self.basis))
        for _ in range(self.config.rounds):
            rotation, scale, shift = _camera(self._shape(coefficients), target, self.weights, self.depth_weight)
            in_face_frame = ((target - shift[:, None]) / scale[:, None, None]) @ rotation
            coefficients = (in_face_frame - self.mean).flatten(1) @ self.solution
        shape = self._shape(coefficients)
        rotation, scale, shift = _camera(shape, target, self.weights, self.depth_weight)
        projected = scale[:, None, None] * shape @ rotation.mT + shift[:, None]
        squared = (projected - target)[..., :2].square().sum(2)
        error = (squared @ self.weights / self.weights.sum()).sqrt()
        parts = (
            rotation,
            scale,
            shift[:, :2] * flip[:2],
            coefficients[:, : self.n_identity],
            coefficients[:, self.n_identity :],
            error,
        )
        return Fit(*(part.to(self.dtype) for part in parts))

    def _shape(self, coefficients: Tensor) -> Tensor:
        return self.mean + (coefficients @ self.basis).unflatten(1, (-1, 3))
