import itertools
import math

import pytest
import torch
from factories import assert_close, random_tensors

import multilinear as ml
from multilinear.decomposition import KhatriRaoFactorization
from multilinear.decomposition._codes import Projector, align, anchor, balance, rank_one

CASES = [((2, 3), 40, 9), ((2, 3), 7, 30), ((2, 2, 2), 40, 10), ((3, 1, 2), 5, 30)]


def exact(sizes, samples, outputs, seed=0):
    """Samples that the model fits exactly, its orthonormal core and its codes."""
    basis, *codes = random_tensors([(outputs, math.prod(sizes)), *((samples, size) for size in sizes)], seed=seed)
    core = torch.linalg.qr(basis).Q.unflatten(1, sizes)
    return ml.multilinear_map(core, codes), core, codes


def never_grows(errors, slack=1e-12):
    return all(after <= before + slack for before, after in itertools.pairwise(errors))


class TestFit:
    @pytest.mark.parametrize("basis", ["orthonormal", "free"])
    @pytest.mark.parametrize("init", ["svd", "random"])
    @pytest.mark.parametrize(("sizes", "samples", "outputs"), CASES, ids=str)
    def test_error_is_true_and_never_grows(self, sizes, samples, outputs, init, basis):
        (data,) = random_tensors([(samples, outputs)])
        model = KhatriRaoFactorization(sizes, basis=basis, init=init, max_iterations=12, random_state=1).fit(data)
        assert len(model.errors_) > 1 and never_grows(model.errors_)
        fitted = model.inverse_transform(model.codes_)
        assert model.errors_[-1] == pytest.approx(((data - fitted).norm() / data.norm()).item())
        assert_close(fitted, ml.face_splitting(model.codes_) @ ml.unfold(model.core_, 0).mT)

    @pytest.mark.parametrize(("sizes", "samples", "outputs"), CASES, ids=str)
    def test_basis_is_orthonormal(self, sizes, samples, outputs):
        (data,) = random_tensors([(samples, outputs)])
        matrix = KhatriRaoFactorization(sizes, max_iterations=4).fit(data).core_.flatten(1)
        assert_close(matrix.mT @ matrix, torch.eye(math.prod(sizes), dtype=torch.float64))

    @pytest.mark.parametrize("basis", ["orthonormal", "free"])
    @pytest.mark.parametrize(("sizes", "samples", "outputs"), CASES, ids=str)
    def test_stays_at_the_truth(self, sizes, samples, outputs, basis):
        data, core, _ = exact(sizes, samples, outputs)
        model = KhatriRaoFactorization(sizes, basis=basis, init=core).fit(data)
        assert model.errors_[-1] < 1e-9 and model.converged_
        assert_close(model.inverse_transform(model.codes_), data, atol=1e-7, rtol=0)

    @pytest.mark.parametrize("basis", ["orthonormal", "free"])
    def test_autocast_changes_nothing(self, basis):
        data = random_tensors([(40, 9)], dtype=torch.float32)[0]
        seen = data < 1

        def results():
            model = KhatriRaoFactorization((2, 3), basis=basis, max_iterations=5).fit(data)
            codes = model.transform(data, observed=seen)
            return [model.core_, *model.codes_, *codes, model.inverse_transform(codes)], model.errors_

        expected, errors = results()
        with torch.autocast("cpu", torch.bfloat16):
            actual, inside = results()
        assert inside == errors
        for ours, theirs in zip(actual, expected, strict=True):
            assert_close(ours, theirs)

    def test_comes_back_to_a_near_truth(self):
        data, core, _ = exact((2, 3), 60, 12)
        nearby = torch.linalg.qr(core.flatten(1) + 0.02 * random_tensors([(12, 6)], seed=3)[0]).Q.unflatten(1, (2, 3))
        model = KhatriRaoFactorization((2, 3), init=nearby, max_iterations=100, tolerance=0).fit(data)
        assert model.errors_[0] > 0.01 and model.errors_[-1] < model.errors_[0] / 3

    def test_best_of_several_starts(self):
        (data,) = random_tensors([(30, 9)])
        best = set()
        for seed in range(4):
            seen = []
            model = KhatriRaoFactorization(
                (2, 3), init="random", starts=3, max_iterations=5, random_state=seed, progress=seen.append
            ).fit(data)
            last = {sweep.start: sweep.error for sweep in seen}
            assert len(last) == 3 and model.errors_[-1] == min(last.values())
            best.add(min(last, key=lambda start: last[start]))
        assert len(best) > 1

    def test_free_basis_fits_closer(self):
        (data,) = random_tensors([(40, 9)])
        orthonormal, free = (
            KhatriRaoFactorization((2, 3), basis=basis, max_iterations=30).fit(data)
            for basis in ("orthonormal", "free")
        )
        assert free.errors_[-1] < orthonormal.errors_[-1]

    def test_the_samples_own_space_is_enough(self):
        (data,) = random_tensors([(7, 30)])
        samples = torch.cat([data, torch.zeros(30, 30, dtype=torch.float64)])  # so many that all 30 columns are kept
        inside, everywhere = (
            KhatriRaoFactorization((2, 3), max_iterations=6, tolerance=0).fit(x).errors_ for x in (data, samples)
        )
        assert inside == pytest.approx(everywhere)

    def test_same_seed_same_result(self):
        (data,) = random_tensors([(20, 9)])
        first, second, other = (
            KhatriRaoFactorization((2, 3), init="random", random_state=seed, max_iterations=3).fit(data).core_
            for seed in (3, 3, 4)
        )
        assert_close(first, second)
        assert not torch.allclose(first, other)

    def test_codes_of_a_sample_are_equally_long(self):
        (data,) = random_tensors([(20, 9)])
        first, second = KhatriRaoFactorization((2, 3), max_iterations=3).fit_transform(data)
        assert_close(first.norm(dim=1), second.norm(dim=1))

    def test_interruption_keeps_the_last_sweep(self):
        def interrupt(sweep):
            if sweep.number == 3:
                raise KeyboardInterrupt

        (data,) = random_tensors([(20, 9)])
        model = KhatriRaoFactorization((2, 3), progress=interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.fit(data)
        whole = KhatriRaoFactorization((2, 3), max_iterations=3, tolerance=0).fit(data)
        assert not model.converged_
        assert model.errors_[-1] == whole.errors_[-1]
        assert_close(model.core_, whole.core_)

    def test_progress_may_end_it(self):
        def stop(sweep):
            if sweep.number == 2:
                raise StopIteration

        model = KhatriRaoFactorization((2, 3), progress=stop).fit(random_tensors([(20, 9)])[0])
        assert len(model.errors_) == 2 and not model.converged_


class TestMissing:
    @pytest.mark.parametrize("basis", ["orthonormal", "free"])
    def test_error_on_the_observed_never_grows(self, basis):
        data, _, _ = exact((2, 3), 40, 12)
        observed = torch.rand(data.shape, generator=torch.Generator().manual_seed(0)) > 0.2
        hidden = torch.where(observed, data, torch.nan)
        model = KhatriRaoFactorization((2, 3), basis=basis, max_iterations=30).fit(hidden, observed=observed)
        assert never_grows(model.errors_)
        difference = torch.where(observed, data - model.inverse_transform(model.codes_), 0)
        assert model.errors_[-1] == pytest.approx((difference.norm() / data[observed].norm()).item())

    def test_fills_in_what_the_model_knows(self):
        data, core, _ = exact((2, 3), 40, 20)
        observed = torch.rand(data.shape, generator=torch.Generator().manual_seed(0)) > 0.2
        model = KhatriRaoFactorization((2, 3), init=core, max_iterations=1).fit(data)
        found = model.transform(torch.where(observed, data, torch.nan), observed=observed, max_iterations=200)
        assert_close(model.inverse_transform(found), data, atol=0.05, rtol=0)

    def test_all_observed_is_no_mask(self):
        (data,) = random_tensors([(20, 9)])
        plain = KhatriRaoFactorization((2, 3), max_iterations=3).fit(data)
        masked = KhatriRaoFactorization((2, 3), max_iterations=3).fit(
            data, observed=torch.ones(20, 9, dtype=torch.bool)
        )
        assert_close(plain.core_, masked.core_)


class TestTransform:
    @pytest.mark.parametrize("basis", ["orthonormal", "free"])
    def test_known_samples(self, basis):
        (data,) = random_tensors([(30, 9)])
        model = KhatriRaoFactorization((2, 3), basis=basis, max_iterations=60).fit(data)
        codes = model.transform(data)
        error = (data - model.inverse_transform(codes)).norm() / data.norm()
        assert error < 1.05 * model.errors_[-1]

    def test_unseen_samples_of_the_truth(self):
        data, core, _ = exact((2, 3), 40, 12)
        model = KhatriRaoFactorization((2, 3), init=core).fit(data[:20])
        assert_close(model.inverse_transform(model.transform(data[20:])), data[20:], atol=1e-5, rtol=0)

    def test_codes_have_the_signs_of_the_fit(self):
        data, core, _ = exact((2, 3), 40, 12)
        model = KhatriRaoFactorization((2, 3), init=core).fit(data)
        for found, known in zip(model.transform(data), model.codes_, strict=True):
            assert_close(found, known, atol=1e-4, rtol=0)

    def test_one_sample_and_none(self):
        (data,) = random_tensors([(1, 9)])
        model = KhatriRaoFactorization((2, 3), max_iterations=5).fit(data)
        assert model.errors_[-1] < 1e-6
        assert [tuple(code.shape) for code in model.transform(data)] == [(1, 2), (1, 3)]


class TestRankOne:
    @pytest.mark.parametrize("shape", [(4, 3), (6, 2, 3), (6, 5, 2), (6, 2, 3, 2)], ids=str)
    def test_recovers_products(self, shape):
        codes = random_tensors([(shape[0], size) for size in shape[1:]])
        tensors = ml.face_splitting(codes).unflatten(1, shape[1:])
        found = rank_one(tensors)
        assert_close(ml.face_splitting(found).unflatten(1, shape[1:]), tensors)

    def test_of_matrices_is_the_singular_pair(self):
        (matrices,) = random_tensors([(5, 4, 3)])
        left, right = rank_one(matrices)
        svd = torch.linalg.svd(matrices)
        expected = svd.S[:, :1, None] * svd.U[..., :1] @ svd.Vh[:, :1]
        assert_close(left.unsqueeze(2) * right.unsqueeze(1), expected)

    def test_is_no_worse_than_its_start(self):
        (tensors,) = random_tensors([(50, 3, 4, 2)])
        start = rank_one(tensors, rounds=100)
        before = (tensors - ml.face_splitting(start).unflatten(1, (3, 4, 2))).flatten(1).norm(dim=1)
        after = (tensors - ml.face_splitting(rank_one(tensors, start, rounds=1)).unflatten(1, (3, 4, 2))).flatten(1)
        assert (after.norm(dim=1) <= before + 1e-12).all()

    def test_scaling_keeps_the_product(self):
        codes = random_tensors([(5, 2), (5, 3), (5, 4)])
        codes[1][0] = 0
        references = random_tensors([(2,), (3,), (4,)], seed=1)
        product = ml.face_splitting(codes)
        lengths = [code.norm(dim=1) for code in balance(codes)]
        assert_close(lengths[0], lengths[2])
        anchored, aligned = anchor(codes, references), align(codes, references)
        for changed in (balance(codes), anchored, aligned):
            assert_close(ml.face_splitting(changed), product)
        assert_close(anchored[2] @ references[2], references[2].square().sum().expand(5))
        assert (aligned[2] @ references[2] > 0).all()

    def test_a_code_across_its_reference_gets_its_length(self):
        first, second = torch.ones(1, 2), torch.tensor([[0.0, 8.0]])
        _, found = anchor([first, second], [first[0], torch.tensor([2.0, 0.0])])
        assert_close(found, torch.tensor([[0.0, 2.0]]))

    def test_projector_in_chunks(self, monkeypatch):
        core, *codes = random_tensors([(9, 2, 3), (7, 2), (7, 3)])
        data = ml.multilinear_map(core, codes)
        whole = Projector(core).project(data)
        monkeypatch.setattr("multilinear.decomposition._codes.CHUNK", 1)
        for part, together in zip(Projector(core).project(data), whole, strict=True):
            assert_close(part, together, atol=1e-3, rtol=1e-3)


class TestDegenerate:
    @pytest.mark.parametrize("basis", ["orthonormal", "free"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("fill", [0.0, 3.0])
    def test_zero_and_constant_data(self, fill, dtype, basis):
        data = torch.full((8, 9), fill, dtype=dtype)
        for sizes in ((2, 3), (2, 2, 2)):
            model = KhatriRaoFactorization(sizes, basis=basis, max_iterations=5).fit(data)
            assert model.errors_[-1] < 1e-2
            assert_close(model.inverse_transform(model.codes_), data, atol=1e-2, rtol=0)
            assert torch.isfinite(model.core_).all()


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda x: KhatriRaoFactorization((2,)), ValueError, r"sizes must hold two or more, got \(2,\)"),
            (lambda x: KhatriRaoFactorization(6), TypeError, r"sizes must be a list or tuple of integers, got 6"),
            (lambda x: KhatriRaoFactorization((2, 0)), ValueError, r"sizes\[1\] must be at least 1, got 0"),
            (
                lambda x: KhatriRaoFactorization((2, 3), basis="any"),
                ValueError,
                r'basis must be "orthonormal" or "free"',
            ),
            (
                lambda x: KhatriRaoFactorization((2, 3), init="best"),
                ValueError,
                r'init must be "svd", "random" or a core',
            ),
            (lambda x: KhatriRaoFactorization((2, 3), starts=0), ValueError, r"starts must be at least 1"),
            (lambda x: KhatriRaoFactorization((2, 3), tolerance=-1), ValueError, r"tolerance must be at least 0"),
            (lambda x: KhatriRaoFactorization((2, 3)).fit(x.numpy()), TypeError, r"fit: data must be a torch.Tensor"),
            (lambda x: KhatriRaoFactorization((2, 3)).fit(x.long()), TypeError, r"float32 or float64, got torch.int64"),
            (lambda x: KhatriRaoFactorization((2, 3)).fit(x[0]), ValueError, r"at least 2 modes"),
            (
                lambda x: KhatriRaoFactorization((2, 3)).fit(x.reshape(4, 3, 3)),
                ValueError,
                r"must be a matrix with one",
            ),
            (lambda x: KhatriRaoFactorization((2, 3)).fit(x * torch.nan), ValueError, r"pass observed=~torch.isnan"),
            (lambda x: KhatriRaoFactorization((2, 5)).fit(x), ValueError, r"at least 10 columns, their product, got 9"),
            (
                lambda x: KhatriRaoFactorization((2, 3), init=x).fit(x),
                ValueError,
                r"core of shape \(9, 2, 3\), got \(4, 9\)",
            ),
            (
                lambda x: KhatriRaoFactorization((2, 3)).fit(x, observed=x),
                TypeError,
                r"observed must be a tensor of bool",
            ),
            (
                lambda x: KhatriRaoFactorization((2, 3)).fit(x, observed=x[0] > 0),
                ValueError,
                r"must have the data's shape",
            ),
            (lambda x: KhatriRaoFactorization((2, 3)).fit(x, observed=x > 99), ValueError, r"nothing is observed"),
            (lambda x: KhatriRaoFactorization((2, 3)).transform(x), RuntimeError, r"transform: there is no basis yet"),
            (
                lambda x: KhatriRaoFactorization((2, 3)).fit(x).transform(x[:, :5]),
                ValueError,
                r"transform: data must have 9 columns like that of the fit, got 5",
            ),
        ],
    )
    def test_message(self, call, error, message):
        with pytest.raises(error, match=rf"KhatriRaoFactorization.*{message}"):
            call(random_tensors([(4, 9)])[0])
