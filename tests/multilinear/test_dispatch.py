"""Which code runs: the same numbers from every backend, and from blocks of every size."""

import pytest
import torch
from factories import assert_close, random_tensors
from torch._subclasses.fake_tensor import FakeTensorMode

import multilinear as ml
from multilinear.autograd import _dispatch, _memory, cp, face_splitting, mode_dot, multilinear_loss, multilinear_map
from multilinear.autograd._operator import to_bits
from multilinear.testing.cases import CASES
from multilinear.testing.derivatives import CHECKS

SIZES = [(3, 5), (3, 1), (1, 3), (3, 5, 4), (3, 5, 1), (2, 3, 2, 2)]
CHECKED = ["value", "value_non_contiguous", "gradient", "gradient_non_contiguous", "gradient_one_argument", "second"]


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Several blocks, and cheap memory, even for the smallest tensors."""
    monkeypatch.setattr(face_splitting, "BLOCK", 5)
    monkeypatch.setattr(multilinear_loss, "BLOCK", (6, 24))
    monkeypatch.setattr(multilinear_loss, "SAMPLES", 2)
    monkeypatch.setattr(_memory, "LARGE", 8)


@pytest.mark.parametrize("operator", CASES)
@pytest.mark.parametrize("check", CHECKED)
class TestSameNumbers:
    @pytest.mark.parametrize("backend", ["auto", "autodiff"])
    def test_from_every_backend(self, operator, check, backend):
        with ml.use(backend):
            assert CHECKS[check].run(CASES[operator], dtype=torch.float64) < 1e-12

    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    def test_from_blocks(self, operator, check, dtype, tiny_blocks):
        if dtype.is_complex and not CHECKS[check].complex:
            pytest.skip("not a check of complex tensors")
        assert CHECKS[check].run(CASES[operator], dtype=dtype) < 1e-12


@pytest.mark.parametrize("operator", CASES)
@pytest.mark.parametrize("check", ["hessian_vector", "vmap", "vmap_grad", "gradient_batched", "jvp", "jacrev"])
def test_transforms_with_tiny_blocks(operator, check, tiny_blocks):
    assert CHECKS[check].run(CASES[operator], dtype=torch.float64) < 1e-12


LAYOUTS = ("contiguous", "transposed", "expanded", "constant", "sliced", "strided")
WITH_KERNELS = [
    *((face_splitting.OPERATORS[len(sizes)], [(n, k) for k in sizes]) for n in (7, 1) for sizes in SIZES),
    *((mode_dot.OPERATOR, [(n, i, k), (j, i)]) for n in (4, 1) for i in (3, 1) for k in (5, 1) for j in (2, 1)),
]


def laid_out(shape, layout):
    """Random numbers that lie so in memory."""
    (x,) = random_tensors([[2 * size for size in shape]])
    part = x[tuple(slice(size) for size in shape)]
    return {
        "contiguous": part.contiguous(),
        "transposed": part.mT.contiguous().mT,
        "expanded": part[:1].expand(shape),
        "constant": x.flatten()[0].expand(shape),
        "sliced": part,
        "strided": x[tuple(slice(None, None, 2) for _ in shape)],
    }[layout]


def facts(results):
    """What graphs of torch.compile expect of results; strides of sizes of 1 mean nothing."""
    results = results if isinstance(results, tuple) else (results,)
    return [
        (x.shape, x.dtype, [step for step, size in zip(x.stride(), x.shape, strict=True) if size > 1]) for x in results
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("operator", "shapes"), WITH_KERNELS, ids=lambda x: getattr(x, "name", str(x)))
class TestMemoryOfResults:
    """Graphs of torch.compile read the kernels' results where the formula's would lie, and write over arguments."""

    def check(self, operator, arguments):
        results = operator(*arguments)
        with FakeTensorMode() as mode:
            fake = operator(*(mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments))
        assert facts(results) == facts(fake)
        results = results if isinstance(results, tuple) else (results,)
        places = [x.untyped_storage().data_ptr() for x in results]
        assert len({*places}) == len(places)
        assert not {*places} & {x.untyped_storage().data_ptr() for x in arguments if isinstance(x, torch.Tensor)}

    def test_with_tiny_blocks(self, operator, shapes, layout, tiny_blocks):
        for first in ("contiguous", "transposed"):
            tensors = [laid_out(shapes[0], first), *(laid_out(shape, layout) for shape in shapes[1:])]
            self.check(operator._operator, tensors)
            result = operator(*tensors).shape
            for of_gradient in LAYOUTS:
                bits = to_bits([True] * len(tensors))
                self.check(operator._backward_operator, [laid_out(result, of_gradient), *tensors, bits])


class TestUse:
    def test_is_undone(self):
        before = _dispatch.backend()
        with ml.use("autodiff"):
            assert _dispatch.backend() == "autodiff"
            with pytest.raises(KeyError), ml.use("auto"):
                raise KeyError
            assert _dispatch.backend() == "autodiff"
        assert _dispatch.backend() == before

    def test_rejects_unknown_backend(self):
        with (
            pytest.raises(
                ValueError, match="use: the backend must be one of auto, torch, triton, autodiff, got 'cuda'"
            ),
            ml.use("cuda"),  # pyright: ignore[reportArgumentType]
        ):
            pass

    @pytest.mark.parametrize(
        ("backend", "size", "analytic"), [("auto", 10, False), ("auto", 100, True), ("torch", 10, True)]
    )
    def test_small_problems_take_the_formula(self, backend, size, analytic):
        core, *inputs = random_tensors([(size, size, size), (3, size), (3, size)], requires_grad=True)
        with ml.use(backend):
            result = ml.multilinear_map(core, inputs)
        assert ("multilinear" in type(result.grad_fn).__name__) == analytic

    def test_autodiff_takes_the_formula_at_every_size(self):
        core, *inputs = random_tensors([(100, 100, 100), (3, 100), (3, 100)], requires_grad=True)
        with ml.use("autodiff"):
            assert "multilinear" not in type(ml.multilinear_map(core, inputs).grad_fn).__name__

    def test_every_operator_has_a_line_in_the_table(self):
        operators = [*face_splitting.OPERATORS.values(), *cp.OPERATORS.values(), *multilinear_map.OPERATORS.values()]
        kinds = {operator._kind for operator in [*operators, mode_dot.OPERATOR]}
        assert kinds | {"multilinear_loss", "outer_mode_dot"} == set(_dispatch.SMALL)


class TestMemory:
    def test_large_memory_is_a_plain_tensor(self):
        like = torch.zeros(1, dtype=torch.float64)
        assert _memory.is_large((1 << 10, 1 << 11), like) and not _memory.is_large(((1 << 21) - 1,), like)
        x = _memory.empty((1 << 10, 1 << 11), like)
        assert x.shape == (1 << 10, 1 << 11) and x.dtype == torch.float64 and x.is_contiguous()
        x.fill_(2.0)
        assert x.sum() == 2 * x.numel()

    def test_small_memory_is_torchs(self):
        assert not _memory.is_large((10, 10), torch.zeros(1))
        assert _memory.empty((10, 10), torch.zeros(1)).shape == (10, 10)

    def test_meta_tensors_need_none(self):
        assert not _memory.is_large((1 << 30, 1 << 10), torch.zeros(1, device="meta"))

    def test_parameter_keeps_the_gradient_without_a_copy(self):
        core, a, b = random_tensors([(2100, 40, 30), (4, 40), (4, 30)])
        core.requires_grad_()
        loss = ml.multilinear_loss(torch.zeros(4, 2100, dtype=torch.float64), core, [a, b])
        place = loss.grad_fn.gradients[1].data_ptr()
        loss.backward()
        assert core.grad is not None and core.grad.data_ptr() == place


class TestOnePass:
    """The loss whose gradients are found with its value."""

    def problem(self, **options):
        target, core, *inputs = random_tensors([(5, 7), (7, 2, 3), (5, 2), (5, 3)], requires_grad=True, **options)
        return target, core, inputs

    def definition(self, target, core, inputs):
        return (torch.einsum("oij,ni,nj->no", core, *inputs) - target).square().sum()

    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    @pytest.mark.parametrize("factor", [1.0, -0.3])
    def test_gradient_is_scaled(self, reduction, factor, tiny_blocks):
        target, core, inputs = self.problem()
        actual = ml.multilinear_loss(target, core, inputs, reduction=reduction) * factor
        expected = self.definition(target, core, inputs) * factor / (5 if reduction == "mean" else 1)
        assert_close(actual, expected)
        everything = [target, core, *inputs]
        for a, b in zip(
            torch.autograd.grad(actual, everything), torch.autograd.grad(expected, everything), strict=True
        ):
            assert_close(a, b)

    def test_backward_twice(self, tiny_blocks):
        target, core, inputs = self.problem()
        loss = ml.multilinear_loss(target, core, inputs)
        loss.backward(retain_graph=True)
        once = core.grad.clone()
        (2 * loss).backward()
        assert_close(core.grad, 3 * once)

    def test_gradient_belongs_to_the_caller(self):
        target, core, inputs = self.problem()
        loss = ml.multilinear_loss(target, core, inputs)
        first = torch.autograd.grad(loss, core, retain_graph=True)[0]
        expected = first.clone()
        first.zero_()
        assert_close(torch.autograd.grad(loss, core)[0], expected)

    def test_value_without_gradients(self, tiny_blocks):
        target, core, inputs = self.problem()
        with torch.no_grad():
            assert_close(ml.multilinear_loss(target, core, inputs), self.definition(target, core, inputs))

    @pytest.mark.parametrize("near", [False, True], ids=["expanded", "by residuals"])
    def test_no_gradient_is_computed_under_no_grad(self, near, monkeypatch):
        asked = []
        for module, name, position in (
            (multilinear_loss, "loss_and_gradients", 3),
            (cp, "mttkrps", 2),
            (cp, "backward", 2),
        ):
            original = getattr(module, name)
            monkeypatch.setattr(module, name, lambda *a, f=original, p=position: asked.append(list(a[p])) or f(*a))
        target, core, inputs = self.problem()
        factors = random_tensors([(4, 2), (5, 2), (3, 2)], requires_grad=True)
        tensor = ml.cp_to_tensor(factors).detach() + (0 if near else 1)
        asked.clear()
        with torch.no_grad():
            ml.multilinear_loss(target, core, inputs)
            ml.cp_loss(tensor, factors)
        assert len(asked) >= 2 and not any(needed[1:] != [False] * (len(needed) - 1) for needed in asked)

    def test_operands_changed_before_backward_are_noticed(self):
        target, core, inputs = self.problem()
        loss = ml.multilinear_loss(target, core, inputs)
        with torch.no_grad():
            core.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_target_of_another_dtype_keeps_its_digits(self):
        target, core, inputs = self.problem()
        loss = ml.multilinear_loss(target, core.float(), [z.float() for z in inputs])
        assert loss.dtype == torch.float64
        assert_close(loss, self.definition(target, core, inputs), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("operator", ["multilinear_loss", "cp_loss"])
    def test_fake_tensors(self, operator):
        with FakeTensorMode():
            tensors = [torch.empty(shape, requires_grad=True) for shape in CASES[operator].shapes(3)]
            CASES[operator].operator(*tensors).backward()
            assert all(x.grad is not None and x.grad.shape == x.shape for x in tensors)

    @pytest.mark.backend("auto")
    def test_paper_shape_in_float32(self):
        target, core, *inputs = random_tensors([(6, 3000), (3000, 15, 80), (6, 15), (6, 80)], requires_grad=True)
        half = [x.detach().float().requires_grad_() for x in (target, core, *inputs)]
        actual = ml.multilinear_loss(half[0], half[1], half[2:])
        expected = self.definition(target, core, inputs)
        assert abs(actual.double() / expected - 1) < 1e-6
        for a, b in zip(
            torch.autograd.grad(actual, half), torch.autograd.grad(expected, [target, core, *inputs]), strict=True
        ):
            assert (a - b).abs().max() < 1e-5 * b.abs().max()  # sums of 3000 and 1200 float32 products


class TestCompress:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    @pytest.mark.parametrize("sizes", [(4,), (2, 3), (2, 2, 2)], ids=str)
    def test_has_the_same_loss_and_gradients(self, sizes, dtype):
        target, core, *inputs = random_tensors([(5, 20), (20, *sizes), *((5, k) for k in sizes)], dtype=dtype)
        inputs = [z.requires_grad_() for z in inputs]
        small_target, small_core, constant = ml.compress(target, core)
        assert small_core.shape == (torch.Size(sizes).numel(), *sizes)
        actual = ml.multilinear_loss(small_target, small_core, inputs) + constant
        expected = ml.multilinear_loss(target, core, inputs)
        assert_close(actual, expected)
        for a, b in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs), strict=True):
            assert_close(a, b)

    def test_core_without_full_rank(self):
        target, core, *inputs = random_tensors([(5, 20), (20, 2, 3), (5, 2), (5, 3)])
        core[:, 1] = core[:, 0]
        small_target, small_core, constant = ml.compress(target, core)
        assert_close(
            ml.multilinear_loss(small_target, small_core, inputs) + constant, ml.multilinear_loss(target, core, inputs)
        )

    def test_leading_dimensions(self):
        target, core = random_tensors([(4, 5, 20), (20, 2, 3)])
        assert ml.compress(target, core)[0].shape == (4, 5, 6)

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda x, c: ml.compress(x, c[:6]), ValueError, r"more outputs than columns, got 6 outputs and 6 columns"),
            (lambda x, c: ml.compress(x, c.requires_grad_()), ValueError, r"core requires a gradient"),
            (lambda x, c: ml.compress(x.T, c), ValueError, r"target must have shape \(..., 20\), got \(20, 5\)"),
            (lambda x, c: ml.compress(x, c.int()), TypeError, r"floating-point numbers, got torch.int32"),
            (lambda x, c: ml.compress([0], c), TypeError, r"compress: target must be a torch"),
        ],
    )
    def test_rejects(self, call, error, message):
        with pytest.raises(error, match=message):
            call(*random_tensors([(5, 20), (20, 2, 3)]))
