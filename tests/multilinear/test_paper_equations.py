"""The paper's numbered equations, each against the explicit matrices of appendix.py or the loops of reference.py.

Equations 6-14 are the network's and its losses': tests/facemodels.
"""

import numpy as np
import pytest
import torch
from factories import assert_close, random_tensors

import multilinear as ml
from multilinear import appendix, reference

K_X, K_L, K_EXP, K_ID, N = 5, 3, 2, 4, 3  # image, light, expression, identity, batch


@pytest.fixture
def texture():
    """Core Q and the codes of a batch, samples first."""
    return random_tensors([(K_X, K_L, K_EXP, K_ID), (N, K_L), (N, K_EXP), (N, K_ID)])


def columns(*codes):
    return [z.numpy().T for z in codes]


def test_equation_1_one_image(texture):
    core, light, expression, identity = texture
    by_modes = core
    for code in (light, expression, identity):  # the paper's x2, x3, x4: always the first mode that is left
        by_modes = ml.mode_dot(by_modes, code[0], 1)
    assert_close(ml.multilinear_map(core, [light[0], expression[0], identity[0]]), by_modes)
    assert_close(by_modes, reference.multilinear_map(core, [light[:1], expression[:1], identity[:1]])[0])


@pytest.mark.smoke
def test_equation_2_batch_of_images(texture):
    core, light, expression, identity = texture
    printed = ml.unfold(core, 0) @ ml.khatri_rao([light.T, expression.T, identity.T])
    assert_close(ml.multilinear_map(core, [light, expression, identity]), printed.T)
    assert_close(printed.T, reference.multilinear_map(core, [light, expression, identity]))


def test_equation_2_in_kolda_and_baders_order(texture):
    core, light, expression, identity = texture
    printed = ml.unfold(core, 0, order="F") @ ml.khatri_rao([identity.T, expression.T, light.T])
    assert_close(printed.T, ml.multilinear_map(core, [light, expression, identity]))


def test_equation_3_one_shape():
    core, expression, identity = random_tensors([(6, K_EXP, K_ID), (K_EXP,), (K_ID,)])
    by_modes = ml.mode_dot(ml.mode_dot(core, expression, 1), identity, 1)
    assert_close(ml.multilinear_map(core, [expression, identity]), by_modes)
    assert_close(by_modes, reference.multilinear_map(core, [expression[None], identity[None]])[0])


def test_equation_4_batch_of_shapes():
    core, expression, identity = random_tensors([(6, K_EXP, K_ID), (N, K_EXP), (N, K_ID)])
    printed = ml.unfold(core, 0) @ ml.khatri_rao([expression.T, identity.T])
    assert_close(ml.multilinear_map(core, [expression, identity]), printed.T)
    assert_close(printed.T, reference.multilinear_map(core, [expression, identity]))


def test_equation_5_normals_with_constant_light(texture):
    core, _, expression, identity = texture
    ones = torch.full((N, K_L), 1 / K_L, dtype=torch.float64)
    printed = ml.unfold(core, 0) @ ml.khatri_rao([ones.T, expression.T, identity.T])
    for light in (ones, ones[0], ones[:1], ones[:1].expand(N, -1)):
        assert_close(ml.multilinear_map(core, [light, expression, identity]), printed.T)


@pytest.fixture(params=[1, 2, 3, 4], ids="M={}".format)
def problem(request):
    """Target X, core B and M inputs, samples first."""
    sizes = (3, 2, 4, 2)[: request.param]
    target, core, *inputs = random_tensors([(N, K_X), (K_X, *sizes), *((N, size) for size in sizes)])
    return target, core, inputs


def test_equation_15_loss(problem):
    target, core, inputs = problem
    printed = torch.linalg.norm(target.T - ml.unfold(core, 0) @ ml.khatri_rao([z.T for z in inputs])) ** 2
    assert_close(ml.multilinear_loss(target, core, inputs), printed)
    assert_close(ml.multilinear_loss(target, core, inputs), reference.multilinear_loss(target, core, inputs))


def test_equation_16_loss_is_quadratic_in_each_input(problem):
    target, core, inputs = problem
    matrix = ml.unfold(core, 0).numpy()
    for position in range(len(inputs)):
        by_operator = appendix.loss(target.numpy().T, matrix, columns(*inputs), position)
        assert_close(ml.multilinear_loss(target, core, inputs), by_operator)


def test_equation_16_operator_gives_the_map(problem):
    _, core, inputs = problem
    matrix = ml.unfold(core, 0).numpy()
    mapped = ml.multilinear_map(core, inputs)
    for position, z in enumerate(columns(*inputs)):
        a = appendix.operator(matrix, columns(*inputs), position)
        assert_close(a @ appendix.vec(z), appendix.vec(mapped.numpy().T))


def test_equation_17_and_18_codes_of_two_faces_are_exchanged():
    core, expression, identity = random_tensors([(6, K_EXP, K_ID), (N, K_EXP), (N, K_ID)])  # eq. 17: codes of n faces
    decoded = ml.multilinear_map(core, [expression[:, None], identity])  # eq. 18: expression of j, identity of i
    for j in range(N):
        for i in range(N):
            swapped = reference.multilinear_map(core, [expression[j : j + 1], identity[i : i + 1]])
            assert_close(decoded[j, i], swapped[0])


def test_equation_19_norm_of_the_vectorised_residual(problem):
    target, core, inputs = problem
    residual = ml.vec(target.T, "F") - ml.vec(ml.multilinear_map(core, inputs).T, "F")
    assert_close(ml.multilinear_loss(target, core, inputs), residual.dot(residual))


def test_equation_20_vec_of_a_matrix_product():
    matrix, z = random_tensors([(4, 3), (3, 5)])
    assert_close(ml.vec(matrix @ z, "F"), ml.kronecker([torch.eye(5, dtype=torch.float64), matrix]) @ ml.vec(z, "F"))
    assert_close(appendix.projection(matrix.numpy(), 5) @ appendix.vec(z.numpy()), ml.vec(matrix @ z, "F"))


def test_equation_21_vec_of_khatri_rao_is_linear_in_the_right_factor():
    left, right = random_tensors([(3, 5), (4, 5)])
    eye = torch.eye(5, dtype=torch.float64)
    matrix = ml.kronecker([ml.khatri_rao([eye, left]), torch.eye(4, dtype=torch.float64)])
    assert_close(matrix @ ml.vec(right, "F"), ml.vec(ml.khatri_rao([left, right]), "F"))
    assert_close(appendix.product_of_left(left.numpy(), 4), matrix)


def test_equation_22_vec_of_khatri_rao_is_linear_in_the_left_factor():
    left, right = random_tensors([(3, 5), (4, 5)])
    row = torch.ones(1, 3, dtype=torch.float64)  # the printed "1" is a row
    repeated = right @ ml.kronecker([torch.eye(5, dtype=torch.float64), row])
    matrix = ml.khatri_rao([torch.eye(15, dtype=torch.float64), repeated])
    assert_close(matrix @ ml.vec(left, "F"), ml.vec(ml.khatri_rao([left, right]), "F"))
    assert_close(appendix.product_of_right(right.numpy(), 3), matrix)


@pytest.mark.smoke
def test_equation_23_gradient(problem):
    target, core, inputs = problem
    matrix = ml.unfold(core, 0).numpy()
    leaves = [z.clone().requires_grad_() for z in inputs]
    ml.multilinear_loss(target, core, leaves).backward()
    for position, z in enumerate(leaves):
        assert_close(z.grad.T, appendix.gradient(target.numpy().T, matrix, columns(*inputs), position))


def test_equation_23_with_sparse_matrices(problem):
    target, core, inputs = problem
    matrix = ml.unfold(core, 0).numpy()
    for position in range(len(inputs)):
        dense = appendix.operator(matrix, columns(*inputs), position)
        sparse = appendix.operator(matrix, columns(*inputs), position, sparse=True)
        assert_close(sparse.toarray(), dense)
        assert sparse.nnz == np.count_nonzero(dense)
        arguments = (target.numpy().T, matrix, columns(*inputs), position)
        assert_close(appendix.gradient(*arguments, sparse=True), appendix.gradient(*arguments))
        assert appendix.loss(*arguments, sparse=True) == pytest.approx(appendix.loss(*arguments), rel=1e-12)


def test_equation_23_with_a_shared_input():
    target, core, *inputs = random_tensors([(N, K_X), (K_X, 3, 2, 4), (N, 3), (N, 2), (N, 4)])
    matrix = ml.unfold(core, 0).numpy()
    shared = inputs[0][0].clone().requires_grad_()
    ml.multilinear_loss(target, core, [shared, *inputs[1:]]).backward()
    expanded = [np.repeat(shared.detach().numpy()[:, None], N, axis=1), *columns(*inputs[1:])]
    assert_close(shared.grad, appendix.gradient(target.numpy().T, matrix, expanded, 0).sum(axis=1))
