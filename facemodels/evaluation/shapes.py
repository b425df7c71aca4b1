"""How near reconstructed shapes come to the exact ones of rendered faces, in millimetres.

The paper's Figure 5 compares by eye; rendered faces have a true shape to measure against.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.dataset import Faces, PreparedSet, faces_from_rows
from facemodels.data.synthetic import check_synthetic
from facemodels.errors import InputError
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.measures import batches
from facemodels.fitting import LandmarkDetector
from facemodels.fitting import fit as fit_landmarks
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.shape import procrustes
from facemodels.morphable import MorphableModel
from facemodels.progress import progress_bar
from facemodels.reconstruction import morphable_of, shapes

Alignment = Literal["rigid", "similarity"]

LABELS = {"expression": "emotion", "pose": "pose_index", "light": "light_index", "person": "person"}
"""Columns of synthetic sets by which errors are told apart, by factor."""

_ENLARGED = 4  # a detector of landmarks finds more in larger pictures, also where nothing was added


@dataclass(frozen=True)
class ShapeErrors:
    """Distances of the face's vertices from where they should be, in mm: a mean for each face, then over the faces.

    Attributes:
        faces: How many faces were measured.
        missed: In how many others no landmarks were found.
        rigid: After the best rotation and shift.
        rigid_deviation: Standard deviation over the faces.
        similarity: After the best rotation, shift and scale: a picture does not tell a large head from a near one.
        similarity_deviation: Likewise.
        by_factor: After a similarity, for each value of each factor that the set has labels of.
    """

    faces: int
    missed: int
    rigid: float
    rigid_deviation: float
    similarity: float
    similarity_deviation: float
    by_factor: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@torch.no_grad()
def shape_errors(
    model: NeuroTensorialAutoencoder,
    prepared: PreparedSet,
    *,
    split: str = "test",
    limit: int | None = 300,
    detector: LandmarkDetector | None = None,
) -> dict[str, ShapeErrors]:
    """Errors of the shapes that a network and a fit make of rendered faces.

    Args:
        model: A network with a morphable model of the set's mesh; its components may be others.
        prepared: A synthetic set.
        split: Whose faces to measure.
        limit: At most so many faces, evenly spread; None for all.
        detector: Finds the landmarks of the fit, in the crops of the set, enlarged; without one there is no fit.

    Returns:
        By where the shapes come from: "stream" (of a network with cores), "coefficients", "fit" (with a detector), and
        "mean", the mean face, which knows nothing of the picture. All are measured on the faces that the fit is of.

    Raises:
        InputError: The set holds photos, is empty, or has another mesh than the network; or no face's landmarks are
            found.
    """
    check_synthetic(prepared)
    morphable = morphable_of(model)
    if not torch.equal(morphable.triangles, prepared.morphable.triangles):
        raise InputError(
            f"the network's model is {morphable.name!r}, the set's {prepared.morphable.name!r}: their vertices"
            " do not correspond, so no distances can be measured; take a set or a network of the same mesh"
        )
    rows = prepared.split(split)
    if not len(rows):
        raise InputError(f"{prepared.path} holds no faces of the split {split!r}")
    chosen = spread(len(rows), limit)
    table = rows.select(chosen.tolist())
    faces = faces_from_rows(table)
    fit, found = (None, torch.arange(len(faces))) if detector is None else fitted_shapes(faces, morphable, detector)
    if not len(found):
        raise InputError(f"no landmarks were found in any of {len(faces)} faces of {prepared.path}")
    missed = len(faces) - len(found)
    faces = faces[found]
    labels = {
        factor: [str(value) for value in table.select(found.tolist())[column][:]]
        for factor, column in LABELS.items()
        if column in table.column_names
    }
    truth = prepared.morphable.vertices(faces.identity, faces.expression)
    estimates = {} if fit is None else {"fit": fit}
    estimates["mean"] = morphable.mean.expand_as(truth)
    parts = [model.encode(faces[some].pictures()) for some in batches(len(faces))]
    for source in ("stream", "coefficients"):
        if source == "coefficients" or model.config.cores:
            estimates[source] = torch.cat([shapes(model, codes, source) for codes in parts])
    order = ("stream", "coefficients", "fit", "mean")
    return {
        source: _errors(estimates[source], truth, morphable, missed, labels) for source in order if source in estimates
    }


def fitted_shapes(
    faces: Faces, morphable: MorphableModel, detector: LandmarkDetector
) -> tuple[Float[Tensor, "found vertices 3"], Tensor]:
    """Shapes by a fit to landmarks, and the rows of the faces whose landmarks were found.

    Args:
        faces: Of a prepared set.
        morphable: The model to fit.
        detector: Finds the landmarks in the crops, enlarged.
    """
    points, found = [], []
    for row, picture in enumerate(progress_bar(faces.image, "find landmarks", disable=len(faces) < 50)):
        crop = Image.fromarray(picture.permute(1, 2, 0).numpy())
        large = crop.resize((_ENLARGED * crop.width, _ENLARGED * crop.height), Image.Resampling.BICUBIC)
        landmarks = detector.detect(np.asarray(large))
        if landmarks is not None:
            points.append(torch.from_numpy(landmarks.points / _ENLARGED))
            found.append(row)
    rows = torch.tensor(found, dtype=torch.long)
    if not found:
        return morphable.mean.new_empty(0, morphable.n_vertices, 3), rows
    fit = fit_landmarks(torch.stack(points), morphable, mediapipe_correspondence(morphable))
    return morphable.vertices(fit.identity, fit.expression), rows


def vertex_errors(
    shape: Float[Tensor, "n vertices 3"],
    truth: Float[Tensor, "n vertices 3"],
    morphable: MorphableModel,
    alignment: Alignment = "rigid",
) -> Float[Tensor, " n"]:
    """Mean distance of the vertices of the face proper from the true ones, in mm, after the best alignment.

    Args:
        shape: In mm.
        truth: In mm.
        morphable: Whose vertices they are.
        alignment: "rigid" (rotation and shift) or "similarity" (also scale).

    Raises:
        ValueError: There is no such alignment, or the shapes differ in size.

    Example:
        >>> model = MorphableModel.procedural()
        >>> larger = 1.1 * model.mean[None] + 5
        >>> errors = (vertex_errors(larger, model.mean[None], model, how) for how in ("rigid", "similarity"))
        >>> [round(error.item(), 2) for error in errors]
        [5.57, 0.0]

    Reference:
        Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", PAMI 13(4), 1991.
    """
    if alignment not in ("rigid", "similarity"):
        raise ValueError(f"vertex_errors: there is no alignment {alignment!r}; choose rigid or similarity")
    if shape.shape != truth.shape:
        raise ValueError(f"vertex_errors: shapes must be alike, got {tuple(shape.shape)} and {tuple(truth.shape)}")
    used = morphable.triangles[morphable.face].unique()
    source, target = shape[:, used].double(), truth[:, used].double()
    rotation, scale, shift = procrustes(source, target, torch.ones(len(used), dtype=torch.float64))
    if alignment == "rigid":
        scale = torch.ones_like(scale)
        shift = (target.mean(1, keepdim=True) - source.mean(1, keepdim=True) @ rotation.mT)[:, 0]
    aligned = scale[:, None, None] * source @ rotation.mT + shift[:, None]
    return (aligned - target).norm(dim=2).mean(1).to(shape.dtype)


def _errors(
    shape: Tensor, truth: Tensor, morphable: MorphableModel, missed: int, labels: Mapping[str, list[str]]
) -> ShapeErrors:
    rigid, similarity = (vertex_errors(shape, truth, morphable, how) for how in ("rigid", "similarity"))
    by_factor = {}
    for factor, values in labels.items():
        known = sorted(set(values), key=lambda value: (len(value), value) if value.isdigit() else (0, value))
        rows = {value: torch.tensor([one == value for one in values]) for value in known}
        by_factor[factor] = {value: float(similarity[where].mean()) for value, where in rows.items()}
    return ShapeErrors(
        len(shape),
        missed,
        float(rigid.mean()),
        float(rigid.std(correction=0)),
        float(similarity.mean()),
        float(similarity.std(correction=0)),
        by_factor,
    )
