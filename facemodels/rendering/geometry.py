"""Normals and mask of a posed face, as the networks are given them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from facemodels.rendering.camera import project_weak_perspective
from facemodels.rendering.rasterizer import Fragments, interpolate, rasterize, vertex_normals


@dataclass(frozen=True)
class Surface:
    """A posed face as its camera sees it, and what is needed to carry more than normals to its pixels.

    Attributes:
        screen: Pixel x, pixel y and depth of each vertex, shape `(n, vertices, 3)`.
        fragments: Of the whole mesh.
        meshed: Ones where the face proper is seen, before holes are closed, shape `(n, 1, height, width)`.
        normals: Unit normals in the camera frame, zero outside the mask, shape `(n, 3, height, width)`.
        mask: Zeros and ones, shape `(n, 1, height, width)`.
    """

    screen: Float[Tensor, "n vertices 3"]
    fragments: Fragments
    meshed: Float[Tensor, "n 1 height width"]
    normals: Float[Tensor, "n 3 height width"]
    mask: Float[Tensor, "n 1 height width"]


def render_surface(
    vertices: Float[Tensor, "n vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    face: Bool[Tensor, "triangles"],
    rotation: Float[Tensor, "n 3 3"],
    scale: Float[Tensor, "n"],
    shift: Float[Tensor, "n 2"],
    size: int = 64,
    *,
    close: int = 0,
) -> Surface:
    """The face proper, seen by a weak-perspective camera.

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

    Raises:
        ValueError: `face` does not have one entry for each triangle, or `close` is even or negative.
    """
    if face.shape != triangles.shape[:1]:
        raise ValueError(
            f"render_surface: face needs one entry for each of {len(triangles)} triangles, got {tuple(face.shape)}"
        )
    if close < 0 or (close and close % 2 == 0):
        raise ValueError(f"render_surface: close must be 0 or an odd number of pixels, got {close}")
    screen = project_weak_perspective(vertices, rotation, scale, shift)
    fragments = rasterize(screen, triangles, size)
    meshed = (fragments.covered & face[fragments.triangle.clamp_min(0)])[:, None].to(vertices.dtype)
    normals = vertex_normals(vertices, triangles) @ rotation.transpose(-1, -2)
    normals = _unit(interpolate(normals, triangles, fragments)) * meshed
    closed = close_holes(normals, meshed, close) if close > 1 else (normals, meshed)
    return Surface(screen, fragments, meshed, *closed)


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
    """Normals and mask of the face proper: `render_surface` for those who need no more.

    Returns:
        Normals in the camera frame, unit length in the mask and zero outside, shape `(n, 3, size, size)`; and the mask
        of zeros and ones, shape `(n, 1, size, size)`.
    """
    surface = render_surface(vertices, triangles, face, rotation, scale, shift, size, close=close)
    return surface.normals, surface.mask


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
    # A pixel of the closing is at most `reach` pixels from the mask, counted as a king moves.
    return _unit(fill_holes(normals, mask, reach)) * closed, closed


def fill_holes(
    values: Float[Tensor, "n channels height width"], known: Float[Tensor, "n 1 height width"], reach: int
) -> Float[Tensor, "n channels height width"]:
    """Continue values into the unknown pixels around, ring by ring: each is the mean of its known neighbours.

    Args:
        values: Zero where they are unknown, shape `(n, channels, height, width)`.
        known: Ones where the values are known, else zeros, shape `(n, 1, height, width)`.
        reach: How many pixels far to go, counted as a king moves.

    Returns:
        Values as given where they are known, and zero beyond the reach.

    Example:
        >>> row = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]])
        >>> fill_holes(row, (row > 0).float(), 2)
        tensor([[[[2., 2., 2., 0.]]]])
    """
    for _ in range(reach):
        total, count = (avg_pool2d(image, 3, stride=1, padding=1) for image in (values, known))
        values = torch.where(known > 0, values, total / count.clamp_min(0.1))
        known = (count > 0).to(values.dtype)
    return values


def _unit(normals: Tensor) -> Tensor:
    """Unit length along dimension 1, zero where there is no normal; several times faster than a vector norm there."""
    return normals * normals.square().sum(dim=1, keepdim=True).clamp_min(1e-12).rsqrt()
