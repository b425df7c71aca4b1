"""The colours of a surface, read from pictures of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, normalize

from facemodels.morphable import MorphableModel
from facemodels.morphable.patches import Whole
from facemodels.rendering import project_weak_perspective, rasterize, vertex_normals
from facemodels.rendering.chart import texels_of

_GRAZING = 0.15  # cosine to the view below which a point is too much foreshortened to be read
_HIDDEN = 4.0  # mm behind the nearest surface from which on a point is hidden
_RIM = 5 / 64  # of the picture's side: width over which colours fade to the mask's edge
_SMOOTH = 0.03  # weight of a difference between neighbours, against that of a colour that was read
_PRIOR = 1e-4  # weight of the colour to expect where nothing was read


@dataclass(frozen=True)
class Sight:
    """A picture of one face, and the camera that took it.

    Attributes:
        picture: In [0, 1], shape `(3, size, size)`.
        mask: How far each pixel shows the face, in [0, 1], shape `(1, size, size)`; it may have another size.
        depth: Of the nearest surface, in mm, infinite where there is none; shape `(size, size)`, any size.
        rotation: From the face frame to the camera frame, shape `(3, 3)`.
        scale: In pictures' sides per mm, shape `()`.
        shift: Where the face frame's origin lands, in pictures' sides, shape `(2,)`.
    """

    picture: Float[Tensor, "3 size size"]
    mask: Float[Tensor, "1 mask_size mask_size"]
    depth: Float[Tensor, "depth_size depth_size"]
    rotation: Float[Tensor, "3 3"]
    scale: Float[Tensor, ""]
    shift: Float[Tensor, "2"]

    def read(
        self, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points"]]:
        """Colours of points of the surface, and how far they are to be believed, from 0 to 1.

        Args:
            points: In mm in the face frame.
            normals: Unit normals there, in the face frame.
        """
        camera = self.rotation[None], self.scale[None], self.shift[None]
        across, down, depth = project_weak_perspective(points[None], *camera)[0].unbind(1)
        where = 2 * torch.stack([across, down], 1)[None, None] - 1
        colours = _sample(self.picture, where)
        nearest = _sample(torch.where(self.depth.isfinite(), self.depth, 1e4)[None], where)[:, 0]
        facing = (normals @ self.rotation.T)[:, 2]
        steep = ((facing - _GRAZING) / (1 - _GRAZING)).clamp(0, 1).square()
        return colours, steep * _sample(_faded(self.mask), where)[:, 0] * (depth < nearest + _HIDDEN)


def sight(
    picture: Float[Tensor, "3 size size"],
    mask: Float[Tensor, "1 size size"],
    vertices: Float[Tensor, "vertices 3"],
    morphable: MorphableModel,
    rotation: Float[Tensor, "3 3"],
    scale: Float[Tensor, ""],
    shift: Float[Tensor, "2"],
    resolution: int = 128,
) -> Sight:
    """What a picture shows of a shape.

    Args:
        picture: In [0, 1].
        mask: Of the face, as large as `scale` and `shift` count.
        vertices: The shape, in mm.
        morphable: For the triangles.
        rotation: From the face frame to the camera frame.
        scale: Pixels of the mask per mm.
        shift: Where the face frame's origin lands, in pixels of the mask.
        resolution: Of the depths by which it is told what is hidden.
    """
    side = mask.shape[-1]
    zoom = resolution / side
    screen = project_weak_perspective(vertices[None], rotation[None], zoom * scale[None], zoom * shift[None])
    depth = rasterize(screen, morphable.triangles, resolution).depth[0]
    return Sight(picture, mask, depth, rotation, scale / side, shift / side)


def combine(
    sights: Sequence[Sight],
    weights: Sequence[float],
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points"]]:
    """The weighted mean of what several pictures show of the same points, and how far it is to be believed."""
    total, trust = torch.zeros_like(points), torch.zeros_like(points[:, 0])
    for one, weight in zip(sights, weights, strict=True):
        colours, seen = one.read(points, normals)
        total, trust = total + weight * seen[:, None] * colours, trust + weight * seen
    return total / trust.clamp_min(1e-6)[:, None], trust.clamp(max=1)


def spread(
    colours: Float[Tensor, "vertices 3"],
    trust: Float[Tensor, "vertices"],
    morphable: MorphableModel,
) -> Float[Tensor, "vertices 3"]:
    """Colours of all vertices: as read where they can be believed, and from there smoothly over the rest of the mesh.

    Pieces of the mesh of which nothing was read have the model's mean albedo, or without one the mean colour.

    Args:
        colours: What was read.
        trust: How far it is to be believed, from 0 to 1.
        morphable: For its triangles and mean albedo.
    """
    seen = bool(trust.sum() > 0)
    mean = (colours * trust[:, None]).sum(0) / trust.sum() if seen else torch.full((3,), 0.5)
    expected = mean.expand_as(colours) if morphable.albedo is None else morphable.albedo
    if not seen:
        return expected
    weight = trust.double().numpy()
    system = diags(weight + _PRIOR) + _SMOOTH * _laplacian(morphable)
    right = weight[:, None] * colours.double().numpy() + _PRIOR * expected.double().numpy()
    # The system is symmetric and dominated by its diagonal: no pivoting, and an order of its own pattern.
    options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    solved = splu(csr_matrix(system).tocsc(), **options).solve(right)
    return torch.from_numpy(solved).to(colours).clamp(0, 1)


def bake(
    sights: Sequence[Sight],
    weights: Sequence[float],
    colours: Float[Tensor, "vertices 3"],
    vertices: Float[Tensor, "vertices 3"],
    whole: Whole,
    size: int,
) -> Float[Tensor, "3 size size"]:
    """A texture: what the pictures show, and where they show nothing the colours of the vertices.

    Args:
        sights: Pictures of one shape.
        weights: Of the pictures.
        colours: Of the vertices.
        vertices: The shape, in mm.
        whole: The model whose shape it is, with its holes filled.
        size: Side of the texture in pixels.
    """
    texels = texels_of(whole, size)
    normals = normalize(texels.at(vertex_normals(vertices[None], whole.morphable.triangles)[0]), dim=1)
    read, trust = combine(sights, weights, texels.at(vertices), normals)
    base = texels.at(colours)
    return texels.picture(base + trust[:, None] * (read - base)).clamp(0, 1)


def _laplacian(morphable: MorphableModel) -> csr_matrix:
    """Graph Laplacian of the mesh."""
    ends = torch.cat([morphable.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).numpy()
    count = morphable.n_vertices
    edges = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count)).tocsr()
    joined = ((edges + edges.T) > 0).astype(np.float64)
    return csr_matrix(diags(np.asarray(joined.sum(1)).ravel()) - joined)


def _faded(mask: Float[Tensor, "1 size size"]) -> Float[Tensor, "1 size size"]:
    """A mask that falls to zero towards its edge, inside of it."""
    side = mask.shape[-1]
    width = max(1, round(_RIM * side)) | 1
    mean = avg_pool2d(mask[None], width, stride=1, padding=width // 2)[0]  # one half at a straight edge
    return ((2 * mean - 1) * mask).clamp(0, 1)


def _sample(image: Float[Tensor, "c h w"], where: Float[Tensor, "1 1 points 2"]) -> Float[Tensor, "points c"]:
    return grid_sample(image[None], where, align_corners=False, padding_mode="border")[0, :, 0].T
