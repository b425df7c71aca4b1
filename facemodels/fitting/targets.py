"""From raw fits to targets worth learning: identity without expression and pose, expression without pose.

Landmarks of a turned head are biased, and a ridge fit cannot tell a wide smile from a wide mouth, so raw coefficients
depend on the pose and raw identity tells whether a face smiles (a linear classifier reads CelebA's attribute Smiling
from it in 89 of 100 faces). `Cleaning` takes both out. `PoseTransfer` keeps the dependence on the pose and uses it to
show a face as the fit would have seen it in another pose.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.errors import InputError
from facemodels.fitting.shape import Fit
from facemodels.morphable import MorphableModel
from facemodels.rendering import matrix_to_euler

MIN_FACES = 30
"""Fewest faces from which the dependence on the pose is estimated."""

_POSE_UNIT = 0.35  # radians, about 20 degrees: brings the angles of photos to order 1
_TERMS = {1: 4, 2: 8}  # terms of a polynomial in the pose, by degree
_MOVED_DIRECTIONS = 3  # of expression that are taken out of identity; with more, the person goes too
_EXPRESSION_COMPONENTS = 28  # as many as the paper has
_SMALLEST = 1e-3  # standard deviation, as a share of the largest, below which a direction counts as unused


@dataclass(frozen=True)
class PoseTrend:
    """A linear or quadratic function of the pose, fitted to values by least squares.

    Attributes:
        pitch: The pitch that counts as zero, in radians: photographers do not hold the camera level.
        weights: Shape `(4, values)` for degree 1, `(8, values)` for degree 2.
    """

    pitch: Float[Tensor, ""]
    weights: Float[Tensor, "terms values"]

    @classmethod
    def fit(
        cls, rotation: Float[Tensor, "n 3 3"], values: Float[Tensor, "n values"], degree: Literal[1, 2] = 2
    ) -> "PoseTrend":
        """Least squares over `n` faces.

        Raises:
            InputError: There are too few faces.
        """
        if len(rotation) < MIN_FACES:
            raise InputError(
                f"only {len(rotation)} faces to learn from, but how fits depend on the pose can be told"
                f" from {MIN_FACES} or more; add photos"
            )
        pitch = matrix_to_euler(rotation.double())[1].median()
        terms = _pose_terms(rotation, pitch)[:, : _TERMS[degree]]
        # The pseudo-inverse leaves out terms that never vary, such as the roll of faces that are all upright.
        return cls(pitch, torch.linalg.pinv(terms, rtol=1e-6) @ values.double())

    def __call__(self, rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n values"]:
        """The values that the pose alone predicts."""
        return _pose_terms(rotation, self.pitch)[:, : len(self.weights)] @ self.weights

    @property
    def frontal(self) -> Float[Tensor, " values"]:
        """The values at yaw 0, roll 0 and the usual pitch."""
        return self.weights[0]


@dataclass(frozen=True)
class PoseTransfer:
    """Shows a fitted face in another pose.

    The part of coefficients, scale and shift that is a quadratic function of the pose moves to the new pose; what is
    the face's own stays. A face in its own pose is left exactly as it is.
    """

    trend: PoseTrend

    @classmethod
    def fit(cls, fit: Fit) -> "PoseTransfer":
        """Learn from many faces how coefficients, scale and shift depend on the pose."""
        return cls(PoseTrend.fit(fit.rotation, _stacked(fit)))

    def turn(self, fit: Fit, rotation: Float[Tensor, "n 3 3"]) -> Fit:
        """The faces of `fit` in the poses `rotation`."""
        moved = _stacked(fit) + self.trend(rotation) - self.trend(fit.rotation)
        sizes = [fit.identity.shape[1], fit.expression.shape[1], 1, 2]
        identity, expression, scale, shift = moved.to(fit.scale.dtype).split(sizes, dim=1)
        return replace(fit, rotation=rotation, identity=identity, expression=expression, scale=scale[:, 0], shift=shift)


@dataclass(frozen=True)
class Cleaning:
    """Turns raw fits into targets, and holds the morphable model that belongs to the targets.

    Learnt from training faces alone, then applied to any face:

    1. what the pose predicts is taken out: a quadratic function of it from identity, a linear one from expression
       (people smile more when they face the camera: with the squares a part of the smile itself would go);
    2. expression is rotated to its principal axes (in mm on the surface) and scaled to unit variance;
    3. what the three leading of these predict is taken out of identity, and this part of the shape is given to their
       basis vectors, so that no shape is lost: the model is additive;
    4. identity is rotated to its principal axes and scaled to unit variance.

    Attributes:
        morphable: Its mean is the mean frontal face of the set, and its coefficients are the cleaned ones:
            `morphable.vertices(*cleaning(fit))` is the cleaned shape.
    """

    morphable: MorphableModel
    identity_trend: PoseTrend
    expression_trend: PoseTrend
    moved: Float[Tensor, "directions n_identity"]
    to_identity: Float[Tensor, "n_identity n_identity"]
    to_expression: Float[Tensor, "n_expression components"]

    @classmethod
    def fit(cls, fit: Fit, morphable: MorphableModel) -> "Cleaning":
        """Learn from the fits of training faces.

        Args:
            fit: Raw fits of many faces to `morphable`.
            morphable: The morphable model that was fitted.

        Raises:
            InputError: There are too few faces.
        """
        expression_trend = PoseTrend.fit(fit.rotation, fit.expression, degree=1)
        expression = fit.expression - expression_trend(fit.rotation)
        identity_basis, expression_basis = morphable.identity.double(), morphable.expression.double()

        to_expression, from_expression = principal_axes(expression, expression_basis)
        to_expression = to_expression[:, :_EXPRESSION_COMPONENTS]
        from_expression = from_expression[:_EXPRESSION_COMPONENTS]
        leading = (expression @ to_expression)[:, :_MOVED_DIRECTIONS]
        # Identity is regressed on both, the pose and the leading expressions, so that it is free of both.
        same_pose = leading - PoseTrend.fit(fit.rotation, leading)(fit.rotation)
        moved = torch.linalg.pinv(same_pose) @ fit.identity.double()
        identity = fit.identity - leading @ moved
        identity_trend = PoseTrend.fit(fit.rotation, identity)
        to_identity, from_identity = principal_axes(identity - identity_trend(fit.rotation), identity_basis)

        new_expression = torch.tensordot(from_expression, expression_basis, 1)
        new_expression[: len(moved)] += torch.tensordot(moved, identity_basis, 1)
        own = replace(
            morphable,
            mean=morphable.vertices(identity_trend.frontal.to(fit.scale), expression_trend.frontal.to(fit.scale)),
            identity=torch.tensordot(from_identity, identity_basis, 1).to(fit.scale),
            expression=new_expression.to(fit.scale),
            expression_names=tuple(f"component_{number:02d}" for number in range(len(new_expression))),
            name=f"{morphable.name}, fitted to {len(fit)} photos",
        )
        return cls(own, identity_trend, expression_trend, moved, to_identity, to_expression)

    def __call__(self, fit: Fit) -> tuple[Float[Tensor, "n n_identity"], Float[Tensor, "n n_expression"]]:
        """Clean identity and expression coefficients, in standard deviations of the training faces."""
        expression = (fit.expression - self.expression_trend(fit.rotation)) @ self.to_expression
        identity = fit.identity - self.identity_trend(fit.rotation)
        identity = (identity - expression[:, : len(self.moved)] @ self.moved) @ self.to_identity
        return identity.to(fit.scale), expression.to(fit.scale)


def principal_axes(
    coefficients: Float[Tensor, "n components"], basis: Float[Tensor, "components vertices 3"]
) -> tuple[Float[Tensor, "components components"], Float[Tensor, "components components"]]:
    """Rotate a basis of shapes to the principal axes of given faces, largest displacement in mm first.

    Args:
        coefficients: Of many faces, with mean zero.
        basis: Displacements for each coefficient, in mm.

    Returns:
        `to_unit` and its inverse `from_unit`: `coefficients @ to_unit` are uncorrelated with unit variance, and belong
        to the basis `from_unit @ basis`. A direction that no face uses keeps a variance below one.
    """
    flat = basis.flatten(1)
    gram = flat @ flat.T
    gram = gram + 1e-12 * gram.trace() * torch.eye(len(gram), dtype=gram.dtype)
    root = torch.linalg.cholesky(gram)  # coefficients @ root are coordinates in mm
    covariance = root.T @ (coefficients.T @ coefficients / len(coefficients)) @ root
    variance, axes = torch.linalg.eigh(covariance)
    variance, axes = variance.flip(0), axes.flip(1)
    deviation = variance.clamp_min(0).sqrt()
    deviation = deviation.clamp_min((_SMALLEST * deviation[0]).clamp_min(torch.finfo(deviation.dtype).tiny))
    to_unit = root @ axes / deviation
    from_unit = torch.linalg.solve_triangular(root, (deviation[:, None] * axes.T), upper=False, left=False)
    return to_unit, from_unit


def _stacked(fit: Fit) -> Tensor:
    """Everything of a fit that may depend on the pose, shape (n, values)."""
    return torch.cat([fit.identity, fit.expression, fit.scale[:, None], fit.shift], dim=1).double()


def _pose_terms(rotation: Tensor, centre: Tensor) -> Tensor:
    yaw, pitch, roll = matrix_to_euler(rotation.double())
    yaw, pitch, roll = yaw / _POSE_UNIT, (pitch - centre) / _POSE_UNIT, roll / _POSE_UNIT
    squares = (yaw.square(), pitch.square(), roll.square())
    return torch.stack([torch.ones_like(yaw), yaw, pitch, roll, *squares, yaw * pitch], dim=1)
