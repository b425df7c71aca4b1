"""The verification kit: it must find what is wrong, say where, and stay silent otherwise."""

import subprocess
import sys

import pytest
import torch
from factories import random_tensors
from hypothesis import find, given

import multilinear as ml
from multilinear import appendix
from multilinear.autograd import mode_dot as _mode_dot
from multilinear.testing import (
    assert_gradients,
    assert_multilinear,
    cores_with_latents,
    factor_matrices,
    tensors,
    verify,
)
from multilinear.testing.__main__ import main
from multilinear.testing.derivatives import largest_error


def outer(a, b):
    return a[:, None] * b


class WrongOuter(torch.autograd.Function):
    """The gradient of `b` is halved."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return outer(a, b)

    @staticmethod
    def backward(ctx, gradient):
        a, b = ctx.saved_tensors
        return gradient @ b, a @ gradient / 2


class WrongSecondOrder(torch.autograd.Function):
    """The gradient is right, but forgets that it depends on `b`."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return outer(a, b)

    @staticmethod
    def backward(ctx, gradient):
        a, b = ctx.saved_tensors
        return gradient @ b.detach(), a @ gradient


class TestAssertGradients:
    def test_accepts_right_gradients(self):
        assert_gradients(outer, outer, random_tensors([(2,), (3,)]), orders=3)
        assert_gradients(outer, None, random_tensors([(2,), (0,)]))

    def test_finds_a_wrong_gradient(self):
        message = (
            r"order 1, result 0 with respect to element \(0,\) of argument 1:\n"
            r"    analytic             1\n    reference            2\n    finite differences   2\n"
            r"  the analytic result disagrees with all others"
        )
        with pytest.raises(AssertionError, match=message):
            inputs = [torch.tensor([2.0], dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)]
            assert_gradients(WrongOuter.apply, outer, inputs)

    def test_finds_a_wrong_second_derivative(self):
        inputs = random_tensors([(2,), (3,)])
        assert_gradients(WrongSecondOrder.apply, outer, inputs, orders=1)
        with pytest.raises(AssertionError, match=r"order 2, .* argument 1:(.|\n)*the analytic result disagrees"):
            assert_gradients(WrongSecondOrder.apply, outer, inputs)

    def test_finds_a_wrong_reference(self):
        with pytest.raises(AssertionError, match=r"the reference result disagrees with all others"):
            assert_gradients(outer, lambda a, b: 2 * outer(a, b), random_tensors([(2,), (3,)]))

    def test_uses_an_explicit_operator(self):
        core, *inputs = random_tensors([(4, 2, 3), (5, 2), (5, 3)])
        f = lambda *z: ml.multilinear_map(core, z)  # noqa: E731
        matrix, columns = ml.unfold(core, 0).numpy(), [z.numpy().T for z in inputs]

        def explicit(position):
            """A of the appendix, whose vec stacks the columns of (k, n): the rows of our (n, k)."""
            return appendix.operator(matrix, columns, position)

        assert_gradients(f, None, inputs, jacobian=explicit)
        with pytest.raises(AssertionError, match=r"the explicit operator result disagrees"):
            assert_gradients(f, None, inputs, jacobian=lambda position: 2 * explicit(position))

    def test_two_witnesses_do_not_convict(self):
        with pytest.raises(AssertionError, match=r"they disagree; add a reference"):
            assert_gradients(WrongOuter.apply, None, random_tensors([(2,), (3,)]))

    def test_needs_float64(self):
        with pytest.raises(TypeError, match=r"inputs\[0\] must be a float64 tensor, got torch.float32"):
            assert_gradients(outer, outer, [torch.ones(2), torch.ones(2)])

    def test_wrong_shape_of_the_explicit_operator(self):
        with pytest.raises(AssertionError, match=r"explicit operator Jacobian .* has shape \(1, 1\)"):
            assert_gradients(outer, outer, random_tensors([(2,), (3,)]), jacobian=lambda position: [[1.0]])


class TestAssertMultilinear:
    @given(factor_matrices())
    def test_khatri_rao_is_multilinear(self, factors):
        assert_multilinear(lambda *m: ml.khatri_rao(m), factors)

    @given(cores_with_latents())
    def test_multilinear_map_is_multilinear(self, problem):
        core, inputs = problem
        assert_multilinear(lambda core, *z: ml.multilinear_map(core, z), [core, *inputs])

    def test_finds_what_is_not_linear(self):
        a, b = random_tensors([(2,), (2,)])
        with pytest.raises(AssertionError, match=r"not linear in argument 1: .* where the largest number is"):
            assert_multilinear(lambda a, b: a * b**2, [a, b])
        assert_multilinear(lambda a, b: a * b**2, [a, b], positions=[0])
        with pytest.raises(AssertionError, match=r"argument 0.*in result 1"):
            assert_multilinear(lambda a: (a, a + 1), [a])


class TestStrategies:
    @given(tensors())
    def test_tensors_hold_small_whole_numbers(self, x):
        assert (x == x.round()).all() and (x.abs() <= 4).all()

    @pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
    def test_layouts(self, layout):
        x = find(tensors((2, 3), layout=layout), lambda x: x.numel() > 0)
        assert x.shape == (2, 3) and not x.is_contiguous()

    @pytest.mark.parametrize("size", [0, 1, 7])
    def test_awkward_sizes_are_drawn(self, size):
        assert size in find(tensors(), lambda x: size in x.shape).shape

    @given(tensors((2, 2), dtype=torch.complex64))
    def test_complex(self, x):
        assert x.dtype == torch.complex64

    def test_a_failure_shrinks_to_the_smallest_case(self):
        def is_wrong(factors):
            try:
                assert_gradients(lambda a, b: WrongOuter.apply(a[:, 0], b[:, 0]), None, factors, orders=1)
            except AssertionError:
                return True
            return False

        column = factor_matrices(min_factors=2, max_factors=2)
        a, b = find(column, lambda factors: all(f.numel() for f in factors) and is_wrong(factors))
        assert a.shape == b.shape == (1, 1) and abs(a.item()) == 1 and b.item() == 0


class TestLargestError:
    def test_is_relative_to_the_largest_expected_number_or_to_one(self):
        expected = (torch.tensor([0.0, 0.5]), [torch.tensor([[-8.0, 1.0]])])
        assert largest_error(expected, expected) == 0
        assert largest_error((torch.tensor([0.25, 0.5]), expected[1]), expected) == 0.25
        assert largest_error((expected[0], [torch.tensor([[-8.0, 2.0]])]), expected) == 1 / 8
        assert largest_error(torch.zeros(0), torch.zeros(0)) == 0

    @pytest.mark.parametrize(
        "actual",
        [
            torch.zeros(3),
            torch.zeros(2, dtype=torch.float64),
            torch.tensor([0.0, torch.nan]),
            torch.tensor([0.0, torch.inf]),
            (torch.zeros(2), torch.zeros(2)),
            (),
        ],
        ids=["shape", "dtype", "nan", "inf", "one more", "none"],
    )
    def test_is_infinite_for_what_cannot_be_compared(self, actual):
        assert largest_error(actual, torch.zeros(2)) == float("inf")


class TestVerify:
    def test_command_prints_the_table(self, capsys):
        assert main(["mode_dot", "--dtype", "float64"]) == 0
        header, row, verdict = capsys.readouterr().out.splitlines()
        assert header.split() == [
            "operator",
            "dtype",
            "device",
            "value",
            "gradient",
            "second",
            "third",
            "forward",
            "vmap",
        ]
        assert row.split()[:3] == ["mode_dot", "float64", "cpu"]
        assert all(float(error) <= 1e-10 for error in row.split()[3:])
        assert verdict == "all errors are within tolerance"

    def test_a_wrong_operator_fails(self, capsys, monkeypatch):
        monkeypatch.setattr(
            "multilinear.contractions._mode_dot.mode_dot", lambda x, a, mode: 2 * (x.sum() + 0 * a.sum())
        )
        assert main(["mode_dot", "--dtype", "float64"]) == 1
        assert "FAILED mode_dot value torch.float64 cpu" in capsys.readouterr().out

    def test_a_slightly_wrong_operator_fails(self, capsys, monkeypatch):
        """In float64 an error is rounding or a mistake."""
        original = _mode_dot.mode_dot
        monkeypatch.setattr(_mode_dot, "mode_dot", lambda x, a, mode: (1 + 1e-8) * original(x, a, mode))
        assert main(["mode_dot", "--dtype", "float64"]) == 1
        failed = {line.split()[2] for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")}
        assert {"value", "gradient", "hessian_vector", "jvp", "vmap"} <= failed

    def test_unknown_operator(self, capsys):
        with pytest.raises(ValueError, match="no operator is called x; there are khatri_rao"):
            verify(["x"])
        with pytest.raises(SystemExit):
            main(["x"])
        assert "no operator is called x" in capsys.readouterr().err


def test_plugin(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["multilinear.testing.plugin"]\n')
    (tmp_path / "test_it.py").write_text(
        "import torch\n"
        "def test_inputs(random_tensors):\n"
        "    assert random_tensors([(2, 3)])[0].shape == (2, 3)\n"
        "def test_poison(poisoned_memory):\n"
        "    assert torch.empty(1000).isnan().all()\n"
        "def test_no_poison():\n"
        "    assert not torch.are_deterministic_algorithms_enabled()\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 0 and "3 passed" in run.stdout, run.stdout + run.stderr
