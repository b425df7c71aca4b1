"""Pictures of meshes as a viewer shows them: from any side, by their texture, on white."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, normalize

from facemodels.mesh import Mesh
from facemodels.rendering.camera import euler_to_matrix, project_weak_perspective
from facemodels.rendering.rasterizer import interpolate, rasterize, vertex_normals
from facemodels.rendering.shading import shade

SOFT_LIGHT = torch.tensor([0.75, 0.12, 0.3, 0.12, 0.0, 0.0, 0.0, 0.0, 0.0])
"""A bright, even light from the front, a little from above and from the right."""

_SAMPLES = 2  # a pixel, each way
_FILLS = 0.94  # of the picture's side that the mesh fills
_CLAY = 0.8  # albedo of a mesh without colours


def picture_of(
    meshes: Sequence[Mesh],
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    size: int = 256,
    light: Float[Tensor, "9"] | None = None,
    clay: bool = False,
    extent: float | None = None,
) -> Float[Tensor, "n 3 size size"]:
    """Meshes as they look from one side, on white.

    Args:
        meshes: One or several.
        yaw: By how much they are turned to the right of the picture, in radians.
        pitch: By how much they are tipped down, in radians.
        size: Side of the picture in pixels.
        light: Spherical-harmonic coefficients in the camera frame; by default none, colours are shown as they are.
        clay: Show the shape alone, in grey, under `light` or else a soft one.
        extent: Millimetres from the middle of the picture to its edge; by default each mesh fills the picture.

    Raises:
        ValueError: There is no mesh.

    Example:
        >>> corners = torch.tensor([[-9.0, -9.0, 0.0], [9.0, -9.0, 0.0], [0.0, 9.0, 0.0]])
        >>> red = Mesh(corners, torch.tensor([[0, 1, 2]]), torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3))
        >>> picture_of([red], size=8)[0, :, 4, 4]
        tensor([1., 0., 0.])
    """
    if not meshes:
        raise ValueError("picture_of: there is no mesh to show")
    angles = (torch.tensor([angle]) for angle in (yaw, pitch, 0.0))
    rotation = euler_to_matrix(*angles)
    light = SOFT_LIGHT if clay and light is None else light
    return torch.stack([_picture(mesh, rotation, size, light, clay, extent) for mesh in meshes])


def _picture(
    mesh: Mesh, rotation: Tensor, size: int, light: Tensor | None, clay: bool, extent: float | None
) -> Float[Tensor, "3 size size"]:
    fine = _SAMPLES * size
    used = mesh.vertices[mesh.triangles.unique()]
    middle = (used.amin(0) + used.amax(0)) / 2
    vertices = (mesh.vertices - middle)[None]
    reach = (used - middle).norm(dim=1).max()
    scale = _FILLS * fine / 2 / reach if extent is None else torch.tensor(fine / 2 / extent)
    shift = torch.full((1, 2), fine / 2)
    screen = project_weak_perspective(vertices, rotation, scale[None], shift)
    fragments = rasterize(screen, mesh.triangles, fine)
    covered = fragments.covered[:, None].to(vertices.dtype)
    colours = torch.full((1, 3, fine, fine), _CLAY) if clay else _colours(mesh, fragments)
    if light is not None:
        normals = interpolate(smooth_normals(mesh)[None] @ rotation.mT, mesh.triangles, fragments)
        colours = colours * shade(normalize(normals, dim=1), light[None]).clamp_min(0)
    return avg_pool2d(colours.clamp(0, 1) * covered + 1 - covered, _SAMPLES)[0]


def _colours(mesh: Mesh, fragments) -> Tensor:
    if mesh.uv is None or mesh.texture is None:
        return interpolate(mesh.colours[None], mesh.triangles, fragments)
    where = interpolate(mesh.uv[None], mesh.triangles, fragments)[0]  # (2, h, w)
    grid = torch.stack([2 * where[0] - 1, 1 - 2 * where[1]], dim=2)
    return grid_sample(mesh.texture[None], grid[None], align_corners=False, padding_mode="border")


def smooth_normals(mesh: Mesh) -> Float[Tensor, "vertices 3"]:
    """Unit normals at the vertices of a mesh; vertices at one place, as at a texture's seam, share theirs."""
    places, same = mesh.vertices.unique(dim=0, return_inverse=True)
    return vertex_normals(places[None], same[mesh.triangles])[0][same]
