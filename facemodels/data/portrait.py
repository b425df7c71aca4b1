"""Pictures of procedural heads with their hair and colours, beside the normals and mask of the face."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from facemodels.batch import Rows
from facemodels.config import SIZE
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

    def repeat(self, count: int) -> "Heads":
        """The same head so many times, for as many cameras."""
        many = {name: getattr(self, name).expand(count, -1, -1) for name in ("vertices", "normals", "albedo")}
        return replace(self, **many)


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


@dataclass(frozen=True)
class View(Rows):
    """Heads seen by a camera, not lit yet, at `SUPERSAMPLING` samples a pixel each way.

    Attributes:
        normal: In the camera frame, unit length where a head is, shape `(n, 3, fine, fine)`.
        albedo: Shape `(n, 3, fine, fine)`.
        covered: One where a head is, shape `(n, 1, fine, fine)`.
        face: One where the face proper is, shape `(n, 1, fine, fine)`.
    """

    normal: Tensor
    albedo: Tensor
    covered: Tensor
    face: Tensor


def view_heads(
    heads: Heads,
    rotation: Float[Tensor, "n 3 3"],
    scale: Float[Tensor, "n"],
    shift: Float[Tensor, "n 2"],
    size: int = SIZE,
) -> View:
    """Rasterize heads: all that does not depend on light and background.

    Args:
        heads: From `build_heads`.
        rotation: From the face frame to the camera frame, shape `(n, 3, 3)`.
        scale: Pixels per mm, shape `(n,)`.
        shift: Where the face frame's origin lands, in pixels, shape `(n, 2)`.
        size: Side of the image in pixels.
    """
    screen = project_weak_perspective(heads.vertices, rotation, SUPERSAMPLING * scale, SUPERSAMPLING * shift)
    fragments = rasterize(screen, heads.triangles, SUPERSAMPLING * size)
    attributes = torch.cat([heads.normals @ rotation.transpose(-1, -2), heads.albedo], dim=2)
    seen = interpolate(attributes, heads.triangles, fragments)
    covered = fragments.covered[:, None].float()
    face = covered * heads.face[fragments.triangle.clamp_min(0)][:, None]
    return View(_unit(seen[:, :3]), seen[:, 3:], covered, face)


def light_view(
    view: View, light: Float[Tensor, "n 9"], background: Float[Tensor, "n 3 size size"]
) -> Float[Tensor, "n 3 size size"]:
    """The image: albedo times shading, between 0 and 1, so that the light explains it exactly but for that clipping.

    Args:
        view: From `view_heads`.
        light: Spherical-harmonic coefficients, shape `(n, 9)`.
        background: Shape `(n, 3, size, size)`.
    """
    inside = (view.normal[:, 2:] < 0) & (view.face == 0)
    shading = shade(torch.where(inside, -view.normal, view.normal), light).clamp_min(0)
    shading = torch.where(inside, _INSIDE_HAIR * shading, shading)
    image = avg_pool2d((view.albedo * shading).clamp(0, 1) * view.covered, SUPERSAMPLING)
    return (image + (1 - avg_pool2d(view.covered, SUPERSAMPLING)) * background).clamp(0, 1)


def face_geometry(view: View) -> tuple[Float[Tensor, "n 3 size size"], Float[Tensor, "n 1 size size"]]:
    """Normals of the face proper in the camera frame, zero outside, and its mask of zeros and ones."""
    mask = (avg_pool2d(view.face, SUPERSAMPLING) >= 0.5).float()
    return _unit(avg_pool2d(view.normal * view.face, SUPERSAMPLING)) * mask, mask


def draw_heads(
    heads: Heads,
    rotation: Float[Tensor, "n 3 3"],
    scale: Float[Tensor, "n"],
    shift: Float[Tensor, "n 2"],
    light: Float[Tensor, "n 9"],
    background: Float[Tensor, "n 3 size size"],
) -> tuple[Float[Tensor, "n 3 size size"], Float[Tensor, "n 3 size size"], Float[Tensor, "n 1 size size"]]:
    """Image, normals and mask of heads in front of a background: `view_heads`, `light_view` and `face_geometry`."""
    view = view_heads(heads, rotation, scale, shift, background.shape[-1])
    return light_view(view, light, background), *face_geometry(view)


def _unit(normals: Tensor) -> Tensor:
    return normals * normals.square().sum(dim=1, keepdim=True).clamp_min(1e-12).rsqrt()
