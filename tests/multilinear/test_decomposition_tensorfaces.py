import pytest
import torch
from factories import assert_close, random_tensors

import multilinear as ml
from multilinear.decomposition import hosvd, tensorfaces

SIZES = {"person": 5, "view": 3, "light": 2}
SHAPE = (4, 10)


def ensemble(ranks=(3, 2, 2), sizes=SIZES, noise=0.0, seed=0):
    """Images of every combination, their labels, and the model they come from: its core and the levels' codes."""
    core, *codes = random_tensors([(40, *ranks), *zip(sizes.values(), ranks, strict=True)], seed=seed)
    for code in codes:
        code[:, 0] += 3  # as in pictures, the mean of a cause is its main direction
    cells = torch.cartesian_prod(*(torch.arange(size) for size in sizes.values())).reshape(-1, len(sizes))
    labels = dict(zip(sizes, cells.T, strict=True))
    images = ml.multilinear_map(core, [code[place] for code, place in zip(codes, cells.T, strict=True)])
    images = images + noise * images.norm() / images.numel() ** 0.5 * torch.randn(
        images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    return images.reshape(-1, *SHAPE), labels, core, codes


class TestModel:
    def test_is_the_hosvd_of_the_arranged_images(self):
        images, labels, _, _ = ensemble(noise=0.1)
        model = tensorfaces(images, labels)
        expected = hosvd(images.reshape(5, 3, 2, 40), [5, 3, 2, None])
        assert model.names == ("person", "view", "light") and model.shape == SHAPE
        for name, factor in zip(model.names, expected.factors, strict=False):
            assert_close(model.factors[name], factor)
        assert_close(model.core.movedim(0, -1), expected.core)

    def test_full_model_gives_every_image(self):
        images, labels, _, _ = ensemble(noise=0.5)
        model = tensorfaces(images, labels)
        codes = {name: model.factors[name][labels[name]] for name in model.names}
        assert model.error < 1e-14
        assert_close(model.inverse_transform(codes), images)

    @pytest.mark.parametrize("max_iterations", [0, 5])
    def test_autocast_changes_nothing(self, max_iterations):
        images, labels, _, _ = ensemble(noise=0.1)

        def results():
            model = tensorfaces(images.float(), labels, components=8, max_iterations=max_iterations)
            codes = model.transform(images.float())
            guesses = model.predict(images.float())
            return [model.core, *codes.values(), model.inverse_transform(codes), *guesses.values()], model.error

        expected, error = results()
        with torch.autocast("cpu", torch.bfloat16):
            actual, inside = results()
        assert inside == error
        for ours, theirs in zip(actual, expected, strict=True):
            assert_close(ours, theirs)

    def test_order_and_names_of_the_labels_do_not_matter(self):
        images, labels, _, _ = ensemble(noise=0.1)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        renamed = {name: (10 * values - 7)[order].numpy() for name, values in labels.items()}
        model, shuffled = tensorfaces(images, labels), tensorfaces(images[order], renamed)
        assert_close(shuffled.core, model.core)
        assert shuffled.levels["view"].tolist() == [-7, 3, 13]

    def test_repeated_combinations_are_averaged(self):
        images, labels, _, _ = ensemble(noise=0.1)
        twice = {name: torch.cat([values, values]) for name, values in labels.items()}
        model = tensorfaces(torch.cat([images + 1, images - 1]), twice)
        assert_close(model.core, tensorfaces(images, labels).core)

    def test_truncation_and_its_improvement(self):
        images, labels, _, _ = ensemble(noise=0.3)
        ranks = {"person": 2, "view": 2, "light": 1}
        first, better = (tensorfaces(images, labels, ranks=ranks, max_iterations=n) for n in (0, 20))
        assert first.core.shape == (40, 2, 2, 1)
        assert better.error < first.error

    def test_eigenimages(self):
        images, labels, _, _ = ensemble()
        model = tensorfaces(images, labels, ranks={"person": 3, "view": 2}, components=12)
        assert model.basis.shape == (40, 12) and model.core.shape == (12, 3, 2, 2)
        assert_close(model.basis.mT @ model.basis, torch.eye(12, dtype=torch.float64))
        assert model.error < 1e-12
        assert_close(model.inverse_transform(model.transform(images)), images, atol=1e-4, rtol=1e-4)


class TestCodes:
    @pytest.mark.parametrize("sizes", [{"person": 6}, {"person": 5, "view": 3}, SIZES], ids=len)
    def test_known_images_come_back(self, sizes):
        images, labels, _, _ = ensemble(ranks=(3, 2, 2)[: len(sizes)], sizes=sizes)
        model = tensorfaces(images, labels)
        codes = model.transform(images)
        assert_close(model.inverse_transform(codes), images, atol=1e-4, rtol=1e-4)
        for name, found in model.predict(images).items():
            assert torch.equal(found, labels[name])

    def test_codes_of_known_images_are_their_levels(self):
        images, labels, _, _ = ensemble()
        model = tensorfaces(images, labels, ranks={"person": 3, "view": 2})
        for name, codes in model.transform(images).items():
            levels = model.factors[name][labels[name]]
            assert_close(
                torch.cosine_similarity(codes, levels).abs(), torch.ones(30, dtype=torch.float64), atol=1e-5, rtol=0
            )

    def test_unseen_person_in_an_unseen_light(self):
        images, labels, core, codes = ensemble()
        model = tensorfaces(images, labels, ranks={"person": 3, "view": 2, "light": 2})
        person, light = random_tensors([(3,), (2,)], seed=9)
        person[0] += 3
        light[0] += 3
        unseen = ml.multilinear_map(core, [person, codes[1], light])
        found = model.transform(unseen.reshape(-1, *SHAPE))
        assert_close(model.inverse_transform(found).flatten(1), unseen, atol=1e-3, rtol=1e-3)
        assert model.predict(unseen.reshape(-1, *SHAPE))["view"].tolist() == [0, 1, 2]

    def test_an_exchanged_code_edits_the_image(self):
        images, labels, _, _ = ensemble()
        model = tensorfaces(images, labels)
        codes = model.transform(images)
        codes["light"] = codes["light"][1 - labels["light"]]  # images 0 and 1 show the two lights
        other = model.inverse_transform(codes)
        swapped = images.reshape(5, 3, 2, -1).flip(2).flatten(0, 2)
        cosine = torch.cosine_similarity(other.flatten(1), swapped)
        assert (cosine > 0.999).all()

    def test_a_level_of_the_model_edits_the_image(self):
        images, labels, _, _ = ensemble(ranks=(5, 3, 2))
        model = tensorfaces(images, labels)
        codes = model.transform(images)
        codes["view"] = model.factors["view"][labels["view"] * 0 + 1]
        expected = images.reshape(5, 3, 2, *SHAPE)[:, 1:2].expand(5, 3, 2, *SHAPE).flatten(0, 2)
        assert_close(model.inverse_transform(codes), expected, atol=1e-3, rtol=1e-3)

    def test_codes_do_not_depend_on_the_batch(self):
        images, labels, _, _ = ensemble(noise=0.1)
        model = tensorfaces(images, labels, ranks={"person": 3})
        together = model.inverse_transform(model.transform(images[:6]))
        alone = torch.cat([model.inverse_transform(model.transform(image[None])) for image in images[:6]])
        assert_close(together, alone, atol=1e-3, rtol=1e-3)

    def test_zero_and_no_images(self):
        images, labels, _, _ = ensemble()
        model = tensorfaces(images, labels)
        for code in model.transform(torch.zeros(2, *SHAPE, dtype=torch.float64)).values():
            assert_close(code, torch.zeros_like(code))
        assert [len(code) for code in model.transform(images[:0]).values()] == [0, 0, 0]

    def test_one_image(self):
        (images,) = random_tensors([(1, 3, 4)])
        model = tensorfaces(images, {"person": [7]})
        assert_close(model.inverse_transform(model.transform(images)), images)
        assert model.predict(images)["person"].tolist() == [7]

    def test_float32(self):
        images, labels, _, _ = ensemble()
        model = tensorfaces(images.float(), labels, ranks={"person": 3, "view": 2})
        found = model.inverse_transform(model.transform(images.float()))
        assert found.dtype == torch.float32
        assert_close(found, images.float(), atol=1e-2, rtol=1e-2)


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda x, y: tensorfaces(x.numpy(), y), TypeError, r"images must be a torch.Tensor"),
            (lambda x, y: tensorfaces(x * torch.nan, y), ValueError, r"NaN or infinity"),
            (lambda x, y: tensorfaces(x, [0, 1]), TypeError, r"labels must be a mapping .* got list"),
            (lambda x, y: tensorfaces(x, {}), TypeError, r"labels must be a mapping"),
            (
                lambda x, y: tensorfaces(x, {"person": [1, 2]}),
                ValueError,
                r"labels\['person'\] .* 30 images, got .*\(2,\)",
            ),
            (
                lambda x, y: tensorfaces(x, {"person": torch.zeros(30)}),
                ValueError,
                r"must hold one integer .* of torch.float32",
            ),
            (
                lambda x, y: tensorfaces(x[:-1], {name: values[:-1] for name, values in y.items()}),
                ValueError,
                r"1 of 30 are missing, the first \{'person': 4, 'view': 2, 'light': 1\}.* KhatriRaoFactorization",
            ),
            (lambda x, y: tensorfaces(x, y, ranks={"pose": 2}), ValueError, r"ranks names \['pose'\], but the labels"),
            (lambda x, y: tensorfaces(x, y, ranks={"view": 4}), ValueError, r"rank 4 of 'view' is larger than its 3"),
            (lambda x, y: tensorfaces(x, y, ranks={"view": 0}), ValueError, r"ranks\['view'\] must be at least 1"),
            (lambda x, y: tensorfaces(x, y, components=41), ValueError, r"rank 41 is larger than mode 3"),
            (
                lambda x, y: tensorfaces(x, y, max_iterations=-1),
                ValueError,
                r"max_iterations must be a number of sweeps",
            ),
            (
                lambda x, y: tensorfaces(x, y).transform(x[0]),
                ValueError,
                r"transform: images must have shape \(n, 4, 10\)",
            ),
            (lambda x, y: tensorfaces(x, y).predict(x / 0), ValueError, r"transform: images hold NaN"),
            (
                lambda x, y: tensorfaces(x, y).inverse_transform({"person": x}),
                ValueError,
                r"codes must hold \['person', 'view', 'light'\], got \['person'\]",
            ),
        ],
    )
    def test_message(self, call, error, message):
        images, labels, _, _ = ensemble()
        with pytest.raises(error, match=message):
            call(images, labels)
