"""Faces painted with some codes of other faces: what every measure of a swap starts from."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facemodels.autoencoder import Face, NeuroTensorialAutoencoder
from facemodels.codes import Codes
from facemodels.evaluation.measures import Codings, batches


def donors(count: int, seed: int = 0, step: int = 1) -> Int[Tensor, " count"]:
    """For each of `count` faces another one: all faces stand in one random ring, and each takes the next.

    Args:
        count: Number of faces; with one face, it is its own donor.
        seed: Fixes the ring.
        step: How many places further on the donor stands.

    Example:
        >>> other = donors(5)
        >>> sorted(other.tolist()), bool((other == torch.arange(5)).any())
        ([0, 1, 2, 3, 4], False)
    """
    ring = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    return torch.empty_like(ring).scatter_(0, ring, ring.roll(-step))


def spread(count: int, most: int | None) -> Int[Tensor, " chosen"]:
    """At most so many of `count` rows, evenly spread, as neighbours may show the same person.

    Example:
        >>> spread(9, 3), spread(2, 3), spread(2, None)
        (tensor([0, 4, 8]), tensor([0, 1]), tensor([0, 1]))
    """
    return torch.linspace(0, count - 1, count if most is None else min(count, most)).round().long()


@torch.no_grad()
def paint(model: NeuroTensorialAutoencoder, codes: Codes, pose: Float[Tensor, "n 9"] | None = None) -> Face:
    """The face stream of any number of faces, in batches; `pose` stands in for their own poses."""
    pose = codes.pose if pose is None else pose
    parts = [
        model.paint(pose[rows], codes.expression[rows], codes.identity[rows], codes.light[rows])
        for rows in batches(len(codes))
    ]
    joined = {
        name: None if value is None else torch.cat([getattr(part, name) for part in parts])
        for name, value in vars(parts[0]).items()
    }
    return Face(**joined)  # type: ignore[arg-type]


def composite(face: Float[Tensor, "n 3 h w"], surroundings: Codings) -> Float[Tensor, "n 3 h w"]:
    """Faces where others were: in the masks and backgrounds of `surroundings`."""
    mask = surroundings.mask
    return mask * face.clamp(0, 1) + (1 - mask) * surroundings.background
