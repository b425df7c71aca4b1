"""Verification of multilinear operators, the library's own and yours.

    assert_gradients    analytic derivatives against finite differences, a reference's autodiff and an explicit operator
    assert_multilinear  linear in each argument, the others held fixed
    random_tensors      arguments from a fixed seed
    tensors, factor_matrices, cores_with_latents    hypothesis strategies with the awkward shapes and strides
    verify              the table that `python -m multilinear.testing` prints

`multilinear.testing.plugin` is a pytest plugin: write `pytest_plugins = ["multilinear.testing.plugin"]` in your
conftest.py. Needs the extra `testing`.
"""

from multilinear.testing.assertions import assert_gradients as assert_gradients
from multilinear.testing.assertions import assert_multilinear as assert_multilinear
from multilinear.testing.inputs import random_tensors as random_tensors
from multilinear.testing.strategies import cores_with_latents as cores_with_latents
from multilinear.testing.strategies import factor_matrices as factor_matrices
from multilinear.testing.strategies import tensors as tensors
from multilinear.testing.verification import verify as verify
