"""Where MediaPipe's points lie on the built-in head: found on renders of it, not taken from anatomy.

MediaPipe learned from photos of people. In pictures of the built-in head it puts the brows, say, up to a centimetre
from where iBUG's definition and the warp of its canonical face have them, and its depths tip the head. With the
vertices measured, the points of photos, too, lie nearer to the fitted model: 0.45 pixels of the 64 instead of 0.71.
`python -m facemodels.evaluation.calibration` writes the table that is read here.
"""

import functools
from pathlib import Path

import numpy as np
import torch

from facemodels.fitting.landmarks import INNER_POINTS, canonical_face, find_model
from facemodels.fitting.shape import Correspondence, FitConfig, correspond
from facemodels.morphable import MorphableModel

TABLE = Path(__file__).with_name("mediapipe_on_procedural.csv")
"""One row for each point: its number, the vertex under it, and their mean distance in mm."""

_DEPTH_WEIGHT = 0.1  # less tips fewer rendered heads and more photos of people


def mediapipe_correspondence(morphable: MorphableModel) -> Correspondence:
    """The vertices of any morphable model that MediaPipe's points mark: of the built-in one as measured, else warped.

    Args:
        morphable: Any morphable model.

    Raises:
        InputError: It is not the built-in model, and there is no model file of MediaPipe to warp from.

    Example:
        >>> match = mediapipe_correspondence(MorphableModel.procedural())
        >>> match.depth_weight < 1
        True
    """
    builtin = MorphableModel.procedural() if morphable.name == "procedural" else None
    if builtin is None or not torch.equal(builtin.mean, morphable.mean.cpu()):
        return correspond(morphable, canonical_face(find_model()))
    return _measured()


@functools.cache
def _measured() -> Correspondence:
    points, vertices = np.loadtxt(TABLE, delimiter=",", skiprows=1, usecols=(0, 1), dtype=np.int64, unpack=True)
    weights = np.where(np.isin(points, INNER_POINTS), 1.0, FitConfig().dense_weight)
    points, vertices, weights = (torch.from_numpy(values) for values in (points, vertices, weights))
    return Correspondence(points, vertices, weights, _DEPTH_WEIGHT)
