"""The Surrey Face Model and others of eos: the binary layout of the cereal library, without a compiler."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemodels.errors import InputError
from facemodels.morphable.converters.assemble import Array, assemble, principal
from facemodels.morphable.model import MorphableModel

_VERSIONS = (1, 2, 3, 4)
_BLENDSHAPE_SD = 0.35
"""Assumed standard deviation of one blendshape's activation, which runs from 0 to 1."""
_LANDMARKS = {
    8: 33, 17: 225, 18: 229, 19: 233, 20: 2086, 21: 157, 22: 590, 23: 2091, 24: 666, 25: 662, 26: 658, 27: 2842,
    28: 379, 29: 272, 30: 114, 31: 100, 32: 2794, 33: 270, 34: 2797, 35: 537, 36: 177, 37: 172, 38: 191, 39: 181,
    40: 173, 41: 174, 42: 614, 43: 624, 44: 605, 45: 610, 46: 607, 47: 606, 48: 398, 49: 315, 50: 413, 51: 329,
    52: 825, 53: 736, 54: 812, 55: 841, 56: 693, 57: 411, 58: 264, 59: 431, 61: 416, 62: 423, 63: 828, 65: 817,
    66: 442, 67: 404,
}  # fmt: skip
"""iBUG numbers (from 0) and vertices as eos' `ibug_to_sfm.txt` lists them for the mesh of 3448 vertices."""
_VERTICES = 3448


def is_eos(head: bytes) -> bool:
    """Whether these first bytes can be those of an eos model: a version, then a column of numbers."""
    if len(head) < 12:
        return False
    version, rows, columns = struct.unpack("<Iii", head[:12])
    return version in _VERSIONS and rows > 0 and rows % 3 == 0 and columns == 1


def from_bin(
    path: Path, landmarks: Sequence[int] | None = None, blendshapes: str | Path | None = None
) -> MorphableModel:
    """A model of eos, such as `sfm_shape_3448.bin`, with its expressions from the same or from a second file.

    Args:
        path: The model.
        landmarks: Vertices of the 68 landmarks; known for the mesh of 3448 vertices.
        blendshapes: `expression_blendshapes_3448.bin`, for a model without expressions of its own. An activation from
            0 to 1 is taken to have a standard deviation of 0.35.

    Raises:
        InputError: A file is damaged, or the two do not belong together.

    Reference:
        Huber et al., "A Multiresolution 3D Morphable Face Model and Fitting Framework", VISAPP 2016.
    """
    file = _Cereal(path)
    version = file.number("<I")
    mean, identity, triangles = file.components()
    colour = file.components()[0]
    names, expression = (), np.zeros((0, *mean.shape))
    if version >= 2 and not file.number("<?"):  # an optional that is not empty
        if file.number("<i") == 0:
            _, expression, _ = file.components()
            names = tuple(f"component_{k:02d}" for k in range(len(expression)))
        else:
            names, expression = file.blendshapes(len(mean))
    if version >= 3 and not file.number("<?"):
        for _ in range(file.number("<Q")):
            file.text()
            file.number("<i")
    uv = file.list_of("<f8", 2)
    if version >= 4:
        file.list_of("<i4", 3)
    file.end()
    if blendshapes is not None:
        second = _Cereal(Path(blendshapes))
        names, expression = second.blendshapes(len(mean))
        second.end()
    return assemble(
        name=f"Surrey Face Model ({path.stem})",
        licence="Surrey Face Model licence: non-commercial (the terms of the file apply)",
        source="https://github.com/patrikhuber/eos",
        mean=mean,
        identity=identity,
        expression=expression,
        triangles=triangles,
        landmarks=landmarks or (_LANDMARKS if len(mean) == _VERTICES else None),
        expression_names=names,
        albedo=colour if len(colour) == len(mean) else None,
        uv=uv if len(uv) == len(mean) else None,
        whole=True,
    )


class _Cereal:
    """Reads cereal's binary archives: numbers as they lie in memory, lists behind their 64-bit lengths."""

    def __init__(self, path: Path):
        try:
            self.path, self.content, self.at = path, path.read_bytes(), 0
        except OSError as error:
            raise InputError(f"MorphableModel.load: cannot read {path}: {error.strerror}") from error

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.content):
            raise InputError(f"MorphableModel.load: {self.path} is truncated, or no file of eos")
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, kind: str) -> int:
        return struct.unpack(kind, self.take(struct.calcsize(kind)))[0]

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8", "replace")

    def matrix(self) -> Array:
        """One of Eigen's matrices: rows, columns, and the numbers column by column."""
        rows, columns = self.number("<i"), self.number("<i")
        numbers = np.frombuffer(self.take(4 * rows * columns if min(rows, columns) >= 0 else -1), "<f4")
        return numbers.reshape(columns, rows).T.astype(np.float64)

    def list_of(self, kind: str, width: int) -> NDArray:
        count, size = self.number("<Q"), np.dtype(kind).itemsize
        return np.frombuffer(self.take(count * width * size), kind).reshape(-1, width)

    def components(self) -> tuple[Array, Array, NDArray[np.int64]]:
        """One PCA model: mean `(V, 3)`, components in standard deviations `(K, V, 3)`, triangles."""
        mean, vectors, values = self.matrix(), self.matrix(), self.matrix()
        if values.shape == vectors.shape and vectors.size > vectors.shape[0]:
            vectors, values = values, self.matrix()  # older files hold the scaled basis before the orthonormal one
        triangles = self.list_of("<i4", 3).astype(np.int64)
        if not mean.size:
            return np.zeros((0, 3)), np.zeros((0, 0, 3)), triangles
        return mean.reshape(-1, 3), principal(vectors, np.sqrt(values)), triangles

    def blendshapes(self, vertices: int) -> tuple[tuple[str, ...], Array]:
        """Names and displacements `(B, V, 3)` of one standard deviation."""
        names, shapes = [], []
        for _ in range(self.number("<Q")):
            names.append(self.text())
            shapes.append(self.matrix())
            if shapes[-1].size != 3 * vertices:
                raise InputError(
                    f"MorphableModel.load: blendshape {names[-1]!r} of {self.path} moves {shapes[-1].size // 3}"
                    f" vertices, but the model has {vertices}"
                )
        return tuple(names), _BLENDSHAPE_SD * np.array(shapes).reshape(len(names), -1, 3)

    def end(self) -> None:
        if self.at != len(self.content):
            raise InputError(f"MorphableModel.load: {self.path} goes on after the model's end; is it a file of eos?")
