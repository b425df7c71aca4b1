"""The procedural head as a `MorphableModel`."""

from functools import cache

import numpy as np
import torch

from facemodels.morphable.model import MorphableModel
from facemodels.morphable.procedural.albedo import AlbedoModel, Complexion
from facemodels.morphable.procedural.expression import EXPRESSIONS, expression_components
from facemodels.morphable.procedural.fields import Array
from facemodels.morphable.procedural.head import Head, build_head
from facemodels.morphable.procedural.identity import identity_components
from facemodels.morphable.procedural.landmarks import landmark_vertices


@cache
def mean_head() -> Head:
    """The mean head, made once."""
    return build_head()


@cache
def albedo_model() -> AlbedoModel:
    """The colours that belong to the procedural head, made once."""
    return AlbedoModel(mean_head())


def build_model() -> MorphableModel:
    """Build the procedural model; `MorphableModel.procedural` keeps it."""
    head = mean_head()
    identity, _ = identity_components(head)
    return MorphableModel(
        mean=_tensor(head.position),
        identity=_tensor(identity),
        expression=_tensor(expression_components(head)),
        triangles=torch.from_numpy(head.triangles),
        face=torch.from_numpy(head.face_vertices[head.triangles].all(axis=1)),
        landmarks=torch.from_numpy(landmark_vertices(head)),
        expression_names=EXPRESSIONS,
        name="procedural",
        licence="Apache-2.0",
        source="facemodels.morphable.procedural",
        albedo=_tensor(albedo_model().colours(Complexion())),
    )


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
