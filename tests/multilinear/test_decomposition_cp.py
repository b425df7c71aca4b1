import itertools

import pytest
import torch
from factories import assert_close, random_tensors

import multilinear as ml
from multilinear import reference
from multilinear.decomposition import cp_als, cp_gradient

FITS = [cp_als, cp_gradient]


def exact(shape, rank, **options):
    return ml.cp_to_tensor(random_tensors([(size, rank) for size in shape], **options))


def true_error(tensor, model):
    first, *others = (factor.double() for factor in model.factors)
    found = torch.as_tensor(reference.cp_to_tensor([first * model.weights.double(), *others]))
    return ((tensor.double() - found).norm() / tensor.double().norm()).item()


def never_grows(errors, slack=1e-12):
    return all(after <= before + slack for before, after in itertools.pairwise(errors))


def collinear(size, rank, cosine, seed):
    """Columns of length 1 that all meet at the same angle: a swamp for alternating least squares."""
    basis = torch.linalg.qr(random_tensors([(size, rank)], seed=seed)[0]).Q
    gram = torch.full((rank, rank), cosine, dtype=torch.float64).fill_diagonal_(1)
    return basis @ torch.linalg.cholesky(gram).mT


class TestFits:
    @pytest.mark.parametrize("fit", FITS)
    @pytest.mark.parametrize("shape", [(4, 5, 6), (3, 4, 3, 4)], ids=str)
    def test_finds_the_components(self, fit, shape):
        tensor = exact(shape, 2)
        model = fit(tensor, 2, max_iterations=200, tolerance=1e-12)
        assert model.error < 1e-4
        assert_close(model.to_tensor(), tensor, atol=1e-3, rtol=0)

    @pytest.mark.parametrize("fit", FITS)
    @pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7), (7, 3, 2), (3, 4, 5, 3), (2, 3, 2, 3, 2)], ids=str)
    def test_error_is_true_and_never_grows(self, fit, shape):
        (tensor,) = random_tensors([shape])
        model = fit(tensor, 2, max_iterations=15, random_state=0, init="random")
        assert len(model.errors) > 1 and never_grows(model.errors)
        assert model.error == pytest.approx(true_error(tensor, model))
        assert_close(
            model.to_tensor(),
            torch.as_tensor(reference.cp_to_tensor([*model.factors[:-1], model.factors[-1] * model.weights])),
        )

    @pytest.mark.parametrize("fit", FITS)
    def test_components_are_unit_vectors_by_weight(self, fit):
        model = fit(random_tensors([(5, 6, 7)])[0], 3, random_state=0)
        for factor in model.factors:
            assert_close(factor.norm(dim=0), torch.ones(3, dtype=torch.float64))
        assert (model.weights.diff() <= 0).all() and (model.weights > 0).all()
        for factor in model.factors[:-1]:
            assert (factor.gather(0, factor.abs().argmax(0, keepdim=True)) > 0).all()

    @pytest.mark.parametrize("fit", FITS)
    def test_stays_at_the_truth(self, fit):
        factors = random_tensors([(4, 3), (5, 3), (6, 3)])
        model = fit(ml.cp_to_tensor(factors), 3, init=factors, max_iterations=3)
        assert model.error < 1e-12
        assert model.converged

    @pytest.mark.parametrize("fit", FITS)
    def test_float32_does_not_lose_a_close_fit(self, fit):
        tensor = exact((6, 7, 8), 2, dtype=torch.float32)
        factors = random_tensors([(6, 2), (7, 2), (8, 2)], dtype=torch.float32)
        noise = 1e-4 * tensor.norm() / 336**0.5 * random_tensors([(6, 7, 8)], dtype=torch.float32, seed=1)[0]
        model = fit(tensor + noise, 2, init=factors)
        assert model.weights.dtype == torch.float32
        assert model.error == pytest.approx(true_error(tensor + noise, model), rel=2e-2)
        assert model.error < 2e-4

    @pytest.mark.parametrize("fit", FITS)
    def test_autocast_changes_nothing(self, fit):
        tensor = exact((4, 5, 6), 3, dtype=torch.float32)
        model = fit(tensor, 3, max_iterations=50)
        results = [*model.factors, model.weights, model.to_tensor(), model.transform(tensor)]
        with torch.autocast("cpu", torch.bfloat16):
            inside = fit(tensor, 3, max_iterations=50)
            again = [*inside.factors, inside.weights, inside.to_tensor(), inside.transform(tensor)]
            decoded = inside.inverse_transform(inside.weights)
        assert inside.errors == model.errors
        for actual, expected in zip([*again, decoded], [*results, model.to_tensor()], strict=True):
            assert_close(actual, expected)

    @pytest.mark.parametrize("fit", FITS)
    def test_rank_beyond_a_mode(self, fit):
        tensor = exact((3, 4, 5), 4)
        model = fit(tensor, 4, max_iterations=200, random_state=0)
        assert model.error < 0.1
        assert model.factors[0].shape == (3, 4)

    @pytest.mark.parametrize("fit", FITS)
    def test_scale_of_the_tensor_does_not_matter(self, fit):
        (tensor,) = random_tensors([(4, 5, 6)])
        small, large = (fit(scale * tensor, 2, max_iterations=30) for scale in (1e-6, 1e6))
        assert small.error == pytest.approx(large.error, rel=1e-5)
        assert_close(1e12 * small.weights, large.weights, rtol=1e-3, atol=0)

    @pytest.mark.parametrize("fit", FITS)
    def test_best_of_several_starts(self, fit):
        (tensor,) = random_tensors([(5, 6, 7)])
        seen = []
        model = fit(tensor, 3, init="random", starts=3, random_state=1, max_iterations=20, progress=seen.append)
        last = {sweep.start: sweep.error for sweep in seen}
        assert set(last) == {0, 1, 2} and model.error == min(last.values())

    @pytest.mark.parametrize("fit", FITS)
    def test_same_seed_same_result(self, fit):
        (tensor,) = random_tensors([(5, 6, 7)])
        first, second, other = (
            fit(tensor, 3, init="random", random_state=seed, max_iterations=5)
            for seed in (3, torch.Generator().manual_seed(3), 4)
        )
        assert_close(first.to_tensor(), second.to_tensor())
        assert not torch.allclose(first.to_tensor(), other.to_tensor())

    @pytest.mark.parametrize("fit", FITS)
    def test_progress_may_end_it(self, fit):
        def stop(sweep):
            if sweep.number == 2:
                raise StopIteration

        model = fit(random_tensors([(5, 6, 7)])[0], 2, progress=stop)
        assert len(model.errors) == 2 and not model.converged

    @pytest.mark.parametrize("fit", FITS)
    def test_interruption_goes_through(self, fit):
        def interrupt(sweep):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(random_tensors([(5, 6, 7)])[0], 2, progress=interrupt)

    @pytest.mark.parametrize("fit", FITS)
    def test_weights_of_a_batch(self, fit):
        tensor = exact((4, 5, 6), 2)
        model = fit(tensor, 2, max_iterations=500, tolerance=1e-13)
        others = model.inverse_transform(torch.tensor([[1.0, 0.0], [2.0, -3.0]], dtype=torch.float64))
        assert_close(model.transform(others), torch.tensor([[1.0, 0.0], [2.0, -3.0]], dtype=torch.float64))
        assert_close(model.transform(model.to_tensor()), model.weights)
        assert model.inverse_transform(others.new_zeros(0, 2)).shape == (0, 4, 5, 6)


class TestAls:
    def test_is_tensorlys_without_acceleration(self):
        tensorly = pytest.importorskip("tensorly")
        decomposition = pytest.importorskip("tensorly.decomposition")
        (tensor,) = random_tensors([(5, 6, 7)])
        start = random_tensors([(5, 3), (6, 3), (7, 3)], seed=1)
        with tensorly.backend_context("pytorch"):
            theirs = decomposition.parafac(tensor, 3, init=(None, [f.clone() for f in start]), n_iter_max=20, tol=0)
            expected = tensorly.cp_to_tensor(theirs)
        ours = cp_als(tensor, 3, init=start, max_iterations=20, tolerance=0, acceleration="none")
        assert_close(ours.to_tensor(), expected, atol=1e-8, rtol=0)

    def test_is_pyttbs_without_acceleration(self):
        pyttb = pytest.importorskip("pyttb")
        (tensor,) = random_tensors([(5, 6, 7)])
        start = random_tensors([(5, 3), (6, 3), (7, 3)], seed=1)
        begin = pyttb.ktensor([f.numpy() for f in start])
        theirs, _, _ = pyttb.cp_als(pyttb.tensor(tensor.numpy()), 3, init=begin, maxiters=20, stoptol=0, printitn=-1)
        ours = cp_als(tensor, 3, init=start, max_iterations=20, tolerance=0, acceleration="none")
        assert_close(ours.to_tensor(), torch.as_tensor(theirs.full().data.copy()), atol=1e-8, rtol=0)

    def test_a_sweep_is_three_least_squares_problems(self):
        (tensor,) = random_tensors([(4, 5, 6)])
        factors = random_tensors([(4, 2), (5, 2), (6, 2)], seed=1)
        model = cp_als(tensor, 2, init=factors, max_iterations=1)
        for mode in range(3):
            others = ml.khatri_rao([f for m, f in enumerate(factors) if m != mode])
            factors[mode] = torch.linalg.lstsq(others, ml.unfold(tensor, mode).mT).solution.mT
        assert_close(model.to_tensor(), ml.cp_to_tensor(factors))

    def test_extrapolation_leaves_a_swamp_sooner(self):
        tensor = ml.cp_to_tensor([collinear(size, 4, 0.9, seed) for seed, size in enumerate((8, 9, 10))])
        plain, faster = (
            cp_als(tensor, 4, init="random", random_state=0, max_iterations=150, tolerance=0, acceleration=way)
            for way in ("none", "extrapolation")
        )
        assert never_grows(faster.errors)
        assert faster.error < plain.error / 2


class TestGradient:
    @pytest.mark.parametrize("iterations", [2, 3, 5])
    def test_has_not_converged_where_evaluations_ran_out(self, iterations):
        (tensor,) = random_tensors([(6, 7, 8)])
        model = cp_gradient(tensor, 4, max_iterations=iterations, init="random", random_state=0)
        assert not model.converged

    def test_ridge_bounds_the_factors(self):
        # a tensor of border rank 2 and rank 3: without a ridge two components grow against each other
        a, b = torch.eye(2, dtype=torch.float64)
        tensor = ml.outer([a, a, b]) + ml.outer([a, b, a]) + ml.outer([b, a, a])
        free, ridged = (
            cp_gradient(tensor, 2, ridge=ridge, random_state=0, max_iterations=200, init="random")
            for ridge in (0, 1e-3)
        )
        assert free.error < ridged.error < 0.5
        assert ridged.weights.max() < free.weights.max() / 2


class TestDegenerate:
    @pytest.mark.parametrize("fit", FITS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("fill", [0.0, 3.0])
    def test_zero_and_constant_tensors(self, fit, fill, dtype):
        tensor = torch.full((3, 4, 5), fill, dtype=dtype)
        for init in ("svd", "random"):
            model = fit(tensor, 2, init=init, random_state=0)
            assert_close(model.to_tensor(), tensor, atol=1e-2, rtol=1e-2)
            assert model.error < 1e-2
            assert all(torch.isfinite(x).all() for x in (model.weights, *model.factors))

    @pytest.mark.parametrize("fit", FITS)
    def test_zero_tensor_has_zero_weights(self, fit):
        model = fit(torch.zeros(3, 4, 5), 2, random_state=0)
        assert model.error == 0
        assert_close(model.to_tensor(), torch.zeros(3, 4, 5), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("fit", FITS)
    def test_rank_deficient_starts(self, fit):
        tensor = exact((4, 5, 6), 2)
        twins = [factor[:, :1].repeat(1, 2) for factor in random_tensors([(4, 1), (5, 1), (6, 1)], seed=1)]
        zeros = [torch.zeros(size, 2, dtype=torch.float64) for size in (4, 5, 6)]
        for init in (twins, zeros):
            model = fit(tensor, 2, init=init, max_iterations=20)
            assert all(torch.isfinite(x).all() for x in (model.weights, *model.factors))
            assert model.error <= 1 + 1e-12 and never_grows(model.errors)

    @pytest.mark.parametrize("fit", FITS)
    def test_one_number(self, fit):
        assert_close(fit(torch.full((1, 1), 2.0), 1).to_tensor(), torch.full((1, 1), 2.0))


class TestErrors:
    @pytest.mark.parametrize("fit", FITS)
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda fit, x: fit(x.numpy(), 2), TypeError, r"tensor must be a torch.Tensor"),
            (lambda fit, x: fit(x.half(), 2), TypeError, r"float32 or float64, got torch.float16"),
            (lambda fit, x: fit(x[0, 0], 2), ValueError, r"at least 2 modes"),
            (lambda fit, x: fit(x / 0, 2), ValueError, r"NaN or infinity"),
            (lambda fit, x: fit(x, 2.0), TypeError, r"rank must be an integer, got 2.0"),
            (lambda fit, x: fit(x, 0), ValueError, r"rank must be at least 1"),
            (lambda fit, x: fit(x, 7), ValueError, r"rank 7 is larger than any tensor of shape \(2, 3, 4\) needs"),
            (lambda fit, x: fit(x, 2, init="best"), ValueError, r'init must be "svd", "random" or a list'),
            (lambda fit, x: fit(x, 2, init=[x[0]]), ValueError, r"one matrix for each of the 3 modes, got 1"),
            (lambda fit, x: fit(x, 2, init=[x[0]] * 3), ValueError, r"init\[0\] must be a matrix of shape \(2, 2\)"),
            (
                lambda fit, x: fit(x, 1, init=[torch.full((n, 1), torch.nan) for n in x.shape]),
                ValueError,
                r"init\[0\] holds NaN",
            ),
            (lambda fit, x: fit(x, 2, starts=0), ValueError, r"starts must be at least 1"),
            (lambda fit, x: fit(x, 2, max_iterations=True), TypeError, r"max_iterations must be an integer"),
        ],
    )
    def test_message(self, fit, call, error, message):
        with pytest.raises(error, match=rf"{fit.__name__}: .*{message}"):
            call(fit, random_tensors([(2, 3, 4)])[0])

    def test_message_of_options(self):
        (tensor,) = random_tensors([(2, 3, 4)])
        with pytest.raises(ValueError, match='cp_als: acceleration must be "extrapolation" or "none"'):
            cp_als(tensor, 1, acceleration="yes")
        with pytest.raises(ValueError, match="cp_gradient: ridge must be at least 0, got -1"):
            cp_gradient(tensor, 1, ridge=-1)
