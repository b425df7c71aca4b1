"""The procedural head as a `MorphableModel`."""

from functools import cache

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from facemodels.morphable.model import MorphableModel
from facemodels.morphable.procedural.albedo import AlbedoModel, Complexion
from facemodels.morphable.procedural.expression import EXPRESSIONS, expression_components
from facemodels.morphable.procedural.fields import Array
from facemodels.morphable.procedural.head import Head, build_head
from facemodels.morphable.procedural.identity import identity_components, named_components
from facemodels.morphable.procedural.landmarks import landmark_vertices

_MASCULINE = {
    "brow_ridge": 1.0, "jaw_width": 1.0, "chin_width": 0.8, "chin_length": 0.5, "face_length": 0.5, "nose_length": 0.4,
    "nose_width": 0.4, "neck_width": 1.0, "forehead_slope": 0.7, "forehead_roundness": -0.5, "cheek_fullness": -0.4,
    "upper_lip_fullness": -0.6, "lower_lip_fullness": -0.5, "eye_size": -0.5, "brow_height": -0.6, "jaw_angle": 0.5,
}  # fmt: skip
"""How much each named component tells men from women."""


@cache
def mean_head() -> Head:
    """The mean head, made once."""
    return build_head()


@cache
def albedo_model() -> AlbedoModel:
    """The colours that belong to the procedural head, made once."""
    return AlbedoModel(mean_head())


def masculinity(identity: Array) -> float:
    """How masculine a face is, in standard deviations: a direction among the identity coefficients.

    Args:
        identity: In standard deviations, shape `(157,)`.

    Example:
        >>> masculinity(np.zeros(157))
        0.0
    """
    weights = np.array([_MASCULINE.get(name, 0.0) for name in identity_names()])
    return float(identity[: len(weights)] @ weights / np.linalg.norm(weights))


@cache
def identity_names() -> tuple[str, ...]:
    """Names of the leading identity components; the smooth fields that follow have none."""
    return tuple(named_components(mean_head()))


def build_model() -> MorphableModel:
    """Build the procedural model; `MorphableModel.procedural` keeps it.

    One thread does the linear algebra, so that on one machine every process builds the same bits.
    """
    head = mean_head()
    with threadpool_limits(1):
        expression = expression_components(head)
        identity, _ = identity_components(head)
        smooth = identity[len(identity_names()) :]
        smooth -= _within_span(smooth, expression)  # what no name covers is not to look like an expression either
    return MorphableModel(
        mean=_tensor(head.position),
        identity=_tensor(identity),
        expression=_tensor(expression),
        triangles=torch.from_numpy(head.triangles),
        face=torch.from_numpy(head.face_vertices[head.triangles].all(axis=1)),
        landmarks=torch.from_numpy(landmark_vertices(head)),
        expression_names=EXPRESSIONS,
        name="procedural",
        licence="Apache-2.0",
        source="facemodels.morphable.procedural",
        albedo=_tensor(albedo_model().colours(Complexion())),
    )


def _within_span(fields: Array, others: Array) -> Array:
    """The part of each field that is a combination of the others, same shape."""
    axes, _ = np.linalg.qr(others.reshape(len(others), -1).T)
    return (fields.reshape(len(fields), -1) @ axes @ axes.T).reshape(fields.shape)


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
