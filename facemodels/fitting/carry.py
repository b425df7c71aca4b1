"""The photo itself, carried by the fit to another pose: the face as it would look from there, as far as it is known.

Every pixel of the render in the new pose shows a point of the surface. The fit tells where that point lies in the
photo; its colour there, freed of the photo's shading and shaded anew, is the colour of the pixel.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from facemodels.morphable import MorphableModel
from facemodels.rendering import Surface, fill_holes, interpolate, shade

MIRRORED_WEIGHT = 0.2
"""Weight of a pixel whose point is hidden in the photo while its mirror image on the other side of the face is seen."""

_HIDDEN = 5.0  # mm behind the nearest surface from which on a point is hidden: a fit is not nearer to the truth
_GRAZING = 0.2  # cosine to the view below which a point is too much foreshortened to be read
_INSIDE = 0.99  # of a sample's neighbourhood that must lie on the face, lest the background comes along
_DARKEST = 0.25  # shading below which a photo says little about the albedo
_FAR = 1e4  # mm, depth where there is no surface


def mirrored_vertices(morphable: MorphableModel) -> Int[Tensor, " vertices"]:
    """For each vertex, the one nearest to its mirror image on the other half of the mean face.

    Example:
        >>> model = MorphableModel.procedural()
        >>> other = mirrored_vertices(model)
        >>> left, right = model.landmarks[45].item(), model.landmarks[36].item()  # the outer corners of the eyes
        >>> other[left].item() == right
        True
    """
    mean = morphable.mean.double()
    middle = mean[morphable.landmarks, 0].mean()
    mirrored = mean * torch.tensor([-1.0, 1.0, 1.0]) + torch.stack([2 * middle, middle * 0, middle * 0])
    return torch.from_numpy(np.asarray(KDTree(mean.numpy()).query(mirrored.numpy())[1]))


def carry(
    photos: Float[Tensor, "n 3 height width"],
    own: Surface,
    turned: Surface,
    rotation: Float[Tensor, "n 3 3"],
    turned_rotation: Float[Tensor, "n 3 3"],
    light: Float[Tensor, "n 9"],
    triangles: Int[Tensor, "triangles 3"],
    mirrored: Int[Tensor, " vertices"],
    *,
    reach: int = 0,
) -> tuple[Float[Tensor, "n 3 height width"], Float[Tensor, "n 1 height width"]]:
    """Show photographed faces in another pose under the same light.

    A point counts as seen in the photo when it lies on the nearest surface there, is not turned away and is inside
    the mask. Where it is hidden, the point on the other side of the face stands in for it, with a small weight.

    Args:
        photos: In [0, 1], shape `(n, 3, height, width)`.
        own: The fitted faces as the photos show them.
        turned: The same faces in the other pose; the vertices may have moved a little.
        rotation: From the face frame to the photo's camera frame, shape `(n, 3, 3)`.
        turned_rotation: From the face frame to the other pose's camera frame, shape `(n, 3, 3)`.
        light: Of the photos, in their camera frame, shape `(n, 9)`.
        triangles: Of the mesh that was rendered, shape `(triangles, 3)`.
        mirrored: From `mirrored_vertices`, shape `(vertices,)`.
        reach: Half of the width of the holes of the turned mask that were closed: eyes and mouth are carried by what
            is around them.

    Returns:
        Faces in the other pose in [0, 1], zero where they are unknown, shape `(n, 3, height, width)`; and weights from
        0, unknown or off the face, over `MIRRORED_WEIGHT` to 1, seen in the photo, shape `(n, 1, height, width)`.
    """
    here, there = turned.screen[..., :2], own.screen
    flip = torch.tensor([-1.0, 1.0])
    # A field is smooth, and goes on over holes, when it says by how much a pixel moves, and not where to.
    moved = torch.cat([there[..., :2] - here, there[:, mirrored, :2] - flip * here], dim=2)
    depths = torch.stack([there[..., 2], there[:, mirrored, 2]], dim=2)
    field = interpolate(torch.cat([moved, depths], dim=2), triangles, turned.fragments) * turned.meshed
    field = _smoothed(fill_holes(field, turned.meshed, reach), turned.mask)
    pixels = _pixel_centres(field)
    where = torch.cat([field[:, :2] + pixels, field[:, 2:4] + flip[:, None, None] * pixels])
    depth = torch.cat([field[:, 4:5], field[:, 5:6]])

    seen_depth = torch.where(own.fragments.covered, own.fragments.depth, _FAR)[:, None]
    known = torch.cat([photos, own.mask, seen_depth], dim=1)
    sampled = _sample(known.repeat(2, 1, 1, 1), where)
    turns = torch.cat([rotation, rotation * torch.tensor([-1.0, 1.0, 1.0])]) @ turned_rotation.mT.repeat(2, 1, 1)
    normals = torch.einsum("nij,njhw->nihw", turns, turned.normals.repeat(2, 1, 1, 1))
    seen = (depth < sampled[:, 4:] + _HIDDEN) & (normals[:, 2:] > _GRAZING) & (sampled[:, 3:4] > _INSIDE)

    relit = shade(turned.normals, light).clamp_min(0).repeat(2, 1, 1, 1)
    relit = relit / shade(normals, light.repeat(2, 1)).clamp_min(_DARKEST)
    direct, other = (sampled[:, :3] * relit * seen).clamp(0, 1).chunk(2)
    seen_here, seen_there = (seen & (turned.mask > 0).repeat(2, 1, 1, 1)).chunk(2)
    weight = torch.where(seen_here, 1.0, MIRRORED_WEIGHT * seen_there)
    return torch.where(seen_here, direct, other) * (weight > 0), weight


def _smoothed(field: Tensor, mask: Tensor) -> Tensor:
    """Mean of 3x3 pixels of the mask: one sample a pixel picks single triangles of the rims of eyes and lips."""
    total, count = (avg_pool2d(image, 3, stride=1, padding=1) for image in (field * mask, mask))
    return total / count.clamp_min(0.1)


def _pixel_centres(image: Tensor) -> Float[Tensor, "2 height width"]:
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])


def _sample(images: Tensor, where: Float[Tensor, "n 2 height width"]) -> Tensor:
    """Values of images at pixel positions, linearly between the pixels; zero around the image."""
    size = torch.tensor([images.shape[-1], images.shape[-2]])
    grid = 2 * where.movedim(1, -1) / size - 1
    return grid_sample(images, grid, align_corners=False)
