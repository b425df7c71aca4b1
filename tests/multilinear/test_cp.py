import pytest
import torch
from factories import assert_close, random_tensors
from torch.autograd import gradcheck, gradgradcheck

import multilinear as ml
from multilinear import reference
from multilinear.autograd import cp_loss

SHAPES = [(3,), (1, 1), (2, 3), (2, 3, 4), (3, 1, 2), (2, 2, 3, 2), (2, 1, 2, 2, 2), (2, 2, 1, 2, 2, 2, 2)]


def factors_of(shape, rank=2, **options):
    return random_tensors([(size, rank) for size in shape], **options)


class TestCPToTensor:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("shape", [*SHAPES, (2, 0, 3)], ids=str)
    def test_matches_definition(self, shape, weighted):
        factors = factors_of(shape)
        weights = random_tensors([(2,)], seed=1)[0] if weighted else None
        expected = reference.cp_to_tensor(factors, weights)
        assert_close(ml.cp_to_tensor(factors, weights=weights), expected)
        plain = ml.cp_to_tensor([f.numpy() for f in factors], weights=None if weights is None else weights.numpy())
        assert_close(plain, expected)

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_gradients(self, shape):
        factors = factors_of(shape, requires_grad=True)
        (weights,) = random_tensors([(2,)], seed=1, requires_grad=True)
        f = lambda w, *f: ml.cp_to_tensor(f, weights=w)  # noqa: E731
        assert gradcheck(f, (weights, *factors))
        assert gradgradcheck(f, (weights, *factors))

    def test_complex(self):
        factors = factors_of((2, 3, 2), dtype=torch.complex128, requires_grad=True)
        assert_close(ml.cp_to_tensor(factors).detach(), reference.cp_to_tensor([f.detach() for f in factors]))
        assert gradcheck(lambda *f: ml.cp_to_tensor(f), factors)
        assert gradgradcheck(lambda *f: ml.cp_to_tensor(f), factors)

    @pytest.mark.smoke
    def test_rank_one_is_the_outer_product(self):
        factors = factors_of((2, 3, 4), rank=1)
        assert_close(ml.cp_to_tensor(factors), ml.outer([f[:, 0] for f in factors]))

    def test_rank_zero(self):
        assert_close(ml.cp_to_tensor(factors_of((2, 3), rank=0)), torch.zeros(2, 3, dtype=torch.float64))


def close_model(error, shape=(8, 9, 7), dtype=torch.float32, **options):
    """Random factors, and a tensor that other factors make which are off by `error`."""
    factors = factors_of(shape, rank=3, **options)
    moved = [f.detach() + error * g for f, g in zip(factors, factors_of(shape, rank=3, seed=1), strict=True)]
    tensor = ml.cp_to_tensor(moved)
    cast = [f.detach().to(dtype).requires_grad_(f.requires_grad) for f in factors]
    return tensor.to(dtype), cast


class TestCPLoss:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_gradients(self, shape, weighted):
        x, *factors = random_tensors([shape, *((size, 2) for size in shape)], requires_grad=True)
        (weights,) = random_tensors([(2,)], seed=1, requires_grad=True)
        f = lambda w, x, *f: ml.cp_loss(x, f, weights=w if weighted else None)  # noqa: E731
        given = (weights, x, *factors)
        residual = reference.cp_to_tensor([z.detach() for z in factors], weights.detach() if weighted else None)
        assert_close(f(*given).detach(), ((x.detach().numpy() - residual) ** 2).sum())
        assert gradcheck(f, given if weighted else (weights.detach(), x, *factors))
        assert gradgradcheck(f, given if weighted else (weights.detach(), x, *factors))

    def test_third_derivative(self):
        x, *factors = random_tensors([(2, 3), (2, 2), (3, 2)], requires_grad=True)

        def gradient(x, *f):
            return torch.autograd.grad(ml.cp_loss(x, f), (x, *f), create_graph=True)

        assert gradgradcheck(gradient, (x, *factors))

    @pytest.mark.parametrize("error", [1.0, 1e-1, 1e-2, 1e-3, 1e-5])
    def test_accurate_near_a_perfect_fit(self, error):
        x, factors = close_model(error, requires_grad=True)
        exact = [f.detach().double().requires_grad_() for f in factors]
        loss, expected = ml.cp_loss(x, factors), (x.double() - ml.cp_to_tensor(exact)).square().sum()
        # float32 stores x to one part in 1e7, so its difference to the model, `error` of it, to 1e-7 / error
        assert_close(loss.double(), expected, rtol=2e-5 + 1e-6 / error, atol=0)
        loss.backward()
        expected.backward()
        for f, g in zip(factors, exact, strict=True):
            scale = g.grad.abs().max().item()
            assert_close(f.grad.double(), g.grad, rtol=0, atol=scale * (2e-5 + 1e-6 / error))

    def test_both_branches_are_taken(self, monkeypatch):
        taken = []
        original = ml.cp._cp_loss.by_residuals
        monkeypatch.setattr(ml.cp._cp_loss, "by_residuals", lambda *a: taken.append("residuals") or original(*a))
        ml.cp_loss(*close_model(1.0))
        assert taken == []
        ml.cp_loss(*close_model(1e-3))
        assert taken == ["residuals"]

    def test_accurate_where_components_nearly_cancel(self):
        at, direction = (random_tensors([(20, 1)] * 3, dtype=torch.float32, seed=seed) for seed in (0, 1))
        pairs = [torch.cat([a, a + 1e-4 * b], 1) for a, b in zip(at, direction, strict=True)]
        factors = [(1e4 ** (1 / 3) * pair).requires_grad_() for pair in pairs]
        (x,) = random_tensors([(20, 20, 20)], dtype=torch.float32, seed=2)
        results = {}
        for backend in ("torch", "autodiff"):
            with ml.use(backend):
                loss = ml.cp_loss(x, factors, weights=torch.tensor([1.0, -1.0]))
            results[backend] = [loss, *torch.autograd.grad(loss, factors)]
        for ours, theirs in zip(results["torch"], results["autodiff"], strict=True):
            assert (ours - theirs).norm() < 1e-3 * theirs.norm()

    @pytest.mark.parametrize("block", [1, 20, 1 << 18])
    @pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) > 1], ids=str)
    def test_residuals_in_blocks(self, shape, block, monkeypatch):
        monkeypatch.setattr(cp_loss, "BLOCK", block)
        x, *factors = random_tensors([shape, *((size, 2) for size in shape)], requires_grad=True)
        expected = (x - ml.cp_to_tensor(factors)).square().sum()
        assert_close(cp_loss.by_residuals(x, factors), expected)
        f = lambda x, *f: cp_loss.by_residuals(x, f)  # noqa: E731
        assert gradcheck(f, (x, *factors))
        if block == 20 and len(shape) < 4:
            assert gradgradcheck(f, (x, *factors))
        differentiable = torch.autograd.grad(f(x, *factors), (x, *factors), create_graph=True)
        for actual, gradient in zip(
            differentiable, torch.autograd.grad(expected, (x, *factors), retain_graph=True), strict=True
        ):
            assert_close(actual, gradient)  # made again, by other operations
        for wanted in (x, *factors):  # each alone
            given = [t.detach().requires_grad_(t is wanted) for t in (x, *factors)]
            (alone,) = torch.autograd.grad(f(*given), [t for t in given if t.requires_grad])
            assert_close(alone, torch.autograd.grad(expected, wanted, retain_graph=True)[0])

    def test_residuals_make_nothing_of_the_tensor_s_size(self, monkeypatch):
        monkeypatch.setattr(cp_loss, "BLOCK", 800)
        x, factors = close_model(1e-4, shape=(20, 20, 20), requires_grad=True)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            loss = ml.cp_loss(x, factors)
        assert {t.data_ptr() for t in kept if t.numel() >= x.numel()} == {x.data_ptr()}
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            cp_loss.by_residuals(x, factors)
        assert max(event.self_cpu_memory_usage for event in profile.events()) < 4 * x.numel() / 4
        loss.backward()

    def test_expansion_makes_nothing_of_the_tensor_s_size(self):
        x, factors = close_model(1.0, shape=(20, 20, 20), requires_grad=True)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            ml.cp_loss(x, factors)
        assert {t.data_ptr() for t in kept if t.numel() >= x.numel()} == {x.data_ptr()}

    @pytest.mark.parametrize("dtype", [torch.complex128, torch.bfloat16])
    def test_other_dtypes(self, dtype):
        x, *factors = random_tensors([(2, 3, 4), (2, 2), (3, 2), (4, 2)], dtype=torch.complex128)
        x, *factors = (t.to(dtype) if dtype.is_complex else t.real.to(dtype) for t in (x, *factors))
        loss = ml.cp_loss(x, factors)
        assert loss.dtype == (torch.float64 if dtype.is_complex else torch.float32)
        wide = torch.complex128
        expected = (x.to(wide) - ml.cp_to_tensor([f.to(wide) for f in factors])).abs().square().sum()
        assert_close(loss.double(), expected, rtol=1e-12 if dtype.is_complex else 0.05, atol=0)


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (
                lambda x, a, b: ml.cp_to_tensor([a, b.T]),
                ValueError,
                r"cp_to_tensor: all factors need the same number of col",
            ),
            (lambda x, a, b: ml.cp_to_tensor([a, b[0]]), ValueError, r"cp_to_tensor: factors\[1\] must have 2 modes"),
            (lambda x, a, b: ml.cp_to_tensor([]), ValueError, r"cp_to_tensor: factors is empty"),
            (lambda x, a, b: ml.cp_to_tensor(a), TypeError, r"cp_to_tensor: factors must be a list or tuple"),
            (lambda x, a, b: ml.cp_to_tensor([a, b], weights=a[:, 0]), ValueError, r"weights must have shape \(4,\)"),
            (
                lambda x, a, b: ml.cp_loss(x, [a]),
                ValueError,
                r"cp_loss: factors of shapes \[\(2, 4\)\] make a tensor of",
            ),
            (lambda x, a, b: ml.cp_loss(x.T, [a, b]), ValueError, r"make a tensor of shape \(2, 3\), got \(3, 2\)"),
            (lambda x, a, b: ml.cp_loss(x.numpy(), [a, b]), TypeError, r"cp_loss: tensor must be a torch.Tensor"),
            (
                lambda x, a, b: ml.cp_loss(x, [a.numpy(), b.numpy()]),
                TypeError,
                r"cp_loss: factors\[0\] must be a torch.T",
            ),
            (
                lambda x, a, b: ml.cp_loss(x.to("meta"), [a, b]),
                ValueError,
                r"cp_loss: all tensors must be on one device",
            ),
        ],
    )
    def test_message(self, call, error, message):
        with pytest.raises(error, match=message):
            call(*random_tensors([(2, 3), (2, 4), (3, 4)]))
