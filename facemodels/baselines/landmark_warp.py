"""The baseline of the paper's video: a photo warped piece by piece so that its landmarks lie where another's do.

The landmarks and points on the picture's border are joined to triangles once; each triangle carries its part of the
photo with it. Nothing new appears: a mouth that is shut in the photo has no teeth to show.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import Delaunay
from torch import Tensor
from torch.nn.functional import grid_sample

from facemodels.config import SIZE
from facemodels.rendering.rasterizer import interpolate, rasterize

_SURFACE = 468  # the points around the irises, which come after these, turn with the eyes
_BORDER = 8  # points on each side of the picture that stay where they are


class LandmarkWarp:
    """A photo that follows landmarks.

    Args:
        picture: The crop of the photo, of any size, (3, h, w) in [0, 1].
        points: Its landmarks in pixels of a crop of 64, (478, 3), as in `AlignedPhoto.landmarks`.

    Raises:
        ValueError: The picture is not square, or the points have another shape.

    Example:
        >>> points = np.random.default_rng(0).uniform(10, 54, (478, 3))
        >>> picture = torch.rand(3, 32, 32)
        >>> warp = LandmarkWarp(picture, points)
        >>> bool((warp(points[None])[0] - picture).abs().max() < 1e-4)  # nothing moves
        True
    """

    def __init__(self, picture: Float[Tensor, "3 size size"], points: Float[np.ndarray, "478 3"]):
        if picture.ndim != 3 or picture.shape[1] != picture.shape[2]:
            raise ValueError(f"LandmarkWarp: the picture must be (3, size, size), got {tuple(picture.shape)}")
        _check_points(points, 2)
        self.picture = picture
        self._border = _border_points()
        self._start = self._with_border(torch.as_tensor(points, dtype=torch.float32)[None])
        self._triangles = _triangulate(self._start[0, :, :2])

    def __call__(self, points: Float[np.ndarray, "n 478 3"]) -> Float[Tensor, "n 3 size size"]:
        """The photo with its landmarks at others; where parts of the face cover others, the nearer one is shown.

        Args:
            points: Landmarks in pixels of a crop of 64 aligned as the photo is, (n, 478, 3).

        Raises:
            ValueError: The points have another shape.
        """
        _check_points(points, 3)
        size = self.picture.shape[1]
        screen = self._with_border(torch.as_tensor(points, dtype=torch.float32))
        screen = screen * torch.tensor([size / SIZE, size / SIZE, 1.0])
        fragments = rasterize(screen, self._triangles, size)
        origin = interpolate(self._start[..., :2] * (2 / SIZE) - 1, self._triangles, fragments).permute(0, 2, 3, 1)
        centres = (torch.arange(size) + 0.5) * (2 / size) - 1
        still = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)
        origin = torch.where(fragments.covered[..., None], origin, still)
        picture = self.picture.expand(len(points), -1, -1, -1)
        return grid_sample(picture, origin, mode="bilinear", padding_mode="border", align_corners=False)

    def _with_border(self, points: Float[Tensor, "n 478 3"]) -> Float[Tensor, "n corners 3"]:
        surface = points[:, :_SURFACE]
        border = self._border.expand(len(points), -1, -1)
        depth = surface[..., 2:].amax(1, keepdim=True).expand(-1, border.shape[1], -1)
        return torch.cat([surface, torch.cat([border, depth], -1)], 1)


def _check_points(points: np.ndarray, dimensions: int) -> None:
    if points.ndim != dimensions or points.shape[-2:] != (478, 3):
        wanted = "(478, 3)" if dimensions == 2 else "(n, 478, 3)"
        raise ValueError(f"LandmarkWarp: landmarks must have shape {wanted}, got {points.shape}")


def _border_points() -> Float[Tensor, "1 points 2"]:
    along = torch.linspace(0, SIZE, _BORDER + 1)[:-1]
    none, full = torch.zeros_like(along), torch.full_like(along, SIZE)
    sides = [(along, none), (full, along), (SIZE - along, full), (none, SIZE - along)]
    return torch.cat([torch.stack(side, -1) for side in sides])[None]


def _triangulate(points: Float[Tensor, "corners 2"]) -> Int[Tensor, "triangles 3"]:
    """Triangles of points in the plane, anticlockwise as the image shows them."""
    triangles = torch.from_numpy(Delaunay(points.numpy()).simplices).long()
    a, b, c = points[triangles].unbind(1)
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] > 0  # y runs down
    triangles[clockwise] = triangles[clockwise].flip(1)
    return triangles
