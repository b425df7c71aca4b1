"""Normals and mask of a posed face, as the networks are given them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from facemodels.rendering.camera import project_weak_perspective
from facemodels.rendering.rasterizer import interpolate, rasterize, vertex_normals


def render_geometry(
    vertices: Float[Tensor, "n vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    face: Bool[Tensor, "triangles"],
    rotation: Float[Tensor, "n 3 3"],
    scale: Float[Tensor, "n"],
    shift: Float[Tensor, "n 2"],
    size: int = 64,
    *,
    close: int = 0,
) -> tuple[Float[Tensor, "n 3 height width"], Float[Tensor, "n 1 height width"]]:
    """Normal map and mask of the face proper, seen by a weak-perspective camera.

    A pixel belongs to the mask when the nearest triangle there is one of `face`: hair, ears and neck hide the face
    but are not part of it.

    Args:
        vertices: In mm in the face frame, shape `(n, vertices, 3)`.
        triangles: Vertex numbers, shape `(triangles, 3)`.
        face: Which triangles belong to the face proper, shape `(triangles,)`.
        rotation: From the face frame to the camera frame, shape `(n, 3, 3)`.
        scale: Pixels per mm, shape `(n,)`.
        shift: Where the face frame's origin lands, in pixels, shape `(n, 2)`.
        size: Side of the image in pixels.
        close: Side, in pixels (odd), of the square with which holes of the mask are closed, as a model without eyes
            and mouth has them; 0 leaves the mask as it is.

    Returns:
        Normals in the camera frame, unit length in the mask and zero outside, shape `(n, 3, size, size)`; and the mask
        of zeros and ones, shape `(n, 1, size, size)`.

    Raises:
        ValueError: `face` does not have one entry for each triangle, or `close` is even or negative.
    """
    if face.shape != triangles.shape[:1]:
        raise ValueError(
            f"render_geometry: face needs one entry for each of {len(triangles)} triangles, got {tuple(face.shape)}"
        )
    if close < 0 or (close and close % 2 == 0):
        raise ValueError(f"render_geometry: close must be 0 or an odd number of pixels, got {close}")
    fragments = rasterize(project_weak_perspective(vertices, rotation, scale, shift), triangles, size)
    mask = (fragments.covered & face[fragments.triangle.clamp_min(0)])[:, None].to(vertices.dtype)
    normals = vertex_normals(vertices, triangles) @ rotation.transpose(-1, -2)
    normals = _unit(interpolate(normals, triangles, fragments)) * mask
    return close_holes(normals, mask, close) if close > 1 else (normals, mask)


def close_holes(
    normals: Float[Tensor, "n 3 height width"], mask: Float[Tensor, "n 1 height width"], side: int
) -> tuple[Float[Tensor, "n 3 height width"], Float[Tensor, "n 1 height width"]]:
    """Morphological closing of a mask by a square; the new pixels get the mean normal of their neighbours.

    Args:
        normals: Shape `(n, 3, height, width)`, zero outside the mask.
        mask: Zeros and ones, shape `(n, 1, height, width)`.
        side: Side of the square in pixels, odd.

    Returns:
        Normals and mask as given, with the holes filled; a hole narrower than `side` disappears.
    """
    reach = side // 2
    grown = max_pool2d(pad(mask, (reach,) * 4), side, stride=1, padding=reach)
    closed = -max_pool2d(-grown, side, stride=1, padding=reach)[:, :, reach:-reach, reach:-reach]
    closed = torch.maximum(closed, mask)
    filled, known = normals, mask
    for _ in range(reach):  # a pixel of the closing is at most `reach` pixels from the mask, counted as a king moves
        total, count = (avg_pool2d(image, 3, stride=1, padding=1) for image in (filled, known))
        filled = torch.where(known > 0, filled, total / count.clamp_min(0.1))
        known = (count > 0).to(mask.dtype)
    return _unit(filled) * closed, closed


def _unit(normals: Tensor) -> Tensor:
    """Unit length along dimension 1, zero where there is no normal; several times faster than a vector norm there."""
    return normals * normals.square().sum(dim=1, keepdim=True).clamp_min(1e-12).rsqrt()
