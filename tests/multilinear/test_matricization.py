import numpy as np
import pytest
import torch
from factories import assert_close, random_tensors
from hypothesis import given
from hypothesis import strategies as st

import multilinear as ml
from multilinear import reference

SHAPES = [(3,), (1,), (2, 3), (1, 4), (2, 3, 4), (3, 1, 2), (2, 3, 2, 2), (0, 3), (2, 0, 3)]
ORDERS = ["C", "F"]
MODES = [(shape, mode) for shape in SHAPES for mode in range(len(shape))]

shapes = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)
orders = st.sampled_from(ORDERS)


class TestVec:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_matches_definition(self, shape, order):
        (x,) = random_tensors([shape])
        assert_close(ml.vec(x, order), reference.vec(x, order))
        assert_close(ml.unvec(ml.vec(x, order), shape, order), x)
        assert_close(reference.unvec(reference.vec(x, order), shape, order), x)

    def test_worked_example(self):
        assert ml.vec(torch.tensor([[1, 2], [3, 4]]), order="F").tolist() == [1, 3, 2, 4]

    def test_c_order_is_a_view(self):
        (x,) = random_tensors([(2, 3)])
        assert ml.vec(x).data_ptr() == x.data_ptr()

    def test_scalar(self):
        assert ml.vec(torch.tensor(3.0)).tolist() == [3.0]
        assert ml.unvec(torch.tensor([3.0]), ()).item() == 3.0


class TestUnfold:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize(("shape", "mode"), MODES, ids=str)
    def test_matches_definition(self, shape, mode, order):
        (x,) = random_tensors([shape])
        assert_close(ml.unfold(x, mode, order), reference.unfold(x, mode, order))
        assert_close(ml.unfold(x, mode - len(shape), order), reference.unfold(x, mode, order))

    @given(shape=shapes, order=orders, data=st.data())
    def test_fold_inverts(self, shape, order, data):
        mode = data.draw(st.integers(-len(shape), len(shape) - 1))
        x = torch.arange(int(np.prod(shape))).reshape(shape)
        assert_close(ml.fold(ml.unfold(x, mode, order), mode, shape, order), x)

    @pytest.mark.smoke
    def test_kolda_and_bader_example(self):  # their example 2.1: X of shape (3, 4, 2), numbered first index fastest
        x = torch.arange(1, 25).reshape(2, 4, 3).permute(2, 1, 0)
        assert ml.unfold(x, 0, order="F")[0].tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
        assert ml.unfold(x, 1, order="F")[0].tolist() == [1, 2, 3, 13, 14, 15]
        assert ml.unfold(x, 2, order="F")[1].tolist() == list(range(13, 25))

    @given(order=orders, data=st.data())
    def test_order_fixes_the_order_of_the_product(self, order, data):
        sizes = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
        mode = data.draw(st.integers(0, len(sizes) - 1))
        factors = random_tensors([(size, 3) for size in sizes])
        x = sum(ml.outer([factor[:, r] for factor in factors]) for r in range(3))
        others = factors[:mode] + factors[mode + 1 :]
        product = ml.khatri_rao(others if order == "C" else others[::-1])
        assert_close(ml.unfold(x, mode, order), factors[mode] @ product.T)

    def test_non_contiguous(self):
        (x,) = random_tensors([(4, 3, 2)])
        for y in (x.permute(2, 0, 1), x[::2], x[:1].expand(5, 3, 2)):
            assert_close(ml.unfold(y, 1), reference.unfold(y, 1))

    def test_gradient(self):
        (x,) = random_tensors([(2, 3, 4)], requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: ml.unfold(x, 1, "F"), x)


class TestMatricize:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("rows", [[], [0], [2, 0], [0, 1, 2], [1, 2]], ids=str)
    def test_matches_definition(self, rows, order):
        (x,) = random_tensors([(2, 3, 4)])
        columns = [m for m in range(3) if m not in rows]
        assert_close(ml.matricize(x, rows, order=order), reference.matricize(x, rows, columns, order))
        assert_close(ml.matricize(x, rows, columns[::-1], order), reference.matricize(x, rows, columns[::-1], order))

    def test_unfold_is_a_special_case(self):
        (x,) = random_tensors([(2, 3, 4)])
        assert_close(ml.matricize(x, [1]), ml.unfold(x, 1))


class TestCompiled:
    @pytest.mark.parametrize("dynamic", [False, True])
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize(
        "function",
        [
            lambda x, order: ml.vec(x, order),
            lambda x, order: ml.unvec(x.flatten(), (2, 3, 4), order),
            lambda x, order: ml.unfold(x, 1, order),
            lambda x, order: ml.fold(x.reshape(3, 8), 1, (2, 3, 4), order),
            lambda x, order: ml.matricize(x, [2, 0], order=order),
        ],
        ids=["vec", "unvec", "unfold", "fold", "matricize"],
    )
    def test_compiles_into_one_graph(self, function, order, dynamic):
        (x,) = random_tensors([(2, 3, 4)])
        torch._dynamo.reset()
        compiled = torch.compile(function, backend="eager", fullgraph=True, dynamic=dynamic)
        assert_close(compiled(x, order), function(x, order))


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (
                lambda x: ml.unfold(x, 3),
                ValueError,
                r"unfold: mode 3 is out of range for a tensor with 3 modes.*from -3",
            ),
            (lambda x: ml.unfold(x, -4), ValueError, r"unfold: mode -4 is out of range"),
            (lambda x: ml.unfold(x.sum(), 0), ValueError, r"unfold: a scalar has no modes, got mode 0; reshape it"),
            (lambda x: ml.unfold(x, 1.5), TypeError, r"unfold: mode must be an integer, got 1.5"),
            (lambda x: ml.unfold(x, 0, "K"), ValueError, r"unfold: order must be \"C\".*got 'K'"),
            (lambda x: ml.unfold([1, 2], 0), TypeError, r"unfold: tensor must be an array.*got list"),
            (lambda x: ml.unfold(x > 0, 0), TypeError, r"unfold: tensor is boolean"),
            (lambda x: ml.vec(x, "A"), ValueError, r"vec: order must be"),
            (lambda x: ml.vec("x"), TypeError, r"vec: tensor must be an array.*got str"),
            (lambda x: ml.unvec(x, (24,)), ValueError, r"unvec: vector must have 1 mode, \(elements,\), got shape"),
            (lambda x: ml.unvec(ml.vec(x), (5, 5)), ValueError, r"unvec: the vector has 24 elements but shape"),
            (lambda x: ml.unvec(ml.vec(x), (-1, 24)), ValueError, r"unvec: shape must not have negative sizes"),
            (lambda x: ml.unvec(ml.vec(x), "ab"), TypeError, r"unvec: shape must be a sequence of integers, got 'ab'"),
            (lambda x: ml.fold(x, 0, (2, 3, 4)), ValueError, r"fold: matrix must have 2 modes"),
            (
                lambda x: ml.fold(x[0], 0, (2, 3, 4)),
                ValueError,
                r"fold: mode 0 of shape \(2, 3, 4\) unfolds to \(2, 12\)",
            ),
            (lambda x: ml.fold(x[0], 5, (3, 4)), ValueError, r"fold: mode 5 is out of range"),
            (lambda x: ml.matricize(x, [0, 0]), ValueError, r"matricize: every mode .* rows \[0, 0\]"),
            (lambda x: ml.matricize(x, [0], [1]), ValueError, r"matricize: every mode .* columns \[1\]"),
            (lambda x: ml.matricize(x, [7]), ValueError, r"matricize: mode 7 is out of range"),
        ],
    )
    def test_message(self, call, error, message):
        with pytest.raises(error, match=message):
            call(torch.zeros(2, 3, 4))
