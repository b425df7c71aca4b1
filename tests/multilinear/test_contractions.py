import pytest
import torch
from factories import assert_close, random_tensors
from torch.autograd import gradcheck, gradgradcheck

import multilinear as ml
from multilinear import reference

SHAPES = [(3,), (1, 1), (2, 3), (2, 3, 4), (3, 1, 2), (9, 2, 1), (2, 3, 2, 2), (2, 0, 3)]
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
    def test_message(self, call, error, message):
        with pytest.raises(error, match=message):
            call(*random_tensors([(2, 3, 4), (5, 4)]))
