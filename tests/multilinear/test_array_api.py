"""The plain algebra with any Array-API library: what goes in comes out, and dtypes follow the library."""

import importlib.util

import numpy as np
import pytest
import torch
from factories import assert_close
from hypothesis import given

import multilinear as ml
from multilinear import reference
from multilinear.testing import factor_matrices

strict = pytest.importorskip("array_api_strict")

LIBRARIES = {
    "numpy": np.asarray,
    "array_api_strict": lambda x: strict.asarray(x, copy=True),
    "torch": lambda x: torch.from_numpy(np.ascontiguousarray(x)),
}
if importlib.util.find_spec("jax"):
    import jax

    jax.config.update("jax_enable_x64", True)
    LIBRARIES["jax"] = jax.numpy.asarray
if importlib.util.find_spec("cupy"):
    import cupy

    LIBRARIES["cupy"] = cupy.asarray
DTYPES = ["float32", "float64", "int64", "complex128"]


def arrays(convert, dtype, *shapes):
    generator = np.random.default_rng(0)
    values = [generator.integers(-4, 5, shape) for shape in shapes]
    if dtype == "complex128":
        values = [value + 1j * generator.integers(-4, 5, value.shape) for value in values]
    return [convert(value.astype(dtype)) for value in values], [value.astype(dtype) for value in values]


FUNCTIONS = {  # name: function of (library, arrays), its definition, shapes
    "vec": (lambda x: ml.vec(x, "F"), lambda x: reference.vec(x, "F"), [(2, 3, 4)]),
    "unvec": (lambda v: ml.unvec(v, (2, 3, 4), "F"), lambda v: reference.unvec(v, (2, 3, 4), "F"), [(24,)]),
    "unfold": (lambda x: ml.unfold(x, 1), lambda x: reference.unfold(x, 1), [(2, 3, 4)]),
    "unfold_F": (lambda x: ml.unfold(x, 1, "F"), lambda x: reference.unfold(x, 1, "F"), [(2, 3, 4)]),
    "fold": (lambda x: ml.fold(x, 0, (2, 3, 4)), lambda x: x.reshape(2, 3, 4), [(2, 12)]),
    "matricize": (lambda x: ml.matricize(x, [2, 0]), lambda x: reference.matricize(x, [2, 0], [1]), [(2, 3, 4)]),
    "outer": (lambda *v: ml.outer(v), lambda *v: reference.outer(v), [(2,), (3,), (4,)]),
    "kronecker": (lambda *m: ml.kronecker(m), lambda *m: reference.kronecker(m), [(2, 3), (1, 2)]),
    "khatri_rao": (lambda *m: ml.khatri_rao(m), lambda *m: reference.khatri_rao(m), [(2, 3), (4, 3), (1, 3)]),
    "khatri_rao_weights": (
        lambda w, *m: ml.khatri_rao(m, weights=w),
        lambda w, *m: reference.khatri_rao(m, w),
        [(3,), (2, 3), (4, 3)],
    ),
    "face_splitting": (lambda *m: ml.face_splitting(m), lambda *m: reference.face_splitting(m), [(3, 2), (3, 4)]),
    "mode_dot": (lambda x, a: ml.mode_dot(x, a, 1), lambda x, a: reference.mode_dot(x, a, 1), [(2, 3, 4), (5, 3)]),
    "mode_dot_vector": (lambda x, v: ml.mode_dot(x, v, 1), lambda x, v: reference.mode_dot(x, v, 1), [(2, 3, 4), (3,)]),
    "multi_mode_dot": (
        lambda x, a, v: ml.multi_mode_dot(x, [a, v], [2, 0]),
        lambda x, a, v: reference.multi_mode_dot(x, [a, v], [2, 0]),
        [(2, 3, 4), (5, 4), (2,)],
    ),
    "mttkrp": (
        lambda x, *f: ml.mttkrp(x, f, 1),
        lambda x, *f: reference.mttkrp(x, f, 1),
        [(2, 3, 4), (2, 2), (3, 2), (4, 2)],
    ),
    "mttkrp_order_1": (lambda x, f: ml.mttkrp(x, [f], 0), lambda x, f: reference.mttkrp(x, [f], 0), [(3,), (3, 2)]),
    "mttkrps": (
        lambda x, w, *f: ml.mttkrps(x, f, weights=w)[2],
        lambda x, w, *f: reference.mttkrp(x, f, 2, w),
        [(2, 3, 4), (2,), (2, 2), (3, 2), (4, 2)],
    ),
    "cp_to_tensor": (lambda *f: ml.cp_to_tensor(f), lambda *f: reference.cp_to_tensor(f), [(2, 2), (3, 2), (4, 2)]),
    "cp_to_tensor_order_1": (lambda f: ml.cp_to_tensor([f]), lambda f: reference.cp_to_tensor([f]), [(3, 2)]),
    "tucker_to_tensor": (
        lambda c, *f: ml.tucker_to_tensor(c, f),
        lambda c, *f: reference.tucker_to_tensor(c, f),
        [(2, 3), (4, 2), (5, 3)],
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_result_is_exact_and_of_the_input_s_kind(name, library, dtype):
    function, definition, shapes = FUNCTIONS[name]
    given_arrays, values = arrays(LIBRARIES[library], dtype, *shapes)
    result, expected = function(*given_arrays), definition(*values)
    assert type(result) is type(given_arrays[0])
    assert result.dtype == given_arrays[0].dtype
    found = result.get() if library == "cupy" else np.asarray(result)
    assert np.array_equal(found, expected)  # small whole numbers: exact in every dtype


def test_mixed_dtypes_promote_as_numpy_does():
    a, b = np.ones((2, 3), np.float32), np.ones((4, 3), np.float64)
    assert ml.khatri_rao([a, b]).dtype == np.float64
    assert ml.mode_dot(a, np.ones((2, 3), np.int64), 1).dtype == np.float64


def test_strict_libraries_refuse_what_they_refuse():
    a, b = strict.ones((2, 3)), strict.ones((2, 3), dtype=strict.int64)
    with pytest.raises(TypeError):
        ml.khatri_rao([a, b])


@given(factor_matrices())
def test_numpy_and_torch_agree(factors):
    assert_close(ml.khatri_rao([f.numpy() for f in factors]).copy(), ml.khatri_rao(factors))
    assert_close(ml.cp_to_tensor([f.numpy() for f in factors]).copy(), ml.cp_to_tensor(factors))
