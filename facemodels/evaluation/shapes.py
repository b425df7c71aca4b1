"""How near reconstructed shapes come to the exact ones of rendered faces, in millimetres."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import SIZE
from facemodels.data.dataset import Faces, PreparedSet, faces_from_rows
from facemodels.data.synthetic import check_synthetic
from facemodels.errors import InputError
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.measures import batches
from facemodels.fitting import LandmarkDetector
from facemodels.fitting import fit as fit_landmarks
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.morphable import MorphableModel
from facemodels.progress import progress_bar
from facemodels.reconstruction import morphable_of, shapes

Alignment = Literal["rigid", "similarity"]

FACTORS = {"expression": "emotion", "pose": "pose_index", "light": "light_index", "person": "person"}
"""Columns of synthetic sets by which errors are told apart."""

_ENLARGED = 4  # a detector of landmarks sees more in larger pictures, also where nothing was added


@dataclass(frozen=True)
class ShapeErrors:
    """Distances of vertices of the face from where they should be, in mm.

    Attributes:
        source: Where the shapes come from: "stream", "coefficients", "fit", or "mean" for the mean face, which knows
            nothing of the photo.
        faces: How many faces were measured.
        missed: In how many others no landmarks were found.
        rigid: Mean over vertices and faces of the distance after the best rotation and shift.
        rigid_deviation: Standard deviation of the faces' means.
        similarity: The same after the best rotation, shift and scale: a picture does not tell how far a face is away.
        similarity_deviation: Likewise.
        identity: The same, after a similarity, of the faces without expression: is the person's shape right?
            None of the mean face.
        by_factor: Means after a similarity, for each value of each factor of the set.
    """

    source: str
    faces: int
    missed: int
    rigid: float
    rigid_deviation: float
    similarity: float
    similarity_deviation: float
    by_factor: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return asdict(self)
