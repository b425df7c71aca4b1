import pytest
import torch
from factories import assert_close, random_tensors
from torch.autograd import gradcheck, gradgradcheck

import multilinear as ml
from multilinear import reference

SHAPES = [((3,), (2,)), ((1, 1), (1, 1)), ((2, 3), (2, 2)), ((2, 3, 4), (2, 1, 3)), ((2, 0, 3), (1, 2, 2))]


def tucker(shape, ranks, **options):
    return random_tensors([ranks, *zip(shape, ranks, strict=True)], **options)


class TestTuckerToTensor:
    @pytest.mark.parametrize(("shape", "ranks"), SHAPES, ids=str)
    def test_matches_definition(self, shape, ranks):
        core, *factors = tucker(shape, ranks)
        expected = reference.tucker_to_tensor(core, factors)
        assert_close(ml.tucker_to_tensor(core, factors), expected)
        assert_close(ml.tucker_to_tensor(core.numpy(), [f.numpy() for f in factors]), expected)

    @pytest.mark.parametrize(("shape", "ranks"), SHAPES[:4], ids=str)
    def test_gradients(self, shape, ranks):
        tensors = tucker(shape, ranks, requires_grad=True)
        assert gradcheck(lambda c, *f: ml.tucker_to_tensor(c, f), tensors)
        assert gradgradcheck(lambda c, *f: ml.tucker_to_tensor(c, f), tensors)

    def test_diagonal_core_is_cp(self):
        factors = random_tensors([(2, 3), (4, 3), (5, 3)])
        core = torch.zeros(3, 3, 3, dtype=torch.float64)
        core[range(3), range(3), range(3)] = 1
        assert_close(ml.tucker_to_tensor(core, factors), ml.cp_to_tensor(factors))


class TestTuckerLoss:
    @pytest.mark.parametrize(("shape", "ranks"), SHAPES[:4], ids=str)
    def test_gradients(self, shape, ranks):
        tensors = [*random_tensors([shape], seed=1, requires_grad=True), *tucker(shape, ranks, requires_grad=True)]
        x, core, *factors = (t.detach() for t in tensors)
        expected = ((x.numpy() - reference.tucker_to_tensor(core, factors)) ** 2).sum()
        assert_close(ml.tucker_loss(x, core, factors), expected)
        assert gradcheck(lambda x, c, *f: ml.tucker_loss(x, c, f), tensors)
        assert gradgradcheck(lambda x, c, *f: ml.tucker_loss(x, c, f), tensors)


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (
                lambda c, a, b: ml.tucker_to_tensor(c, [a]),
                ValueError,
                r"tucker_to_tensor: the core must have .* \(2,\), got",
            ),
            (lambda c, a, b: ml.tucker_to_tensor(c, [b, a]), ValueError, r"shape, \(3, 2\), got \(2, 3\)"),
            (lambda c, a, b: ml.tucker_to_tensor(c, [a, b[0]]), ValueError, r"factors\[1\] must have 2 modes"),
            (lambda c, a, b: ml.tucker_to_tensor(c, a), TypeError, r"factors must be a list or tuple"),
            (
                lambda c, a, b: ml.tucker_loss(c, c, [a, b]),
                ValueError,
                r"tucker_loss: factors .* make a tensor of shape",
            ),
            (lambda c, a, b: ml.tucker_loss([1], c, [a, b]), TypeError, r"tucker_loss: tensor must be a torch.Tensor"),
            (
                lambda c, a, b: ml.tucker_loss(c, c.numpy(), [a, b]),
                TypeError,
                r"tucker_loss: core must be a torch.Tensor",
            ),
        ],
    )
    def test_message(self, call, error, message):
        with pytest.raises(error, match=message):
            call(*random_tensors([(2, 3), (4, 2), (5, 3)]))
