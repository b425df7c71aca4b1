"""Pictures of procedural heads with their hair and colours, beside the normals and mask of the face."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from facemodels.morphable import MorphableModel
from facemodels.morphable.procedural import Complexion, albedo_model, hair_shell, hair_triangles, mean_head
from facemodels.rendering import interpolate, project_weak_perspective, rasterize, shade, vertex_normals

SUPERSAMPLING = 2
"""Samples a pixel, each way."""
_INSIDE_HAIR = 0.55  # light that reaches the inner side of hair


@dataclass(frozen=True)
class Heads:
    """Heads with their hair, ready to be drawn.

    Attributes:
        vertices: Of the model, then of the hair, in mm, shape `(n, vertices, 3)`.
        normals: In the face frame, shape `(n, vertices, 3)`.
        albedo: In [0, 1], shape `(n, vertices, 3)`.
        triangles: Shape `(triangles, 3)`.
        face: Which triangles belong to the face proper, shape `(triangles,)`.
    """

    vertices: Tensor
    normals: Tensor
    albedo: Tensor
    triangles: Tensor
    face: Tensor


def build_heads(
    identity: Float[Tensor, "n n_identity"],
    expression: Float[Tensor, "n n_expression"],
    complexions: Sequence[Complexion],
) -> Heads:
    """Shape and colours of procedural heads.

    Args:
        identity: In standard deviations, shape `(n, 157)`.
        expression: In standard deviations, shape `(n, 28)`.
        complexions: Colours and hair of each.
    """
    model = MorphableModel.procedural()
    hair = [hair_shell(mean_head(), person) for person in complexions]
    attached = torch.from_numpy(np.stack([one.attached for one in hair]))[..., None].expand(-1, -1, 3)
    moved = (model.vertices(identity) - model.mean).gather(1, attached)
    shown = torch.tensor([one.shown for one in hair])[:, None, None]
    strands = torch.from_numpy(np.stack([one.position for one in hair])).float() + moved * shown
    outside, inside = (torch.from_numpy(triangles.copy()) for triangles in hair_triangles())
    shell = torch.cat([outside, inside])
    vertices = model.vertices(identity, expression)
    skin = [albedo_model().colours(person) for person in complexions]
    colours = np.concatenate([np.stack(skin), np.stack([one.albedo for one in hair])], axis=1)
    return Heads(
        vertices=torch.cat([vertices, strands], dim=1),
        normals=torch.cat([vertex_normals(vertices, model.triangles), vertex_normals(strands, outside)], dim=1),
        albedo=torch.from_numpy(colours).float(),
        triangles=torch.cat([model.triangles, shell + model.n_vertices]),
        face=torch.cat([model.face, torch.zeros(len(shell), dtype=torch.bool)]),
    )


def draw_heads(
    heads: Heads,
    rotation: Float[Tensor, "n 3 3"],
    scale: Float[Tensor, "n"],
    shift: Float[Tensor, "n 2"],
    light: Float[Tensor, "n 9"],
    background: Float[Tensor, "n 3 size size"],
) -> tuple[Float[Tensor, "n 3 size size"], Float[Tensor, "n 3 size size"], Float[Tensor, "n 1 size size"]]:
    """Draw heads in front of a background, with several samples a pixel.

    The image is albedo times shading, between 0 and 1: the light explains the picture exactly, but for that clipping.

    Args:
        heads: From `build_heads`.
        rotation: From the face frame to the camera frame, shape `(n, 3, 3)`.
        scale: Pixels per mm, shape `(n,)`.
        shift: Where the face frame's origin lands, in pixels, shape `(n, 2)`.
        light: Spherical-harmonic coefficients, shape `(n, 9)`.
        background: Shape `(n, 3, size, size)`.

    Returns:
        Image; normals of the face proper in the camera frame, zero outside; and its mask of zeros and ones.
    """
    size, fine = background.shape[-1], SUPERSAMPLING
    screen = project_weak_perspective(heads.vertices, rotation, fine * scale, fine * shift)
    fragments = rasterize(screen, heads.triangles, fine * size)
    attributes = torch.cat([heads.normals @ rotation.transpose(-1, -2), heads.albedo], dim=2)
    seen = interpolate(attributes, heads.triangles, fragments)
    covered = fragments.covered[:, None].float()
    face = covered * heads.face[fragments.triangle.clamp_min(0)][:, None]
    normal = _unit(seen[:, :3])
    inside = (normal[:, 2:] < 0) & (face == 0)
    shading = shade(torch.where(inside, -normal, normal), light).clamp_min(0)
    shading = torch.where(inside, _INSIDE_HAIR * shading, shading)
    image = avg_pool2d((seen[:, 3:] * shading).clamp(0, 1) * covered, fine)
    image = image + (1 - avg_pool2d(covered, fine)) * background
    mask = (avg_pool2d(face, fine) >= 0.5).float()
    return image.clamp(0, 1), _unit(avg_pool2d(normal * face, fine)) * mask, mask


def _unit(normals: Tensor) -> Tensor:
    return normals * normals.square().sum(dim=1, keepdim=True).clamp_min(1e-12).rsqrt()
