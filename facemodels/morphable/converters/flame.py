"""FLAME: its pickle of numpy, scipy and chumpy arrays is read without executing anything in it."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facemodels.errors import InputError
from facemodels.morphable.converters.assemble import Array, assemble
from facemodels.morphable.model import MorphableModel

KEYS = {"v_template", "shapedirs", "f"}

_MM_PER_METRE = 1000.0
_VERTICES = 5023
_EXPRESSIONS_AT = 300  # of 400 components, the first 300 are identity
_JAW = 2  # joints: root, neck, jaw, left eye, right eye
_JAW_MOTIONS = {"jaw_open": (0.13, 0.0, 0.0), "jaw_sideways": (0.0, 0.05, 0.0)}  # rotation vectors of one deviation
_LANDMARKS = {
    17: 3764, 18: 2566, 19: 335, 20: 3153, 21: 3712, 22: 673, 23: 3863, 24: 16, 25: 2138, 26: 3892,
    27: 3553, 28: 3561, 29: 3501, 30: 3563, 31: 2746, 32: 2795, 33: 3552, 34: 1678, 35: 1618,
    36: 2437, 37: 2453, 38: 2494, 39: 3632, 40: 2293, 41: 2333,
    42: 3833, 43: 1343, 44: 1218, 45: 1175, 46: 955, 47: 881,
}  # fmt: skip
"""iBUG numbers (from 0) and the vertices that public fitting code takes for them; mouth and jaw are carried over."""


def from_arrays(content: Mapping[str, Any], landmarks: Sequence[int] | None = None) -> MorphableModel:
    """FLAME's shape space with a jaw: identity, expression, and two linearised motions of the jaw joint.

    FLAME turns the jaw instead of blending it, so its expression components keep the mouth shut. The components
    `jaw_open` and `jaw_sideways` are the skinned displacements of small turns.

    Args:
        content: `v_template (V, 3)` in metres, `shapedirs (V, 3, 400)`, `f (F, 3)`; with `weights`, `J_regressor` and
            `posedirs` the jaw is added. Of fewer than 400 components all but the last quarter are identity.
        landmarks: Vertices of the 68 landmarks; known for FLAME's own 5023 vertices.

    Raises:
        InputError: An entry is missing or has another shape.

    Reference:
        Li et al., "Learning a Model of Facial Shape and Expression from 4D Scans", SIGGRAPH Asia 2017.
    """
    missing = KEYS - set(content)
    if missing:
        raise InputError(f"MorphableModel.load: FLAME's file lacks {sorted(missing)}; it holds {sorted(content)}")
    mean, directions = (dense(content[name]).astype(np.float64) for name in ("v_template", "shapedirs"))
    if directions.ndim != 3 or directions.shape[:2] != mean.shape:
        raise InputError(
            f"MorphableModel.load: FLAME's shapedirs have shape {directions.shape}, expected {(*mean.shape, 400)}"
        )
    components = directions.transpose(2, 0, 1)
    first = _EXPRESSIONS_AT if len(components) > _EXPRESSIONS_AT else 3 * len(components) // 4
    names = [f"component_{k:02d}" for k in range(len(components) - first)]
    expression = components[first:]
    if {"weights", "J_regressor", "posedirs"} <= set(content):
        jaw = np.stack([_jaw_motion(content, mean, np.array(turn)) for turn in _JAW_MOTIONS.values()])
        expression, names = np.concatenate([jaw, expression]), [*_JAW_MOTIONS, *names]
    return assemble(
        name="FLAME",
        licence="FLAME licence: see https://flame.is.tue.mpg.de (2023 Open: CC-BY-4.0)",
        source="https://flame.is.tue.mpg.de",
        mean=_MM_PER_METRE * mean,
        identity=_MM_PER_METRE * components[:first],
        expression=_MM_PER_METRE * expression,
        triangles=dense(content["f"]).astype(np.int64),
        landmarks=landmarks or (_LANDMARKS if len(mean) == _VERTICES else None),
        expression_names=names,
    )


def _jaw_motion(content: Mapping[str, Any], mean: Array, turn: Array) -> Array:
    """Displacement of every vertex when the jaw joint turns by a rotation vector: FLAME's own skinning."""
    weight = dense(content["weights"])[:, _JAW, None]
    joint = (dense(content["J_regressor"]) @ mean)[_JAW]
    rotation = _rotation(turn)
    corrective = dense(content["posedirs"])[..., 9 * (_JAW - 1) : 9 * _JAW] @ (rotation - np.eye(3)).ravel()
    rest = mean + corrective
    return (1 - weight) * rest + weight * ((rest - joint) @ rotation.T + joint) - mean


def _rotation(vector: Array) -> Array:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def dense(value: Any) -> Array:
    """An entry of FLAME's file as an array, whether it was numpy's, scipy's or chumpy's.

    Raises:
        InputError: It is none of them.
    """
    if isinstance(value, _Kept):
        return value.dense()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    raise InputError(
        f"MorphableModel.load: FLAME's file holds a {type(value).__name__} where an array should be; convert the file"
        " to npz where chumpy is installed: numpy.savez(PATH, **{name: numpy.array(value) for each entry})"
    )


def read_pickle(path: Path) -> dict[str, Any]:
    """The entries of FLAME's pickle. Only arrays can be rebuilt; whatever else the file asks for is refused.

    Args:
        path: The file, as Python 2 wrote it.

    Returns:
        Entries by name; see `dense` for their values.

    Raises:
        InputError: The file is damaged, holds no dictionary, or asks for anything but arrays.
    """
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise InputError(f"MorphableModel.load: {path} is no pickle that is safe to read: {error}") from error
    except (EOFError, IndexError, KeyError, TypeError, ValueError, AttributeError, MemoryError, OverflowError) as error:
        raise InputError(f"MorphableModel.load: {path} is a damaged pickle: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"MorphableModel.load: {path} is a pickle of {type(content).__name__}, not of FLAME's entries")
    return content


class _Kept:
    """Stands for an object of another library: takes its state, runs none of its code."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"a {type(self).__name__.strip('_')} without its state")
        self.state = state

    def dense(self) -> Array:
        raise NotImplementedError


class _Chumpy(_Kept):
    """`chumpy.ch.Ch`: an array under the name x."""

    def dense(self) -> Array:
        return dense(self.state["x"])


class _ChumpySelect(_Kept):
    """`chumpy.reordering.Select`: entries of another array, by their flat numbers."""

    def dense(self) -> Array:
        chosen = dense(self.state["a"]).ravel()[dense(self.state["idxs"]).ravel().astype(np.int64)]
        shape = self.state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(shape)


class _Sparse(_Kept):
    """scipy's compressed columns."""

    def dense(self) -> Array:
        rows, columns = self.state["_shape"] if "_shape" in self.state else self.state["shape"]
        data, row, starts = (dense(self.state[name]) for name in ("data", "indices", "indptr"))
        result = np.zeros((int(rows), int(columns)))
        column = np.repeat(np.arange(int(columns)), np.diff(starts).astype(np.int64))
        np.add.at(result, (row.astype(np.int64), column), data)
        return result


def _new(kind: type, base: type = object, state: Any = None) -> Any:
    """Python 2's `copy_reg._reconstructor` for objects that merely keep their state."""
    if not (isinstance(kind, type) and issubclass(kind, _Kept) and base is object):
        raise pickle.UnpicklingError(f"refused to make a {kind}")
    return kind()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How newer Pythons write bytes at old protocols."""
    return text.encode(encoding)


_ARRAY, _SCALAR = (value.__reduce__()[0] for value in (np.zeros(0), np.float64(0)))  # numpy's own ways to rebuild them
_ALLOWED = {
    **{(module, "_reconstruct"): _ARRAY for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(module, "scalar"): _SCALAR for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _ChumpySelect,
    ("scipy.sparse.csc", "csc_matrix"): _Sparse,
    ("scipy.sparse._csc", "csc_matrix"): _Sparse,
    ("copy_reg", "_reconstructor"): _new,
    ("copyreg", "_reconstructor"): _new,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
}


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays, keeps the state of scipy's and chumpy's, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, and only arrays of numpy, scipy and chumpy are rebuilt"
            ) from None
