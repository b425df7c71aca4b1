"""ICT-FaceKit: the folder of OBJ files as it is given out, or its light face packed as an npz."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facemodels.errors import InputError
from facemodels.morphable.model import MorphableModel

KEYS = {"neutral", "identity", "expression", "triangles", "landmarks68", "narrow_face_vertices"}
_MM_PER_CM = 10.0
_COMPONENTS = 28
_BLENDSHAPE_SD = 0.25
"""Assumed standard deviation of one blendshape's activation, which runs from 0 to 1."""
_NARROW, _FACE = 6706, 9409
"""Leading vertices that are the narrow and the full face area, by the table of the model's README."""
_NEUTRAL, _INDICES = "generic_neutral_mesh.obj", "vertex_indices.json"


def from_folder(folder: Path) -> MorphableModel:
    """ICT-FaceKit as it is given out: the repository's folder `FaceXModel`, or the folder around it.

    The face area is kept, without sockets, eyes, teeth and neck: the narrow one where it holds all landmarks.

    Args:
        folder: Holds `generic_neutral_mesh.obj`, `identity000.obj` and so on, one OBJ for each expression, and
            `vertex_indices.json` with the landmarks and the names of the expressions.

    Raises:
        InputError: A file is missing or damaged, or has another number of vertices than the neutral mesh.
    """
    folder = folder / "FaceXModel" if (folder / "FaceXModel").is_dir() else folder
    if not (folder / _NEUTRAL).is_file():
        raise InputError(
            f"MorphableModel.load: {folder} holds no {_NEUTRAL}; pass the folder FaceXModel of ICT-FaceKit"
        )
    try:
        indices = json.loads((folder / _INDICES).read_text())
        landmarks, names = np.array(indices["idx_to_landmark_verts"]), indices["expressions"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"MorphableModel.load: {folder / _INDICES} is missing or damaged: {error}") from error
    neutral, triangles, uv = _read_obj(folder / _NEUTRAL)
    face = min(_FACE, len(neutral))
    identities = sorted(folder.glob("identity[0-9]*.obj"))
    if not identities or not names:
        raise InputError(f"MorphableModel.load: {folder} holds no identity000.obj and so on, or names no expressions")

    def shapes(paths: Sequence[Path]) -> np.ndarray:
        return np.stack([_read_vertices(path, len(neutral))[:face] for path in paths]) - neutral[:face]

    return from_arrays({
        "neutral": neutral[:face],
        "identity": shapes(identities),
        "expression": shapes([folder / f"{name}.obj" for name in names]),
        "triangles": triangles[(triangles < face).all(axis=1)],
        "uv": uv[:face],
        "landmarks68": landmarks,
        "narrow_face_vertices": np.array(_NARROW if landmarks.max() < _NARROW < face else face),
    })  # fmt: skip


def from_arrays(arrays: Mapping[str, np.ndarray]) -> MorphableModel:
    """The narrow face of ICT-FaceKit's light model.

    Centimetres become millimetres. The 53 blendshapes overlap, so they become 28 principal components, with each
    activation taken as independent with a standard deviation of 0.25. The model has no eyeballs and no mouth, so all of
    its triangles count as face and its masks want their holes closed.

    Args:
        arrays: `neutral (V, 3)`, `identity (K, V, 3)`, `expression (B, V, 3)` in cm, `triangles (F, 3)`,
            `landmarks68 (68,)` and `narrow_face_vertices`, the number of leading vertices to keep; `uv (V, 2)` may be
            there, too.

    Returns:
        The model.

    Raises:
        InputError: Shapes do not fit together.

    Reference:
        Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020; github.com/ICT-VGL/ICT-FaceKit.
    """
    kept, count = int(arrays["narrow_face_vertices"]), len(arrays["neutral"])
    for key in ("identity", "expression"):
        if arrays[key].shape[1:] != (count, 3):
            raise InputError(
                f"MorphableModel.load: ICT-FaceKit's {key} has shape {arrays[key].shape}, but the neutral face has"
                f" {count} vertices"
            )
    triangles = torch.from_numpy(arrays["triangles"].astype(np.int64))
    triangles = triangles[(triangles < kept).all(dim=1)]
    expression = _principal_components(torch.from_numpy(arrays["expression"].astype(np.float64)), _COMPONENTS)
    return MorphableModel(
        mean=_MM_PER_CM * torch.from_numpy(arrays["neutral"][:kept].astype(np.float32)),
        identity=_MM_PER_CM * torch.from_numpy(arrays["identity"][:, :kept].astype(np.float32)),
        expression=(_MM_PER_CM * _BLENDSHAPE_SD * expression[:, :kept]).float(),
        triangles=triangles,
        face=torch.ones(len(triangles), dtype=torch.bool),
        landmarks=torch.from_numpy(arrays["landmarks68"].astype(np.int64)),
        expression_names=tuple(f"component_{k:02d}" for k in range(len(expression))),
        name="ICT-FaceKit light, narrow face" if kept < count else "ICT-FaceKit light",
        licence="MIT",
        source="https://github.com/ICT-VGL/ICT-FaceKit",
        uv=torch.from_numpy(arrays["uv"][:kept].astype(np.float32)) if "uv" in arrays else None,
    )


def _principal_components(shapes: Tensor, count: int) -> Tensor:
    """Leading singular vectors of (blendshapes, V, 3), times their singular values, largest entry positive."""
    _, value, axis = torch.linalg.svd(shapes.flatten(1), full_matrices=False)
    components = (value[:, None] * axis)[:count]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return (components * largest.sign()).unflatten(1, shapes.shape[1:])


def _read_vertices(path: Path, count: int) -> np.ndarray:
    """Vertices of an OBJ file that must have `count` of them, in cm."""
    try:
        with path.open() as file:
            vertices = np.array([line.split()[1:4] for line in file if line.startswith("v ")], dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"MorphableModel.load: {path} is missing or damaged: {error}") from error
    if vertices.shape != (count, 3):
        raise InputError(f"MorphableModel.load: {path} holds vertices of shape {vertices.shape}, expected {(count, 3)}")
    return vertices


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, triangles (polygons as fans), and a texture coordinate for each vertex: the first it is used with."""
    vertices, textures, triangles = [], [], []
    first: dict[int, int] = {}
    try:
        with path.open() as file:
            for line in file:
                kind, _, rest = line.partition(" ")
                if kind == "v":
                    vertices.append(rest.split()[:3])
                elif kind == "vt":
                    textures.append(rest.split()[:2])
                elif kind == "f":
                    corners = [corner.split("/") for corner in rest.split()]
                    polygon = [int(corner[0]) - 1 for corner in corners]
                    for vertex, corner in zip(polygon, corners, strict=True):
                        if len(corner) > 1 and corner[1]:
                            first.setdefault(vertex, int(corner[1]) - 1)
                    triangles += [[polygon[0], *polygon[k : k + 2]] for k in range(1, len(polygon) - 1)]
        positions, places = np.array(vertices, dtype=np.float64), np.zeros((len(vertices), 2))
        if first:
            places[list(first)] = np.array(textures, dtype=np.float64)[list(first.values())]
        return positions.reshape(-1, 3), np.array(triangles, dtype=np.int64).reshape(-1, 3), places
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"MorphableModel.load: {path} is damaged: {error}") from error
