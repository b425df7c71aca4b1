"""Which model a file holds: by its content, never by its name."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facemodels.errors import InputError
from facemodels.morphable.converters import basel, flame, ict_facekit, surrey
from facemodels.morphable.model import MorphableModel

_HDF5, _MATLAB, _PICKLE = b"\x89HDF\r\n\x1a\n", b"MATLAB 5.0", b"\x80"
_KNOWN = (
    "known are ICT-FaceKit (folder or npz), the Basel Face Model 2009 (.mat), 2017 and 2019 (.h5), FLAME (.pkl or npz)"
    " and the models of eos (.bin)"
)


def from_file(
    path: str | Path, *, landmarks: Sequence[int] | None = None, blendshapes: str | Path | None = None
) -> MorphableModel:
    """Recognise a model of others by its content, and convert it to our frame, units and scale.

    Lengths become mm, coefficients standard deviations. Landmarks are those that the model's authors or users publish;
    where these cover only some of the 68, the others are carried over from the built-in head.

    Args:
        path: File or folder of the model.
        landmarks: Vertices of the 68 iBUG landmarks. Needed only where no list is known for the mesh.
        blendshapes: A second file, eos' `expression_blendshapes_*.bin`, for a model of eos.

    Returns:
        The model.

    Raises:
        InputError: There is no such file, it is damaged or of an unknown kind, its arrays do not fit together, or the
            landmarks of its mesh are not known.

    Example:
        >>> from_file("nowhere.h5")
        Traceback (most recent call last):
        facemodels.errors.InputError: MorphableModel.load: there is no file nowhere.h5
    """
    path = Path(path)
    if path.is_dir():
        return ict_facekit.from_folder(path)
    if not path.is_file():
        raise InputError(f"MorphableModel.load: there is no file {path}")
    with path.open("rb") as file:
        head = file.read(16)
    try:
        if zipfile.is_zipfile(path):
            return _from_npz(path, landmarks)
        if head.startswith(_HDF5):
            return basel.from_h5(path, landmarks)
        if head.startswith(_MATLAB):
            return basel.from_mat(path, landmarks)
        if head.startswith(_PICKLE):
            return flame.from_arrays(flame.read_pickle(path), landmarks)
        if surrey.is_eos(head):
            return surrey.from_bin(path, landmarks, blendshapes)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OSError, EOFError) as error:
        raise InputError(f"MorphableModel.load: {path} is damaged or no complete model: {error}") from error
    raise InputError(f"MorphableModel.load: {path} is no model that we know, or it is damaged; {_KNOWN}")


def _from_npz(path: Path, landmarks: Sequence[int] | None) -> MorphableModel:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, Any] = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"MorphableModel.load: {path} is a damaged npz file: {error}") from error
    if set(arrays) >= ict_facekit.KEYS:
        return ict_facekit.from_arrays(arrays)
    if set(arrays) >= flame.KEYS:
        return flame.from_arrays(arrays, landmarks)
    raise InputError(f"MorphableModel.load: {path} is no model that we know: it holds {sorted(arrays)}; {_KNOWN}")
