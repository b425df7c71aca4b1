"""The operators as torch's library sees them."""

import pytest
import torch
from factories import assert_close, random_tensors

from multilinear.autograd import cp, face_splitting, mode_dot, multilinear_map
from multilinear.autograd._operator import to_bits

CASES = [
    *((op, [(3, 2)] * order, (3, 2**order)) for order, op in face_splitting.OPERATORS.items()),
    *((op, [(3, 2)] * order, (3,) * order) for order, op in cp.OPERATORS.items()),
    *((op, [(4, *[2] * order), *[(3, 2)] * order], (3, 4)) for order, op in multilinear_map.OPERATORS.items()),
    (mode_dot.OPERATOR, [(2, 3, 4), (5, 3)], (2, 5, 4)),
]
IDS = [op.name for op, _, _ in CASES]


@pytest.mark.parametrize(("operator", "shapes", "result"), CASES, ids=IDS)
class TestOperators:
    @pytest.mark.slow
    def test_opcheck(self, operator, shapes, result):
        torch.library.opcheck(operator._operator, random_tensors(shapes, requires_grad=True))

    @pytest.mark.slow
    @pytest.mark.parametrize("first", [True, False])
    def test_opcheck_of_backward(self, operator, shapes, result, first):
        gradient, *tensors = random_tensors([result, *shapes], requires_grad=True)
        needed = [first, *[True] * (len(shapes) - 1)]
        torch.library.opcheck(operator._backward_operator, (gradient, *tensors, to_bits(needed)))

    def test_result_has_the_declared_shape(self, operator, shapes, result):
        assert operator(*random_tensors(shapes)).shape == result

    def test_unneeded_gradients_are_not_computed(self, operator, shapes, result):
        gradient, *tensors = random_tensors([result, *shapes])
        for wanted in range(len(shapes)):
            needed = [m == wanted for m in range(len(shapes))]
            results = operator.backward(gradient, tensors, needed)
            assert [r is not None for r in results] == needed
            assert results[wanted].shape == tensors[wanted].shape

    def test_backward_asks_only_for_what_requires_grad(self, operator, shapes, result, monkeypatch):
        asked = []
        spy = lambda backward: lambda g, t, n: asked.append(list(n)) or backward(g, t, n)  # noqa: E731
        monkeypatch.setattr(operator, "backward_formula", spy(operator.backward_formula))
        for key, (forward, backward) in operator.kernels.items():
            monkeypatch.setitem(operator.kernels, key, (forward, spy(backward)))
        tensors = random_tensors(shapes)
        tensors[-1].requires_grad_()
        operator(*tensors).sum().backward()
        assert asked == [[*[False] * (len(shapes) - 1), True]]

    def test_operator_itself_has_a_batching_rule(self, operator, shapes, result):
        gradient, *tensors = random_tensors([(4, *result), *((4, *shape) for shape in shapes[:-1]), shapes[-1]])
        in_dims = (*[0] * (len(shapes) - 1), None)
        rows = [(*(x[n] for x in tensors[:-1]), tensors[-1]) for n in range(4)]
        actual = torch.vmap(operator._operator, in_dims)(*tensors)
        assert_close(actual, torch.stack([operator(*row) for row in rows]))
        needed = [True] * len(shapes)
        batched = torch.vmap(lambda g, *x: operator._backward_operator(g, *x, to_bits(needed)), (0, *in_dims))(
            gradient, *tensors
        )
        for position, actual in enumerate(batched):
            expected = [operator.backward(gradient[n], row, needed)[position] for n, row in enumerate(rows)]
            assert_close(actual, torch.stack(expected))
