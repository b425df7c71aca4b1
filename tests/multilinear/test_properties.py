"""Every operator equals its definition on awkward shapes and layouts, exactly: the strategies draw whole numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import multilinear as ml
from multilinear import reference
from multilinear.testing import cores_with_latents, factor_matrices, tensors

few = settings(max_examples=40)


def assert_equal(actual, expected):
    assert tuple(actual.shape) == tuple(expected.shape)
    assert np.array_equal(np.asarray(actual.detach().resolve_conj()), np.asarray(expected))


@few
@given(x=tensors(), data=st.data())
def test_unfold(x, data):
    mode, order = data.draw(st.integers(0, x.ndim - 1)), data.draw(st.sampled_from("CF"))
    assert_equal(ml.unfold(x, mode, order), reference.unfold(x, mode, order))


@few
@given(factor_matrices())
def test_khatri_rao(factors):
    assert_equal(ml.khatri_rao(factors), reference.khatri_rao(factors))


@few
@given(factor_matrices(dtype=torch.complex128))
def test_face_splitting(factors):
    rows = [factor.T for factor in factors]
    assert_equal(ml.face_splitting(rows), reference.face_splitting(rows))


@few
@given(factor_matrices())
def test_cp_to_tensor(factors):
    assert_equal(ml.cp_to_tensor(factors), reference.cp_to_tensor(factors))


@few
@given(factors=factor_matrices(max_factors=3), data=st.data())
def test_mttkrp(factors, data):
    x = data.draw(tensors([factor.shape[0] for factor in factors]))
    mode = data.draw(st.integers(0, x.ndim - 1))
    assert_equal(ml.mttkrp(x, factors, mode), reference.mttkrp(x, factors, mode))


@few
@given(x=tensors(), data=st.data())
def test_mode_dot(x, data):
    mode = data.draw(st.integers(0, x.ndim - 1))
    matrix = data.draw(tensors((data.draw(st.integers(0, 3)), x.shape[mode])))
    assert_equal(ml.mode_dot(x, matrix, mode), reference.mode_dot(x, matrix, mode))


@few
@given(cores_with_latents())
def test_multilinear_map(problem):
    core, inputs = problem
    assert_equal(ml.multilinear_map(core, inputs), reference.multilinear_map(core, inputs))


@few
@given(cores_with_latents(min_inputs=3))
def test_gradients_of_the_multilinear_map(problem):
    leaves = [x.detach().clone().requires_grad_() for x in (problem[0], *problem[1])]
    ours = ml.multilinear_map(leaves[0], leaves[1:])
    plain = torch.einsum("oijl,ni,nj,nl->no", *leaves)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), leaves),
        torch.autograd.grad(plain.square().sum(), leaves, materialize_grads=True, allow_unused=True),
        strict=True,
    ):
        assert_equal(a, b)


@few
@given(factor_matrices(min_factors=3, max_factors=3))
def test_gradients_of_khatri_rao_with_given_layouts(factors):
    """The tensors themselves are the leaves, so that strided and expanded ones reach the backward pass."""
    for factor in factors:
        factor.requires_grad_()
    gradients = torch.autograd.grad(ml.khatri_rao(factors).square().sum(), factors)
    expected = torch.autograd.grad(torch.einsum("ir,jr,lr->ijlr", *factors).square().sum(), factors)
    for a, b in zip(gradients, expected, strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("function", [ml.khatri_rao, ml.cp_to_tensor])
def test_strided_inputs_hide_nan_between_the_elements(function):
    """What the strategy's strided layout relies on: nothing reads what lies between."""
    storage = torch.full((7, 5), torch.nan, dtype=torch.float64)
    view = storage[1::2, 1::2]
    view.fill_(2)
    assert not function([view, view]).isnan().any()
