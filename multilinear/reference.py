"""Every operator by loops over its definition, in numpy: an oracle for tests, slow, sharing no code with the rest.

Inputs are anything that numpy converts; results are numpy arrays. There are no checks: the operators do those.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray


def vec(tensor: ArrayLike, order: str = "C") -> Array:
    """All elements, last index fastest ("C") or first index fastest ("F")."""
    x = np.asarray(tensor)
    result = np.zeros(x.size, x.dtype)
    for index in indices(x.shape):
        result[position(index, x.shape, order)] = x[index]
    return result


def unvec(vector: ArrayLike, shape: Sequence[int], order: str = "C") -> Array:
    """The tensor whose element `index` is the vector's element at the index' position."""
    v = np.asarray(vector)
    result = np.zeros(tuple(shape), v.dtype)
    for index in indices(shape):
        result[index] = v[position(index, shape, order)]
    return result


def matricize(tensor: ArrayLike, rows: Sequence[int], columns: Sequence[int], order: str = "C") -> Array:
    """Element `index` goes to the row that its row modes number and the column that its column modes number."""
    x = np.asarray(tensor)
    row_shape, column_shape = [x.shape[m] for m in rows], [x.shape[m] for m in columns]
    result = np.zeros((prod(row_shape), prod(column_shape)), x.dtype)
    for index in indices(x.shape):
        row = position([index[m] for m in rows], row_shape, order)
        column = position([index[m] for m in columns], column_shape, order)
        result[row, column] = x[index]
    return result


def unfold(tensor: ArrayLike, mode: int, order: str = "C") -> Array:
    """Mode-n matricization."""
    ndim = np.ndim(tensor)
    return matricize(tensor, [mode], [m for m in range(ndim) if m != mode], order)


def outer(vectors: Sequence[ArrayLike]) -> Array:
    """Entry `[i, j, ...]` is `a[i] b[j] ...`."""
    vs = [np.asarray(v) for v in vectors]
    result = np.zeros([v.size for v in vs], np.result_type(*vs))
    for index in indices(result.shape):
        result[index] = prod_of(v[i] for v, i in zip(vs, index, strict=True))
    return result


def kronecker(matrices: Sequence[ArrayLike]) -> Array:
    """Entry `[(i1 i2 ...), (j1 j2 ...)]` is `a[i1, j1] b[i2, j2] ...`, the last index fastest."""
    ms = [np.asarray(m) for m in matrices]
    row_shape, column_shape = [m.shape[0] for m in ms], [m.shape[1] for m in ms]
    result = np.zeros((prod(row_shape), prod(column_shape)), np.result_type(*ms))
    for rows in indices(row_shape):
        for columns in indices(column_shape):
            entry = prod_of(m[i, j] for m, i, j in zip(ms, rows, columns, strict=True))
            result[position(rows, row_shape), position(columns, column_shape)] = entry
    return result


def khatri_rao(matrices: Sequence[ArrayLike], weights: ArrayLike | None = None) -> Array:
    """Entry `[(i1 i2 ...), r]` is `a[i1, r] b[i2, r] ... weights[r]`."""
    ms = [np.asarray(m) for m in matrices]
    rank = ms[0].shape[1]
    w = np.ones(rank, ms[0].dtype) if weights is None else np.asarray(weights)
    row_shape = [m.shape[0] for m in ms]
    result = np.zeros((prod(row_shape), rank), np.result_type(*ms, w))
    for rows in indices(row_shape):
        for r in range(rank):
            result[position(rows, row_shape), r] = prod_of(m[i, r] for m, i in zip(ms, rows, strict=True)) * w[r]
    return result


def face_splitting(matrices: Sequence[ArrayLike]) -> Array:
    """Entry `[n, (i1 i2 ...)]` is `a[n, i1] b[n, i2] ...`."""
    ms = [np.asarray(m) for m in matrices]
    column_shape = [m.shape[1] for m in ms]
    result = np.zeros((ms[0].shape[0], prod(column_shape)), np.result_type(*ms))
    for n in range(ms[0].shape[0]):
        for columns in indices(column_shape):
            result[n, position(columns, column_shape)] = prod_of(m[n, i] for m, i in zip(ms, columns, strict=True))
    return result


def mode_dot(tensor: ArrayLike, matrix_or_vector: ArrayLike, mode: int) -> Array:
    """Entry `[..., j, ...]` is the sum over i of `x[..., i, ...] matrix[j, i]`; a vector drops the mode."""
    x, a = np.asarray(tensor), np.asarray(matrix_or_vector)
    matrix = a.reshape(1, -1) if a.ndim == 1 else a
    result = np.zeros((*x.shape[:mode], matrix.shape[0], *x.shape[mode + 1 :]), np.result_type(x, a))
    for index in indices(x.shape):
        for j in range(matrix.shape[0]):
            result[(*index[:mode], j, *index[mode + 1 :])] += x[index] * matrix[j, index[mode]]
    return result.reshape((*x.shape[:mode], *x.shape[mode + 1 :])) if a.ndim == 1 else result


def multilinear_map(core: ArrayLike, inputs: Sequence[ArrayLike]) -> Array:
    """Entry `[n, o]` is the sum over i, j, ... of `core[o, i, j, ...] z1[n, i] z2[n, j] ...`."""
    c, zs = np.asarray(core), [np.asarray(z) for z in inputs]
    result = np.zeros((zs[0].shape[0], c.shape[0]), np.result_type(c, *zs))
    for n in range(result.shape[0]):
        for o, *index in indices(c.shape):
            result[n, o] += c[(o, *index)] * prod_of(z[n, i] for z, i in zip(zs, index, strict=True))
    return result


def multilinear_loss(target: ArrayLike, core: ArrayLike, inputs: Sequence[ArrayLike]) -> float:
    """Sum over samples and outputs of `|target - multilinear_map(core, inputs)|²`."""
    x, prediction = np.asarray(target), multilinear_map(core, inputs)
    return sum(abs(x[index] - prediction[index]) ** 2 for index in indices(x.shape))


def multi_mode_dot(tensor: ArrayLike, operands: Sequence[ArrayLike], modes: Sequence[int]) -> Array:
    """One mode product after the other, from the last mode to the first so that dropped modes renumber nothing."""
    result = np.asarray(tensor)
    for mode, operand in sorted(zip(modes, operands, strict=True), key=lambda pair: -pair[0]):
        result = mode_dot(result, operand, mode)
    return result


def mttkrp(tensor: ArrayLike, factors: Sequence[ArrayLike], mode: int, weights: ArrayLike | None = None) -> Array:
    """Entry `[i, r]` is the sum over the other modes of `x[..., i, ...]` times their factors, times weights[r]."""
    x, fs = np.asarray(tensor), [np.asarray(f) for f in factors]
    rank = fs[mode].shape[1]
    w = np.ones(rank, x.dtype) if weights is None else np.asarray(weights)
    result = np.zeros((x.shape[mode], rank), np.result_type(x, w, *fs))
    for index in indices(x.shape):
        for r in range(rank):
            others = prod_of(f[i, r] for m, (f, i) in enumerate(zip(fs, index, strict=True)) if m != mode)
            result[index[mode], r] += x[index] * others * w[r]
    return result


def cp_to_tensor(factors: Sequence[ArrayLike], weights: ArrayLike | None = None) -> Array:
    """Entry `[i, j, ...]` is the sum over r of `weights[r] a[i, r] b[j, r] ...`."""
    fs = [np.asarray(f) for f in factors]
    rank = fs[0].shape[1]
    w = np.ones(rank, fs[0].dtype) if weights is None else np.asarray(weights)
    result = np.zeros([f.shape[0] for f in fs], np.result_type(w, *fs))
    for index in indices(result.shape):
        for r in range(rank):
            result[index] += w[r] * prod_of(f[i, r] for f, i in zip(fs, index, strict=True))
    return result


def tucker_to_tensor(core: ArrayLike, factors: Sequence[ArrayLike]) -> Array:
    """Entry `[i, j, ...]` is the sum over a, b, ... of `core[a, b, ...] u[i, a] v[j, b] ...`."""
    c, fs = np.asarray(core), [np.asarray(f) for f in factors]
    result = np.zeros([f.shape[0] for f in fs], np.result_type(c, *fs))
    for index in indices(result.shape):
        for ranks in indices(c.shape):
            result[index] += c[ranks] * prod_of(f[i, r] for f, i, r in zip(fs, index, ranks, strict=True))
    return result


def indices(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every index of an array of this shape."""
    return product(*(range(size) for size in shape))


def position(index: Sequence[int], shape: Sequence[int], order: str = "C") -> int:
    """Number of an index when the last ("C") or the first ("F") index runs fastest."""
    pairs = list(zip(index, shape, strict=True))
    result = 0
    for i, size in pairs if order == "C" else reversed(pairs):
        result = result * size + i
    return result


def prod_of(factors: Iterator) -> complex:
    """Product of numbers."""
    result = 1
    for factor in factors:
        result = result * factor
    return result
