"""Texture coordinates for any head: the surface spread out flat.

A model that has coordinates keeps them. Others are looked at from the middle of the head, as a globe is mapped: the
longitude runs to the right, the latitude up, and there is a seam at the back of the head. What cannot be seen from
outside (the inside of the mouth), separate parts (eyes, ears, teeth) and filled holes get small pictures of their own
below.
"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facemodels.morphable import MorphableModel
from facemodels.morphable.patches import Whole, pieces
from facemodels.rendering.geometry import fill_holes
from facemodels.rendering.rasterizer import rasterize

_BLEED = 4  # pixels
_LOOK = 512  # pixels of the map in which it is seen what is outside
_FLOOR = 0.18  # share of the texture's height, at the bottom, for small parts
_MARGIN = 0.006  # around each part, of the texture's side
_GRAIN = 2**20  # to a texture's side: coordinates nearer than this are one
_OVER = 1.05  # longitude, of the whole turn, up to which triangles reach over the seam
_JAW_ENDS = (0, 16)  # iBUG landmarks before the ears


@dataclass(frozen=True)
class Chart:
    """How a texture lies on a mesh.

    Attributes:
        vertex: For each vertex of the textured mesh the model's; the model's own come first, in their order, then those
            that a seam needs twice. Shape `(chart_vertices,)`.
        triangles: Of the textured mesh, in the model's order, shape `(triangles, 3)`.
        uv: In [0, 1], v up, shape `(chart_vertices, 2)`.
    """

    vertex: Int[Tensor, " chart_vertices"]
    triangles: Int[Tensor, "triangles 3"]
    uv: Float[Tensor, "chart_vertices 2"]


@dataclass(frozen=True)
class Texels:
    """Which point of the surface each pixel of a texture shows.

    Attributes:
        size: Side of the texture in pixels.
        pixel: Numbers of the pixels that show something, row by row, shape `(texels,)`.
        corners: The three vertices of the model around each, shape `(texels, 3)`.
        weights: Their barycentric weights, shape `(texels, 3)`.
    """

    size: int
    pixel: Int[Tensor, " texels"]
    corners: Int[Tensor, "texels 3"]
    weights: Float[Tensor, "texels 3"]

    def at(self, values: Float[Tensor, "vertices k"]) -> Float[Tensor, "texels k"]:
        """Values of the model's vertices, carried to the texels."""
        return (values[self.corners] * self.weights[..., None]).sum(1)

    def picture(self, values: Float[Tensor, "texels k"]) -> Float[Tensor, "k size size"]:
        """Values of texels as a texture; around its parts they go on for a few pixels, as textures are read softly."""
        image = values.new_zeros(values.shape[1], self.size**2)
        image[:, self.pixel] = values.T
        known = values.new_zeros(1, self.size**2)
        known[:, self.pixel] = 1
        image, known = (part.view(1, -1, self.size, self.size) for part in (image, known))
        return torch.where(known > 0, image, fill_holes(image, known, _BLEED))[0]


@functools.lru_cache(maxsize=4)
def texels_of(whole: Whole, size: int) -> Texels:
    """The texels of a model's chart.

    Args:
        whole: From `facemodels.morphable.patches.whole_of`.
        size: Side of the texture in pixels.
    """
    chart = chart_of(whole)
    at = size * torch.stack([chart.uv[:, 0], 1 - chart.uv[:, 1]], dim=1)
    outward = whole.morphable.mean[chart.vertex].norm(dim=1)
    screen = torch.cat([at, -outward[:, None]], dim=1)[None]
    # Coordinates of others may be mirrored: their triangles run clockwise.
    a, b, c = at[chart.triangles].unbind(1)
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] > 0
    turned = torch.where(clockwise[:, None], chart.triangles.flip(1), chart.triangles)
    fragments = rasterize(screen, turned, size)
    pixel = fragments.covered.flatten().nonzero()[:, 0]
    corners = chart.vertex[turned[fragments.triangle.flatten()[pixel]]]
    return Texels(size, pixel, corners, fragments.barycentric.view(-1, 3)[pixel])


@functools.lru_cache(maxsize=4)
def chart_of(whole: Whole) -> Chart:
    """The chart of a morphable model: by its own texture coordinates, else as on a globe.

    Args:
        whole: From `facemodels.morphable.patches.whole_of`.

    Example:
        >>> from facemodels.morphable.patches import whole_of
        >>> chart = chart_of(whole_of(MorphableModel.procedural()))
        >>> len(chart.uv) > 9375, bool((chart.vertex[:9375] == torch.arange(9375)).all())
        (True, True)
    """
    morphable = whole.morphable
    triangles = morphable.triangles
    if morphable.uv is not None:
        if not whole.patch.any():
            return Chart(torch.arange(morphable.n_vertices), triangles, morphable.uv)
        corners, part = morphable.uv[triangles], torch.zeros_like(whole.patch)
    else:
        corners = _globe(morphable)[triangles]  # (triangles, 3, 2): longitude and latitude of corners
        crossing = corners[..., 0].amax(1) - corners[..., 0].amin(1) > 0.5
        wraps = crossing[:, None] & (corners[..., 0] < 0.5)
        longitude = (corners[..., 0] + wraps.float()).clamp(max=_OVER)
        corners = torch.stack([longitude, corners[..., 1]], dim=2)
        part = _parts(morphable, corners)
    part = torch.where(whole.patch > 0, len(triangles) + whole.patch, part)
    uv = torch.empty_like(corners)
    outside = part == 0
    small = part[~outside].unique().tolist()
    uv[outside] = _fitted(corners[outside], (0.0, _FLOOR if small else 0.0, 1.0, 1.0))
    for place, number in enumerate(small):
        inside = part == number
        flat = morphable.mean[triangles[inside]][..., :2]
        uv[inside] = _fitted(flat, (place / len(small), 0.0, (place + 1) / len(small), _FLOOR))
    return _joined(triangles, uv, morphable.n_vertices)


def _globe(morphable: MorphableModel) -> Float[Tensor, "vertices 2"]:
    """Longitude and latitude of each vertex of the mean face, in [0, 1]; the nose is at longitude one half."""
    mean = morphable.mean.double()
    marks = mean[morphable.landmarks]
    ends = marks[list(_JAW_ENDS)].mean(0)
    x, y, z = (mean - torch.stack([ends[0], marks[:, 1].mean(), ends[2]])).unbind(1)
    longitude = torch.atan2(x, z) / (2 * torch.pi) + 0.5
    latitude = torch.atan2(y, torch.hypot(x, z)) / torch.pi + 0.5
    return torch.stack([longitude, latitude], 1).float()


def _parts(morphable: MorphableModel, corners: Float[Tensor, "triangles 3 2"]) -> Int[Tensor, " triangles"]:
    """0 for triangles of the largest piece that are seen from outside; other numbers for pieces of the rest."""
    triangles = morphable.triangles
    # Every triangle has corners of its own on the map; the outermost is nearest to the eye.
    outward = (morphable.mean - morphable.mean[morphable.landmarks[list(_JAW_ENDS)]].mean(0)).norm(dim=1)
    screen = torch.cat([corners * torch.tensor([1.0, -1.0]) * _LOOK, -outward[triangles][..., None]], dim=2)
    screen[..., 1] += _LOOK
    alone = torch.arange(3 * len(triangles)).view(-1, 3)
    fragments = rasterize(screen.view(1, -1, 3), alone, (_LOOK, int(1.2 * _LOOK)))
    seen = torch.zeros(len(triangles), dtype=torch.bool)
    seen[fragments.triangle[fragments.covered].unique()] = True
    piece = pieces(morphable)
    largest = torch.bincount(piece).argmax()
    part = torch.where(piece == largest, 0, piece + 2)
    # A triangle too small for the map is outside if a neighbour is.
    touched = torch.zeros(morphable.n_vertices, dtype=torch.bool)
    touched[triangles[seen & (piece == largest)]] = True
    hidden = (part == 0) & ~touched[triangles].all(1)
    return torch.where(hidden, 1, part)


def _fitted(corners: Float[Tensor, "triangles 3 2"], box: tuple[float, float, float, float]) -> Tensor:
    """Corners stretched to fill a box (left, bottom, right, top) but for a margin."""
    points = corners.reshape(-1, 2)
    low, high = points.amin(0), points.amax(0)
    left, bottom, right, top = box
    start = torch.tensor([left + _MARGIN, bottom + _MARGIN])
    size = torch.tensor([right - left - 2 * _MARGIN, top - bottom - 2 * _MARGIN])
    return start + (corners - low) / (high - low).clamp_min(1e-6) * size


def _joined(triangles: Tensor, uv: Float[Tensor, "triangles 3 2"], count: int) -> Chart:
    """A chart of corners: corners of one vertex at one place become one again."""
    u, v = (uv.reshape(-1, 2).double() * _GRAIN).round().long().unbind(1)
    keys = (triangles.reshape(-1) * (2 * _GRAIN) + u) * (2 * _GRAIN) + v
    different, which = keys.unique(return_inverse=True)
    vertex = different // (2 * _GRAIN) ** 2
    first = torch.ones(len(vertex), dtype=torch.bool)
    first[1:] = vertex[1:] != vertex[:-1]  # sorted by vertex
    place = torch.empty_like(vertex)
    place[first] = vertex[first]
    place[~first] = count + torch.arange(int((~first).sum()))
    total = count + int((~first).sum())
    owner = torch.arange(total)
    owner[place] = vertex
    placed = torch.zeros(total, 2)
    rest = torch.stack([different // (2 * _GRAIN) % (2 * _GRAIN), different % (2 * _GRAIN)], dim=1)
    placed[place] = (rest / _GRAIN).float()
    return Chart(owner, place[which].view(-1, 3), placed)
