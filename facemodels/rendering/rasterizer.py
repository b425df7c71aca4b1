"""Which triangle each pixel shows, and where on it: a batched z-buffer."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facemodels.rendering.camera import NEAREST

IMAGES_AT_ONCE = 8
"""Images worked on together: enough to keep the library busy, few enough to stay in the cache."""


@dataclass(frozen=True)
class Fragments:
    """What each pixel shows.

    Attributes:
        triangle: Number of the nearest triangle, -1 where there is none, shape `(n, height, width)`.
        barycentric: Weights of its three corners at the pixel's centre, zero where there is none,
            shape `(n, height, width, 3)`. Differentiable with respect to the corners' positions.
        depth: Depth there, infinite where there is none, shape `(n, height, width)`.
    """

    triangle: Int[Tensor, "n height width"]
    barycentric: Float[Tensor, "n height width 3"]
    depth: Float[Tensor, "n height width"]

    @property
    def covered(self) -> Bool[Tensor, "n height width"]:
        """The pixels that show a triangle, shape `(n, height, width)`."""
        return self.triangle >= 0


def rasterize(
    screen: Float[Tensor, "n vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    size: int | tuple[int, int],
    *,
    perspective: bool = False,
) -> Fragments:
    """Nearest front-facing triangle at the centre of every pixel.

    A triangle faces the camera when its corners run anticlockwise in the image; others are left out, and so are
    triangles that come nearer than 1 mm to a pinhole camera. Of triangles at exactly the same depth the one with the
    lowest number is shown, so the result does not depend on the device or the number of threads.

    Args:
        screen: Pixel x, pixel y and depth of each vertex, from one of the cameras, shape `(n, vertices, 3)`.
        triangles: Vertex numbers of shape `(triangles, 3)`, shared by all `n`.
        size: Side of the square image in pixels, or `(height, width)`.
        perspective: Whether `screen` comes from the pinhole camera, where equal steps in the image are no equal steps
            on the triangle.

    Returns:
        The fragments, on the device of `screen`.

    Raises:
        ValueError: `screen` or `triangles` has another shape, or a size is below 1.

    Example:
        >>> screen = torch.tensor([[[0.0, 4.0, 7.0], [4.0, 4.0, 7.0], [0.0, 0.0, 7.0]]])
        >>> rasterize(screen, torch.tensor([[0, 1, 2]]), 4).triangle
        tensor([[[ 0, -1, -1, -1],
                 [ 0,  0, -1, -1],
                 [ 0,  0,  0, -1],
                 [ 0,  0,  0,  0]]])
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check("rasterize", screen, triangles, height, width)
    with torch.no_grad():
        parts = [
            _nearest_triangles(part, triangles, height, width, perspective) for part in screen.split(IMAGES_AT_ONCE)
        ]
    triangle = torch.cat(parts) if parts else triangles.new_empty((0, height * width))
    barycentric, depth = _barycentric(screen, triangles, triangle, width, perspective)
    shape = (len(screen), height, width)
    return Fragments(triangle.view(shape), barycentric.view(*shape, 3), depth.view(shape))


def interpolate(
    attributes: Float[Tensor, "n vertices channels"], triangles: Int[Tensor, "triangles 3"], fragments: Fragments
) -> Float[Tensor, "n channels height width"]:
    """Carry values from the vertices to the pixels; differentiable in the values and in the barycentric weights.

    Args:
        attributes: Values at the vertices, shape `(n, vertices, channels)`; `n` may be 1 for values that all share.
        triangles: The triangles that were rasterized, shape `(triangles, 3)`.
        fragments: What `rasterize` returned.

    Returns:
        Shape `(n, channels, height, width)`, zero where no triangle is seen.

    Example:
        >>> screen = torch.tensor([[[0.0, 2.0, 7.0], [2.0, 2.0, 7.0], [0.0, 0.0, 7.0]]])
        >>> triangles = torch.tensor([[0, 1, 2]])
        >>> interpolate(screen, triangles, rasterize(screen, triangles, 2))[0, 0]  # each pixel's own x
        tensor([[0.5000, 0.0000],
                [0.5000, 1.5000]])
    """
    count, height, width = fragments.triangle.shape
    channels = attributes.shape[-1]
    image, pixel = fragments.covered.flatten(1).nonzero().unbind(dim=1)
    corner = triangles[fragments.triangle.flatten(1)[image, pixel]]  # (seen, 3)
    weight = fragments.barycentric.flatten(1, 2)[image, pixel]
    vertex_count = attributes.shape[1]
    if len(attributes) == count:
        corner = corner + image[:, None] * vertex_count
    flat = attributes.reshape(-1, channels)
    value = (flat[corner] * weight[..., None]).sum(dim=1)
    result = attributes.new_zeros((count, height * width, channels)).index_put((image, pixel), value)
    return result.transpose(1, 2).reshape(count, channels, height, width)


def vertex_normals(
    vertices: Float[Tensor, "n vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> Float[Tensor, "n vertices 3"]:
    """Unit normals at the vertices: the mean of the triangles around, weighted by their areas.

    Args:
        vertices: Shape `(n, vertices, 3)`.
        triangles: Vertex numbers of shape `(triangles, 3)`, anticlockwise seen from outside.

    Returns:
        Shape `(n, vertices, 3)`, in the frame of `vertices`; zero for a vertex of no triangle.

    Example:
        >>> corners = torch.tensor([[[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
        >>> vertex_normals(corners, torch.tensor([[0, 1, 2]]))[0, 0]
        tensor([0., 0., 1.])
    """
    by_vertex = vertices.transpose(0, 1).contiguous()  # (vertices, n, 3): long rows gather and add faster
    a, b, c = (by_vertex[triangles[:, k]] for k in range(3))
    area_normal = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(by_vertex)
    for k in range(3):
        total = total.index_add(0, triangles[:, k], area_normal)
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-12).transpose(0, 1)


def _check(name: str, screen: Tensor, triangles: Tensor, height: int, width: int) -> None:
    if screen.ndim != 3 or screen.shape[-1] != 3:
        raise ValueError(f"{name}: screen must have shape (n, vertices, 3), got {tuple(screen.shape)}")
    if triangles.ndim != 2 or triangles.shape[-1] != 3:
        raise ValueError(f"{name}: triangles must have shape (triangles, 3), got {tuple(triangles.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"{name}: an image needs at least one pixel each way, got height {height} and width {width}")


def _nearest_triangles(screen: Tensor, triangles: Tensor, height: int, width: int, perspective: bool) -> Tensor:
    """Number of the nearest triangle at each pixel, -1 for none, shape (n, height * width)."""
    count, total = len(screen), len(triangles)
    x, y, depth = (screen[..., k].contiguous() for k in range(3))
    corners = triangles.unbind(dim=1)
    x0, x1, x2 = (x.index_select(1, corner) for corner in corners)  # (n, triangles) each
    y0, y1, y2 = (y.index_select(1, corner) for corner in corners)
    left = torch.ceil(torch.minimum(torch.minimum(x0, x1), x2) - 0.5).clamp_(0, width)
    right = torch.floor(torch.maximum(torch.maximum(x0, x1), x2) - 0.5).clamp_(-1, width - 1)
    top = torch.ceil(torch.minimum(torch.minimum(y0, y1), y2) - 0.5).clamp_(0, height)
    bottom = torch.floor(torch.maximum(torch.maximum(y0, y1), y2) - 0.5).clamp_(-1, height - 1)
    front = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0) < 0  # y runs down: anticlockwise is negative
    kept = (front & (right >= left) & (bottom >= top)).view(-1).nonzero().squeeze(1)

    def keep(value: Tensor) -> Tensor:
        return value.view(-1)[kept]

    image, triangle = kept // total, kept % total
    z = torch.stack([depth[image, corner[triangle]] for corner in corners], dim=1)
    if perspective:
        visible = (z > NEAREST).all(dim=1)
        kept, image, triangle, z = kept[visible], image[visible], triangle[visible], z[visible]
    x0, x1, x2, y0, y1, y2 = map(keep, (x0, x1, x2, y0, y1, y2))
    left, top = keep(left).long(), keep(top).long()
    across, down = keep(right).long() - left + 1, keep(bottom).long() - top + 1

    # Every pixel centre in the box around a triangle is a candidate of that triangle.
    candidates = across * down
    box = torch.repeat_interleave(candidates)
    within = torch.arange(len(box), device=box.device) - (candidates.cumsum(0) - candidates)[box]
    row = torch.div(within, across[box], rounding_mode="floor")
    pixel_x, pixel_y = left[box] + within - row * across[box], top[box] + row
    centre_x, centre_y = pixel_x.to(screen.dtype) + 0.5, pixel_y.to(screen.dtype) + 0.5
    dx0, dx1, dx2 = x0[box] - centre_x, x1[box] - centre_x, x2[box] - centre_x
    dy0, dy1, dy2 = y0[box] - centre_y, y1[box] - centre_y, y2[box] - centre_y
    weight = torch.stack([dx1 * dy2 - dx2 * dy1, dx2 * dy0 - dx0 * dy2, dx0 * dy1 - dx1 * dy0], dim=1)
    inside = (weight <= 0).all(dim=1).nonzero().squeeze(1)
    inside = inside[weight[inside].sum(dim=1) < 0]  # a sliver far away may round to an area of zero
    box, weight = box[inside], weight[inside]
    weight = weight / weight.sum(dim=1, keepdim=True)
    z = z[box]
    z = 1 / (weight / z).sum(dim=1) if perspective else (weight * z).sum(dim=1)
    pixel = (image[box] * height + pixel_y[inside]) * width + pixel_x[inside]

    nearest = torch.full((count * height * width,), torch.inf, dtype=screen.dtype, device=screen.device)
    nearest.scatter_reduce_(0, pixel, z, "amin")
    wins = (z <= nearest[pixel]).nonzero().squeeze(1)
    shown = torch.full((count * height * width,), total, device=screen.device)
    shown.scatter_reduce_(0, pixel[wins], triangle[box[wins]], "amin")
    return shown.masked_fill_(shown == total, -1).view(count, height * width)


def _barycentric(
    screen: Tensor, triangles: Tensor, triangle: Tensor, width: int, perspective: bool
) -> tuple[Tensor, Tensor]:
    """Weights (n, pixels, 3) and depths (n, pixels) of the shown triangles, with gradients to `screen`."""
    image, pixel = (triangle >= 0).nonzero().unbind(dim=1)
    corner = screen[image[:, None], triangles[triangle[image, pixel]]]  # (seen, 3 corners, 3 coordinates)
    centre = torch.stack([pixel % width, torch.div(pixel, width, rounding_mode="floor")], dim=1).to(screen.dtype) + 0.5
    dx, dy = (corner[..., :2] - centre[:, None]).unbind(dim=-1)
    weight = torch.stack(
        [
            dx[:, 1] * dy[:, 2] - dx[:, 2] * dy[:, 1],
            dx[:, 2] * dy[:, 0] - dx[:, 0] * dy[:, 2],
            dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0],
        ],
        dim=1,
    )
    weight = weight / weight.sum(dim=1, keepdim=True)
    z = corner[..., 2]
    if perspective:
        weight = weight / z
        weight = weight / weight.sum(dim=1, keepdim=True)
    barycentric = screen.new_zeros((*triangle.shape, 3)).index_put((image, pixel), weight)
    depth = screen.new_full(triangle.shape, torch.inf).index_put((image, pixel), (weight * z).sum(dim=1))
    return barycentric, depth
