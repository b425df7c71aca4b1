"""Edits by the morphable model alone, without a network: what the paper compares with in Figures 3, 4, 8 and 9.

The model is fitted to both photos. The new shape has the identity of the one and the expression, or the rotation, of
the other; it carries the photo's own colours, under the photo's light, and is drawn over the photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from facemodels.batch import Rows
from facemodels.config import FIVE_LANDMARKS, SIZE
from facemodels.data.alignment import AlignedPhoto
from facemodels.data.dataset import Faces
from facemodels.data.rows import closing, surface
from facemodels.fitting import Fit
from facemodels.fitting import fit as fit_landmarks
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.carry import carry, mirrored_vertices
from facemodels.fitting.framing import frame
from facemodels.fitting.lighting import observe, solve_light, surface_samples
from facemodels.morphable import MorphableModel
from facemodels.networks import fill_face
from facemodels.networks.filling import fill_in
from facemodels.rendering import Surface, project_weak_perspective, shade

MORPHABLE_EDITABLE = ("expression", "pose", "light")
"""The factors that a morphable model can exchange: another identity would need other colours."""

_BATCH = 64
_DARKEST = 0.25  # shading below which a photo says little about what it would be in another light
_SKIN = 0.6  # albedo of all of a face when only its light is asked for; lights are compared, so it cancels


@dataclass(frozen=True)
class FittedFaces(Rows):
    """Pictures of faces, and what a morphable model says of them; `faces[rows]` takes some.

    Attributes:
        picture: Aligned crops in [0, 1], shape `(n, 3, size, size)`.
        fit: In pixels of these crops.
        light: Spherical-harmonic coefficients in the camera frame, shape `(n, 9)`.
    """

    picture: Float[Tensor, "n 3 size size"]
    fit: Fit
    light: Float[Tensor, "n 9"]


def fits_of(faces: Faces, morphable: MorphableModel) -> FittedFaces:
    """The fits that a prepared set holds; the cameras' scale and shift are read from its normals.

    Args:
        faces: Of a prepared set.
        morphable: The set's own model.
    """
    scales, shifts = [], []
    for start in range(0, len(faces), _BATCH):
        some = faces[start : start + _BATCH]
        vertices = morphable.vertices(some.identity, some.expression)
        normals = some.normals.float() / 127
        rotation = some.rotation.unflatten(1, (3, 3))
        scale, shift = frame(vertices, morphable.triangles, morphable.face, rotation, normals, some.masks())
        scales.append(scale)
        shifts.append(shift)
    scale = torch.cat(scales)
    camera = faces.rotation.unflatten(1, (3, 3)), scale, torch.cat(shifts)
    fit = Fit(*camera, faces.identity, faces.expression, torch.zeros_like(scale))
    return FittedFaces(faces.pictures(), fit, faces.light)


def fit_faces(photos: Sequence[AlignedPhoto], morphable: MorphableModel) -> FittedFaces:
    """Fit a morphable model to the landmarks of photos, and their light to its normals.

    Args:
        photos: Aligned photos, all with crops of one size.
        morphable: Any morphable model.

    Raises:
        ValueError: There is no photo, or the crops differ in size.
        InputError: Of a model that is not the built-in one, MediaPipe's canonical face is needed and not there.
    """
    sizes = {photo.crop.shape for photo in photos}
    if len(sizes) != 1:
        raise ValueError(f"fit_faces: needs photos with crops of one size, got {sorted(sizes)}")
    points = torch.from_numpy(np.stack([photo.landmarks.points for photo in photos]))
    crops = torch.from_numpy(np.stack([photo.crop for photo in photos]))
    size = crops.shape[1]
    fit = fit_landmarks(points, morphable, mediapipe_correspondence(morphable)).enlarged(size / SIZE)
    vertices, seen = surface(fit, morphable, size)
    samples = surface_samples(morphable)
    seen = observe(crops, seen.normals, vertices, fit, morphable, samples)
    light = solve_light(seen, torch.full((len(samples),), _SKIN))
    return FittedFaces(crops.movedim(3, 1).float() / 255, fit, light)


@torch.no_grad()
def morphable_edit(
    faces: FittedFaces,
    donors: FittedFaces,
    factor: Literal["expression", "pose", "light"],
    morphable: MorphableModel,
) -> Float[Tensor, "n 3 size size"]:
    """Give faces the expression, the pose or the light of others, by their fits alone.

    Of an expression or a pose the face is drawn anew from its own colours; what it did not show (the inside of an
    opening mouth, the far cheek) is taken from the other side of the face or from around. What an old outline leaves
    free is filled in from around it.

    Args:
        faces: From `fits_of` or `fit_faces`.
        donors: As many others.
        factor: What to take over.
        morphable: The model that was fitted.

    Returns:
        The edited pictures in [0, 1].

    Raises:
        ValueError: The factor is another, or the numbers or sizes of the pictures differ.

    Reference:
        Wang et al., "An Adversarial Neuro-Tensorial Approach For Learning Disentangled Representations", arXiv
        1711.10402, section 4.1.
    """
    if factor not in MORPHABLE_EDITABLE:
        raise ValueError(f"morphable_edit: cannot exchange {factor!r}; choose one of {', '.join(MORPHABLE_EDITABLE)}")
    if faces.picture.shape != donors.picture.shape:
        raise ValueError(
            f"morphable_edit: needs as many donors as faces, of one size, got {tuple(faces.picture.shape)}"
            f" and {tuple(donors.picture.shape)}"
        )
    mirrored = mirrored_vertices(morphable)
    edited = []
    for start in range(0, len(faces), _BATCH):
        rows = slice(start, start + _BATCH)
        some, others = faces[rows], donors[rows]
        _, own = surface(some.fit, morphable, some.picture.shape[-1])
        if factor == "light":
            edited.append(_relit(some, own, others.light))
        else:
            edited.append(_redrawn(some, own, changed(some.fit, others.fit, factor, morphable), morphable, mirrored))
    return torch.cat(edited)


def changed(fit: Fit, donor: Fit, factor: str, morphable: MorphableModel) -> Fit:
    """Fits with the expression or the rotation of others.

    The five points by which crops are aligned stay as near as possible to where they were.
    """
    names = {"expression": ("expression",), "pose": ("rotation",)}[factor]
    new = replace(fit, **{name: getattr(donor, name) for name in names})
    if factor == "expression":
        return new
    marks = morphable.vertices(fit.identity, fit.expression)[:, morphable.landmarks]
    five = torch.stack([marks[:, a:b].mean(1) for a, b in FIVE_LANDMARKS], dim=1)
    there = project_weak_perspective(five, fit.rotation, fit.scale, fit.shift)[..., :2]
    one, origin = torch.ones_like(fit.scale), torch.zeros_like(fit.shift)
    here = project_weak_perspective(five, new.rotation, one, origin)[..., :2]
    middle_here, middle_there = here.mean(1, keepdim=True), there.mean(1, keepdim=True)
    centred = here - middle_here
    scale = (centred * (there - middle_there)).sum((1, 2)) / centred.square().sum((1, 2)).clamp_min(1e-6)
    return replace(new, scale=scale, shift=(middle_there - scale[:, None, None] * middle_here)[:, 0])


def _redrawn(faces: FittedFaces, own: Surface, new: Fit, morphable: MorphableModel, mirrored: Tensor) -> Tensor:
    """The faces with new shapes or poses over their photos."""
    size = faces.picture.shape[-1]
    _, moved = surface(new, morphable, size)
    rotations = faces.fit.rotation, new.rotation
    reach = closing(size) // 2
    carried, weight = carry(
        faces.picture, own, moved, *rotations, faces.light, morphable.triangles, mirrored, reach=reach
    )
    unknown = (weight == 0).to(carried.dtype)
    # The rim of a face is too much foreshortened to be carried; where the head did not turn the photo shows it.
    stays = 1.0 if new.rotation is faces.fit.rotation else 0.0
    face = carried + unknown * torch.lerp(fill_in(carried, unknown), faces.picture, stays)
    left = max_pool2d(own.mask * (1 - moved.mask), 3, stride=1, padding=1)
    around = torch.lerp(faces.picture, fill_face(faces.picture, own.mask), left)
    return torch.lerp(around, face, _soft(moved.mask)).clamp(0, 1)


def _relit(faces: FittedFaces, own: Surface, light: Float[Tensor, "n 9"]) -> Tensor:
    """The faces under other lights."""
    old, new = shade(own.normals, faces.light).clamp_min(_DARKEST), shade(own.normals, light).clamp_min(0)
    return torch.lerp(faces.picture, faces.picture * new / old, _soft(own.mask)).clamp(0, 1)


def _soft(mask: Tensor) -> Tensor:
    """A mask whose edge fades over two pixels, inside of it."""
    return mask * avg_pool2d(mask, 3, stride=1, padding=1, count_include_pad=False)
