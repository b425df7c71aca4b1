import pytest
import torch
from factories import assert_close, random_tensors
from torch.autograd import gradcheck, gradgradcheck

import multilinear as ml
from multilinear import reference

SHAPES = [(3,), (1, 1), (2, 3), (2, 3, 4), (3, 1, 2), (9, 2, 1), (2, 9, 2), (2, 3, 2, 2), (2, 0, 3)]
MODES = [(shape, mode) for shape in SHAPES for mode in range(len(shape))]
NOT_EMPTY = [(shape, mode) for shape, mode in MODES if 0 not in shape]


class TestModeDot:
    @pytest.mark.parametrize(("shape", "mode"), MODES, ids=str)
    def test_matches_definition(self, shape, mode):
        x, matrix, vector = random_tensors([shape, (5, shape[mode]), shape[mode : mode + 1]])
        for operand in (matrix, vector):
            expected = reference.mode_dot(x, operand, mode)
            assert_close(ml.mode_dot(x, operand, mode), expected)
            assert_close(ml.mode_dot(x, operand, mode - len(shape)), expected)
            assert_close(ml.mode_dot(x.numpy(), operand.numpy(), mode), expected)

    @pytest.mark.parametrize("rows", [1, 7])
    @pytest.mark.parametrize(("shape", "mode"), NOT_EMPTY, ids=str)
    def test_gradients(self, shape, mode, rows):
        x, matrix = random_tensors([shape, (rows, shape[mode])], requires_grad=True)
        assert gradcheck(lambda x, a: ml.mode_dot(x, a, mode), (x, matrix))
        assert gradgradcheck(lambda x, a: ml.mode_dot(x, a, mode), (x, matrix))

    def test_gradients_of_a_vector(self):
        x, vector = random_tensors([(2, 3, 4), (3,)], requires_grad=True)
        assert gradcheck(lambda x, v: ml.mode_dot(x, v, 1), (x, vector))

    @pytest.mark.smoke
    def test_worked_example(self):
        x = torch.arange(8).reshape(2, 2, 2)
        assert ml.mode_dot(x, torch.tensor([1, 10]), 0).tolist() == [[40, 51], [62, 73]]

    def test_unfolding_is_multiplied(self):  # Kolda and Bader, sec. 2.5
        x, a = random_tensors([(2, 3, 4), (5, 3)])
        assert_close(ml.unfold(ml.mode_dot(x, a, 1), 1), a @ ml.unfold(x, 1))

    def test_products_of_one_mode_compose(self):  # Kolda and Bader, sec. 2.5
        x, a, b = random_tensors([(2, 3, 4), (5, 3), (2, 5)])
        assert_close(ml.mode_dot(ml.mode_dot(x, a, 1), b, 1), ml.mode_dot(x, b @ a, 1))

    @pytest.mark.parametrize("mode", [0, 1, 2])
    def test_complex(self, mode):
        x, a = random_tensors([(2, 3, 4), (2, (2, 3, 4)[mode])], dtype=torch.complex128, requires_grad=True)
        assert_close(ml.mode_dot(x, a, mode).detach(), reference.mode_dot(x.detach(), a.detach(), mode))
        assert gradcheck(lambda x, a: ml.mode_dot(x, a, mode), (x, a))
        assert gradgradcheck(lambda x, a: ml.mode_dot(x, a, mode), (x, a))

    @pytest.mark.parametrize("mode", [0, 1, 2])
    def test_non_contiguous(self, mode):
        x, a = random_tensors([(4, 2, 6), (3, (6, 4, 2)[mode])], requires_grad=True)
        f = lambda x, a: ml.mode_dot(x.permute(2, 0, 1), a, mode)  # noqa: E731
        assert_close(f(x, a).detach(), reference.mode_dot(x.detach().permute(2, 0, 1), a.detach(), mode))
        assert gradcheck(f, (x, a))


class TestMultiModeDot:
    @pytest.mark.parametrize("modes", [[], [0], [2, 0], [1, 2], [0, 1, 2], [-1, 0]], ids=str)
    def test_matches_definition(self, modes):
        shape = (2, 3, 4)
        x, *matrices = random_tensors([shape, *((5, shape[mode]) for mode in modes)])
        positive = [mode % 3 for mode in modes]
        vectors = [matrix[0] for matrix in matrices]
        for operands in (matrices, vectors, [*vectors[:1], *matrices[1:]]):
            expected = reference.multi_mode_dot(x, operands, positive)
            assert_close(ml.multi_mode_dot(x, operands, modes), expected)
            assert_close(ml.multi_mode_dot(x.numpy(), [a.numpy() for a in operands], modes), expected)

    def test_default_modes_are_the_first(self):
        x, a, b = random_tensors([(2, 3, 4), (5, 2), (5, 3)])
        assert_close(ml.multi_mode_dot(x, [a, b]), ml.multi_mode_dot(x, [b, a], [1, 0]))

    def test_gradients(self):
        x, matrix, vector = random_tensors([(2, 3, 4), (5, 4), (3,)], requires_grad=True)
        assert gradcheck(lambda x, a, v: ml.multi_mode_dot(x, [a, v], [2, 1]), (x, matrix, vector))
        assert gradgradcheck(lambda x, a, v: ml.multi_mode_dot(x, [a, v], [2, 1]), (x, matrix, vector))

    def test_unfolding_is_multiplied_by_the_kronecker_product(self):  # Kolda and Bader, sec. 2.6
        x, a, b, c = random_tensors([(2, 3, 4), (5, 2), (2, 3), (3, 4)])
        expected = b @ ml.unfold(x, 1) @ ml.kronecker([a, c]).T
        assert_close(ml.unfold(ml.multi_mode_dot(x, [a, b, c]), 1), expected)


CP_SHAPES = [
    (3,),
    (1, 1),
    (2, 3),
    (2, 3, 4),
    (3, 1, 2),
    (2, 2, 3, 2),
    (2, 1, 2, 2, 2),
    (2, 2, 1, 2, 2, 2, 2),
    (2, 1, 2, 1, 2, 1, 2, 2),
]


def tensor_with_factors(shape, rank=3, **options):
    return random_tensors([shape, *((size, rank) for size in shape)], **options)


class TestMttkrp:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("shape", [*CP_SHAPES, (2, 0, 3)], ids=str)
    def test_matches_definition(self, shape, weighted):
        x, *factors = tensor_with_factors(shape)
        weights = random_tensors([(3,)], seed=1)[0] if weighted else None
        together = ml.mttkrps(x, factors, weights=weights)
        for mode in range(len(shape)):
            expected = reference.mttkrp(x, factors, mode, weights)
            assert_close(ml.mttkrp(x, factors, mode, weights=weights), expected)
            assert_close(ml.mttkrp(x, factors, mode - len(shape), weights=weights), expected)
            assert_close(together[mode], expected)
            arrays = [factor.numpy() for factor in factors]
            plain = ml.mttkrp(x.numpy(), arrays, mode, weights=None if weights is None else weights.numpy())
            assert_close(plain, expected)

    @pytest.mark.parametrize("shape", [shape for shape in CP_SHAPES if len(shape) > 1], ids=str)
    def test_own_factor_is_not_used(self, shape):
        x, *factors = tensor_with_factors(shape)
        for mode in range(len(shape)):
            for unused in (None, factors[mode][:1], torch.full_like(factors[mode], torch.nan)):
                given = [unused if m == mode else factor for m, factor in enumerate(factors)]
                assert_close(ml.mttkrp(x, given, mode), ml.mttkrp(x, factors, mode))

    @pytest.mark.parametrize("shape", CP_SHAPES[:-1], ids=str)
    def test_gradients(self, shape):
        tensors = tensor_with_factors(shape, rank=2, requires_grad=True)
        for mode in range(len(shape)):
            assert gradcheck(lambda x, *f, mode=mode: ml.mttkrp(x, f, mode), tensors)
        assert gradcheck(lambda x, *f: tuple(ml.mttkrps(x, f)), tensors)

    @pytest.mark.parametrize("shape", CP_SHAPES[1:6], ids=str)
    def test_second_derivatives(self, shape):
        x, *factors = tensor_with_factors(shape, rank=2, requires_grad=True)
        (weights,) = random_tensors([(2,)], seed=1, requires_grad=True)
        assert gradgradcheck(lambda x, w, *f: tuple(ml.mttkrps(x, f, weights=w)), (x, weights, *factors))

    def test_complex_factors_are_not_conjugated(self):
        x, *factors = tensor_with_factors((2, 3, 2), dtype=torch.complex128, requires_grad=True)
        values = [factor.detach() for factor in factors]
        assert_close(ml.mttkrp(x, factors, 1).detach(), reference.mttkrp(x.detach(), values, 1))
        assert gradcheck(lambda x, *f: tuple(ml.mttkrps(x, f)), (x, *factors))
        assert gradgradcheck(lambda x, *f: ml.mttkrp(x, f, 1), (x, *factors))

    def test_is_unfolding_times_khatri_rao(self):  # Kolda and Bader, sec. 2.6
        x, a, b, c = tensor_with_factors((2, 3, 4))
        assert_close(ml.mttkrp(x, [a, b, c], 1), ml.unfold(x, 1) @ ml.khatri_rao([a, c]))


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (
                lambda x, a: ml.mode_dot(x, a, 1),
                ValueError,
                r"mode_dot: matrix has 4 columns but mode 1 of the tensor has size 3 "
                r"\(tensor is \(2, 3, 4\), operand is \(5, 4\)\)",
            ),
            (lambda x, a: ml.mode_dot(x, a[0], 0), ValueError, r"mode_dot: vector has 4 elements but mode 0"),
            (
                lambda x, a: ml.mode_dot(x, x, 0),
                ValueError,
                r"mode_dot: the operand of mode 0 must be a matrix \(rows, 2\)",
            ),
            (lambda x, a: ml.mode_dot(x, a, 3), ValueError, r"mode_dot: mode 3 is out of range"),
            (lambda x, a: ml.mode_dot(x, a, None), TypeError, r"mode_dot: mode must be an integer, got None"),
            (lambda x, a: ml.mode_dot(x, [1.0], 0), TypeError, r"mode_dot: matrix_or_vector must be an array"),
            (lambda x, a: ml.mode_dot(x, a.numpy(), 2), TypeError, r"mode_dot: all arrays must come from one library"),
            (lambda x, a: ml.mode_dot(x > 0, a, 2), TypeError, r"mode_dot: tensor is boolean"),
            (lambda x, a: ml.mode_dot(x.to("meta"), a, 2), ValueError, r"mode_dot: all tensors must be on one device"),
        ],
    )
    def test_mode_dot(self, call, error, message):
        with pytest.raises(error, match=message):
            call(*random_tensors([(2, 3, 4), (5, 4)]))

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda x, a: ml.multi_mode_dot(x, a), TypeError, r"multi_mode_dot: operands must be a list or tuple"),
            (
                lambda x, a: ml.multi_mode_dot(x, [a, a], [2, 2]),
                ValueError,
                r"every mode may occur once, got modes \[2, 2\]",
            ),
            (lambda x, a: ml.multi_mode_dot(x, [a], [0, 1]), ValueError, r"got 1 operands and 2 modes"),
            (lambda x, a: ml.multi_mode_dot(x, [a]), ValueError, r"multi_mode_dot: matrix has 4 columns but mode 0"),
            (lambda x, a: ml.multi_mode_dot(x, [a], [5]), ValueError, r"multi_mode_dot: mode 5 is out of range"),
            (lambda x, a: ml.multi_mode_dot(x, [a, 1], [0, 1]), TypeError, r"operands\[1\] must be an array"),
        ],
    )
    def test_multi_mode_dot(self, call, error, message):
        with pytest.raises(error, match=message):
            call(*random_tensors([(2, 3, 4), (5, 4)]))

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (
                lambda x, a, b: ml.mttkrp(x, [a], 0),
                ValueError,
                r"mttkrp: factors must hold .* each of the 2 modes, got 1",
            ),
            (lambda x, a, b: ml.mttkrp(x, a, 0), TypeError, r"mttkrp: factors must be .* got Tensor"),
            (lambda x, a, b: ml.mttkrp(x, [a, b], 2), ValueError, r"mttkrp: mode 2 is out of range"),
            (
                lambda x, a, b: ml.mttkrp(x, [b, a], 0),
                ValueError,
                r"mttkrp: factors\[1\] has 2 rows but mode 1 .* size 3",
            ),
            (
                lambda x, a, b: ml.mttkrps(x, [a, b[:, :1]]),
                ValueError,
                r"all factors need the same number of columns",
            ),
            (lambda x, a, b: ml.mttkrp(x, [a, b[0]], 0), ValueError, r"mttkrp: factors\[1\] must have 2 modes"),
            (lambda x, a, b: ml.mttkrp(x, [a, None], 0), TypeError, r"mttkrp: factors\[1\] must be an array"),
            (lambda x, a, b: ml.mttkrp(x.sum(), [], 0), ValueError, r"mttkrp: tensor must have at least 1 mode"),
            (lambda x, a, b: ml.mttkrp(x, [a, b], 0, weights=a), ValueError, r"mttkrp: weights must have shape \(4,\)"),
            (lambda x, a, b: ml.mttkrps(x, [a]), ValueError, r"mttkrps: factors must hold"),
            (lambda x, a, b: ml.mttkrps(x > 0, [a, b]), TypeError, r"mttkrps: tensor is boolean"),
        ],
    )
    def test_mttkrp(self, call, error, message):
        with pytest.raises(error, match=message):
            call(*random_tensors([(2, 3), (2, 4), (3, 4)]))
