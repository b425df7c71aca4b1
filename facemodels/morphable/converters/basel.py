"""The Basel Face Models: 2009 as a MATLAB file, 2017 and 2019 as HDF5 in statismo's layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facemodels.errors import InputError
from facemodels.morphable.converters.assemble import Array, assemble, principal
from facemodels.morphable.model import MorphableModel

_LICENCE = "Basel Face Model licence: research only, no redistribution"
_SOURCE = "https://faces.dmi.unibas.ch/bfm"

_MM_PER_UNIT_2009 = 1e-3  # the file counts in micrometres
_LANDMARKS_2009 = {
    17: 38792, 19: 40087, 21: 40514, 22: 41091, 24: 41511, 26: 42825, 30: 8319, 33: 8334, 36: 2088, 39: 5959,
    42: 10603, 45: 14472, 48: 5006, 51: 8344, 54: 11714, 57: 8374, 62: 8354, 66: 8366,
}  # fmt: skip
_VERTICES_2009 = 53490
"""iBUG numbers (from 0) and vertices as eos' `ibug_to_bfm.txt` lists them."""

_NAMED = {
    "center.chin.tip": 8, "center.nose.tip": 30, "right.eye.corner_outer": 36, "right.eye.corner_inner": 39,
    "left.eye.corner_inner": 42, "left.eye.corner_outer": 45, "right.lips.corner": 48, "center.lips.upper.outer": 51,
    "left.lips.corner": 54, "center.lips.lower.outer": 57, "center.lips.upper.inner": 62, "center.lips.lower.inner": 66,
}  # fmt: skip
"""Landmarks that the HDF5 files name and place themselves, with their iBUG numbers."""


def from_mat(path: Path, landmarks: Sequence[int] | None = None) -> MorphableModel:
    """The Basel Face Model 2009, file `01_MorphableModel.mat`; it has no expressions.

    Its `shapeEV` and `texEV` hold standard deviations, and its triangles count from 1 and run clockwise.

    Raises:
        InputError: A field is missing or has another shape.

    Reference:
        Paysan et al., "A 3D Face Model for Pose and Illumination Invariant Face Recognition", AVSS 2009.
    """
    from scipy.io import loadmat

    content = loadmat(path)
    for field in ("shapeMU", "shapePC", "shapeEV", "texMU", "tl"):
        if field not in content:
            raise InputError(f"MorphableModel.load: {path} lacks {field}; is it 01_MorphableModel.mat?")
    mean = _vertices(content["shapeMU"])
    known = _LANDMARKS_2009 if len(mean) == _VERTICES_2009 else None
    return assemble(
        name="Basel Face Model 2009",
        licence=_LICENCE,
        source=_SOURCE,
        mean=_MM_PER_UNIT_2009 * mean,
        identity=_MM_PER_UNIT_2009 * principal(content["shapePC"], content["shapeEV"]),
        expression=np.zeros((0, len(mean), 3)),
        triangles=content["tl"].astype(np.int64) - 1,
        landmarks=landmarks or known,
        albedo=_vertices(content["texMU"]) / 255,
    )


def from_h5(path: Path, landmarks: Sequence[int] | None = None) -> MorphableModel:
    """The Basel Face Models 2017 and 2019, files `model2017-1_*.h5` and `model2019_*.h5`.

    Raises:
        InputError: h5py is not installed, an entry is missing or has another shape, or too few landmarks are placed.

    Reference:
        Gerig et al., "Morphable Face Models - An Open Framework", FG 2018.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            "MorphableModel.load: the Basel Face Models 2017 and 2019 are HDF5 files; run"
            " `pip install multilinear-faces[models]` to read them"
        ) from error
    with h5py.File(path, "r") as file:

        def read(entry: str) -> Array:
            if entry not in file:
                raise InputError(f"MorphableModel.load: {path} lacks {entry}; is it a Basel Face Model?")
            return np.asarray(file[entry])

        def components(part: str) -> Array:
            return principal(read(f"{part}/model/pcaBasis"), np.sqrt(read(f"{part}/model/pcaVariance")))

        mean = _vertices(read("shape/model/mean"))
        expression = components("expression")
        triangles = read("shape/representer/cells").astype(np.int64)
        known = _named_landmarks(file, mean)
        return assemble(
            name=f"Basel Face Model ({path.stem})",
            licence=_LICENCE,
            source=_SOURCE,
            mean=mean + _vertices(read("expression/model/mean")),
            identity=components("shape"),
            expression=expression,
            triangles=triangles.T if triangles.shape[0] == 3 != triangles.shape[-1] else triangles,
            landmarks=landmarks or known,
            albedo=_vertices(read("color/model/mean")) if "color/model/mean" in file else None,
        )


def _vertices(array: Array) -> Array:
    values = np.asarray(array, dtype=np.float64).ravel()
    if values.size % 3:
        raise InputError(f"MorphableModel.load: a mean of {values.size} numbers is no list of points in space")
    return values.reshape(-1, 3)


def _named_landmarks(file: Any, mean: Array) -> dict[int, int] | None:
    """The vertices nearest to the places that the file itself names, by iBUG number; None where it names none."""
    if "metadata/landmarks/json" not in file:
        return None
    text = np.asarray(file["metadata/landmarks/json"])
    content = json.loads(text.item() if text.dtype == object or text.dtype.kind == "S" else text.tobytes())
    places: Mapping[str, Any]
    if isinstance(content, Mapping):
        places = content
    else:
        places = {entry["id"]: entry["coordinates"] for entry in content}
    return {
        number: int(((mean - np.asarray(places[name], dtype=np.float64)) ** 2).sum(axis=1).argmin())
        for name, number in _NAMED.items()
        if name in places
    } or None
