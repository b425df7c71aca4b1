"""Models without eyes and mouth, made whole: their holes get a skin, on which a texture shows what is behind.

A hole is filled by smaller copies of its rim, down to a point. All new vertices are means of old ones, so the model
stays linear: its coefficients mean what they meant.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from facemodels.morphable.model import MorphableModel

_RINGS = 5  # from the rim of a hole to its middle


@dataclass(frozen=True)
class Whole:
    """A morphable model whose holes are filled.

    Attributes:
        morphable: The model; its first vertices are those of the one it was made of.
        patch: For each triangle 0, or the number of the hole that it fills, from 1. Shape `(triangles,)`.
        rims: The vertices around the holes, shape `(rims,)`.
        weights: Each new vertex as a mean of those, shape `(new, rims)`.
    """

    morphable: MorphableModel
    patch: Int[Tensor, " triangles"]
    rims: Int[Tensor, " rims"]
    weights: Float[Tensor, "new rims"]

    def complete(self, vertices: Float[Tensor, "vertices k"]) -> Float[Tensor, "all k"]:
        """A shape of the old model (or other values of its vertices) with the new vertices behind it."""
        return torch.cat([vertices, self.weights @ vertices[self.rims]])


@functools.lru_cache(maxsize=4)
def whole_of(morphable: MorphableModel) -> Whole:
    """A morphable model with its holes filled; one that has eyes of its own, as separate parts, is left as it is.

    Example:
        >>> model = MorphableModel.procedural()
        >>> whole_of(model).morphable is model
        True
    """
    own = torch.zeros(len(morphable.triangles), dtype=torch.long)
    rims = [] if pieces(morphable).any() else holes(morphable)
    if not rims:
        return Whole(morphable, own, own[:0], torch.empty(0, 0))
    blocks, triangles, patch = [], [], [own]
    count = morphable.n_vertices
    for number, rim in enumerate(rims, start=1):
        shares = torch.arange(_RINGS - 1, 0, -1) / _RINGS
        middle = torch.full((1, len(rim)), 1 / len(rim))
        blocks.append(torch.cat([*(share * torch.eye(len(rim)) + (1 - share) * middle for share in shares), middle]))
        outer = rim
        for _ in shares:
            inner = count + torch.arange(len(rim))
            # The rim runs as the triangles around it do; those inside run against it.
            triangles.append(torch.stack([outer.roll(-1), outer, inner], 1))
            triangles.append(torch.stack([outer.roll(-1), inner, inner.roll(-1)], 1))
            outer, count = inner, count + len(rim)
        triangles.append(torch.stack([outer.roll(-1), outer, torch.full_like(outer, count)], 1))
        count += 1
        patch.append(torch.full(((2 * _RINGS - 1) * len(rim),), number))
    whole = Whole(morphable, torch.cat(patch), torch.cat(rims), torch.block_diag(*blocks))
    added = torch.cat(triangles)
    optional = {name: getattr(morphable, name) for name in ("albedo", "uv")}
    filled = replace(
        morphable,
        mean=whole.complete(morphable.mean),
        identity=_completed(whole, morphable.identity),
        expression=_completed(whole, morphable.expression),
        triangles=torch.cat([morphable.triangles, added]),
        face=torch.cat([morphable.face, torch.ones(len(added), dtype=torch.bool)]),
        **{name: None if values is None else whole.complete(values) for name, values in optional.items()},
    )
    return replace(whole, morphable=filled)


def _completed(whole: Whole, basis: Float[Tensor, "k vertices 3"]) -> Float[Tensor, "k all 3"]:
    return torch.stack([whole.complete(one) for one in basis]) if len(basis) else basis.new_empty(0, *basis.shape[1:])


def holes(morphable: MorphableModel) -> list[Int[Tensor, " rim"]]:
    """The rims of the holes of a mesh, in the direction of the triangles around; the longest, its border, is none.

    A rim that touches itself or another is left out.
    """
    edges = torch.cat([morphable.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    count = morphable.n_vertices
    lonely = edges[~torch.isin(edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0])]
    starts, times = lonely[:, 0].unique(return_counts=True)
    following = dict(lonely.tolist())
    crossings = set(starts[times > 1].tolist())
    rims: list[list[int]] = []
    left = set(following)
    while left:
        rim = [min(left)]
        while (after := following.get(rim[-1])) in left and after not in rim[:1]:
            left.discard(rim[-1])
            rim.append(after)
        left -= set(rim)
        if len(rim) > 2 and following.get(rim[-1]) == rim[0] and not crossings & set(rim):
            rims.append(rim)
    rims.sort(key=lambda rim: _length(morphable, rim))
    return [torch.tensor(rim) for rim in rims[:-1]]


def _length(morphable: MorphableModel, rim: list[int]) -> float:
    points = morphable.mean[rim]
    return float((points - points.roll(-1, 0)).norm(dim=1).sum())


def pieces(morphable: MorphableModel) -> Int[Tensor, " triangles"]:
    """For each triangle the number of the connected piece of the mesh that it belongs to, from 0."""
    triangles, count = morphable.triangles, morphable.n_vertices
    ends = triangles[:, [0, 1, 1, 2]].reshape(-1, 2).numpy()
    edges = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    numbers = connected_components(edges, directed=False)[1][triangles[:, 0].numpy()]
    return torch.from_numpy(np.unique(numbers, return_inverse=True)[1]).long()
