"""Morphable models of others, from files that the user has."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facemodels.errors import InputError
from facemodels.morphable.model import MorphableModel

_ICT_KEYS = {"neutral", "identity", "expression", "triangles", "landmarks68", "narrow_face_vertices"}
_MM_PER_CM = 10.0
_ICT_COMPONENTS = 28
_ICT_BLENDSHAPE_SD = 0.25
"""Assumed standard deviation of one blendshape's activation, which runs from 0 to 1."""


def from_npz(path: Path) -> MorphableModel:
    """Recognise a model by the arrays in an npz file, and convert it.

    Args:
        path: The npz file.

    Returns:
        The model in our frame and units.

    Raises:
        InputError: The file is damaged, or its arrays are not those of a model that we know.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"MorphableModel.load: {path} is a damaged npz file: {error}") from error
    if set(arrays) >= _ICT_KEYS:
        return from_ict_facekit(arrays)
    raise InputError(
        f"MorphableModel.load: {path} is no model that we know: it holds {sorted(arrays)}; "
        f"the light model of ICT-FaceKit holds {sorted(_ICT_KEYS)}"
    )


def from_ict_facekit(arrays: dict[str, np.ndarray]) -> MorphableModel:
    """The narrow face of ICT-FaceKit's light model.

    Centimetres become millimetres. The 53 blendshapes overlap, so they become 28 principal components, with each
    activation taken as independent with a standard deviation of 0.25. The model has no eyeballs and no mouth, so all of
    its triangles count as face and its masks want their holes closed.

    Args:
        arrays: `neutral (V, 3)`, `identity (K, V, 3)`, `expression (B, V, 3)` in cm, `triangles (F, 3)`,
            `landmarks68 (68,)` and `narrow_face_vertices`, the number of leading vertices to keep.

    Returns:
        The model.

    Reference:
        Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020; github.com/ICT-VGL/ICT-FaceKit.
    """
    kept = int(arrays["narrow_face_vertices"])
    triangles = torch.from_numpy(arrays["triangles"].astype(np.int64))
    triangles = triangles[(triangles < kept).all(dim=1)]
    expression = _principal_components(torch.from_numpy(arrays["expression"].astype(np.float64)), _ICT_COMPONENTS)
    return MorphableModel(
        mean=_MM_PER_CM * torch.from_numpy(arrays["neutral"][:kept].astype(np.float32)),
        identity=_MM_PER_CM * torch.from_numpy(arrays["identity"][:, :kept].astype(np.float32)),
        expression=(_MM_PER_CM * _ICT_BLENDSHAPE_SD * expression[:, :kept]).float(),
        triangles=triangles,
        face=torch.ones(len(triangles), dtype=torch.bool),
        landmarks=torch.from_numpy(arrays["landmarks68"].astype(np.int64)),
        expression_names=tuple(f"component_{k:02d}" for k in range(len(expression))),
        name="ICT-FaceKit light, narrow face",
        licence="MIT",
        source="https://github.com/ICT-VGL/ICT-FaceKit",
    )


def _principal_components(shapes: Tensor, count: int) -> Tensor:
    """Leading singular vectors of (blendshapes, V, 3), times their singular values, largest entry positive."""
    _, value, axis = torch.linalg.svd(shapes.flatten(1), full_matrices=False)
    components = (value[:, None] * axis)[:count]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return (components * largest.sign()).unflatten(1, shapes.shape[1:])
