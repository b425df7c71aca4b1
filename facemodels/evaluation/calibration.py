"""Find the vertices of the built-in head that MediaPipe's points mark: `python -m facemodels.evaluation.calibration`.

Heads are drawn at random, MediaPipe looks at them, and each point gets the vertex that was nearest to it in the
pictures, on average. The result is the table that `facemodels.fitting.calibrated` reads; it is to be made anew when the
head's shape or colours change.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import interpolate

from facemodels.data.factors import sample_factors
from facemodels.data.portrait import build_heads, draw_heads
from facemodels.data.synthetic import aligned_camera
from facemodels.fitting.calibrated import TABLE
from facemodels.fitting.landmarks import LandmarkDetector, MediaPipeDetector
from facemodels.fitting.mirror import MIRRORED_POINTS
from facemodels.morphable import MorphableModel
from facemodels.progress import progress_bar
from facemodels.rendering import project_weak_perspective, rasterize

SEED = 31
"""Of the persons; FaceFactors and the sets to train from show others."""

_POINTS = 468  # those around the irises move with the eyes
_CROP = 64  # pixels: the unit of `aligned_camera`
_BATCH = 16


@dataclass(frozen=True)
class Sightings:
    """What a detector saw in pictures of known heads.

    Attributes:
        points: Its points, pixel x and y, shape `(n, 468, 2)`.
        vertices: Where the vertices are in the picture, shape `(n, vertices, 2)`.
        scale: Pixels per mm, shape `(n,)`.
    """

    points: Float[Tensor, "n 468 2"]
    vertices: Float[Tensor, "n vertices 2"]
    scale: Float[Tensor, " n"]


@torch.no_grad()
def look_at_heads(detector: LandmarkDetector, count: int, *, size: int = 128, seed: int = SEED) -> Sightings:
    """Draw heads (everyone another person, posed, lit and expressive as in photos) and have a detector look at them.

    Args:
        detector: Finds MediaPipe's points.
        count: Heads to draw; those in which no face is found are left out.
        size: Side of the pictures in pixels.
        seed: Of the heads.
    """
    model = MorphableModel.procedural()
    zoom = size / _CROP
    points, vertices, scales = [], [], []
    numbers = progress_bar(range(0, count, _BATCH), "look at heads", unit="batch")
    for start in numbers:
        factors = [sample_factors(seed, k, images_per_person=1) for k in range(start, min(start + _BATCH, count))]
        identity, expression, angles, framing, light, background = (
            torch.from_numpy(np.stack([getattr(one, name) for one in factors])).float()
            for name in ("identity", "expression", "angles", "framing", "light", "background")
        )
        heads = build_heads(identity, expression, [one.complexion for one in factors])
        rotation, scale, shift = aligned_camera(heads.vertices, angles, framing)
        camera = rotation, zoom * scale, zoom * shift
        behind = interpolate(background.permute(0, 3, 1, 2), size=(size, size), mode="bilinear", align_corners=False)
        images, _, _ = draw_heads(heads, *camera, light, behind)
        found = [detector.detect((255 * image).round().byte().permute(1, 2, 0).numpy()) for image in images]
        seen = [k for k, landmarks in enumerate(found) if landmarks is not None]
        points += [torch.from_numpy(one.points[:_POINTS, :2]) for one in found if one is not None]
        vertices.append(project_weak_perspective(heads.vertices[:, : model.n_vertices], *camera)[seen, :, :2])
        scales.append(camera[1][seen])
    return Sightings(torch.stack(points), torch.cat(vertices), torch.cat(scales))


def nearest_vertices(sightings: Sightings) -> tuple[Int[Tensor, "468"], Float[Tensor, "468"]]:
    """The vertex of the built-in head under each point, and their mean distance in mm.

    Points and vertices of both sides of the head are taken together: mirrored points mark mirrored vertices.

    Args:
        sightings: Of heads in many poses, so that depth is known, too.
    """
    candidates, mirrored = _front(MorphableModel.procedural())
    scale = sightings.scale[:, None, None]
    vertices, points = sightings.vertices[:, candidates] / scale, sightings.points / scale
    distances = torch.stack([(vertices - point[:, None]).norm(dim=2).mean(0) for point in points.unbind(1)])
    partner = torch.tensor(MIRRORED_POINTS[:_POINTS])
    distances = (distances + distances[partner][:, mirrored]) / 2
    middle = partner == torch.arange(_POINTS)
    distances[middle[:, None] & (mirrored != torch.arange(len(candidates)))] = torch.inf
    distance, nearest = distances.min(1)
    return candidates[nearest], distance


def _front(model: MorphableModel) -> tuple[Tensor, Tensor]:
    """Vertices of the face that are seen from the front, and for each the place among them of its mirror image."""
    camera = torch.eye(3)[None], torch.full((1,), 2.0), torch.full((1, 2), 256.0)
    screen = project_weak_perspective(model.mean[None], *camera)
    fragments = rasterize(screen, model.triangles, 512)
    seen = fragments.triangle[fragments.covered].unique()
    front = model.triangles[seen[model.face[seen]]].unique()
    mean = model.mean.numpy()
    _, mirrored = KDTree(mean[front]).query(mean[front] * [-1, 1, 1])
    mirrored = torch.from_numpy(np.asarray(mirrored))
    paired = mirrored[mirrored] == torch.arange(len(front))
    place = paired.cumsum(0) - 1
    return front[paired], place[mirrored[paired]]


def main(arguments: list[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(prog="python -m facemodels.evaluation.calibration", description=__doc__)
    parser.add_argument("--heads", type=int, default=320)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    vertices, distance = nearest_vertices(look_at_heads(MediaPipeDetector(), options.heads))
    rows = [
        f"{point},{vertex},{far:.2f}"
        for point, (vertex, far) in enumerate(zip(vertices.tolist(), distance.tolist(), strict=True))
    ]
    options.out.write_text("\n".join(["point,vertex,distance", *rows, ""]))
    print(f"points lie {float(distance.mean()):.1f} mm from their vertices, on average; wrote {options.out}")


if __name__ == "__main__":
    main()
