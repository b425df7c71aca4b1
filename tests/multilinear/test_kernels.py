"""The GPU kernels against float64 formulas: in Triton's interpreter, and compiled where there is a CUDA device.

The interpreter ignores `input_precision` and runs one program after the other: it proves indices, masks and sums.
"""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from factories import random_tensors

import multilinear as ml
from multilinear import reference
from multilinear.autograd import _dispatch
from multilinear.autograd import face_splitting as formulas
from multilinear.autograd import multilinear_loss as loss_formulas

pytest.importorskip("triton", reason="triton is not installed")

from kernel_runs import interpret

from multilinear.kernels import _factors, face_splitting, multilinear_loss, multilinear_loss_one_pass

# Norm of the error over norm of the result: rounding of the operands' dtype, some ulp of float32 for the sums.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
LAYOUTS = ["rows", "columns", "strided", "expanded"]
SIZES = [(3, 5), (1, 7), (63, 7), (7, 63), (3, 7, 8), (3, 1, 63), (2, 3, 4, 5), (1, 1, 1, 1)]


@pytest.fixture(params=["interpreted", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """Where the kernels run. Fresh memory holds NaN, which spoils every result that a kernel forgets to write."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if request.param == "interpreted":
        interpret(monkeypatch)
    new_empty = torch.Tensor.new_empty

    def poisoned(*arguments, **options):
        tensor = new_empty(*arguments, **options)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    return "cpu" if request.param == "interpreted" else "cuda"


def tensors(shapes, dtype, device, layout="rows"):
    """Random tensors, their rows or their columns contiguous."""
    results = [x.to(device, dtype) for x in random_tensors(shapes)]
    return [x.mT.contiguous().mT for x in results] if layout == "columns" else results


def assert_near(actual, expected, dtype):
    assert actual.shape == expected.shape
    error = (actual.double() - expected).norm() / expected.norm().clamp(min=1e-300)
    assert error < TOLERANCES[dtype], float(error)


class TestFaceSplitting:
    @DTYPES
    @pytest.mark.parametrize("layout", ["rows", "columns"])
    @pytest.mark.parametrize("sizes", SIZES, ids=str)
    @pytest.mark.parametrize("n", [1, 7, pytest.param(63, marks=pytest.mark.slow)])
    def test_matches_the_formula(self, device, n, sizes, layout, dtype):
        factors = tensors([(n, size) for size in sizes], dtype, device, layout)
        exact = [factor.double() for factor in factors]
        product = face_splitting.forward(*factors)
        assert product.dtype == dtype
        assert_near(product, formulas.forward(*exact), dtype)

        (gradient,) = tensors([product.shape], dtype, device, layout)
        needed = [True] * len(sizes)
        results = face_splitting.backward(gradient, factors, needed)
        for result, expected in zip(results, formulas.backward(gradient.double(), exact, needed), strict=True):
            assert result.dtype == dtype
            assert_near(result, expected, dtype)

    @pytest.mark.parametrize("programs", [1, 6, 264])
    @pytest.mark.parametrize("layout", ["rows", "columns"])
    @pytest.mark.parametrize("sizes", [(17, 20), (3, 9, 11), (2, 2, 9, 11)], ids=str)
    def test_many_blocks(self, device, sizes, layout, programs, monkeypatch):
        """Factors larger than a tile, by loops of one program and by many that share the work."""
        monkeypatch.setattr(face_splitting, "TILE", 64)
        monkeypatch.setattr(_factors, "PROGRAMS", programs)
        factors = tensors([(3, size) for size in sizes], torch.float32, device, layout)
        (gradient,) = tensors([(3, math.prod(sizes))], torch.float32, device, layout)
        needed = [True] * len(sizes)
        results = face_splitting.backward(gradient, factors, needed)
        exact = [factor.double() for factor in factors]
        for result, expected in zip(results, formulas.backward(gradient.double(), exact, needed), strict=True):
            assert_near(result, expected, torch.float32)

    def test_matches_the_definition(self, device):
        factors = tensors([(4, 3), (4, 2), (4, 5)], torch.float32, device)
        expected = torch.from_numpy(reference.face_splitting([factor.cpu() for factor in factors]))
        torch.testing.assert_close(face_splitting.forward(*factors).cpu(), expected)

    @pytest.mark.parametrize("order", [2, 3, 4])
    def test_only_what_is_needed(self, device, order):
        factors = tensors([(7, 3 + m) for m in range(order)], torch.float32, device)
        gradient = face_splitting.forward(*factors)
        everything = face_splitting.backward(gradient, factors, [True] * order)
        for needed in itertools.product([True, False], repeat=order):
            if 1 < sum(needed) < order - 1:
                continue
            results = face_splitting.backward(gradient, factors, needed)
            assert [result is not None for result in results] == list(needed)
            for result, expected in zip(results, everything, strict=True):
                assert result is None or torch.equal(result, expected)

    @pytest.mark.parametrize("layouts", list(itertools.product(LAYOUTS, repeat=2)), ids=str)
    def test_results_are_laid_out_as_by_the_formula(self, device, layouts):
        """Under torch.compile the formula tells how the results lie."""

        def make(size, layout):
            (x,) = tensors([(7, 2 * size)], torch.float32, device, "columns" if layout == "columns" else "rows")
            return {"strided": x[:, ::2], "expanded": x[:1, :size].expand(7, size)}.get(layout, x[:, :size])

        factors = [make(size, layout) for size, layout in zip((3, 5, 4), (*layouts, layouts[0]), strict=True)]
        product = face_splitting.forward(*factors)
        expected = formulas.forward(*factors)
        assert product.stride() == expected.stride()
        torch.testing.assert_close(product, expected)
        for layout in LAYOUTS:
            gradient = make(product.shape[1], layout)
            results = face_splitting.backward(gradient, factors, [True] * 3)
            for result, expected in zip(results, formulas.backward(gradient, factors, [True] * 3), strict=True):
                assert result.stride() == expected.stride()
                torch.testing.assert_close(result, expected)

    def test_results_never_vary(self, device):
        factors = tensors([(5, 9), (5, 15), (5, 8)], torch.float32, device)
        gradient = face_splitting.forward(*factors)
        first, second = (face_splitting.backward(gradient, factors, [True] * 3) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    @pytest.mark.parametrize(("n", "size"), [(0, 3), (4, 0)])
    def test_nothing(self, device, n, size):
        factors = tensors([(n, 2), (n, size)], torch.float32, device)
        product = face_splitting.forward(*factors)
        assert product.shape == (n, 2 * size)
        results = face_splitting.backward(product, factors, [True, True])
        assert [result.shape for result in results] == [(n, 2), (n, size)]
        assert not any(result.any() for result in results)


class TestMultilinearLoss:
    def expected(self, target, core, inputs):
        operands = [x.double().requires_grad_() for x in (target, core, *inputs)]
        product = formulas.forward(*operands[2:]) if len(inputs) > 1 else operands[2]
        loss = (product @ operands[1].flatten(1).mT - operands[0]).square().sum()
        return loss.detach(), torch.autograd.grad(loss, operands)

    @DTYPES
    @pytest.mark.parametrize("one_pass", [False, True])
    @pytest.mark.parametrize(
        ("n", "k", "sizes"),
        [
            (1, 1, (16,)),
            (7, 63, (4, 12)),
            (16, 40, (3, 4, 8)),
            (5, 100, (8, 32)),
            (63, 70, (9, 7)),
            (7, 63, (2, 3, 4, 5)),
        ],
        ids=str,
    )
    def test_matches_the_formula(self, device, n, k, sizes, one_pass, dtype, monkeypatch):
        target, core, *inputs = tensors([(n, k), (k, *sizes), *((n, size) for size in sizes)], dtype, device)
        core /= 8
        fits = multilinear_loss_one_pass.fits(core.flatten(1), inputs)
        if one_pass and not fits:
            pytest.skip("more than the kernel takes")
        monkeypatch.setattr(multilinear_loss_one_pass, "fits", lambda core, inputs: one_pass)
        loss, gradients = multilinear_loss.loss_and_gradients(target, core, inputs, [True] * (2 + len(sizes)))
        expected_loss, expected = self.expected(target, core, inputs)
        assert loss.dtype == torch.float32
        assert_near(loss, expected_loss, torch.float32)
        for actual, gradient in zip(gradients, expected, strict=True):
            assert actual.dtype == dtype
            assert_near(actual, gradient, dtype)

    def test_matches_the_definition(self, device):
        target, core, *inputs = tensors([(3, 5), (5, 2, 8), (3, 2), (3, 8)], torch.float32, device)
        loss, _ = multilinear_loss.loss_and_gradients(target, core, inputs, [False] * 4)
        expected = reference.multilinear_loss(target.cpu(), core.cpu(), [z.cpu() for z in inputs])
        assert loss.item() == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("n", [5, 20])
    def test_only_what_is_needed(self, device, n):
        operands = tensors([(n, 33), (33, 4, 8), (n, 4), (n, 8)], torch.float32, device)
        target, core, *inputs = operands
        loss, everything = multilinear_loss.loss_and_gradients(target, core, inputs, [True] * 4)
        for needed in itertools.product([True, False], repeat=4):
            other, gradients = multilinear_loss.loss_and_gradients(target, core, inputs, needed)
            torch.testing.assert_close(other, loss)
            assert [gradient is not None for gradient in gradients] == list(needed)
            for gradient, expected in zip(gradients, everything, strict=True):
                assert gradient is None or (gradient - expected).norm() < 1e-6 * expected.norm()

    @pytest.mark.parametrize("n", [5, 20])
    def test_scale(self, device, n):
        target, core, *inputs = tensors([(n, 33), (33, 4, 8), (n, 4), (n, 8)], torch.float32, device)
        loss, gradients = multilinear_loss.loss_and_gradients(target, core, inputs, [True] * 4)
        scaled, others = multilinear_loss.loss_and_gradients(target, core, inputs, [True] * 4, 0.25)
        torch.testing.assert_close(scaled, loss / 4)
        for other, gradient in zip(others, gradients, strict=True):
            torch.testing.assert_close(other, gradient / 4)

    @pytest.mark.parametrize("n", [5, 20])
    def test_views_are_taken_as_they_are(self, device, n):
        operands = tensors([(n, 33), (33, 32), (n, 4), (n, 8)], torch.float32, device)
        target, core, *inputs = (x.mT.contiguous().mT for x in operands)
        core = core.unflatten(1, (4, 8))
        actual = multilinear_loss.loss_and_gradients(target, core, inputs, [True] * 4)
        contiguous = [x.contiguous() for x in (target, core, *inputs)]
        expected = multilinear_loss.loss_and_gradients(contiguous[0], contiguous[1], contiguous[2:], [True] * 4)
        torch.testing.assert_close(actual, expected)

    @pytest.mark.parametrize("place", range(4))
    def test_lazily_negated(self, device, place):
        """torch keeps the sign of an imaginary part's conjugate beside the memory."""
        operands = tensors([(5, 33), (33, 4, 8), (5, 4), (5, 8)], torch.float32, device)
        x = operands[place]
        lazy = list(operands)
        lazy[place] = torch.complex(torch.zeros_like(x), -x).conj().imag
        assert lazy[place].is_neg()
        torch.testing.assert_close(lazy[place], x)
        actual = multilinear_loss.loss_and_gradients(lazy[0], lazy[1], lazy[2:], [True] * 4)
        expected = multilinear_loss.loss_and_gradients(operands[0], operands[1], operands[2:], [True] * 4)
        torch.testing.assert_close(actual, expected)

    @pytest.mark.parametrize("owner", [torch.backends, torch.backends.cuda.matmul], ids=["all", "matmul"])
    def test_precision_set_by_backend(self, device, owner, monkeypatch):
        """Where torch has no answer for `get_float32_matmul_precision`."""
        kinds = []
        precise = multilinear_loss._core_gradient
        monkeypatch.setattr(multilinear_loss, "_core_gradient", lambda *a: kinds.append(a[-1]) or precise(*a))
        target, core, *inputs = tensors([(5, 33), (33, 4, 8), (5, 4), (5, 8)], torch.float32, device)
        before = owner.fp32_precision
        try:
            for precision in ("ieee", "tf32"):
                owner.fp32_precision = precision
                multilinear_loss.loss_and_gradients(target, core, inputs, [True] * 4)
        finally:
            owner.fp32_precision = before
        assert kinds == ["tf32x3", "tf32"]

    @pytest.mark.gpu
    @pytest.mark.parametrize("n", [16, 64])
    def test_small_residual(self, n):
        """In plain TF32 the error would be a hundred times as large."""
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        core, *inputs = tensors([(500, 15, 80), (n, 15), (n, 80)], torch.float32, "cuda")
        prediction = formulas.forward(*(z.double() for z in inputs)) @ core.double().flatten(1).mT
        noise = torch.randn_like(prediction)
        target = (prediction + 1e-2 * prediction.std() * noise).float()
        loss, gradients = multilinear_loss.loss_and_gradients(target, core, inputs, [True] * 4)
        expected_loss, expected = self.expected(target, core, inputs)
        assert (loss - expected_loss).abs() < 1e-3 * expected_loss
        for actual, gradient in zip(gradients, expected, strict=True):
            assert (actual - gradient).norm() < 1e-3 * gradient.norm()

    @pytest.mark.parametrize(("n", "k", "size"), [(0, 3, 2), (4, 0, 2), (4, 3, 0)])
    def test_nothing(self, device, n, k, size):
        target, core, *inputs = tensors([(n, k), (k, 2, size), (n, 2), (n, size)], torch.float32, device)
        loss, gradients = multilinear_loss.loss_and_gradients(target, core, inputs, [True] * 4, 0.25)
        torch.testing.assert_close(loss, target.square().sum() / 4)
        torch.testing.assert_close(gradients[0], target / 2)
        assert [g.shape for g in gradients] == [x.shape for x in (target, core, *inputs)]
        assert not any(g.any() for g in gradients[1:])


class TestChoice:
    """`multilinear.use` and the operators, with CPU tensors in the place of CUDA ones where there is none."""

    @pytest.fixture
    def wanted(self, device, monkeypatch):
        if device == "cpu":
            for module in (formulas, loss_formulas):
                monkeypatch.setattr(module, "takes_kernel", lambda *arguments: True)
            for order, operator in formulas.OPERATORS.items():
                monkeypatch.setitem(operator.kernels, "CPU", operator.kernels["CUDA"])
                assert order in formulas.OPERATORS
        return device

    @pytest.fixture
    def launches(self, monkeypatch):
        """Names of the host functions that were called."""
        calls = []
        for module, names in (
            (face_splitting, ["forward", "backward"]),
            (multilinear_loss, ["loss_and_gradients"]),
        ):
            for name in names:
                original = getattr(module, name)
                monkeypatch.setattr(
                    module, name, lambda *a, name=name, original=original: calls.append(name) or original(*a)
                )
        return calls

    @pytest.mark.backend("torch")
    def test_khatri_rao(self, wanted, launches):
        matrices = [x.requires_grad_() for x in tensors([(5, 7), (3, 7), (4, 7)], torch.float32, wanted)]
        expected = torch.einsum("ir,jr,kr->ijkr", *matrices).flatten(0, 2)
        weights = torch.randn_like(expected)
        with ml.use("triton" if wanted == "cuda" else "torch"):
            product = ml.khatri_rao(matrices)
            gradients = torch.autograd.grad(product, matrices, weights)
        torch.testing.assert_close(product, expected)
        torch.testing.assert_close(gradients, torch.autograd.grad(expected, matrices, weights))
        assert launches == ["forward", "backward"]

    @pytest.mark.backend("torch")
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    def test_multilinear_loss(self, wanted, launches, reduction):
        shapes = [(6, 33), (33, 4, 8), (6, 4), (6, 8)]
        target, core, *inputs = (x.requires_grad_() for x in tensors(shapes, torch.float32, wanted))
        expected = (torch.einsum("oij,ni,nj->no", core, *inputs) - target).square().sum()
        expected = expected / 6 if reduction == "mean" else expected
        with ml.use("triton" if wanted == "cuda" else "torch"):
            loss = ml.multilinear_loss(target, core, inputs, reduction=reduction)
            gradients = torch.autograd.grad(3 * loss, (target, core, *inputs))
        torch.testing.assert_close(loss, expected)
        for actual, gradient in zip(gradients, torch.autograd.grad(3 * expected, (target, core, *inputs)), strict=True):
            assert_near(actual, gradient, torch.float32)
        assert launches == ["loss_and_gradients", "backward"]

    @pytest.mark.backend("triton")
    @pytest.mark.parametrize(
        "call",
        [
            lambda a: ml.khatri_rao([a, a]),
            lambda a: ml.multilinear_map(a[None], [a, a]),
            lambda a: ml.multilinear_loss(a[:, :1], a[None], [a, a]),
            lambda a: ml.mode_dot(a, a, 0),
        ],
    )
    def test_triton_refuses_cpu_tensors(self, call):
        with pytest.raises(ValueError, match=r'the backend "triton" needs CUDA tensors, got one on the CPU'):
            call(torch.ones(3, 3))

    def test_triton_has_to_be_installed(self, monkeypatch):
        monkeypatch.setattr(_dispatch, "find_spec", lambda name: None)
        with pytest.raises(RuntimeError, match=r"needs the package triton, which is not installed"), ml.use("triton"):
            pass

    def test_auto_has_a_line_for_each_device(self):
        cpu, cuda = ([SimpleNamespace(is_cuda=is_cuda)] for is_cuda in (False, True))
        assert set(_dispatch.SMALL) == set(_dispatch.SMALL_ON_CUDA) >= set(_dispatch.KERNELS)
        with ml.use("auto"):
            for operator, small in _dispatch.SMALL.items():
                assert _dispatch.takes_formula(operator, small - 1, cpu)
                assert not _dispatch.takes_formula(operator, small, cpu)
                assert _dispatch.takes_formula(operator, small, cuda)
            assert not _dispatch.takes_formula("mode_dot", 50_000_000, cuda)
            assert all(line >= _dispatch.SMALL_ON_CUDA[operator] for operator, line in _dispatch.KERNELS.items())

    def test_auto_runs_only_what_was_measured(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        tensor = SimpleNamespace(is_cuda=True, dtype=torch.float32, device="cuda:0")
        with ml.use("auto"):
            assert not _dispatch.takes_kernel("multilinear_loss", 10**9, [tensor])
            monkeypatch.setitem(_dispatch.KERNELS, "face_splitting", 1000)
            assert _dispatch.takes_kernel("face_splitting", 1000, [tensor])
            assert not _dispatch.takes_kernel("face_splitting", 999, [tensor])
        with ml.use("torch"):
            assert not _dispatch.takes_kernel("face_splitting", 1000, [tensor])
        with ml.use("triton"):
            assert _dispatch.takes_kernel("face_splitting", 1, [tensor])
            tensor.dtype = torch.float64
            assert not _dispatch.takes_kernel("face_splitting", 1, [tensor])


@pytest.mark.gpu
class TestOnDevice:
    @pytest.fixture(autouse=True)
    def cuda(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")

    @pytest.mark.backend("triton")
    @pytest.mark.parametrize("layout", ["rows", "columns"])
    @pytest.mark.parametrize("order", [2, 3, 4])
    def test_opcheck(self, order, layout):
        operator = formulas.OPERATORS[order]
        factors = [x.requires_grad_() for x in tensors([(7, 3)] * order, torch.float32, "cuda", layout)]
        torch.library.opcheck(operator._operator, factors)
        (gradient,) = tensors([(7, 3**order)], torch.float32, "cuda", layout)
        arguments = (gradient.requires_grad_(), *factors, to_bits([True] * order))
        torch.library.opcheck(operator._backward_operator, arguments)

    @pytest.mark.backend("triton")
    def test_compiles(self):
        matrices = [x.requires_grad_() for x in tensors([(5, 7), (3, 7)], torch.float32, "cuda")]
        expected = ml.khatri_rao(matrices)
        product = torch.compile(ml.khatri_rao, fullgraph=True)(matrices)
        torch.testing.assert_close(product, expected)
        weights = torch.randn_like(expected)
        torch.testing.assert_close(
            torch.autograd.grad(product, matrices, weights), torch.autograd.grad(expected, matrices, weights)
        )

    @pytest.mark.backend("triton")
    def test_second_derivatives(self):
        matrices = [x.requires_grad_() for x in tensors([(5, 7), (3, 7), (2, 7)], torch.float32, "cuda")]

        def norms(product):
            gradients = torch.autograd.grad(product.square().sum(), matrices, create_graph=True)
            return torch.autograd.grad(sum(g.square().sum() for g in gradients), matrices)

        expected = norms(torch.einsum("ir,jr,kr->ijkr", *matrices))
        torch.testing.assert_close(norms(ml.khatri_rao(matrices)), expected)

    def test_more_than_32_bits_of_elements(self):
        a, b = tensors([(2**16 + 1, 200)] * 2, torch.bfloat16, "cuda")
        product = face_splitting.forward(a, b)
        torch.testing.assert_close(product[-1], (a[-1].float()[:, None] * b[-1].float()).flatten().bfloat16())
        of_a, _ = face_splitting.backward(product, [a, b], [True, False])
        expected = (product[-1].double().view(200, 200) * b[-1].double()).sum(-1)
        assert_near(of_a[-1], expected, torch.bfloat16)
