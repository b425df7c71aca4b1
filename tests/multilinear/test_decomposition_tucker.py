import itertools

import numpy as np
import pytest
import torch
from factories import assert_close, random_tensors

import multilinear as ml
from multilinear import reference
from multilinear.decomposition import _solve, hosvd, tucker

SHAPES = [(2, 3), (1, 1, 1), (4, 5, 6), (7, 2, 3), (3, 4, 2, 3)]


def exact(shape, ranks, **options):
    core, *factors = random_tensors([ranks, *zip(shape, ranks, strict=True)], **options)
    return ml.tucker_to_tensor(core, factors)


def true_error(tensor, model):
    factors = [torch.eye(n) if f is None else f for n, f in zip(tensor.shape, model.factors, strict=True)]
    found = torch.as_tensor(reference.tucker_to_tensor(model.core.double(), [f.double() for f in factors]))
    return ((tensor.double() - found).norm() / tensor.double().norm()).item()


def assert_orthonormal(matrix, **tolerances):
    assert_close(matrix.mT @ matrix, torch.eye(matrix.shape[1]).to(matrix), **tolerances)


def never_grows(errors, slack=1e-13):
    return all(after <= before + slack for before, after in itertools.pairwise(errors))


@pytest.mark.parametrize("fit", [hosvd, tucker])
def test_autocast_changes_nothing(fit):
    tensor = exact((6, 7, 8), (2, 3, 2), dtype=torch.float32)
    model = fit(tensor, (2, 3, 2))
    expected = [model.core, *model.factors, model.to_tensor(), model.transform(tensor)]
    with torch.autocast("cpu", torch.bfloat16):
        inside = fit(tensor, (2, 3, 2))
        actual = [inside.core, *inside.factors, inside.to_tensor(), inside.transform(tensor)]
    assert inside.errors == model.errors
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs)


class TestHosvd:
    @pytest.mark.parametrize("truncation", ["sequential", "classic"])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_full_model_is_exact(self, shape, truncation):
        (tensor,) = random_tensors([shape])
        model = hosvd(tensor, truncation=truncation)
        assert_close(model.to_tensor(), tensor)
        assert model.error < 1e-14 and model.converged
        for factor in model.factors:
            assert_orthonormal(factor)

    def test_of_a_matrix_is_its_svd(self):
        (matrix,) = random_tensors([(5, 4)])
        model = hosvd(matrix, 2)
        left, values, right = np.linalg.svd(matrix.numpy())
        assert_close(model.to_tensor(), torch.as_tensor(left[:, :2] * values[:2] @ right[:2]))
        assert_close(model.singular_values[0], torch.as_tensor(values))
        assert model.error == pytest.approx(np.sqrt((values[2:] ** 2).sum() / (values**2).sum()))

    def test_full_core_is_all_orthogonal_and_ordered(self):  # De Lathauwer et al., theorem 2
        (tensor,) = random_tensors([(4, 5, 3)])
        model = hosvd(tensor, truncation="classic")
        for mode in range(3):
            rows = ml.unfold(model.core, mode)
            assert_close(rows @ rows.mT, torch.diag(model.singular_values[mode][: len(rows)] ** 2))
            assert (model.singular_values[mode].diff() <= 0).all()

    @pytest.mark.parametrize("truncation", ["sequential", "classic"])
    def test_error_is_true_and_within_its_bound(self, truncation):
        (tensor,) = random_tensors([(5, 6, 4)])
        model = hosvd(tensor, (3, 2, 3), truncation=truncation)
        assert model.error == pytest.approx(true_error(tensor, model))
        left_out = sum((s[r:] ** 2).sum() for s, r in zip(model.singular_values, (3, 2, 3), strict=True))
        if truncation == "sequential":  # Vannieuwenhoven et al., theorem 6.4: an equality
            assert model.error**2 == pytest.approx(float(left_out / tensor.norm() ** 2))
        else:
            assert model.error**2 <= left_out / tensor.norm() ** 2

    def test_tolerance_is_kept_where_every_mode_loses_something(self):
        """Of noise, every mode drops about what it may: together not more than was allowed."""
        (tensor,) = random_tensors([(8, 8, 8)])
        errors = {tolerance: hosvd(tensor, tolerance=tolerance).error for tolerance in np.linspace(0.1, 0.9, 9)}
        assert all(error <= tolerance for tolerance, error in errors.items())
        assert all(errors[tolerance] > 0.5 * tolerance for tolerance in errors if tolerance > 0.5)

    @pytest.mark.parametrize("tolerance", [0.5, 0.1, 1e-3, 0.0])
    def test_tolerance_chooses_the_ranks(self, tolerance):
        tensor = exact((6, 7, 8), (2, 3, 2)) + 1e-5 * random_tensors([(6, 7, 8)], seed=1)[0]
        model = hosvd(tensor, tolerance=tolerance)
        assert model.error <= tolerance + 1e-14
        assert tolerance < 1e-3 or all(r <= s for r, s in zip(model.core.shape, (2, 3, 2), strict=True))

    def test_no_tolerance_leaves_out_what_is_exactly_nought(self):
        tensor = torch.zeros(4, 5, 6, dtype=torch.float64)
        tensor[0, 0, 0], tensor[1, 1, 1] = 3.0, 2.0
        model = hosvd(tensor, tolerance=0.0)
        assert model.core.shape == (2, 2, 2) and model.error < 1e-15

    def test_a_mode_may_stay_as_it_is(self):
        (tensor,) = random_tensors([(4, 5, 6)])
        model = hosvd(tensor, (2, None, 3))
        assert model.factors[1] is None and model.singular_values[1] is None
        assert model.core.shape == (2, 5, 3)
        assert model.error == pytest.approx(true_error(tensor, model))
        assert model.transform(torch.stack([tensor, tensor])).shape == (2, 2, 5, 3)

    def test_transform_of_a_batch(self):
        tensors = random_tensors([(3, 4, 5, 6)])[0]
        model = hosvd(tensors[0], 2)
        cores = model.transform(tensors)
        assert_close(cores[0], model.core)
        assert_close(cores[2], hosvd(tensors[0], 2).transform(tensors[2]))
        assert_close(model.inverse_transform(cores)[0], model.to_tensor())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("mode", [0, 1, 2])
    def test_blocks_give_what_the_whole_gives(self, monkeypatch, dtype, mode):
        (tensor,) = random_tensors([(4, 5, 6)], dtype=dtype)
        monkeypatch.setattr(_solve, "BLOCK", 40)
        vectors, values = _solve.leading(tensor, mode)
        expected = torch.linalg.svd(ml.unfold(tensor, mode), full_matrices=False)
        assert_close(values, expected.S)
        assert_close(vectors.abs(), expected.U.abs(), atol=1e-4 if dtype == torch.float32 else 1e-10, rtol=0)

    def test_few_vectors_of_a_large_unfolding(self, monkeypatch):
        monkeypatch.setattr(_solve, "LARGE", 20)
        tensor = exact((40, 9, 8), (3, 3, 3)) + 1e-3 * random_tensors([(40, 9, 8)], seed=1)[0]
        vectors, values = _solve.leading(tensor, 0, 3)
        assert_orthonormal(vectors)
        assert_close(values, torch.linalg.svdvals(ml.unfold(tensor, 0))[:3], rtol=1e-6, atol=0)

    def test_runs_on_a_memory_map(self, tmp_path):
        (tensor,) = random_tensors([(6, 7, 8)], dtype=torch.float32)
        tensor.numpy().tofile(tmp_path / "tensor.bin")
        mapped = torch.from_file(str(tmp_path / "tensor.bin"), shared=False, size=336).reshape(6, 7, 8)
        assert_close(hosvd(mapped, 3).to_tensor(), hosvd(tensor, 3).to_tensor())

    def test_is_the_same_for_another_layout(self):
        (tensor,) = random_tensors([(6, 7, 8)])
        assert_close(hosvd(tensor.mT.contiguous().mT, 3).core, hosvd(tensor, 3).core)


class TestTucker:
    def test_finds_an_exact_model(self):
        tensor = exact((6, 7, 8), (2, 3, 2))
        model = tucker(tensor, (2, 3, 2))
        assert model.error < 1e-14 and model.converged
        assert_close(model.to_tensor(), tensor)

    def test_stays_at_the_truth(self):
        (tensor,) = random_tensors([(5, 6, 7)])
        best = tucker(tensor, 2, tolerance=0, max_iterations=300)
        again = tucker(tensor, 2, init=best.factors, max_iterations=3)
        assert_close(again.to_tensor(), best.to_tensor(), atol=1e-7, rtol=0)
        assert again.converged

    @pytest.mark.parametrize("init", ["hosvd", "random"])
    @pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7), (3, 4, 5, 4)], ids=str)
    def test_error_is_true_and_never_grows(self, shape, init):
        (tensor,) = random_tensors([shape])
        model = tucker(tensor, 2, init=init, random_state=0, max_iterations=20)
        assert never_grows(model.errors)
        assert model.error == pytest.approx(true_error(tensor, model))
        for factor in model.factors:
            assert_orthonormal(factor)
        assert_close(model.transform(tensor), model.core)

    def test_is_no_worse_than_hosvd(self):
        (tensor,) = random_tensors([(5, 6, 7)])
        assert tucker(tensor, 3).error <= hosvd(tensor, 3).error

    def test_float32_does_not_lose_a_close_fit(self):
        tensor = exact((6, 7, 8), (2, 2, 2), dtype=torch.float32)
        noise = 1e-4 * tensor.norm() / 336**0.5 * random_tensors([(6, 7, 8)], dtype=torch.float32, seed=1)[0]
        model = tucker(tensor + noise, 2)
        assert model.error == pytest.approx(true_error(tensor + noise, model), rel=1e-2)

    def test_best_of_several_starts(self):
        (tensor,) = random_tensors([(5, 6, 7)])
        seen = []
        model = tucker(tensor, 2, init="random", starts=3, random_state=1, progress=seen.append)
        assert {sweep.start for sweep in seen} == {0, 1, 2}
        last = {sweep.start: sweep.error for sweep in seen}
        assert model.error == min(last.values())

    def test_a_mode_may_stay_as_it_is(self):
        (tensor,) = random_tensors([(4, 5, 6)])
        model = tucker(tensor, (2, None, 3))
        assert model.core.shape == (2, 5, 3)
        assert never_grows(model.errors)
        assert model.error == pytest.approx(true_error(tensor, model))

    def test_agrees_with_tensorly(self):
        tensorly = pytest.importorskip("tensorly")
        decomposition = pytest.importorskip("tensorly.decomposition")
        (tensor,) = random_tensors([(5, 6, 7)])
        start = hosvd(tensor, 3)
        with tensorly.backend_context("pytorch"):
            core, factors = decomposition.tucker(
                tensor, [3, 3, 3], init=(start.core, list(start.factors)), n_iter_max=30, tol=0
            )
            theirs = tensorly.tucker_to_tensor((core, factors))
        ours = tucker(tensor, 3, init=start.factors, max_iterations=30, tolerance=0)
        assert ours.error == pytest.approx((tensor - theirs).norm().item() / tensor.norm().item(), rel=1e-4)

    def test_progress_may_end_it(self):
        def stop(sweep):
            if sweep.number == 2:
                raise StopIteration

        model = tucker(random_tensors([(5, 6, 7)])[0], 2, progress=stop)
        assert len(model.errors) == 2 and not model.converged


class TestDegenerate:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("fill", [0.0, 3.0])
    def test_zero_and_constant_tensors(self, fill, dtype):
        tensor = torch.full((3, 4, 5), fill, dtype=dtype)
        for model in (hosvd(tensor, 2), tucker(tensor, 2), tucker(tensor, 2, init="random", random_state=0)):
            assert_close(model.to_tensor(), tensor, atol=1e-5, rtol=1e-5)
            assert model.error < 1e-5
            for factor in model.factors:
                assert_orthonormal(factor, atol=1e-5, rtol=0)


class TestErrors:
    @pytest.mark.parametrize("function", [hosvd, tucker])
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda x: (x.numpy(), 2), TypeError, r"tensor must be a torch.Tensor, got ndarray"),
            (lambda x: (x.to(torch.int64), 2), TypeError, r"float32 or float64, got torch.int64"),
            (lambda x: (x[0, 0], 2), ValueError, r"at least 2 modes, got shape \(4,\)"),
            (lambda x: (x[:0], 2), ValueError, r"tensor is empty"),
            (lambda x: (x * torch.nan, 2), ValueError, r"NaN or infinity"),
            (lambda x: (x, 3), ValueError, r"rank 3 is larger than mode 0, which has size 2"),
            (lambda x: (x, (2, 1, 1)), ValueError, r"rank 2 of mode 0 is larger than the product of the others, 1"),
            (lambda x: (x, (2, 2)), ValueError, r"one number for each of the 3 modes, got 2"),
            (lambda x: (x, 0), ValueError, r"ranks\[0\] must be at least 1, got 0"),
            (lambda x: (x, (1.5, 1, 1)), TypeError, r"ranks\[0\] must be an integer, got 1.5"),
            (lambda x: (x, "two"), TypeError, r"ranks must be an integer or a list"),
        ],
    )
    def test_message(self, function, change, error, message):
        with pytest.raises(error, match=rf"{function.__name__}: .*{message}"):
            function(*change(random_tensors([(2, 3, 4)])[0]))

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda x: hosvd(x, 2, tolerance=0.1), ValueError, r"ranks or a tolerance, not both"),
            (lambda x: hosvd(x, tolerance=2), ValueError, r"tolerance must be from 0 up to below 1, got 2"),
            (lambda x: hosvd(x, truncation="none"), ValueError, r'truncation must be "sequential" or "classic"'),
            (lambda x: tucker(x, 2, init="best"), ValueError, r'init must be "hosvd", "random" or a list'),
            (lambda x: tucker(x, 2, init=[x[0]]), ValueError, r"one matrix for each of the 3 modes, got 1"),
            (lambda x: tucker(x, 2, init=[None] * 3), ValueError, r"init\[0\] and ranks\[0\] must both be None"),
            (lambda x: tucker(x, 2, init=[x[0]] * 3), ValueError, r"init\[0\] must be a matrix of shape \(2, 2\)"),
            (
                lambda x: tucker(x, 2, init=[torch.ones(n, 2) for n in x.shape]),
                ValueError,
                r"columns of init\[0\] must be orthonormal",
            ),
            (lambda x: tucker(x, 2, starts=0), ValueError, r"starts must be at least 1"),
            (lambda x: tucker(x, 2, max_iterations=0), ValueError, r"max_iterations must be at least 1"),
            (lambda x: tucker(x, 2, tolerance=-1.0), ValueError, r"tolerance must be at least 0"),
            (lambda x: tucker(x, 2, tolerance=float("nan")), ValueError, r"tolerance must be at least 0, got nan"),
            (lambda x: tucker(x, 2, random_state="a"), TypeError, r"random_state must be a seed"),
        ],
    )
    def test_message_of_options(self, call, error, message):
        with pytest.raises(error, match=message):
            call(random_tensors([(2, 3, 4)])[0])


def test_iterations_find_what_decays_slowly():
    """Singular values of a randomised subspace that saw the matrix once would be a tenth too small."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(n, 200, generator=generator).double()).Q for n in (300, 400))
    known = 0.95 ** torch.arange(200).double()
    vectors, values = _solve._by_iteration((left * known) @ right.mT, 8)
    torch.testing.assert_close(values, known[:8], rtol=1e-6, atol=0)
    torch.testing.assert_close((vectors.mT @ left[:, :8]).abs(), torch.eye(8).double(), rtol=0, atol=1e-5)
